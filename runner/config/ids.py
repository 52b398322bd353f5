"""Namespaces and networks, and the ids that a program has in them."""

from __future__ import annotations

import enum
from typing import Final

from runner.config.checks import refuse
from runner.quick import dataclass

# clone(2), <linux/sched.h>
_CLONE_NEWTIME: Final = 0x0000_0080
_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWCGROUP: Final = 0x0200_0000
_CLONE_NEWUTS: Final = 0x0400_0000
_CLONE_NEWIPC: Final = 0x0800_0000
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWPID: Final = 0x2000_0000
_CLONE_NEWNET: Final = 0x4000_0000

_NO_ID: Final = 2**32 - 1  # (uid_t)-1, which is none


class Namespace(enum.IntFlag):
    """Namespaces to unshare, by their clone(2) flags; see namespaces(7)."""

    MOUNT = _CLONE_NEWNS
    CGROUP = _CLONE_NEWCGROUP
    UTS = _CLONE_NEWUTS
    IPC = _CLONE_NEWIPC
    USER = _CLONE_NEWUSER
    PID = _CLONE_NEWPID
    NETWORK = _CLONE_NEWNET
    TIME = _CLONE_NEWTIME


NO_NAMESPACES: Final = Namespace(0)
ALL_NAMESPACES: Final = (
    Namespace.MOUNT
    | Namespace.CGROUP
    | Namespace.UTS
    | Namespace.IPC
    | Namespace.USER
    | Namespace.PID
    | Namespace.NETWORK
)  # but for TIME: with no offset it changes nothing, and it costs a fork that copies


class Network(enum.Enum):
    """What a sandbox has for a network: nothing, the host's own, or one by pasta(1)."""

    NONE = "none"
    HOST = "host"
    PASTA = "pasta"


@dataclass(frozen=True)
class IdMap:
    """One line of user_namespaces(7)' uid_map or gid_map."""

    inside: int
    outside: int
    count: int = 1

    def __post_init__(self) -> None:
        for name in ("inside", "outside"):
            if not 0 <= getattr(self, name) < _NO_ID:
                refuse(f"IdMap.{name}", getattr(self, name), "an id is 0 to 4294967294")
        if not 0 < self.count < 2**32:
            refuse("IdMap.count", self.count, "a map has at least one id")


@dataclass(frozen=True)
class Credential:
    """The ids that the program runs with, as seen inside its user namespace."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (
            ("uid", self.uid),
            ("gid", self.gid),
            *(("groups", group) for group in self.groups),
        ):
            if not 0 <= value < _NO_ID:
                refuse(f"Credential.{name}", value, "an id is 0 to 4294967294")
