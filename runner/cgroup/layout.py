"""Choose the hierarchies to use: unified v2, v1, or some of each.

A controller is in one hierarchy only, so memory and processes leave no choice. CPU time does:
it comes from the v2 group if we need one anyway, else from v1's cpuacct, which costs less to
join and counts in nanoseconds.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from runner.cgroup import v1, v2
from runner.cgroup.place import NOT_MOUNTED, Place, Resource, WhyNot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.host import Host


@dataclasses.dataclass(frozen=True, slots=True)
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
