"""What one run may use: `Limits` for people, `Rlimit` as setrlimit(2) has them."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Mapping
from typing import Final

from runner.config.checks import check_count, check_time, refuse
from runner.units import MAX_BYTES

RLIM_INFINITY: Final = resource.RLIM_INFINITY


@dataclasses.dataclass(frozen=True, slots=True)
class Rlimit:
    """One setrlimit(2); `resource` is a `resource.RLIMIT_*` number."""

    resource: int
    soft: int
    hard: int

    def __post_init__(self) -> None:
        for name in ("soft", "hard"):
            value = getattr(self, name)
            if value != RLIM_INFINITY and not 0 <= value < 2**63:
                refuse(f"Rlimit.{name}", value, "a limit is 0 to 2**63-1, or RLIM_INFINITY")
        if self.hard != RLIM_INFINITY and (self.soft == RLIM_INFINITY or self.soft > self.hard):
            refuse("Rlimit.soft", self.soft, f"it is above the hard limit {self.hard}")

    @property
    def name(self) -> str:
        """The limit's name, such as NOFILE."""
        return next((name for name, n in RLIMITS.items() if n == self.resource), "unknown")

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
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

    def __post_init__(self) -> None:
        for name in ("cpu_time", "wall_time", "idle_time", "extra_time"):
            check_time(f"Limits.{name}", getattr(self, name), zero=name == "extra_time")
        for name in ("memory", "stack", "address_space", "output", "file_size"):
            check_count(f"Limits.{name}", getattr(self, name), MAX_BYTES)
        for name in ("processes", "open_files"):
            check_count(f"Limits.{name}", getattr(self, name), 2**22)
        object.__setattr__(self, "rlimits", tuple(self.rlimits))  # a list has no hash
        if self.extra_time and self.cpu_time is None:
            refuse("Limits.extra_time", self.extra_time, "it needs a cpu_time to go beyond")
        if None not in (self.cpu_time, self.wall_time) and self.wall_time < self.cpu_time:  # type: ignore[operator]
            refuse(
                "Limits.wall_time",
                self.wall_time,
                f"it is below cpu_time={self.cpu_time}, which could then never be reached",
            )

    def replace(self, **changes: object) -> Limits:
        """Give a copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
