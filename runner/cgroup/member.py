"""A group in one hierarchy, with the meters and knobs of the resources that it serves."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from runner.cgroup import cpus
from runner.cgroup.cpu import CpuacctMeter, CpuStatMeter
from runner.cgroup.files import Directory
from runner.cgroup.knob import make
from runner.cgroup.memory import MemoryV1, MemoryV2
from runner.cgroup.owner import new_name
from runner.cgroup.pids import PidsMeter
from runner.cgroup.place import ALWAYS, Resource
from runner.cgroup.removal import remove

if TYPE_CHECKING:
    from runner.cgroup.cpu import CpuMeter
    from runner.cgroup.knob import Knob
    from runner.cgroup.memory import MemoryMeter
    from runner.cgroup.place import Place
    from runner.config import Limits


class Member:
    """A group of ours; removed by `close`.

    extra   made for a run that asked for it, and joined only by such
    """

    def __init__(self, place: Place, *, residue: int, extra: bool = False) -> None:
        self.place: Final = place
        self.extra: Final = extra
        self._residue: Final = residue
        self._name: Final = new_name()
        self._knobs: dict[Resource, Knob] = {}
        self._parent: Final = Directory(place.path)
        with contextlib.ExitStack() as undo:
            undo.callback(self._parent.close)
            os.mkdir(self._name, dir_fd=self._parent.fd)
            undo.callback(remove, self._parent.fd, self._name)
            self.directory: Final = Directory(self._name, dir_fd=self._parent.fd)
            undo.callback(self.directory.close)
            self._open(place, residue)
            undo.pop_all()

    def _open(self, place: Place, residue: int) -> None:
        directory = self.directory
        is_v1 = place.version == 1
        if is_v1:
            cpus.inherit(directory)
        # v1's `tasks` moves a thread without the lock that `cgroup.procs` takes against forks
        # everywhere; v2's cgroup.threads does too, but refuses to move into another domain.
        self.join = directory.open("tasks" if is_v1 else "cgroup.procs", os.O_WRONLY)
        self.kill = directory.open_if_present("cgroup.kill", os.O_WRONLY)
        self.cpu: CpuMeter | None = None
        self.pids: PidsMeter | None = None
        self.memory: MemoryMeter | None = None
        if Resource.CPU in place.resources:
            self.cpu = CpuacctMeter(directory) if is_v1 else CpuStatMeter(directory)
        if Resource.PROCESSES in place.resources:
            self.pids = PidsMeter(directory)
        if Resource.MEMORY in place.resources:
            memory = MemoryV1 if is_v1 else MemoryV2
            self.memory = memory(directory, residue=residue)
        for resource in place.resources - ALWAYS:
            self.serve(resource)

    @property
    def served(self) -> set[Resource]:
        """What it has knobs for."""
        return set(self._knobs)

    def serve(self, resource: Resource) -> None:
        """Have a knob for one more resource; raises HostError, OSError."""
        if resource not in self._knobs:
            self._knobs[resource] = make(resource, self.place.version, self.directory)

    def is_stale(self) -> bool:
        """Tell whether the next run needs a new group to be measured well."""
        return (self.pids is not None and self.pids.is_stale()) or (
            self.memory is not None and self.memory.is_stale()
        )

    def renewed(self) -> Member:
        """Make a new group to take the place of this one, which is the caller's to close."""
        new = Member(self.place, residue=self._residue, extra=self.extra)
        try:
            for resource in self._knobs:
                new.serve(resource)
        except BaseException:
            new.close()
            raise
        return new

    def prepare(self, limits: Limits) -> None:
        """Set the limits, and start anew what knobs measure; raises HostError, OSError."""
        if self.pids is not None:
            self.pids.prepare(limits)
        if self.memory is not None:
            self.memory.prepare(limits)
        for knob in self._knobs.values():
            knob.prepare(limits)

    def measure_knobs(self) -> dict[str, int | None]:
        """Give what the knobs measured since `prepare`, by the names in GroupUsage."""
        figures: dict[str, int | None] = {}
        for knob in self._knobs.values():
            figures |= knob.measure()
        return figures

    def close(self) -> None:
        """Kill what is left and remove the group; raises HostError, OSError."""
        try:
            remove(self._parent.fd, self._name)
        finally:
            # A BPF program ends with the group that holds it, so the knobs are last.
            for knob in self._knobs.values():
                knob.close()
            self.directory.close()
            self._parent.close()
