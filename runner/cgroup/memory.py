"""Memory of a whole group: its limit, its peak, and the OOM kills. v1 and v2.

What a run leaves charged (page cache, kernel objects) would count in the next run's peak and
against its limit, so a group with more than a little of it is replaced: that takes 0.2 ms,
where memory.force_empty took 134 ms for 50 MB of unwritten pages. A little is normal: the
kernel charges in batches of 64 pages per CPU, and so every peak is only that exact.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from typing import TYPE_CHECKING, Final, Protocol

from runner.cgroup.files import fields, read_number, write
from runner.errors import HostError
from runner.quick import NamedTuple
from runner.units import MiB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.cgroup.files import Directory
    from runner.config import Limits

# MEMCG_CHARGE_BATCH, include/linux/memcontrol.h: each CPU charges 64 pages at a time.
_BATCH_BYTES: Final = 64 * resource.getpagesize()


_SWAP_ACCOUNT: Final = "boot a kernel that has swap with swapaccount=1, or leave swap at 0"
_SWAP_V1: Final = "give a limit on memory as well"


class MemoryFigures(NamedTuple):
    """Since `begin`: the peaks, the processes OOM-killed, and how often the limit was met."""

    peak_bytes: int | None
    oom_kills: int | None
    limit_hits: int | None
    swap_bytes: int | None = None


class MemoryMeter(Protocol):
    """The memory limit and figures of one group.

    limits_swap   the kernel can limit what is swapped out
    resets        what is set to 0 before a run
    files         what is read after it; more, once swap was allowed
    """

    limits_swap: bool
    resets: tuple[int, ...]
    files: tuple[int, ...]

    def holds_swap(self, limits: Limits) -> bool:
        """Tell whether swap is limited, or off, in a run with these limits."""

    def is_stale(self) -> bool:
        """Tell whether the next run needs a new group to be measured well."""

    def prepare(self, limits: Limits) -> None:
        """Set the limit, swap included."""

    def begin(self, texts: Sequence[bytes]) -> None:
        """Take the baseline, from what `files` hold."""

    def measure(self, texts: Sequence[bytes]) -> MemoryFigures:
        """Give the figures since `begin`, and begin anew."""


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
        self.resets: tuple[int, ...] = (self._peak, self._failures)
        self.files: tuple[int, ...] = (self._peak, self._oom, self._failures, self._usage)
        self._residue = residue
        self._set: tuple[int | None, int | None] = (None, None)
        self._oom_text = b""
        self._oom_kills: int | None = None
        self._usage_seen = 0

    def holds_swap(self, limits: Limits) -> bool:
        return self.limits_swap and None not in (limits.memory, limits.swap)

    def is_stale(self) -> bool:
        # What is freed late may have gone by now.
        return self._usage_seen > self._residue and read_number(self._usage) > self._residue

    def prepare(self, limits: Limits) -> None:
        if limits.swap and not self.holds_swap(limits):
            message = "cgroup v1 limits swap only together with memory"
            raise HostError(message, _SWAP_V1 if self.limits_swap else _SWAP_ACCOUNT)
        both = None if limits.swap is None else _above(limits.memory, limits.swap)
        if (limits.memory, both) != self._set:
            self._set_limits(limits.memory, both)

    def begin(self, texts: Sequence[bytes]) -> None:
        if texts[1] != self._oom_text:  # it seldom is
            self._oom_text = texts[1]
            self._oom_kills = fields(texts[1]).get(b"oom_kill")  # Linux 4.13
        self._usage_seen = int(texts[3])

    def measure(self, texts: Sequence[bytes]) -> MemoryFigures:
        before = self._oom_kills
        self.begin(texts)
        kills = None if self._oom_kills is None or before is None else self._oom_kills - before
        return MemoryFigures(
            peak_bytes=int(texts[0]), oom_kills=kills, limit_hits=int(texts[2])
        )

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
        self.resets: tuple[int, ...] = (
            (self._peak,) if resets and self._peak is not None else ()
        )
        self.files: tuple[int, ...] = (self._current, self._events)
        if self._peak is not None:
            self.files += (self._peak,)
        group_kill = directory.open_if_present("memory.oom.group", os.O_WRONLY)  # Linux 4.19
        if group_kill is not None:
            write(group_kill, b"1")
        self._residue = residue
        self._limit_bytes: int | None = None
        self._swap_bytes: int | None = None
        self._used = False
        self._current_seen = 0
        self._events_text = b""
        self._events_seen = (0, 0)

    def holds_swap(self, limits: Limits) -> bool:
        return self.limits_swap and limits.swap is not None

    def is_stale(self) -> bool:
        if self._used and (self._peak_only_rises or self._swap_bytes != 0):
            return True
        # What is freed late may have gone by now.
        return self._current_seen > self._residue and read_number(self._current) > self._residue

    def prepare(self, limits: Limits) -> None:
        self._used = True
        if limits.swap != self._swap_bytes:
            self._set_swap(limits.swap)
        if limits.memory != self._limit_bytes:
            write(self._max, b"max" if limits.memory is None else b"%d" % limits.memory)
            self._limit_bytes = limits.memory

    def begin(self, texts: Sequence[bytes]) -> None:
        self._current_seen = int(texts[0])
        if texts[1] != self._events_text:  # it seldom is
            self._events_text = texts[1]
            found = fields(texts[1])
            self._events_seen = found[b"oom_kill"], found[b"max"]

    def measure(self, texts: Sequence[bytes]) -> MemoryFigures:
        kills, hits = self._events_seen
        self.begin(texts)
        peaks = [int(text) for text in texts[2:]]
        peak = None if self._peak is None else peaks.pop(0)
        swapped = peaks[0] if peaks else None
        if self._swap_bytes == 0 and self.limits_swap:
            swapped = 0
        return MemoryFigures(
            peak_bytes=peak,
            oom_kills=self._events_seen[0] - kills,
            limit_hits=self._events_seen[1] - hits,
            swap_bytes=swapped,
        )

    def _set_swap(self, limit: int | None) -> None:
        if self._swap_max is not None:
            write(self._swap_max, b"max" if limit is None else b"%d" % limit)
        elif limit:
            message = "this kernel's cgroups have no memory.swap.max"
            raise HostError(message, _SWAP_ACCOUNT)
        if limit != 0 and self._swap_peak is None:
            self._swap_peak = self._directory.open_if_present("memory.swap.peak")
            if self._swap_peak is not None:
                self.files += (self._swap_peak,)
        self._swap_bytes = limit
