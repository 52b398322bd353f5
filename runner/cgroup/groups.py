"""One sandbox's groups, one in each hierarchy in use, and what they tell after each run.

A group is made once and used for run after run; it is replaced where the kernel has no way to
start a figure anew, or where a run left too much charged. Between runs it is empty.
"""

from __future__ import annotations

import contextlib
import errno
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, final

from runner import scarcity
from runner.cgroup.cpu import CpuTimes
from runner.cgroup.files import read, write
from runner.cgroup.knob import asked
from runner.cgroup.layout import place_for
from runner.cgroup.member import Member
from runner.cgroup.memory import MemoryFigures
from runner.cgroup.pids import ProcessCounts
from runner.cgroup.place import Resource
from runner.cgroup.removal import remove_leftovers
from runner.errors import HostError
from runner.quick import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.cgroup.cpu import CpuFormat
    from runner.cgroup.place import Place
    from runner.config import Limits
    from runner.host import Host


class GroupUsage(NamedTuple):
    """What a run used, all its processes together; None where the kernel does not tell.

    memory_limit_hits counts how often usage came up against the limit, and the kernel reclaimed
    or killed. OOM kills without a hit are those of a limit above ours, or of the whole host.
    swap_bytes is the peak, throttled_… what cpu_quota cost, …_pressure_… what Limits.pressure
    asked for. `enforced` is what this run's limits change in what Groups.enforces says.
    """

    cpu_ns: int | None = None
    user_ns: int | None = None
    system_ns: int | None = None
    memory_bytes: int | None = None
    oom_kills: int | None = None
    memory_limit_hits: int | None = None
    swap_bytes: int | None = None
    processes_peak: int | None = None
    process_limit_hits: int | None = None
    throttled_periods: int | None = None
    throttled_ns: int | None = None
    cpu_pressure_some_ns: int | None = None
    cpu_pressure_full_ns: int | None = None
    memory_pressure_some_ns: int | None = None
    memory_pressure_full_ns: int | None = None
    io_pressure_some_ns: int | None = None
    io_pressure_full_ns: int | None = None
    enforced: Mapping[str, str | None] = MappingProxyType({})


class Files(NamedTuple):
    """The files of the groups that a run joins; the fds stay ours.

    generation  another one whenever groups were replaced: fds alone do not tell
    join        to which a process writes `0` to enter
    reset       which are set to 0 before a run
    read_…      which hold the figures before it and after it
    """

    generation: int
    join: tuple[int, ...]
    reset: tuple[int, ...]
    read_before: tuple[int, ...]
    read_after: tuple[int, ...]


_NO_CPU: Final = CpuTimes(None, None, None)
_NO_PIDS: Final = ProcessCounts(None, None)
_NO_MEMORY: Final = MemoryFigures(None, None, None)


@final
class Groups:
    """The groups of one sandbox; a context manager that removes them.

    `prepare` may replace a group: take `files`, `cpu`, `pids_current` and `kill` after it.
    All fds stay ours, and are good until the next `prepare` or `close`.
    """

    def __init__(self, places: Sequence[Place], *, residue: int, host: Host) -> None:
        self._residue = residue
        self._host = host
        self._members: list[Member] = []
        self._joined: list[Member] = []
        self._serving: dict[Resource, Member] = {}
        self._limits: Limits | None = None
        self._changed: Mapping[str, str | None] = {}
        self._generation = 0
        self._measured = False  # and nothing has run since
        with contextlib.ExitStack() as undo, _explained("make a cgroup"):
            undo.callback(self.close)
            for place in places:
                self._members.append(Member(place, residue=residue))
            undo.pop_all()
        self._joined = list(self._members)
        self._look()
        self.enforces: Final[Mapping[str, str]] = self._enforces()

    def _enforces(self) -> dict[str, str]:
        held = {
            resource.value: "cgroup"
            for member in self._members
            for resource in member.place.resources
        }
        if any(member.memory and member.memory.limits_swap for member in self._members):
            held["swap"] = "cgroup"
        return held

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def placement(self) -> tuple[int, ...]:
        """The fds to which a process writes `0` to join, one after the other.

        How many they are depends on nothing but the limits of the last `prepare`.
        """
        return tuple(member.join for member in self._joined)

    @property
    def cpu(self) -> tuple[int, CpuFormat] | None:
        """A file to pread for CPU time during the run; it counts on from `cpu_start_ns`."""
        return next(((m.cpu.fd, m.cpu.format) for m in self._joined if m.cpu), None)

    @property
    def cpu_start_ns(self) -> int:
        """What the CPU file stood at in `prepare`."""
        return next((m.cpu.start_ns for m in self._joined if m.cpu), 0)

    @property
    def pids_current(self) -> int | None:
        r"""A file to pread: it holds `0\n` when no process is left, not even a zombie."""
        return next((m.pids.current for m in self._joined if m.pids), None)

    @property
    def unified(self) -> str | None:
        """The v2 cgroup below which the run's group is; None where it joins none."""
        return next((m.place.path for m in self._joined if m.place.version == 2), None)

    @property
    def clone_into(self) -> int | None:
        """The v2 group's directory, for clone3(2) with CLONE_INTO_CGROUP (Linux 5.7).

        A process started there need not write to v2's fd of `placement`, the first; on kernels
        before 6.18 that write can wait milliseconds for an RCU grace period.
        """
        return next((m.directory.fd for m in self._joined if m.place.version == 2), None)

    @property
    def kill(self) -> int | None:
        """A file to write `1` to, which kills the whole group; only v2 has it (Linux 5.14)."""
        return next((m.kill for m in self._joined if m.kill is not None), None)

    @property
    def files(self) -> Files:
        """What whoever runs a program has to write and to read; good until the next `prepare`.

        How many there are depends on nothing but the limits.
        """
        return self._files

    def prepare(self, limits: Limits, *, begin: bool = True) -> None:
        """Set the limits of the next run and start all figures anew.

        `begin` False: who runs the program resets and reads `files`, for `usage`.
        Raises HostError if the kernel refuses, or has no group that can hold what is asked for;
        no run may be started then.
        """
        if limits is self._limits and self._measured and not begin and not self._is_stale():
            self._measured = self._has_knobs  # test after test has the very same
            if not self._has_knobs:
                return
        with _explained("prepare a cgroup"):
            if limits is not self._limits:
                self._limits = None
                self._join_for(asked(limits))
                self._changed = self._changes(limits)
            if not self._measured:
                self._begin()  # a run that failed may have left something
            for member in list(self._joined):
                if member.is_stale():
                    self._renew(member)
                    begin = True
            for member in self._joined:
                member.prepare(limits)
            self._look()
            if begin or not self._measured:
                self._begin()
            self._measured = False
            self._limits = limits

    def _is_stale(self) -> bool:
        return any(member.is_stale() for member in self._joined)

    def _look(self) -> None:
        """Note what serves a run; there is one of each at most."""
        joined = self._joined
        self._cpu = next((m.cpu for m in joined if m.cpu), None)
        self._pids = next((m.pids for m in joined if m.pids), None)
        self._memory = next((m.memory for m in joined if m.memory), None)
        self._has_knobs = any(m.served for m in joined)
        cpu = () if self._cpu is None else (self._cpu.fd,)
        pids = () if self._pids is None else self._pids.files
        memory = () if self._memory is None else self._memory.files
        resets = () if self._memory is None else self._memory.resets
        self._of_pids = slice(len(cpu), len(cpu) + len(pids))
        self._files = Files(
            self._generation, self.placement, resets, cpu, (*cpu, *pids, *memory)
        )

    def _begin(self) -> None:
        for fd in self._files.reset:
            write(fd, b"0")
        texts = [read(fd) for fd in self._files.read_after]
        if self._cpu is not None:
            self._cpu.begin(texts[0])
        if self._pids is not None:
            self._pids.begin(texts[self._of_pids])
        if self._memory is not None:
            self._memory.begin(texts[self._of_pids.stop :])

    def _join_for(self, wanted: frozenset[Resource]) -> None:
        """Choose the groups that a run joins, and make those that none asked for before."""
        for resource in wanted - self._serving.keys():
            self._serve(resource)
        asked_for = [m for resource, m in self._serving.items() if resource in wanted]
        joined = [m for m in self._members if not m.extra or m in asked_for]
        self._joined = sorted(joined, key=lambda member: -member.place.version)

    def _serve(self, resource: Resource) -> None:
        try:
            place = place_for(self._host, [m.place for m in self._members], resource)
        except HostError:
            if resource is Resource.PRESSURE:  # a figure, which may be None
                return
            raise
        for member in self._members:
            if member.place.path == place.path:
                member.serve(resource)
                break
        else:
            remove_leftovers(place.path)
            member = Member(place, residue=self._residue, extra=True)
            self._members.append(member)
            self._generation += 1
        self._serving[resource] = member

    def _renew(self, old: Member) -> None:
        new = old.renewed()
        self._generation += 1
        for members in (self._members, self._joined):
            members[members.index(old)] = new
        for resource, member in self._serving.items():
            if member is old:
                self._serving[resource] = new
        self._look()
        old.close()

    def _changes(self, limits: Limits) -> dict[str, str | None]:
        """Tell what these limits add to `enforces`, or take from it."""
        held: dict[str, str | None] = {}
        for name in ("cpu_quota", "cpu_weight", "cpus", "devices"):
            if getattr(limits, name) is not None:
                held[name] = "cgroup"
        if limits.io:
            held["io"] = "cgroup"
        if "swap" in self.enforces and not any(
            member.memory and member.memory.holds_swap(limits) for member in self._members
        ):
            held["swap"] = None
        return held

    def usage(self, texts: Sequence[bytes] | None = None) -> GroupUsage:
        """Give the figures since `prepare`; all processes must have ended.

        `texts`: what `files.read_before` and then `files.read_after` held.
        """
        if texts is None:
            with _explained("read a cgroup"):
                texts = [read(fd) for fd in self._files.read_after]
        elif self._cpu is not None:
            self._cpu.begin(texts[0])
            texts = texts[1:]
        cpu, pids, memory = _NO_CPU, _NO_PIDS, _NO_MEMORY
        if self._cpu is not None:
            cpu = self._cpu.measure(texts[0])
        if self._pids is not None:
            pids = self._pids.measure(texts[self._of_pids])
        if self._memory is not None:
            memory = self._memory.measure(texts[self._of_pids.stop :])
        self._measured = True
        usage = GroupUsage(*cpu, *memory, pids.peak, pids.limit_hits, enforced=self._changed)
        if not self._has_knobs:
            return usage
        figures: dict[str, Any] = {}
        with _explained("read a cgroup"):
            for member in self._joined:
                figures |= member.measure_knobs()
        return usage._replace(**figures)

    @property
    def are_empty(self) -> bool:
        """Tell whether no process is left, not even a zombie; False where nobody can tell."""
        current = self.pids_current
        return current is not None and read(current) == b"0\n"

    def close(self) -> None:
        """Kill what is left and remove the groups; idempotent.

        Raises HostError for a group that cannot be removed, when the others have been.
        """
        members, self._members, self._joined = self._members, [], []
        # The last one pushed goes first: it must be able to stop forks, and so to kill all.
        members.sort(key=lambda member: member.pids is not None)
        with _explained("remove a cgroup"), contextlib.ExitStack() as stack:
            for member in members:
                stack.callback(member.close)


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
        lack = HostError(
            f"cannot {attempt}{what}: {error.strerror}", _REMEDIES.get(error.errno or 0)
        )
        raise (None if lack.hint else scarcity.of(error)) or lack from error
