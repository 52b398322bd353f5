"""What one run may use: `Limits` for people, `Rlimit` as setrlimit(2) has them."""

from __future__ import annotations

import math
import resource
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from runner.config.checks import check_count, check_time, refuse
from runner.quick import dataclass, replace
from runner.units import MAX_BYTES

if TYPE_CHECKING:
    from runner.config.devices import DeviceAccess, IoLimit

RLIM_INFINITY: Final = resource.RLIM_INFINITY

# The kernel refuses a quota below a millisecond in each period, which is 100 ms.
MIN_QUOTA: Final = 0.01
MAX_CPUS: Final = 8192  # the most that a kernel can be built for (NR_CPUS)
MAX_WEIGHT: Final = 10_000
MAX_INODES: Final = 2**31 - 2


@dataclass(frozen=True)
class Rlimit:
    """One setrlimit(2); `resource` is a `resource.RLIMIT_*` number."""

    resource: int
    soft: int
    hard: int

    def __post_init__(self) -> None:
        if self.resource not in RLIMITS.values():
            refuse("Rlimit.resource", self.resource, "give one of resource.RLIMIT_*")
        for name in ("soft", "hard"):
            value = getattr(self, name)
            if value != RLIM_INFINITY and not 0 <= value < 2**63:
                refuse(f"Rlimit.{name}", value, "a limit is 0 to 2**63-1, or RLIM_INFINITY")
        if self.hard != RLIM_INFINITY and (self.soft == RLIM_INFINITY or self.soft > self.hard):
            refuse("Rlimit.soft", self.soft, f"it is above the hard limit {self.hard}")

    @property
    def name(self) -> str:
        """The limit's name, such as NOFILE."""
        return next(name for name, n in RLIMITS.items() if n == self.resource)

    @classmethod
    def named(cls, name: str, soft: int, hard: int | None = None) -> Rlimit:
        """Make a limit by its name: `Rlimit.named("NOFILE", 64)`."""
        number = RLIMITS.get(name.upper().removeprefix("RLIMIT_"))
        if number is None:
            refuse("Rlimit", name, "known are " + ", ".join(RLIMITS))
        return cls(number, soft, soft if hard is None else hard)


# All 16 of getrlimit(2); the numbers are those of every architecture that we build for.
RLIMITS: Final[Mapping[str, int]] = {
    name: number
    for number, name in enumerate(
        (
            *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK"),
            *("AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
        )
    )
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one run may use. Times are seconds, sizes bytes; None is unlimited.

    cpu_time     CPU time of the whole process tree, all threads
    wall_time    from exec to exit
    idle_time    wall time in which the tree used no CPU
    extra_time   how long past cpu_time it goes on, to see how long it would have taken
    memory       what the tree really uses, at its peak
    stack, address_space, file_size, open_files   per process, by setrlimit(2)
    output       stdout and stderr together, as far as we carry them; and the size of each file
    processes    processes and threads at a time
    disk         bytes in each place that is new for each run: /tmp, /dev/shm, other tmpfs
    inodes       files, directories and links in each of these

    These need a cgroup with the controller: there is no run where one cannot be set.

    swap         what of its memory may be swapped out. 0, the default, turns swap off where the
                 kernel can, which `enforced` tells; more asks that it can; None leaves it alone
    cpu_quota    how many CPUs' time it gets, 0.5 say, however many threads it has
    cpu_weight   its share where CPUs are contended: 1 to 10000, others have 100
    cpus         the CPUs that it runs on, by number; unlike an affinity it cannot be widened
    io           how much of which disk it may read and write in a second
    devices      the devices that it may use, and no other
    pressure     no limit: tell how long it waited for CPU, memory and disks (cgroup v2)
    """

    cpu_time: float | None = None
    wall_time: float | None = None
    idle_time: float | None = None
    extra_time: float = 0.0
    memory: int | None = None
    stack: int | None = None
    address_space: int | None = None
    output: int | None = None
    file_size: int | None = None
    processes: int | None = None
    open_files: int | None = None
    rlimits: tuple[Rlimit, ...] = ()
    disk: int | None = None
    inodes: int | None = None
    swap: int | None = 0
    cpu_quota: float | None = None
    cpu_weight: int | None = None
    cpus: Collection[int] | None = None
    io: tuple[IoLimit, ...] = ()
    devices: tuple[DeviceAccess, ...] | None = None
    pressure: bool = False

    def __post_init__(self) -> None:
        for name in ("cpu_time", "wall_time", "idle_time", "extra_time"):
            check_time(f"Limits.{name}", getattr(self, name), zero=name == "extra_time")
        for name in ("memory", "stack", "address_space", "output", "file_size", "disk"):
            check_count(f"Limits.{name}", getattr(self, name), MAX_BYTES)
        for name in ("processes", "open_files"):
            check_count(f"Limits.{name}", getattr(self, name), 2**22)
        check_count("Limits.inodes", self.inodes, MAX_INODES)
        self._check_groups()
        for name in ("rlimits", "io", "devices"):
            if getattr(self, name) is not None:  # a list has no hash
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.extra_time and self.cpu_time is None:
            refuse("Limits.extra_time", self.extra_time, "it needs a cpu_time to go beyond")
        if None not in (self.cpu_time, self.wall_time) and self.wall_time < self.cpu_time:  # type: ignore[operator]
            refuse(
                "Limits.wall_time",
                self.wall_time,
                f"it is below cpu_time={self.cpu_time}, which could then never be reached",
            )

    def _check_groups(self) -> None:
        """Check what only a cgroup can do."""
        swap = self.swap
        if swap is not None and (type(swap) is not int or not 0 <= swap <= MAX_BYTES):
            refuse("Limits.swap", swap, f"give 0 to {MAX_BYTES}, or None to leave it alone")
        check_count("Limits.cpu_weight", self.cpu_weight, MAX_WEIGHT)
        quota = self.cpu_quota
        if quota is not None and (
            isinstance(quota, bool)
            or not isinstance(quota, int | float)
            or not math.isfinite(quota)
            or not MIN_QUOTA <= quota <= MAX_CPUS
        ):
            why = f"give how many CPUs' time, {MIN_QUOTA} to {MAX_CPUS}, or None for no limit"
            refuse("Limits.cpu_quota", quota, why)
        if self.cpus is not None:
            object.__setattr__(self, "cpus", _cpu_set(self.cpus))

    def replace(self, **changes: object) -> Limits:
        """Give a copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def _cpu_set(cpus: Collection[int]) -> frozenset[int]:
    numbers = [cpu for cpu in cpus if type(cpu) is int and 0 <= cpu < MAX_CPUS]
    if not numbers or len(numbers) != len(cpus):
        refuse(
            "Limits.cpus", cpus, f"give the numbers of one or more CPUs, 0 to {MAX_CPUS - 1}"
        )
    return frozenset(numbers)
