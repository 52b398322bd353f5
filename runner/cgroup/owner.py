"""Names that tell whose a group is, so that what a crash leaves can be found and removed.

`run-sandboxed.<pid namespace>.<pid>.<start time>.<number>`: the process that made it, by its
pid and the clock tick it started at, which together are never used twice; and the pid namespace
(an inode number) in which that pid means anything, as containers may share a cgroup tree.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Final

MARK: Final = "run-sandboxed"

_numbers: Iterator[int] = itertools.count()


def new_name() -> str:
    """Make a name that no other group has or will have, marked as this process's."""
    pid = os.getpid()
    return f"{MARK}.{_pid_namespace()}.{pid}.{_start_time(pid)}.{next(_numbers)}"


def is_leftover(name: str) -> bool:
    """Tell whether a group of ours by name belongs to a process that is gone.

    A name from another pid namespace is never a leftover: we cannot see its processes.
    """
    mark, *words = name.split(".")
    if mark != MARK or len(words) != 4 or not all(word.isdecimal() for word in words):
        return False
    namespace, pid, start_time, _ = map(int, words)
    return namespace == _pid_namespace() and not _lives(pid, start_time)


def _lives(pid: int, start_time: int) -> bool:
    try:
        status = _status(pid)
        # Killed, and not waited for: nothing of it is there but its status, which may stay for
        # as long as its parent lives. With threads it is its first that has ended, not it all.
        is_dead = status[0] == b"Z" and int(status[17]) <= 1
        return not is_dead and int(status[19]) == start_time
    except (FileNotFoundError, ProcessLookupError):
        # Either it is gone, or /proc is mounted with hidepid and it is another user's.
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def _start_time(pid: int) -> int:
    return int(_status(pid)[19])


def _status(pid: int) -> list[bytes]:
    """Read /proc/PID/stat from field 3 on; the name before may hold spaces and parentheses."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino
