"""End a group, ours or what a crash left: kill all that is in it and remove its directory."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from typing import Final

from runner.cgroup.files import Directory
from runner.cgroup.owner import is_leftover
from runner.errors import HostError

_FIRST_PAUSE_S: Final = 0.0005
_LONGEST_PAUSE_S: Final = 0.02
_LEFTOVERS_TIMEOUT_S: Final = 0.25  # a start waits for it
# A hundred processes have taken 5 s to end, on an emulated CPU that others use as well.
_TIMEOUT_S: Final = 30.0


def remove(parent_fd: int, name: str, *, timeout_s: float = _TIMEOUT_S) -> None:
    """Kill every process in a group and remove it; one that is not there is no error.

    Raises HostError when processes are still in it after `timeout_s`, OSError for all else.
    """
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    while not _rmdir(parent_fd, name):
        if time.monotonic() > deadline:
            message = f"cgroup {name} still has processes or child groups after {timeout_s:g} s"
            raise HostError(
                message, "a process may hang in the kernel (state D): see its wchan"
            )
        _kill_all(parent_fd, name)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def remove_leftovers(path: str) -> None:
    """Remove the groups below `path` of owners that crashed, and nobody else's.

    All are killed before any is waited for, and all together have a moment to end.
    """
    with contextlib.closing(Directory(path)) as directory:
        left = list(filter(is_leftover, os.listdir(directory.fd)))
        for name in left:
            with contextlib.suppress(OSError):  # another user's
                _kill_all(directory.fd, name)
        deadline = time.monotonic() + _LEFTOVERS_TIMEOUT_S
        for name in left:
            # What is still ending is removed by the next to come here, or by its owner.
            with contextlib.suppress(OSError, HostError):
                remove(directory.fd, name, timeout_s=deadline - time.monotonic())


def _rmdir(parent_fd: int, name: str) -> bool:
    """Try to remove the group; False when it is in use."""
    try:
        os.rmdir(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _kill_all(parent_fd: int, name: str) -> None:
    if _write_if_present(parent_fd, f"{name}/cgroup.kill", b"1"):  # v2, Linux 5.14
        return
    # No more forks, so that one look at the list is enough to get them all.
    _write_if_present(parent_fd, f"{name}/pids.max", b"0")
    for pid in _pids(parent_fd, name):
        _kill(pid, name)


def _write_if_present(parent_fd: int, path: str, text: bytes) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY, dir_fd=parent_fd)
    except FileNotFoundError:
        return False
    try:
        os.write(fd, text)
    finally:
        os.close(fd)
    return True


def _pids(parent_fd: int, name: str) -> list[int]:
    """List the processes in the group; those that our pid namespace cannot name are 0."""
    fd = os.open(f"{name}/cgroup.procs", os.O_RDONLY, dir_fd=parent_fd)
    with open(fd, encoding="ascii") as file:
        return [int(line) for line in file if line != "0\n"]


def _kill(pid: int, name: str) -> None:
    """Kill a process if it is in the group.

    The pidfd holds on to one process before we look, so a pid used anew meanwhile is not hit.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            is_member = any(line.endswith(f"/{name}\n") for line in file)
        if is_member:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended by itself
    finally:
        os.close(pidfd)
