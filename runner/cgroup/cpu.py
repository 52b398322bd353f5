"""CPU time of a whole group, dead processes included: v1 cpuacct or v2 cpu.stat.

Neither has to be reset: `begin` takes a baseline.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

from runner.cgroup.files import fields
from runner.quick import NamedTuple

if TYPE_CHECKING:
    from runner.cgroup.files import Directory

_NS_PER_US: Final = 1000


class CpuFormat(enum.IntEnum):
    """What the live CPU file holds, for who reads it during a run."""

    V1_CPUACCT_USAGE = 1  # one number, nanoseconds
    V2_CPU_STAT = 2  # lines of name and number, among them usage_usec, microseconds


class CpuTimes(NamedTuple):
    """CPU time since `begin`, in ns; None where the kernel does not tell."""

    cpu_ns: int | None
    user_ns: int | None
    system_ns: int | None


class CpuMeter(Protocol):
    """CPU time of one group; `start_ns` is what its file stood at in `begin`."""

    fd: int
    format: CpuFormat
    start_ns: int

    def begin(self, text: bytes) -> None:
        """Take the baseline, from what the file holds before a run."""

    def measure(self, text: bytes) -> CpuTimes:
        """Give what was used since `begin`, from what it holds after the run."""


class CpuacctMeter:
    """v1: cpuacct.usage is exact; its split into user and system is sampled, so not given."""

    format = CpuFormat.V1_CPUACCT_USAGE

    def __init__(self, directory: Directory) -> None:
        self.fd = directory.open("cpuacct.usage")
        self.start_ns = 0

    def begin(self, text: bytes) -> None:
        self.start_ns = int(text)

    def measure(self, text: bytes) -> CpuTimes:
        return CpuTimes(int(text) - self.start_ns, None, None)


class CpuStatMeter:
    """v2: cpu.stat counts in every group, with or without the cpu controller (Linux 4.18)."""

    format = CpuFormat.V2_CPU_STAT

    def __init__(self, directory: Directory) -> None:
        self.fd = directory.open("cpu.stat")
        self.start_ns = 0
        self._start = (0, 0, 0)

    def begin(self, text: bytes) -> None:
        self._start = _times(text)
        self.start_ns = self._start[0]

    def measure(self, text: bytes) -> CpuTimes:
        return CpuTimes(
            *(now - then for now, then in zip(_times(text), self._start, strict=True))
        )


def _times(text: bytes) -> tuple[int, int, int]:
    found = fields(text)
    return (
        found[b"usage_usec"] * _NS_PER_US,
        found[b"user_usec"] * _NS_PER_US,
        found[b"system_usec"] * _NS_PER_US,
    )
