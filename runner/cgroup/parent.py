"""The cgroups below which ours go, found once; and the clearing up after those that crashed."""

from __future__ import annotations

from collections.abc import Mapping

from runner.cgroup.groups import Groups
from runner.cgroup.knob import asked
from runner.cgroup.layout import choose
from runner.cgroup.memory import normal_residue
from runner.cgroup.place import Place, Resource, WhyNot
from runner.cgroup.removal import remove_leftovers
from runner.config import Limits
from runner.errors import HostError
from runner.host import Host
from runner.quick import dataclass


@dataclass(frozen=True)
class Parent:
    """Where groups go on this host. Holds no fds, and may be used by a forked process.

    why_not tells for each resource that groups will not serve what is missing, and the remedy.
    """

    places: tuple[Place, ...]
    why_not: Mapping[Resource, WhyNot]
    residue: int
    host: Host

    @classmethod
    def find(cls, host: Host) -> Parent | None:
        """Find the places and remove what crashed processes left there; None if there are none.

        On v2 this may enable the memory and pids controllers for the children of our own cgroup
        or of one above it.
        """
        layout = choose(host)
        for place in layout.places:
            remove_leftovers(place.path)
        if not layout.places:
            return None
        return cls(layout.places, layout.why_not, normal_residue(host.cpus), host)

    @classmethod
    def require(cls, host: Host) -> Parent:
        """Find the places; raises HostError, with the remedy, if there are none."""
        parent = cls.find(host)
        if parent is None:
            why_not = choose(host).why_not[Resource.MEMORY]
            message = f"no cgroup to run programs in: {why_not.missing}"
            raise HostError(message, why_not.remedy)
        return parent

    def create(self) -> Groups:
        """Make a sandbox's groups; raises HostError."""
        return Groups(self.places, residue=self.residue, host=self.host)


def refuse_without_groups(limits: Limits, host: Host) -> None:
    """Raise HostError if a run asks for what only groups can do, where there are none."""
    if asked(limits) - {Resource.PRESSURE} or limits.swap:
        why = next(iter(Parent.require(host).why_not.values()))
        message = f"no cgroup to run programs in: {why.missing}"
        raise HostError(message, why.remedy)
