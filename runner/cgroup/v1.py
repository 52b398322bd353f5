"""Where v1 groups go: below our own cgroup, in the hierarchy of each controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.cgroup.place import (
    ALWAYS,
    NOT_MOUNTED,
    Place,
    Resource,
    WhyNot,
    obstacle,
    own_directory,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runner.host import Host

_CONTROLLERS: Final = {
    Resource.CPU: "cpuacct",
    Resource.PROCESSES: "pids",
    Resource.MEMORY: "memory",
    Resource.CPU_SHARE: "cpu",
    Resource.CPUS: "cpuset",
    Resource.IO: "blkio",
    Resource.DEVICES: "devices",
}


def find(
    host: Host, wanted: Collection[Resource] = ALWAYS
) -> tuple[dict[Resource, str], dict[Resource, WhyNot]]:
    """Give the directory for each resource that v1 can serve, and why not for the others."""
    paths = {}
    why_not = dict.fromkeys(wanted, NOT_MOUNTED)
    for resource, controller in _CONTROLLERS.items():
        if resource not in wanted:
            continue
        for mount in host.cgroup_mounts:
            if controller not in mount.controllers:
                continue
            path = own_directory(mount, host.cgroup_paths.get(controller))
            reason = obstacle(mount, path)
            if path is not None and reason is None:
                paths[resource] = path
                del why_not[resource]
                break
            why_not[resource] = reason or NOT_MOUNTED
    return paths, why_not


def places(paths: Mapping[Resource, str]) -> tuple[Place, ...]:
    """Make one place of each directory: controllers may be mounted together."""
    return tuple(
        Place(path, 1, frozenset(resource for resource in paths if paths[resource] == path))
        for path in dict.fromkeys(paths.values())
    )
