"""One measurement: what a program says that it used, beside what its `Result` says."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.accuracy.languages import BURNERS, PLACE, Language
from runner import Limits, MiB, Mount, Sandbox, Status

MS = 1_000_000
LIMITS = Limits(cpu_time=60, wall_time=120, memory=1024 * MiB, processes=512, stack=512 * MiB)
PLACES = 512 * MiB  # the default /tmp and /dev/shm are smaller than what is put there


class Case(NamedTuple):
    """A program of one language that uses so much of one kind: milliseconds, or MiB."""

    language: str
    command: tuple[str, ...]
    kind: str
    amount: int
    runtime: bool

    @property
    def burns(self) -> bool:
        return self.kind in BURNERS

    @property
    def name(self) -> str:
        unit = "ms" if self.burns else "MiB"
        return f"{self.language} {self.kind}, {self.amount} {unit}"


class Sample(NamedTuple):
    """The truth and the figure of the result: ns or bytes; and what the program itself said."""

    truth: int
    figure: int
    said: int

    @property
    def error(self) -> int:
        return self.figure - self.truth


def bound(case: Case, truth: float) -> float:
    """Give how far a figure may be off: 1 % or 2 ms of CPU time, 2 % or 1 MiB of memory."""
    return max(truth / 100, 2 * MS) if case.burns else max(truth / 50, MiB)


class Series(NamedTuple):
    """All samples of one case."""

    case: Case
    samples: Sequence[Sample]

    @property
    def worst(self) -> Sample:
        return max(self.samples, key=lambda sample: abs(sample.error))

    @property
    def median_error(self) -> float:
        return statistics.median(sample.error for sample in self.samples)

    @property
    def held(self) -> int:
        """Count the samples within their bound."""
        return sum(abs(s.error) <= bound(self.case, s.truth) for s in self.samples)


def cases(language: Language, burn: Sequence[int], touch: Sequence[int]) -> list[Case]:
    """Give every kind that a language can, with each amount."""
    return [
        Case(language.name, language.command, kind, amount, language.runtime)
        for kind in language.kinds
        for amount in (burn if kind in BURNERS else touch)
    ]


def sandbox(place: Path) -> Sandbox:
    """Make one that has the programs in PLACE, and room for what they write."""
    places = [Mount.tmpfs(path, size=PLACES, inodes=1000) for path in ("/tmp", "/dev/shm")]
    return Sandbox(mounts=[Mount.bind(str(place), PLACE), *places], limits=LIMITS)


def measure(live: Sandbox, case: Case) -> Sample | None:
    """Run it once; None where the host gives no figure (memory.peak: Linux 5.19)."""
    witnessed = case.burns and case.runtime
    command = [*case.command, case.kind, str(case.amount)]
    result = live.run([f"{PLACE}/witness", *command] if witnessed else command)
    assert result.status is Status.OK, (case, result.status, result.stderr)
    report: dict[str, int] = json.loads(result.stdout)
    said = report["cpu_ns" if case.burns else "bytes"]
    figure = result.cpu_ns if case.burns else result.memory_bytes
    truth = int(result.stderr) if witnessed else report.get("own_bytes", said)
    return None if figure is None else Sample(truth, figure, said)
