"""What exists at a moment that a sandbox could have left: counted, by kind.

Ours are the processes below this one, what their names or places mark as ours, and what is in
the sandboxes' own mounts. What other users' processes hold cannot be seen without root: it is
not counted then, and the table says so.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

MARK = "run-sandboxed"
PLACES = ("tmp", "dev/shm")
MIB = 1 << 20
SETTLES_S = 5.0  # a killed process that others have yet to reap, a group that is emptied
PAGE = os.sysconf("SC_PAGE_SIZE")

# How much more there may be at the end. Of memory the kernel counts in batches for each CPU,
# and Shmem is that of the whole host, where others work too: what 2 % of 10,000 runs leave.
TOLERANCE: Mapping[str, float] = {
    "MiB of keepers": 1,
    "MiB of the grader": 8,
    "MiB of shared memory": 64,
}


def census() -> dict[str, float]:
    """Count all of it."""
    return {name: count() for name, count in COUNTS.items()}


def more(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Give what there is more of than is tolerated, and how much."""
    return {
        name: after[name] - before[name]
        for name in before
        if after[name] - before[name] > TOLERANCE.get(name, 0)
    }


def settled(before: Mapping[str, float]) -> dict[str, float]:
    """Count until there is no more than before, or it stays."""
    deadline = time.monotonic() + SETTLES_S
    while more(before, after := census()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return after


def descendants() -> list[int]:
    """Give the pids of all processes below us, zombies too."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            rest = stat.read_text(errors="replace").rpartition(")")[2]
            parents.setdefault(int(rest.split()[1]), []).append(int(stat.parent.name))
    found, left = [], [os.getpid()]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def _processes() -> float:
    return len(descendants())


def _fds() -> float:
    """Count ours, and where we may look those of keepers and of what runs in sandboxes."""
    return sum(_entries(f"/proc/{pid}/fd") for pid in ("self", *descendants()))


def _entries(directory: str) -> int:
    with contextlib.suppress(FileNotFoundError, PermissionError, ProcessLookupError):
        return len(os.listdir(directory))
    return 0


def _cgroups() -> float:
    mine = f".{os.getpid()}."
    return sum(
        name.startswith(f"{MARK}.") and mine in name
        for root in _cgroup_roots()
        for _, names, _ in os.walk(root)
        for name in names
    )


def _cgroup_roots() -> Iterator[str]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        words = line.split()
        if words[2] in {"cgroup", "cgroup2"}:
            yield words[1]


def _mounts() -> float:
    """Count ours and those of the sandboxes."""
    total = 0
    for pid in ("self", *descendants()):
        with contextlib.suppress(OSError):  # not ours to see, or it has ended
            total += Path(f"/proc/{pid}/mountinfo").read_text().count("\n")
    return total


def _in_places(count: Callable[[os.statvfs_result], int]) -> float:
    ours, total = os.stat("/proc/self/ns/mnt"), 0
    for pid in descendants():
        with contextlib.suppress(OSError):  # not ours to see, or it has ended
            if not os.path.samestat(os.stat(f"/proc/{pid}/ns/mnt"), ours):
                spaces = (os.statvfs(f"/proc/{pid}/root/{place}") for place in PLACES)
                total += sum(map(count, spaces))
    return total


def _inodes() -> float:
    return _in_places(lambda space: space.f_files - space.f_ffree)


def _bytes_in_places() -> float:
    return _in_places(lambda space: (space.f_blocks - space.f_bfree) * space.f_frsize)


def _shared_objects() -> float:
    """Count what anybody has in the host's own IPC namespace and /dev/shm."""
    lists = (Path("/proc/sysvipc") / name for name in ("shm", "msg", "sem"))
    return _entries("/dev/shm") + sum(
        len(path.read_text().splitlines()) - 1 for path in lists if path.exists()
    )


def _shared_memory() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) / 1024
    return 0


def _temporary_files() -> float:
    return sum(name.startswith(MARK) for name in os.listdir(tempfile.gettempdir()))


def _resident(pid: int | str) -> float:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / MIB
    return 0


COUNTS: Mapping[str, Callable[[], float]] = {
    "processes": _processes,
    "fds": _fds,
    "cgroups": _cgroups,
    "mounts": _mounts,
    "inodes in sandboxes": _inodes,
    "bytes in sandboxes": _bytes_in_places,
    "objects in shared memory": _shared_objects,
    "MiB of shared memory": _shared_memory,
    "temporary files": _temporary_files,
    "MiB of keepers": lambda: sum(map(_resident, descendants())),
    "MiB of the grader": lambda: _resident("self"),
}
