"""What a run may ask for beyond the usual: one knob for each such resource of a group.

A knob is made when a run first asks for it, and then goes with its group: it is set to what the
run wants, or put back where a later run in the same group wants nothing of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

from runner.cgroup.place import Resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.cgroup.files import Directory
    from runner.config import Limits


class Knob(Protocol):
    """A limit of one group that is not part of every run."""

    def prepare(self, limits: Limits) -> None:
        """Set what the run asks for, and take baselines; raises HostError, OSError."""

    def measure(self) -> dict[str, int | None]:
        """Give figures since `prepare`, by their names in GroupUsage."""

    def close(self) -> None:
        """Let go of what does not end with the group's files."""


# Where each is defined: imported when a run asks for one, which few do.
MAKERS: Final[dict[tuple[Resource, int], str]] = {
    (Resource.CPU_SHARE, 1): "share.ShareV1",
    (Resource.CPU_SHARE, 2): "share.ShareV2",
    (Resource.CPUS, 1): "cpus.CpusV1",
    (Resource.CPUS, 2): "cpus.CpusV2",
    (Resource.IO, 1): "blockio.IoV1",
    (Resource.IO, 2): "blockio.IoV2",
    (Resource.DEVICES, 1): "devices.DevicesV1",
    (Resource.DEVICES, 2): "devices.DevicesV2",
    (Resource.PRESSURE, 2): "pressure.PressureMeter",
}


def make(resource: Resource, version: int, group: Directory) -> Knob:
    """Make the knob of a resource that `MAKERS` has, for a group."""
    module, _, name = MAKERS[resource, version].partition(".")
    maker: Callable[[Directory], Knob] = getattr(import_module(f"runner.cgroup.{module}"), name)
    return maker(group)


def asked(limits: Limits) -> frozenset[Resource]:
    """Tell which knobs a run needs."""
    wanted = {
        Resource.CPU_SHARE: limits.cpu_quota is not None or limits.cpu_weight is not None,
        Resource.CPUS: limits.cpus is not None,
        Resource.IO: bool(limits.io),
        Resource.DEVICES: limits.devices is not None,
        Resource.PRESSURE: limits.pressure,
    }
    return frozenset(resource for resource, is_wanted in wanted.items() if is_wanted)
