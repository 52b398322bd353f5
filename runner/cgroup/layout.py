"""Choose the hierarchies to use: unified v2, v1, or some of each.

A controller is in one hierarchy only, so memory and processes leave no choice. CPU time does:
it comes from the v2 group if we need one anyway, else from v1's cpuacct, which costs less to
join and counts in nanoseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.cgroup import v1, v2
from runner.cgroup.place import NOT_MOUNTED, Place, Resource, WhyNot
from runner.errors import HostError
from runner.quick import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.host import Host

_NEEDS: Final = {
    Resource.CPU_SHARE: "cpu_quota and cpu_weight need the cgroup controller cpu",
    Resource.CPUS: "cpus needs the cgroup controller cpuset",
    Resource.IO: "io needs the cgroup controller io, which in v1 is blkio",
    Resource.DEVICES: "devices needs cgroup v2, or the controller devices of v1",
    Resource.PRESSURE: "pressure needs cgroup v2",
}


@dataclass(frozen=True)
class Layout:
    """The places chosen, in the order of joining, and why none serves the other resources."""

    places: tuple[Place, ...]
    why_not: Mapping[Resource, WhyNot]


def choose(host: Host) -> Layout:
    """Find the places on this host; makes no groups, but may enable v2 controllers."""
    paths, why_not = v1.find(host)
    if not why_not:
        return Layout(v1.places(paths), why_not)
    unified, reason = v2.find(host, why_not.keys())
    # Where v1 has the controller, v2 cannot have it, so v1's reason is the one to tell.
    why_not = {
        resource: reason if v1_reason is NOT_MOUNTED else v1_reason
        for resource, v1_reason in why_not.items()
    }
    if unified is None or (unified.resources == {Resource.CPU} and Resource.CPU in paths):
        return Layout(v1.places(paths), why_not)
    paths.pop(Resource.CPU, None)
    for resource in unified.resources:
        why_not.pop(resource, None)
    return Layout((unified, *v1.places(paths)), why_not)


def place_for(host: Host, used: Sequence[Place], resource: Resource) -> Place:
    """Find a place for what a run asks for beyond the usual: in use already, or one more.

    A process is in one v2 group only, so where there is one it has to serve this too.
    Raises HostError, which names what is missing and the remedy.
    """
    paths, why_not = v1.find(host, {resource})
    if resource in paths:
        return Place(paths[resource], 1, frozenset({resource}))
    unified = next((place for place in used if place.version == 2), None)
    reason: WhyNot | None
    if unified is not None:
        reason = v2.extend(host, unified.path, resource)
    else:
        unified, reason = v2.find(host, {resource})
        if unified is not None and resource in unified.resources:
            reason = None
    if unified is not None and reason is None:
        return Place(unified.path, 2, frozenset({resource}))
    if why_not[resource] is not NOT_MOUNTED or reason is None:
        reason = why_not[resource]
    message = f"{_NEEDS[resource]}: {reason.missing}"
    raise HostError(message, reason.remedy)
