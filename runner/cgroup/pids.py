"""The number of processes and threads in a group; the files are the same in v1 and v2.

The peak cannot be reset, but it can be believed while it stands at 1 or rises: a group that has
held more than one process at a time is replaced before the next run.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from runner.cgroup.files import read_fields, read_number, write

if TYPE_CHECKING:
    from runner.cgroup.files import Directory
    from runner.config import Limits


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessCounts:
    """Peak number of tasks, and forks refused by our limit; None where the kernel is silent."""

    peak: int | None
    limit_hits: int | None


class PidsMeter:
    """pids.max, with pids.events (Linux 4.10) and pids.peak (6.1) where they exist."""

    def __init__(self, directory: Directory) -> None:
        self.current = directory.open("pids.current")
        self._max = directory.open("pids.max", os.O_WRONLY)
        self._events = directory.open_if_present("pids.events")
        self._peak = directory.open_if_present("pids.peak")
        self._limit: int | None = None
        self._hits = 0

    def is_stale(self) -> bool:
        """Tell whether the peak is one of an earlier run."""
        return self._peak is not None and read_number(self._peak) > 1

    def prepare(self, limits: Limits) -> None:
        """Set the limit, and take the baseline."""
        if limits.processes != self._limit:
            write(self._max, b"max" if limits.processes is None else b"%d" % limits.processes)
            self._limit = limits.processes
        self._hits = self._read_hits()

    def measure(self) -> ProcessCounts:
        """Give the figures since `prepare`."""
        return ProcessCounts(
            peak=None if self._peak is None else read_number(self._peak),
            limit_hits=None if self._events is None else self._read_hits() - self._hits,
        )

    def _read_hits(self) -> int:
        return 0 if self._events is None else read_fields(self._events)[b"max"]
