"""`python -m bench.soak`: many runs, half of them hostile, after which all is as it was.

Four sandboxes side by side. What exists after the first thousand runs is counted, and again at
the end; so is how long a tame run took then, as a multiple of a bare run of the same program
just after it. Exits with 1 if there is more of anything, if it takes longer, or if a program
ended otherwise than it had to.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.soak import mix
from bench.soak.census import TOLERANCE, census, more, settled
from runner.config import Mount
from runner.sandbox import Sandbox

PLACE = "/soak"
SIDE_BY_SIDE = 4
ENDS = 1000  # runs of which the first and the last are compared
SLOWER = 1.5
TRIES = 3  # what others do to the machine passes, what we have done to it stays
WRONG_SHOWN = 10


class Latency(NamedTuple):
    """Medians: seconds, and how many times a bare run's."""

    run: float
    times_bare: float

    def is_slower(self, first: Latency, times: float) -> bool:
        """Tell whether it got slower, and a bare run did not."""
        return self.run > times * first.run and self.times_bare > times * first.times_bare

    def __str__(self) -> str:
        return f"{self.run * 1e3:.2f} ms, {self.times_bare:.2f} × a bare run"


class Soak:
    """The sandboxes, and what went wrong in them."""

    def __init__(self, sandboxes: Sequence[Sandbox], program: Path, seed: int) -> None:
        self._sandboxes = sandboxes
        self._program = program
        self._seed = seed
        self._numbers = itertools.count()
        self.wrong: Counter[str] = Counter()

    def run(self, count: int) -> Latency:
        """Run so many; gives how long those of the first kind took."""
        numbers = iter(itertools.islice(self._numbers, count))
        times: list[float] = []
        bare: list[float] = []
        lock = threading.Lock()

        def work(sandbox: Sandbox) -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                kind = mix.choose(number, self._seed)
                start = time.perf_counter()
                wrong = mix.run(sandbox, kind, PLACE)
                took = time.perf_counter() - start
                if wrong:
                    self.wrong[wrong] += 1
                if kind is mix.TAME[0]:
                    times.append(took)
                    bare.append(self._run_bare(kind.word))

        threads = [threading.Thread(target=work, args=(one,)) for one in self._sandboxes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        median = statistics.median(times)
        return Latency(median, median / statistics.median(bare))

    def _run_bare(self, word: str) -> float:
        start = time.perf_counter()
        os.waitpid(os.posix_spawn(self._program, [self._program, word], {}), 0)
        return time.perf_counter() - start


@contextlib.contextmanager
def prepared(seed: int) -> Iterator[Soak]:
    """Compile the programs, and make the sandboxes."""
    with (
        tempfile.TemporaryDirectory(prefix="soak.") as directory,
        contextlib.ExitStack() as all_,
    ):
        os.chmod(directory, 0o755)
        program = Path(directory) / "soak"
        source = Path(__file__).with_name("soak.c")
        subprocess.run(["musl-gcc", "-O2", "-static", "-o", program, source], check=True)
        mounts = [Mount.bind(str(program), PLACE)]
        boxes = [Sandbox(mounts=mounts, limits=mix.LIMITS) for _ in range(SIDE_BY_SIDE)]
        for box in boxes:
            all_.enter_context(box).start()
        yield Soak(boxes, program, seed)


def soak(
    runs: int,
    seed: int = 0,
    slower: float = SLOWER,
    between: Callable[[], object] = lambda: None,
) -> list[str]:
    """Run so many, `between` being called after the first; gives what is not as it was."""
    ends = min(ENDS, runs // 4)
    with prepared(seed) as box:
        first = box.run(ends)
        before = census()
        between()
        start = time.monotonic()
        box.run(runs - 2 * ends)
        took = time.monotonic() - start
        for _ in range(TRIES):
            last = box.run(ends)
            if not last.is_slower(first, slower):
                break
        after = settled(before)
    show(before, after)
    print(f"\nmedian latency of the first {ends}: {first}; of the last: {last}")
    print(f"{(runs - 2 * ends) / took:.0f} runs a second between")
    found = [f"{count:g} more {name}" for name, count in more(before, after).items()]
    if last.is_slower(first, slower):
        times = last.times_bare / first.times_bare
        found.append(f"the last runs take {times:.2f} times as long as the first")
    found += [f"{times} × {wrong}" for wrong, times in box.wrong.most_common(WRONG_SHOWN)]
    return found


def show(before: dict[str, float], after: dict[str, float]) -> None:
    print("| what there is | after the first | at the end | more, at most |\n|---|---|---|---|")
    for name, count in before.items():
        print(f"| {name} | {count:.6g} | {after[name]:.6g} | {TOLERANCE.get(name, 0):g} |")
    if os.geteuid() != 0:
        print("\nfds and mounts of keepers are theirs alone to see, and root's: not counted")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=200_000, help="how many, 1000 or more")
    parser.add_argument("--seed", type=int, default=0, help="choose other programs")
    asked = parser.parse_args()
    found = soak(max(asked.runs, ENDS), asked.seed)
    print("\n" + ("\n".join(f"FAILED: {line}" for line in found) or "all is as it was"))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
