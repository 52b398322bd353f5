"""`python -m bench.accuracy`: how right the figures are, and how late the kills.

Runs programs that know what they use, and compares; writes bench/data/accuracy.json and the
pictures of docs/accuracy.md, and prints its tables. As root, on a machine that is idle.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import record
from bench.accuracy import cases, kills, report
from bench.accuracy.languages import LANGUAGES, Language, compile_c

BURN_MS = {False: (20, 500), True: (500,)}  # a runtime takes longer to start than 20 ms
TOUCH_MIB = {False: (4, 128), True: (128,)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="runs of each program")
    parser.add_argument("--kills", type=int, default=200, help="kills at each limit and load")
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw again")
    asked = parser.parse_args()
    if not asked.draw:
        measure(asked.rounds, asked.kills)
    data = report.read()
    report.pictures(data)
    print("\n".join(report.lines(data)))


def measure(rounds: int, number: int) -> None:
    where = record.conditions()
    missing = {language.name: why for language in LANGUAGES if (why := language.missing())}
    present = [language for language in LANGUAGES if language.name not in missing]
    with tempfile.TemporaryDirectory(prefix="accuracy.") as directory:
        place = Path(directory)
        place.chmod(0o755)
        compile_c("witness", place)
        kills.build(place)
        for language in present:
            language.build(place)
        figures = measure_figures(present, place, rounds)
        late = measure_kills(place, number)
    record.save("accuracy", where, {"missing": missing, "figures": figures, "kills": late})


def measure_figures(
    languages: list[Language], place: Path, rounds: int
) -> list[dict[str, Any]]:
    """Run every case once in each round, so that the machine's moods meet all of them."""
    samples: dict[cases.Case, list[cases.Sample]] = collections.defaultdict(list)
    with cases.sandbox(place) as live:
        for done in range(rounds):
            print(f"figures: {done} of {rounds} rounds", file=sys.stderr)
            for language in languages:
                burn, touch = BURN_MS[language.runtime], TOUCH_MIB[language.runtime]
                for case in cases.cases(language, burn, touch):
                    sample = cases.measure(live, case)
                    if sample is not None:
                        samples[case].append(sample)
    return [
        {
            "language": case.language,
            "kind": case.kind,
            "amount": case.amount,
            "truth": [sample.truth for sample in taken],
            "figure": [sample.figure for sample in taken],
            "said": [sample.said for sample in taken],
        }
        for case, taken in samples.items()
    ]


def measure_kills(place: Path, number: int) -> list[dict[str, Any]]:
    """Take the kinds of kills in turns, under one load after the other."""
    late: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    with kills.sandbox(place) as live:
        for load in kills.LOADS:
            print(f"kills: {kills.LOADS[load]}", file=sys.stderr)
            with kills.loaded(load, place):
                for _ in range(number):
                    for kill in kills.KILLS:
                        ms = kills.measure(live, kill, place)
                        late[kill.name, load].append(round(ms, 3))
    return [
        {"limit": name, "load": load, "late_ms": values}
        for (name, load), values in late.items()
    ]


if __name__ == "__main__":
    main()
