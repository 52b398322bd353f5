"""Memory of a whole group: its limit, its peak, and the OOM kills. v1 and v2.

What a run leaves charged (page cache, kernel objects) would count in the next run's peak and
against its limit, so a group with more than a little of it is replaced: that takes 0.2 ms,
where memory.force_empty took 134 ms for 50 MB of unwritten pages. A little is normal: the
kernel charges in batches of 64 pages per CPU, and so every peak is only that exact.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import stat
from typing import TYPE_CHECKING, Final, Protocol

from runner.cgroup.files import read_fields, read_number, write
from runner.errors import HostError
from runner.units import MiB

if TYPE_CHECKING:
    from runner.cgroup.files import Directory
    from runner.config import Limits

# MEMCG_CHARGE_BATCH, include/linux/memcontrol.h: each CPU charges 64 pages at a time.
_BATCH_BYTES: Final = 64 * resource.getpagesize()


_SWAP_ACCOUNT: Final = "boot a kernel that has swap with swapaccount=1, or leave swap at 0"
_SWAP_V1: Final = "give a limit on memory as well"


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Since `prepare`: the peaks, the processes OOM-killed, and how often the limit was met."""

    peak_bytes: int | None
    oom_kills: int | None
    limit_hits: int | None
    swap_bytes: int | None = None


class MemoryMeter(Protocol):
    """The memory limit and figures of one group.

    limits_swap   the kernel can limit what is swapped out
    """

    limits_swap: bool

    def holds_swap(self, limits: Limits) -> bool:
        """Tell whether swap is limited, or off, in a run with these limits."""

    def is_stale(self) -> bool:
        """Tell whether the next run needs a new group to be measured well."""

    def prepare(self, limits: Limits) -> None:
        """Set the limit, swap included, and start the figures anew."""

    def measure(self) -> MemoryFigures:
        """Give the figures since `prepare`."""


def normal_residue(cpus: int) -> int:
    """Give how many bytes an emptied group may hold and still be used again."""
    return MiB + cpus * _BATCH_BYTES


class MemoryV1:
    """memory.limit_in_bytes and its kin; cgroup-v1/memory.rst.

    The memsw files limit memory and swap together, and exist where the kernel accounts swap.
    Where swap is off they get one batch more than the memory files, which is the most that can
    be swapped out: the limit on memory has to be met first, because memsw.failcnt stays 0 on
    recent kernels. Without a limit on memory there is none on swap.
    """

    def __init__(self, directory: Directory, *, residue: int) -> None:
        self._usage = directory.open("memory.usage_in_bytes")
        self._peak = directory.open("memory.max_usage_in_bytes", os.O_RDWR)
        self._oom = directory.open("memory.oom_control")
        self._limit = directory.open("memory.limit_in_bytes", os.O_WRONLY)
        self._empty = directory.open("memory.force_empty", os.O_WRONLY)
        self._both_limit = directory.open_if_present("memory.memsw.limit_in_bytes", os.O_WRONLY)
        self._failures = directory.open("memory.failcnt", os.O_RDWR)
        self.limits_swap = self._both_limit is not None
        self._residue = residue
        self._set: tuple[int | None, int | None] = (None, None)
        self._oom_kills: int | None = None

    def holds_swap(self, limits: Limits) -> bool:
        return self.limits_swap and None not in (limits.memory, limits.swap)

    def is_stale(self) -> bool:
        return read_number(self._usage) > self._residue

    def prepare(self, limits: Limits) -> None:
        if limits.swap and not self.holds_swap(limits):
            message = "cgroup v1 limits swap only together with memory"
            raise HostError(message, _SWAP_V1 if self.limits_swap else _SWAP_ACCOUNT)
        both = None if limits.swap is None else _above(limits.memory, limits.swap)
        if (limits.memory, both) != self._set:
            self._set_limits(limits.memory, both)
        write(self._peak, b"0")
        write(self._failures, b"0")
        self._oom_kills = self._read_oom_kills()

    def measure(self) -> MemoryFigures:
        kills = self._read_oom_kills()
        return MemoryFigures(
            peak_bytes=read_number(self._peak),
            oom_kills=None
            if kills is None or self._oom_kills is None
            else kills - self._oom_kills,
            limit_hits=read_number(self._failures),
        )

    def _read_oom_kills(self) -> int | None:
        return read_fields(self._oom).get(b"oom_kill")  # Linux 4.13

    def _set_limits(self, memory: int | None, both: int | None) -> None:
        """Set both limits, in the order that keeps memsw the larger, as the kernel demands."""
        values = [(self._limit, memory)]
        if self._both_limit is not None:
            values.append((self._both_limit, both))
        had = self._set[0]
        if memory is None or (had is not None and memory > had):
            values.reverse()
        self._set = (-1, -1)  # until all are written, it is neither the old ones nor these
        for fd, value in values:
            self._write_limit(fd, b"%d" % (-1 if value is None else value))
        self._set = (memory, both)

    def _write_limit(self, fd: int, value: bytes) -> None:
        try:
            write(fd, value)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # More than this is still charged, and the kernel could not reclaim it in passing.
            write(self._empty, b"0")
            write(fd, value)


def _above(memory: int | None, swap: int) -> int | None:
    """Give v1's limit on both: at least a batch above that on memory."""
    return None if memory is None else memory + max(swap, _BATCH_BYTES)


class MemoryV2:
    """memory.max and its kin; cgroup-v2.rst, "Memory Interface Files".

    The peak starts anew for each open file since Linux 6.12; from 5.19 it only rises, so that
    each run needs a new group; before, there is none. A group that was let swap is used once:
    what is swapped out stays its own, and memory.swap.peak (6.5) can be reset only since 6.12.
    """

    def __init__(self, directory: Directory, *, residue: int) -> None:
        self._current = directory.open("memory.current")
        self._max = directory.open("memory.max", os.O_WRONLY)
        self._swap_max = directory.open_if_present("memory.swap.max", os.O_WRONLY)
        self.limits_swap = self._swap_max is not None
        self._swap_peak: int | None = None
        self._directory = directory
        self._events = directory.open("memory.events")
        # Root may open even a file that the kernel gives no way to write; its mode tells.
        self._peak = directory.open_if_present("memory.peak")
        resets = self._peak is not None and bool(os.fstat(self._peak).st_mode & stat.S_IWUSR)
        if resets:
            self._peak = directory.open("memory.peak", os.O_RDWR)
        self._peak_only_rises = self._peak is not None and not resets
        group_kill = directory.open_if_present("memory.oom.group", os.O_WRONLY)  # Linux 4.19
        if group_kill is not None:
            write(group_kill, b"1")
        self._residue = residue
        self._limit_bytes: int | None = None
        self._swap_bytes: int | None = None
        self._used = False
        self._start = (0, 0)

    def holds_swap(self, limits: Limits) -> bool:
        return self.limits_swap and limits.swap is not None

    def is_stale(self) -> bool:
        if self._used and (self._peak_only_rises or self._swap_bytes != 0):
            return True
        return read_number(self._current) > self._residue

    def prepare(self, limits: Limits) -> None:
        self._used = True
        if limits.swap != self._swap_bytes:
            self._set_swap(limits.swap)
        if limits.memory != self._limit_bytes:
            write(self._max, b"max" if limits.memory is None else b"%d" % limits.memory)
            self._limit_bytes = limits.memory
        if self._peak is not None and not self._peak_only_rises:
            write(self._peak, b"0")
        self._start = self._read_events()

    def measure(self) -> MemoryFigures:
        kills, hits = self._read_events()
        return MemoryFigures(
            peak_bytes=None if self._peak is None else read_number(self._peak),
            oom_kills=kills - self._start[0],
            limit_hits=hits - self._start[1],
            swap_bytes=self._read_swap_peak(),
        )

    def _set_swap(self, limit: int | None) -> None:
        if self._swap_max is not None:
            write(self._swap_max, b"max" if limit is None else b"%d" % limit)
        elif limit:
            message = "this kernel's cgroups have no memory.swap.max"
            raise HostError(message, _SWAP_ACCOUNT)
        if limit != 0 and self._swap_peak is None:
            self._swap_peak = self._directory.open_if_present("memory.swap.peak")
        self._swap_bytes = limit

    def _read_swap_peak(self) -> int | None:
        if self._swap_bytes == 0 and self.limits_swap:
            return 0
        return None if self._swap_peak is None else read_number(self._swap_peak)

    def _read_events(self) -> tuple[int, int]:
        """Give the processes killed, and how often the usage was about to pass memory.max."""
        fields = read_fields(self._events)
        return fields[b"oom_kill"], fields[b"max"]
