"""CPU time of a whole group, dead processes included: v1 cpuacct or v2 cpu.stat.

Neither has to be reset: `prepare` takes a baseline.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Final, Protocol

from runner.cgroup.files import read_fields, read_number

if TYPE_CHECKING:
    from runner.cgroup.files import Directory

_NS_PER_US: Final = 1000


class CpuFormat(enum.IntEnum):
    """What the live CPU file holds, for who reads it during a run."""

    V1_CPUACCT_USAGE = 1  # one number, nanoseconds
    V2_CPU_STAT = 2  # lines of name and number, among them usage_usec, microseconds


@dataclasses.dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU time since `prepare`, in ns; None where the kernel does not tell."""

    cpu_ns: int
    user_ns: int | None
    system_ns: int | None


class CpuMeter(Protocol):
    """CPU time of one group; `start_ns` is what its file stood at in `prepare`."""

    fd: int
    format: CpuFormat
    start_ns: int

    def prepare(self) -> None:
        """Take the baseline."""

    def measure(self) -> CpuTimes:
        """Give what was used since `prepare`."""


class CpuacctMeter:
    """v1: cpuacct.usage is exact; its split into user and system is sampled, so not given."""

    format = CpuFormat.V1_CPUACCT_USAGE

    def __init__(self, directory: Directory) -> None:
        self.fd = directory.open("cpuacct.usage")
        self.start_ns = 0

    def prepare(self) -> None:
        self.start_ns = read_number(self.fd)

    def measure(self) -> CpuTimes:
        return CpuTimes(read_number(self.fd) - self.start_ns, None, None)


class CpuStatMeter:
    """v2: cpu.stat counts in every group, with or without the cpu controller (Linux 4.18)."""

    format = CpuFormat.V2_CPU_STAT

    def __init__(self, directory: Directory) -> None:
        self.fd = directory.open("cpu.stat")
        self.start_ns = 0
        self._start = (0, 0, 0)

    def prepare(self) -> None:
        self._start = self._read()
        self.start_ns = self._start[0]

    def measure(self) -> CpuTimes:
        return CpuTimes(
            *(now - then for now, then in zip(self._read(), self._start, strict=True))
        )

    def _read(self) -> tuple[int, int, int]:
        fields = read_fields(self.fd)
        return (
            fields[b"usage_usec"] * _NS_PER_US,
            fields[b"user_usec"] * _NS_PER_US,
            fields[b"system_usec"] * _NS_PER_US,
        )
