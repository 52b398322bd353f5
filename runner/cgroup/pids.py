"""The number of processes and threads in a group; the files are the same in v1 and v2.

The peak cannot be reset, but it can be believed while it stands at 1 or rises: a group that has
held more than one process at a time is replaced before the next run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.cgroup.files import fields, write
from runner.quick import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.cgroup.files import Directory
    from runner.config import Limits


class ProcessCounts(NamedTuple):
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
        self.files = tuple(fd for fd in (self._peak, self._events) if fd is not None)
        self._limit: int | None = None
        self._hits = 0
        self._events_text = b""
        self._peak_seen = 0

    def is_stale(self) -> bool:
        """Tell whether the peak is one of an earlier run."""
        return self._peak_seen > 1

    def prepare(self, limits: Limits) -> None:
        """Set the limit."""
        if limits.processes != self._limit:
            write(self._max, b"max" if limits.processes is None else b"%d" % limits.processes)
            self._limit = limits.processes

    def begin(self, texts: Sequence[bytes]) -> None:
        """Take the baseline, from what `files` hold."""
        if self._peak is not None:
            self._peak_seen = int(texts[0])
        if self._events is not None and texts[-1] != self._events_text:  # it seldom is
            self._events_text = texts[-1]
            self._hits = fields(texts[-1])[b"max"]

    def measure(self, texts: Sequence[bytes]) -> ProcessCounts:
        """Give the figures since `begin`, and begin anew."""
        hits = self._hits
        self.begin(texts)
        return ProcessCounts(
            peak=None if self._peak is None else self._peak_seen,
            limit_hits=None if self._events is None else self._hits - hits,
        )
