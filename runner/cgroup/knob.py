"""What a run may ask for beyond the usual: one knob for each such resource of a group.

A knob is made when a run first asks for it, and then goes with its group: it is set to what the
run wants, or put back where a later run in the same group wants nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from runner.cgroup.blockio import IoV1, IoV2
from runner.cgroup.cpus import CpusV1, CpusV2
from runner.cgroup.devices import DevicesV1, DevicesV2
from runner.cgroup.place import Resource
from runner.cgroup.pressure import PressureMeter
from runner.cgroup.share import ShareV1, ShareV2

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


MAKERS: Final[dict[tuple[Resource, int], Callable[[Directory], Knob]]] = {
    (Resource.CPU_SHARE, 1): ShareV1,
    (Resource.CPU_SHARE, 2): ShareV2,
    (Resource.CPUS, 1): CpusV1,
    (Resource.CPUS, 2): CpusV2,
    (Resource.IO, 1): IoV1,
    (Resource.IO, 2): IoV2,
    (Resource.DEVICES, 1): DevicesV1,
    (Resource.DEVICES, 2): DevicesV2,
    (Resource.PRESSURE, 2): PressureMeter,
}


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
