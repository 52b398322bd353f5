"""What the benchmarks share: the bare baseline, graders in other processes, and the table.

Times are nanoseconds. Each comparison takes turns with what it is compared to, a batch of runs
each, so that a change in the machine's load meets both; the ratio is of the medians.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.config import Limits
from runner.units import MiB

if TYPE_CHECKING:
    from typing_extensions import Self

BATCH = 20
LIMITS = Limits(cpu_time=5.0, wall_time=10.0, memory=256 * MiB, processes=64, output=16 * MiB)


class Coprocess:
    """A process that answers each line with a line of JSON or of numbers."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, line: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def receive(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self._process.args!r} ended"
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate(timeout=30)


class Baseline(Coprocess):
    """Bare vfork, exec and wait in C."""

    def batch(self, count: int = BATCH) -> list[int]:
        self.send(count)
        return [int(word) for word in self.receive().split()]


class Grader(Coprocess):
    """A Python process with a sandbox of its own: bench/grader.py."""

    def __init__(self, program: Path, *, resident: int = 0, core: int | None = None) -> None:
        command = [sys.executable, "-m", "bench.grader", str(program), str(resident)]
        super().__init__(command if core is None else ["taskset", "-c", str(core), *command])
        self.receive()  # it is ready

    def answer(self) -> list[int]:
        samples: list[int] = json.loads(self.receive())
        return samples

    def batch(self, count: int = BATCH) -> list[int]:
        self.send(count)
        return self.answer()


def timed(function: Callable[[], object], count: int = BATCH) -> list[int]:
    """Call it `count` times, and give how long each call took."""
    samples = []
    for _ in range(count):
        start = time.perf_counter_ns()
        function()
        samples.append(time.perf_counter_ns() - start)
    return samples


def take_turns(
    benchmark: Any,
    measured: Callable[[], list[int]],
    reference: Callable[[], list[int]],
    *,
    rounds: int,
) -> tuple[list[int], list[int]]:
    """Give the samples of both, taken in alternate batches; the first of each is warm-up."""
    measured_samples: list[int] = []
    reference_samples: list[int] = []
    measured()
    reference()
    benchmark.pedantic(
        lambda: measured_samples.extend(measured()),
        setup=lambda: reference_samples.extend(reference()),
        rounds=rounds,
    )
    return measured_samples, reference_samples


def percentile(samples: Sequence[float], percent: int) -> float:
    """Give the smallest sample that at least `percent` of them do not exceed."""
    return sorted(samples)[max(0, -(-len(samples) * percent // 100) - 1)]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    count: int
    median: str
    reference: str
    figure: str
    budget: str
    met: bool


class Table:
    """The figures of a session, beside the budgets of docs/design.md."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def ratio(
        self,
        name: str,
        measured: Sequence[int],
        reference: Sequence[int],
        *,
        budget: float,
    ) -> None:
        """Add a ratio of medians, which should not exceed the budget."""
        median, bare = statistics.median(measured), statistics.median(reference)
        self._add(
            Row(
                name,
                len(measured),
                f"{median / 1000:.0f} µs",
                f"{bare / 1000:.0f} µs",
                f"{median / bare:.2f}",
                f"≤ {budget}",
                median / bare <= budget,
            )
        )

    def figure(
        self, name: str, samples: Sequence[float], value: float, *, unit: str, budget: float
    ) -> None:
        """Add a value taken from these samples, which should not exceed the budget."""
        median = f"{statistics.median(samples):.2f} {unit}"
        shown = f"{value:.2f} {unit}"
        limit = f"≤ {budget} {unit}"
        self._add(Row(name, len(samples), median, "", shown, limit, value <= budget))

    def speedup(
        self,
        name: str,
        both: Sequence[float],
        one: Sequence[float],
        *,
        budget: float,
    ) -> None:
        """Add a ratio of medians of runs per second, which should reach the budget."""
        fast, slow = statistics.median(both), statistics.median(one)
        self._add(
            Row(
                name,
                len(both),
                f"{fast:.0f}/s",
                f"{slow:.0f}/s",
                f"{fast / slow:.2f}",
                f"≥ {budget}",
                fast / slow >= budget,
            )
        )

    def _add(self, row: Row) -> None:
        self.rows.append(row)

    def lines(self) -> Iterator[str]:
        """Give the table as Markdown, below a line about the machine."""
        load = " ".join(f"{value:.1f}" for value in os.getloadavg())
        kernel, python = platform.release(), platform.python_version()
        yield f"host {platform.node()}, Linux {kernel}, {os.cpu_count()} CPUs, Python {python}"
        yield f"load {load}"
        yield ""
        yield "| measured | n | median | against | figure | budget | |"
        yield "|---|---|---|---|---|---|---|"
        for row in self.rows:
            verdict = "met" if row.met else "missed"
            count = str(row.count)
            cells = (
                row.name,
                count,
                row.median,
                row.reference,
                row.figure,
                row.budget,
                verdict,
            )
            yield f"| {' | '.join(cells)} |"
