"""Make room below our own cgroup: move what is in it into a child of it.

A v2 cgroup with processes cannot pass controllers on, and a container begins with all of its
processes in the one that it was given. Nothing here does this unasked: it moves others too.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

from runner.cgroup.place import NOT_MOUNTED, obstacle, own_directory
from runner.errors import HostError

if TYPE_CHECKING:
    from runner.host import Host

CHILD: Final = "main"
_ROUNDS: Final = 100  # of moving what was forked meanwhile


def nest(host: Host) -> str:
    """Move all processes of our own v2 cgroup, us too, into its child `main`; give its path.

    For the start of a container, or of a service with Delegate=yes: sandboxes that are made
    later have their groups beside that child. Look at the host anew afterwards.
    Raises HostError, also where processes are forked faster than they can be moved.
    """
    reason = NOT_MOUNTED
    for mount in host.cgroup_mounts:
        if mount.version != 2:
            continue
        path = own_directory(mount, host.cgroup_paths.get(""))
        found = obstacle(mount, path)
        if path is not None and found is None:
            return _move(path)
        reason = found or reason
    message = f"no cgroup to make room in: {reason.missing}"
    raise HostError(message, reason.remedy)


def _move(path: str) -> str:
    child = f"{path}/{CHILD}"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(child)
        for _ in range(_ROUNDS):
            pids = _pids(path)
            if not pids:
                return child
            for pid in pids:
                _enter(child, pid)
    except OSError as error:
        message = f"cannot move the processes of {path} to {child}: {error.strerror}"
        raise HostError(message, "run as root, or in a cgroup delegated to you") from error
    message = f"{path} still has processes"
    raise HostError(message, "do this before others fork, and where all pids are visible")


def _pids(path: str) -> list[str]:
    """List the processes of a cgroup; those that our pid namespace cannot name are 0."""
    with open(f"{path}/cgroup.procs", encoding="ascii") as file:
        return file.read().split()


def _enter(child: str, pid: str) -> None:
    if pid == "0":  # it would stand for ourselves
        message = f"a process of another pid namespace is in {os.path.dirname(child)}"
        raise HostError(message, "give the container a cgroup of its own")
    try:
        with open(f"{child}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(pid)
    except OSError as error:
        if error.errno != errno.ESRCH:  # it has ended
            raise
