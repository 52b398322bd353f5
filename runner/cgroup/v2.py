"""Where the v2 group goes: below the nearest ancestor that may have groups with controllers.

A cgroup with processes of its own cannot pass controllers on ("no internal processes"), and
ours has at least us in it. So we go up, as far as the mount shows and permissions allow, to the
first that does; the real root, exempt from the rule, is the last.
"""

from __future__ import annotations

import errno
import os
import posixpath
from typing import TYPE_CHECKING, Final

from runner.cgroup.place import (
    NOT_MOUNTED,
    Place,
    Resource,
    WhyNot,
    is_below,
    obstacle,
    own_directory,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from runner.host import CgroupMount, Host

_CONTROLLERS: Final = {
    Resource.PROCESSES: "pids",
    Resource.MEMORY: "memory",
    Resource.CPU_SHARE: "cpu",
    Resource.CPUS: "cpuset",
    Resource.IO: "io",
}
# What every group does, whatever its controllers are.
_FREE: Final = frozenset({Resource.CPU, Resource.DEVICES, Resource.PRESSURE})


def find(host: Host, wanted: Collection[Resource]) -> tuple[Place | None, WhyNot]:
    """Give the nearest place that serves all of `wanted`, or the one that serves the most.

    Every group serves CPU time. The second value is the first thing that stood in the way.
    Enables controllers in the cgroup.subtree_control of the cgroups it tries.
    """
    best: Place | None = None
    reasons = []
    for mount, path in _candidates(host):
        reason = obstacle(mount, path)
        if path is not None and reason is None:
            enabled, reason = _enable(
                path, [_CONTROLLERS[r] for r in wanted if r in _CONTROLLERS]
            )
            served = {r for r, controller in _CONTROLLERS.items() if controller in enabled}
            resources = _FREE.union(served).intersection(wanted) | {Resource.CPU}
            place = Place(path, 2, resources)
            if best is None or len(place.resources) > len(best.resources):
                best = place
        if reason is None:
            break
        reasons.append(reason)
    return best, reasons[0] if reasons else NOT_MOUNTED


def extend(host: Host, path: str, resource: Resource) -> WhyNot | None:
    """Make the groups below `path` serve one more resource; give what stood in the way.

    Enables the controller in every cgroup from the mount's root down to `path`.
    """
    controller = _CONTROLLERS.get(resource)
    if controller is None:
        return None
    mounts = [mount.path for mount in host.cgroup_mounts if mount.version == 2]
    root = max((root for root in mounts if is_below(path, root)), key=len, default=path)
    steps = path[len(root) :].strip("/").split("/")
    for count in range(len(steps) + 1):
        directory = posixpath.join(root, *steps[:count]).rstrip("/")
        _, reason = _enable(directory, [controller])
        if reason is not None:
            return reason
    return None


def _candidates(host: Host) -> Iterator[tuple[CgroupMount, str | None]]:
    """Give our own cgroup and its ancestors up to the mount's root, nearest first."""
    for mount in host.cgroup_mounts:
        if mount.version != 2:
            continue
        path = own_directory(mount, host.cgroup_paths.get(""))
        yield mount, path
        while path is not None and path != mount.path:
            path = posixpath.dirname(path)
            yield mount, path


def _enable(path: str, controllers: Collection[str]) -> tuple[set[str], WhyNot | None]:
    """Pass controllers on to child groups; give those that are, and what kept the others."""
    missing = set(controllers) - _words(f"{path}/cgroup.subtree_control")
    lacking = missing - _words(f"{path}/cgroup.controllers")
    reason = None
    if lacking:
        reason = WhyNot(
            f"{path} does not have the controllers {_join(lacking)}",
            "enable them in the cgroup.subtree_control of each cgroup above it",
        )
    if missing - lacking:
        request = " ".join(f"+{controller}" for controller in sorted(missing - lacking))
        try:
            with open(f"{path}/cgroup.subtree_control", "w", encoding="ascii") as file:
                file.write(request)
        except OSError as error:
            reason = _refused(path, missing - lacking, error)
    return _words(f"{path}/cgroup.subtree_control"), reason


def _refused(path: str, controllers: set[str], error: OSError) -> WhyNot:
    if error.errno == errno.EBUSY:
        return WhyNot(
            f"{path} has processes of its own, so it cannot pass on {_join(controllers)}",
            f"start this program in a cgroup below it: mkdir {path}/main and write its pid to "
            f"{path}/main/cgroup.procs; with systemd: Delegate=yes, DelegateSubgroup=main; "
            "in a container that is yours, let it call runner.cgroup.nest first",
        )
    return WhyNot(
        f"{path} cannot pass on {_join(controllers)}: {os.strerror(error.errno or 0)}",
        "run as root, or in a cgroup delegated to you with these controllers",
    )


def _words(path: str) -> set[str]:
    with open(path, encoding="ascii") as file:
        return set(file.read().split())


def _join(names: set[str]) -> str:
    return ", ".join(sorted(names))
