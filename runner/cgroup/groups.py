"""One sandbox's groups, one in each hierarchy in use, and what they tell after each run.

A group is made once and used for run after run; it is replaced where the kernel has no way to
start a figure anew, or where a run left too much charged. Between runs it is empty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from typing import TYPE_CHECKING, Final, final

from runner.cgroup.cpu import CpuacctMeter, CpuStatMeter
from runner.cgroup.files import Directory
from runner.cgroup.memory import MemoryV1, MemoryV2
from runner.cgroup.owner import new_name
from runner.cgroup.pids import PidsMeter
from runner.cgroup.place import Resource
from runner.cgroup.removal import remove
from runner.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.cgroup.cpu import CpuFormat, CpuMeter
    from runner.cgroup.memory import MemoryMeter
    from runner.cgroup.place import Place
    from runner.config import Limits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GroupUsage:
    """What a run used, all its processes together; None where the kernel does not tell.

    memory_limit_hits counts how often usage came up against the limit, and the kernel reclaimed
    or killed. OOM kills without a hit are those of a limit above ours, or of the whole host.
    """

    cpu_ns: int | None = None
    user_ns: int | None = None
    system_ns: int | None = None
    memory_bytes: int | None = None
    oom_kills: int | None = None
    memory_limit_hits: int | None = None
    processes_peak: int | None = None
    process_limit_hits: int | None = None


@final
class Groups:
    """The groups of one sandbox; a context manager that removes them.

    `prepare` may replace a group: take `placement`, `cpu`, `pids_current` and `kill` after it.
    All fds stay ours, and are good until the next `prepare` or `close`.
    """

    def __init__(self, places: Sequence[Place], *, residue: int) -> None:
        self.enforces: Final[Mapping[str, str]] = {
            resource.value: "cgroup" for place in places for resource in place.resources
        }
        self._residue = residue
        self._members: list[_Member] = []
        with contextlib.ExitStack() as undo, _explained("make a cgroup"):
            undo.callback(self.close)
            for place in places:
                self._members.append(_Member(place, residue=residue))
            undo.pop_all()

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def placement(self) -> tuple[int, ...]:
        """The fds to which a process writes `0` to join, one after the other."""
        return tuple(member.join for member in self._members)

    @property
    def cpu(self) -> tuple[int, CpuFormat] | None:
        """A file to pread for CPU time during the run; it counts on from `cpu_start_ns`."""
        return next(((m.cpu.fd, m.cpu.format) for m in self._members if m.cpu), None)

    @property
    def cpu_start_ns(self) -> int:
        """What the CPU file stood at in `prepare`."""
        return next((m.cpu.start_ns for m in self._members if m.cpu), 0)

    @property
    def pids_current(self) -> int | None:
        r"""A file to pread: it holds `0\n` when no process is left, not even a zombie."""
        return next((m.pids.current for m in self._members if m.pids), None)

    @property
    def clone_into(self) -> int | None:
        """The v2 group's directory, for clone3(2) with CLONE_INTO_CGROUP (Linux 5.7).

        A process started there need not write to v2's fd of `placement`, the first; on kernels
        before 6.18 that write can wait milliseconds for an RCU grace period.
        """
        return next((m.directory.fd for m in self._members if m.place.version == 2), None)

    @property
    def kill(self) -> int | None:
        """A file to write `1` to, which kills the whole group; only v2 has it (Linux 5.14)."""
        return next((m.kill for m in self._members if m.kill is not None), None)

    def prepare(self, limits: Limits) -> None:
        """Set the limits of the next run and start all figures anew.

        Raises HostError if the kernel refuses; no run may be started then.
        """
        with _explained("prepare a cgroup"):
            for index, member in enumerate(self._members):
                if member.is_stale():
                    self._members[index] = _Member(member.place, residue=self._residue)
                    member.close()
            for member in self._members:
                member.prepare(limits)

    def usage(self) -> GroupUsage:
        """Give the figures since `prepare`; all processes must have ended."""
        figures: dict[str, int | None] = {}
        with _explained("read a cgroup"):
            for member in self._members:
                figures |= member.measure()
        return GroupUsage(**figures)

    def close(self) -> None:
        """Kill what is left and remove the groups; idempotent.

        Raises HostError for a group that cannot be removed, when the others have been.
        """
        members, self._members = self._members, []
        with _explained("remove a cgroup"), contextlib.ExitStack() as stack:
            for member in members:
                stack.callback(member.close)


class _Member:
    """A group in one hierarchy, with the meters of the resources that it serves."""

    def __init__(self, place: Place, *, residue: int) -> None:
        self.place: Final = place
        self._name: Final = new_name()
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
        # v1's `tasks` moves a thread without the lock that `cgroup.procs` takes against forks
        # everywhere; v2's cgroup.threads does too, but refuses to move into another domain.
        self.join = directory.open("tasks" if is_v1 else "cgroup.procs", os.O_WRONLY)
        self.kill = directory.open_if_present("cgroup.kill", os.O_WRONLY)
        self.cpu: CpuMeter | None = None
        self.pids: PidsMeter | None = None
        self._memory: MemoryMeter | None = None
        if Resource.CPU in place.resources:
            self.cpu = CpuacctMeter(directory) if is_v1 else CpuStatMeter(directory)
        if Resource.PROCESSES in place.resources:
            self.pids = PidsMeter(directory)
        if Resource.MEMORY in place.resources:
            memory = MemoryV1 if is_v1 else MemoryV2
            self._memory = memory(directory, residue=residue)

    def is_stale(self) -> bool:
        return (self.pids is not None and self.pids.is_stale()) or (
            self._memory is not None and self._memory.is_stale()
        )

    def prepare(self, limits: Limits) -> None:
        if self.pids is not None:
            self.pids.prepare(limits)
        if self._memory is not None:
            self._memory.prepare(limits)
        if self.cpu is not None:
            self.cpu.prepare()

    def measure(self) -> dict[str, int | None]:
        figures: dict[str, int | None] = {}
        if self.cpu is not None:
            cpu = self.cpu.measure()
            figures |= {
                "cpu_ns": cpu.cpu_ns,
                "user_ns": cpu.user_ns,
                "system_ns": cpu.system_ns,
            }
        if self.pids is not None:
            pids = self.pids.measure()
            figures |= {"processes_peak": pids.peak, "process_limit_hits": pids.limit_hits}
        if self._memory is not None:
            memory = self._memory.measure()
            figures |= {
                "memory_bytes": memory.peak_bytes,
                "oom_kills": memory.oom_kills,
                "memory_limit_hits": memory.limit_hits,
            }
        return figures

    def close(self) -> None:
        try:
            remove(self._parent.fd, self._name)
        finally:
            self.directory.close()
            self._parent.close()


_REMEDIES: Final = {
    errno.EBUSY: "the limit is below what the kernel still charges to the group: raise it",
    errno.ENODEV: "something removed our group: keep others off the run-sandboxed groups",
    errno.EAGAIN: "cgroup.max.descendants or cgroup.max.depth above us is reached: raise it",
    errno.ENOSPC: "the host has as many cgroups as it can: remove those not in use",
}


@contextlib.contextmanager
def _explained(attempt: str) -> Iterator[None]:
    """Turn an OSError of the kernel into a HostError that names the attempt and the remedy."""
    try:
        yield
    except OSError as error:
        what = f" {error.filename}" if error.filename else ""
        message = f"cannot {attempt}{what}: {error.strerror}"
        raise HostError(message, _REMEDIES.get(error.errno or 0)) from error
