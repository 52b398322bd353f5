"""What is named rather than given: users by name, namespaces that exist, clocks by offset.

Few configurations have any of these: they are imported where one does.
"""

from __future__ import annotations

from runner.config.checks import check_path, check_text, refuse
from runner.config.ids import Namespace
from runner.quick import dataclass
from runner.units import NS_PER_S


@dataclass(frozen=True)
class User:
    """A credential by name, as the passwd(5) and group(5) of the sandbox have it.

    Without a group: the user's own, and all that list it as a member. With one: that group, and
    `groups`. A name of digits alone is an id.
    """

    name: str
    group: str | None = None
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for value in (self.name, self.group, *self.groups):
            if value is not None:
                check_text("User", value)


@dataclass(frozen=True)
class Join:
    """A namespace to enter that exists: one of the process `pid`, or the one at `path`.

    `path` is a file such as /proc/PID/ns/net, or a bind mount of one (namespaces(7)).
    """

    namespace: Namespace
    pid: int | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if self.namespace not in tuple(Namespace):
            refuse("Join.namespace", self.namespace, "give one Namespace")
        if (self.pid is None) == (self.path is None):
            refuse("Join", self, "give a pid or a path")
        if self.path is not None:
            check_path("Join.path", self.path)
        if self.pid is not None and self.pid <= 0:
            refuse("Join.pid", self.pid, "a pid is above 0")


@dataclass(frozen=True)
class TimeOffsets:
    """What a time namespace adds to two clocks, in seconds; see time_namespaces(7)."""

    monotonic: float = 0.0
    boottime: float = 0.0

    def __post_init__(self) -> None:
        for name in ("monotonic", "boottime"):
            # The kernel holds the sum in 63 bits of nanoseconds, and takes half of these.
            if not abs(getattr(self, name)) * NS_PER_S < 2**62:
                refuse(f"TimeOffsets.{name}", getattr(self, name), "at most 146 years")
