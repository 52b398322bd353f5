"""Where a group can go: a directory of a mounted hierarchy, what it would serve, or why not."""

from __future__ import annotations

import enum
import os
import posixpath
from typing import TYPE_CHECKING, Final

from runner.quick import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.host import CgroupMount, Host


class Resource(str, enum.Enum):
    """What groups measure and limit; the values of ALWAYS are the keys of `enforced`."""

    CPU = "cpu_time"
    PROCESSES = "processes"
    MEMORY = "memory"
    CPU_SHARE = "cpu_share"
    CPUS = "cpus"
    IO = "io"
    DEVICES = "devices"
    PRESSURE = "pressure"


# Every sandbox has these; the others cost a run time, so only those who ask for them pay.
ALWAYS: Final = frozenset({Resource.CPU, Resource.PROCESSES, Resource.MEMORY})


@dataclass(frozen=True)
class Place:
    """An existing cgroup below which we may make groups, and what they are to serve."""

    path: str
    version: int
    resources: frozenset[Resource]


@dataclass(frozen=True)
class WhyNot:
    """What stands in the way of using cgroups, and what to do about it."""

    missing: str
    remedy: str


NOT_MOUNTED: Final = WhyNot(
    "no cgroup file system that has it is mounted",
    "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
)


def own_directory(mount: CgroupMount, own: str | None) -> str | None:
    """Give the directory of the cgroup `own` at a mount; None when it is not visible there.

    `own` and the mount's root are as seen from our cgroup namespace, in which what is outside
    begins with "/..".
    """
    if own is None or ".." in own.split("/") or ".." in mount.root.split("/"):
        return None
    root = mount.root.rstrip("/")
    if not is_below(own, root):
        return None
    return posixpath.join(mount.path, own[len(root) :].strip("/")).rstrip("/")


def is_below(path: str, root: str) -> bool:
    """Tell whether a path is `root` or below it."""
    return path == root or path.startswith(f"{root}/")


def groups_above(host: Host, controller: str) -> Iterator[tuple[str, int]]:
    """Give our own group and those above it, as far as they are visible, with the version.

    Of v1, in the hierarchies of other controllers too: what is read is not there.
    """
    for mount in host.cgroup_mounts:
        own = own_directory(
            mount, host.cgroup_paths.get("" if mount.version == 2 else controller)
        )
        while own is not None:
            yield own, mount.version
            own = os.path.dirname(own) if own.startswith(f"{mount.path}/") else None


def obstacle(mount: CgroupMount, path: str | None) -> WhyNot | None:
    """Tell what keeps this process from making groups in `path` and moving others there."""
    if path is None:
        return WhyNot(
            f"our own cgroup is not visible at {mount.path}",
            "mount the cgroup file system inside this container, with its cgroup namespace",
        )
    if mount.readonly:
        return WhyNot(
            f"{mount.path} is mounted read-only",
            "give the container a writable cgroup file system of its own cgroup namespace",
        )
    if not os.path.isdir(path):
        return WhyNot(f"our own cgroup {path} does not exist", "start from a cgroup that does")
    for needed in (path, f"{path}/cgroup.procs"):
        if not os.access(needed, os.W_OK, effective_ids=True):
            missing = f"{needed} is not writable for uid {os.geteuid()}"
            return WhyNot(missing, _delegation(mount, path))
    return None


def _delegation(mount: CgroupMount, path: str) -> str:
    """Say how this process could have a group of its own, by where it is now.

    A process can be moved only by who may write to both groups and to what is above both, so a
    login session cannot enter its user's systemd instance by itself: systemd-run asks for it.
    """
    if mount.version == 1:
        uid, own = os.geteuid(), f"{path}/run-sandboxed"
        return (
            f"run as root, or as root: mkdir {own}, chown {uid} {own} {own}/tasks "
            f"{own}/cgroup.procs, and write the pid of your shell to {own}/tasks; "
            "v1 needs that for cpuacct, pids and memory"
        )
    units = [name for name in path.split("/") if name.endswith(".service")]
    if units and not units[-1].startswith("user@"):
        return (
            f"run as root, or systemctl edit {units[-1]}: under [Service] Delegate=yes and "
            "DelegateSubgroup=main"
        )
    return (
        "run as root, or in a cgroup delegated to you: "
        "systemd-run --user --scope -p Delegate=yes COMMAND"
    )
