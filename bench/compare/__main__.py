"""`python -m bench.compare`: a run against that of others, and what each guarantee costs.

Latencies of programs of four kinds, runs per second of several at a time, and our own with one
guarantee left out. Everybody takes turns, so that load from elsewhere meets all. Writes
bench/data/compare.json and the pictures of docs/performance.md, and prints its tables. As root.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import record
from bench.compare import report
from bench.compare.contestants import CONTESTANTS, Contestant, Loop, python
from bench.compare.programs import PROGRAMS, STATIC, WRITER, Program, build

AT_A_TIME = (1, 2, 4, 8)
TURN_S = 0.2  # of one contestant's, where runs per second are counted
GUARANTEES = {
    "everything": "",
    "no filter": ":seccomp",
    "no network namespace": ":network",
    "no cgroups": ":cgroups",
    "no fresh /tmp, /dev/shm": ":tmp",
    "none of the four": ":seccomp:network:cgroups:tmp",
}
# firejail hides /tmp and /var/tmp, and shows the rest as it is.
PARENT = "/opt"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25, help="turns of each contestant")
    parser.add_argument("--only", choices=("others", "guarantees"), help="measure one half")
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw again")
    asked = parser.parse_args()
    if not asked.draw:
        with tempfile.TemporaryDirectory(prefix="compare.", dir=PARENT) as directory:
            place = Path(directory)
            place.chmod(0o755)
            build(place)
            if asked.only != "guarantees":
                measure_others(place, asked.rounds)
            if asked.only != "others":
                measure_guarantees(place, asked.rounds)
    data = report.read()
    report.pictures(data)
    print("\n".join(report.lines(data)))


def measure_others(place: Path, rounds: int) -> None:
    where = record.conditions()
    missing = {one.name: one.missing for one in CONTESTANTS if one.missing}
    missing |= {one.name: why for one in PROGRAMS if (why := one.missing())}
    present = [one for one in CONTESTANTS if one.name not in missing]
    latencies = [
        each
        for program in PROGRAMS
        if program.name not in missing
        for each in latency(place, present, program, rounds)
    ]
    together = throughput(place, present, latencies, max(3, rounds // 4))
    data = {"missing": missing, "latency": latencies, "throughput": together}
    record.save("compare", where, data)


def measure_guarantees(place: Path, rounds: int) -> None:
    where = record.conditions()
    parts = [
        each
        for how, program in (("live", STATIC), ("live", WRITER), ("once", STATIC))
        for each in guarantees(place, how, program, rounds * program.batch)
    ]
    record.save("guarantees", where, {"guarantees": parts})


@contextlib.contextmanager
def loops(
    place: Path, contestants: Sequence[Contestant], program: Program, number: int = 1
) -> Iterator[dict[str, list[Loop]]]:
    """Start some of each contestant, all for the same program."""
    with contextlib.ExitStack() as undo:
        yield {
            contestant.name: [
                undo.enter_context(Loop(contestant, place, program, i)) for i in range(number)
            ]
            for contestant in contestants
        }


def turns(
    place: Path, contestants: Sequence[Contestant], program: Program, rounds: int
) -> dict[str, list[int]]:
    """Give the µs of each run of each contestant."""
    taken: dict[str, list[int]] = collections.defaultdict(list)
    print(f"{program.name}: {rounds} rounds of {len(contestants)}", file=sys.stderr)
    with loops(place, contestants, program) as started:
        for _ in range(rounds):
            for name, (loop,) in started.items():
                taken[name] += [round(ns / 1000) for ns in loop.batch(program.batch)]
    return taken


def latency(
    place: Path, contestants: Sequence[Contestant], program: Program, rounds: int
) -> list[dict[str, Any]]:
    return [
        {"program": program.name, "contestant": name, "us": us}
        for name, us in turns(place, contestants, program, rounds).items()
    ]


def throughput(
    place: Path,
    contestants: Sequence[Contestant],
    latencies: Sequence[dict[str, Any]],
    rounds: int,
) -> list[dict[str, Any]]:
    """Count the runs per second of 1, 2, 4 and 8 of the same at a time."""
    median_us = {
        each["contestant"]: statistics.median(each["us"])
        for each in latencies
        if each["program"] == STATIC.name
    }
    rates: dict[tuple[str, int], list[float]] = collections.defaultdict(list)
    with loops(place, contestants, STATIC, max(AT_A_TIME)) as started:
        for _ in range(rounds):
            for number in AT_A_TIME:
                for name, all_of_it in started.items():
                    count = max(1, round(TURN_S * 1e6 / median_us[name] / number))
                    rate = runs_per_second(all_of_it[:number], count)
                    rates[name, number].append(round(rate, 1))
    return [
        {"contestant": name, "at_a_time": number, "per_second": values}
        for (name, number), values in rates.items()
    ]


def runs_per_second(together: Sequence[Loop], count: int) -> float:
    start = time.perf_counter()
    for loop in together:
        loop.send(count)
    for loop in together:
        loop.answer()
    return len(together) * count / (time.perf_counter() - start)


def guarantees(place: Path, how: str, program: Program, rounds: int) -> list[dict[str, Any]]:
    """Run our own with one thing left out at a time, one run each in turns.

    They differ by less than load from elsewhere makes of it from one second to the next.
    """
    variants = [
        Contestant(name, None, python(how + without)) for name, without in GUARANTEES.items()
    ]
    return [
        {"how": how, "program": program.name, "variant": name, "us": us}
        for name, us in turns(place, variants, program._replace(batch=1), rounds).items()
    ]


if __name__ == "__main__":
    main()
