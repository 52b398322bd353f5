"""What a caller can ask for: `Runner` and its value types, `Limits`, `Mount`.

Everything here is frozen and checked when made: a `ConfigError` names the field and the value,
before any process exists. Nothing here touches the kernel.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from runner.errors import ConfigError
from runner.units import MAX_BYTES, MAX_SECONDS, NS_PER_S

# clone(2), <linux/sched.h>
_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWCGROUP: Final = 0x0200_0000
_CLONE_NEWUTS: Final = 0x0400_0000
_CLONE_NEWIPC: Final = 0x0800_0000
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWPID: Final = 0x2000_0000
_CLONE_NEWNET: Final = 0x4000_0000

RLIM_INFINITY: Final = resource.RLIM_INFINITY

Text = str | bytes | os.PathLike[str]


class Namespace(enum.IntFlag):
    """Namespaces to unshare, by their clone(2) flags; see namespaces(7)."""

    MOUNT = _CLONE_NEWNS
    CGROUP = _CLONE_NEWCGROUP
    UTS = _CLONE_NEWUTS
    IPC = _CLONE_NEWIPC
    USER = _CLONE_NEWUSER
    PID = _CLONE_NEWPID
    NETWORK = _CLONE_NEWNET


NO_NAMESPACES: Final = Namespace(0)
ALL_NAMESPACES: Final = (
    Namespace.MOUNT
    | Namespace.CGROUP
    | Namespace.UTS
    | Namespace.IPC
    | Namespace.USER
    | Namespace.PID
    | Namespace.NETWORK
)


@dataclasses.dataclass(frozen=True, slots=True)
class IdMap:
    """One line of user_namespaces(7)' uid_map or gid_map."""

    inside: int
    outside: int
    count: int = 1

    def __post_init__(self) -> None:
        for name in ("inside", "outside"):
            if not 0 <= getattr(self, name) < 2**32 - 1:
                _refuse(f"IdMap.{name}", getattr(self, name), "an id is 0 to 4294967294")
        if not 0 < self.count < 2**32:
            _refuse("IdMap.count", self.count, "a map has at least one id")


@dataclasses.dataclass(frozen=True, slots=True)
class Credential:
    """The ids that the program runs with, as seen inside its user namespace."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


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
                _refuse(f"Rlimit.{name}", value, "a limit is 0 to 2**63-1, or RLIM_INFINITY")
        if self.hard != RLIM_INFINITY and (self.soft == RLIM_INFINITY or self.soft > self.hard):
            _refuse("Rlimit.soft", self.soft, f"it is above the hard limit {self.hard}")

    @property
    def name(self) -> str:
        """The limit's name, such as NOFILE."""
        return next((name for name, n in RLIMITS.items() if n == self.resource), "unknown")

    @classmethod
    def named(cls, name: str, soft: int, hard: int | None = None) -> Rlimit:
        """Make a limit by its name: `Rlimit.named("NOFILE", 64)`."""
        number = RLIMITS.get(name.upper().removeprefix("RLIMIT_"))
        if number is None:
            _refuse("Rlimit", name, "known are " + ", ".join(RLIMITS))
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


class MountKind(enum.Enum):
    """What a `Mount` puts at its target."""

    BIND = "bind"
    TMPFS = "tmpfs"
    PROC = "proc"
    DEV = "dev"
    SYMLINK = "symlink"
    DIRECTORY = "directory"
    FILE = "file"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One thing in the sandbox's file system; use the constructors below.

    `fresh` marks a tmpfs that is emptied after each run of a live sandbox.
    """

    kind: MountKind
    target: str
    source: str = ""
    readonly: bool = True
    recursive: bool = True
    optional: bool = False
    devices: bool = False
    executable: bool = True
    owned: bool = False
    size: int | None = None
    inodes: int | None = None
    mode: int = 0o755
    content: bytes = b""
    fresh: bool = False

    def __post_init__(self) -> None:
        _check_path("Mount.target", self.target)
        if self.kind is MountKind.BIND:
            _check_path("Mount.source", self.source)
        if "\0" in self.source:
            _refuse("Mount.source", self.source, "it holds a NUL byte")
        if not 0 <= self.mode <= 0o7777:
            _refuse("Mount.mode", oct(self.mode), "a mode is 0 to 0o7777")
        for name in ("size", "inodes"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MAX_BYTES:
                _refuse(f"Mount.{name}", value, "give a positive number, or None")

    @classmethod
    def bind(
        cls,
        source: str,
        target: str | None = None,
        *,
        readonly: bool = True,
        optional: bool = False,
        devices: bool = False,
        recursive: bool = True,
        owned: bool = False,
    ) -> Mount:
        """Show the host's file or directory `source` at `target` (default: the same path).

        `owned`: the caller's files in it are the program's, to read and, if not `readonly`, to
        write, where the program has another uid than the caller (as root does; Linux 5.12, and
        most file systems on disks). It does not change who may read them outside.

        What a program writes is its own on the host too, set-user-ID bits included if no policy
        refuses them (the stock ones do): let no other user enter a writable directory.
        """
        return cls(
            kind=MountKind.BIND,
            source=source,
            target=source if target is None else target,
            readonly=readonly,
            optional=optional,
            devices=devices,
            recursive=recursive,
            owned=owned,
        )

    @classmethod
    def tmpfs(
        cls,
        target: str,
        *,
        size: int | None = None,
        inodes: int | None = None,
        mode: int = 0o1777,
        fresh: bool = True,
    ) -> Mount:
        """Mount an empty tmpfs of at most `size` bytes and `inodes` files."""
        return cls(
            kind=MountKind.TMPFS,
            target=target,
            readonly=False,
            size=size,
            inodes=inodes,
            mode=mode,
            fresh=fresh,
        )

    @classmethod
    def proc(cls, target: str = "/proc", *, readonly: bool = True) -> Mount:
        """Mount proc(5) of the sandbox's own pid namespace.

        Writable, a program with the host's uid 0 could set the host's sysctls by it, for these
        ask for the uid alone.
        """
        return cls(kind=MountKind.PROC, target=target, readonly=readonly)

    @classmethod
    def dev(cls, target: str = "/dev") -> Mount:
        """Make a minimal /dev: null, zero, full, random, urandom, the standard links, shm."""
        return cls(kind=MountKind.DEV, target=target)

    @classmethod
    def symlink(cls, points_to: str, target: str) -> Mount:
        """Make `target` a symbolic link whose text is `points_to`."""
        return cls(kind=MountKind.SYMLINK, source=points_to, target=target)

    @classmethod
    def directory(cls, target: str, *, mode: int = 0o755) -> Mount:
        """Make an empty directory in the sandbox's root."""
        return cls(kind=MountKind.DIRECTORY, target=target, mode=mode)

    @classmethod
    def file(cls, target: str, content: bytes, *, mode: int = 0o644) -> Mount:
        """Make a file with this content in the sandbox's root."""
        return cls(kind=MountKind.FILE, target=target, content=content, mode=mode)


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
            _check_time(f"Limits.{name}", getattr(self, name), zero=name == "extra_time")
        for name in ("memory", "stack", "address_space", "output", "file_size"):
            _check_count(f"Limits.{name}", getattr(self, name), MAX_BYTES)
        for name in ("processes", "open_files"):
            _check_count(f"Limits.{name}", getattr(self, name), 2**22)
        object.__setattr__(self, "rlimits", tuple(self.rlimits))  # a list has no hash
        if self.extra_time and self.cpu_time is None:
            _refuse("Limits.extra_time", self.extra_time, "it needs a cpu_time to go beyond")
        if None not in (self.cpu_time, self.wall_time) and self.wall_time < self.cpu_time:  # type: ignore[operator]
            _refuse(
                "Limits.wall_time",
                self.wall_time,
                f"it is below cpu_time={self.cpu_time}, which could then never be reached",
            )

    def replace(self, **changes: object) -> Limits:
        """Give a copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """The whole set-up of one program, field by field as the kernel sees it.

    args            argv; args[0] is also the path given to execve, without a search in PATH
    env             the exact environment
    files           fd i of the program is files[i], closed for -1; all others are closed
    rlimits         setrlimit(2), in this order
    work_dir        chdir(2), inside the new root
    namespaces      unshared together; with PID the program is not pid 1
    mounts          in this order, below the new root; needs MOUNT and `pivot_root`
    pivot_root      an existing directory: a fresh tmpfs is mounted on it and becomes the root
    host_name, domain_name       need UTS
    uid_mappings, gid_mappings   default: inside 0 is the caller's effective id
    gid_mappings_enable_setgroups   False writes "deny" to setgroups (user_namespaces(7))
    credential      ids to change to, after all set-up that needs privileges
    seccomp         a BPF program, struct sock_filter[]; loaded last, implies no_new_privs
    no_new_privs    prctl(PR_SET_NO_NEW_PRIVS, 1)
    drop_caps       empty all five capability sets and lock the securebits
    sync_func       called with the host's pid when all but the filter is set up; the program
                    starts when it returns, and is killed if it raises
    """

    args: Sequence[Text]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Sequence[int] = (0, 1, 2)
    rlimits: Sequence[Rlimit] = ()
    work_dir: str = ""
    namespaces: Namespace = NO_NAMESPACES
    mounts: Sequence[Mount] = ()
    pivot_root: str = ""
    host_name: str = ""
    domain_name: str = ""
    uid_mappings: Sequence[IdMap] = ()
    gid_mappings: Sequence[IdMap] = ()
    gid_mappings_enable_setgroups: bool = False
    credential: Credential | None = None
    seccomp: bytes = b""
    no_new_privs: bool = False
    drop_caps: bool = False
    sync_func: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        check_args(self.args)
        check_env(self.env)
        for fd in self.files:
            if fd < -1:
                _refuse("Runner.files", fd, "an fd is 0 or more, or -1 for closed")
        if self.mounts and not self.pivot_root:
            _refuse("Runner.mounts", self.mounts[0].target, "mounts need a pivot_root")
        if self.pivot_root:
            _check_path("Runner.pivot_root", self.pivot_root)
            self._need(Namespace.MOUNT, "pivot_root", self.pivot_root)
        if "\0" in self.work_dir:
            _refuse("Runner.work_dir", self.work_dir, "it holds a NUL byte")
        for name in ("host_name", "domain_name"):
            value = getattr(self, name)
            if value:
                self._need(Namespace.UTS, name, value)
                if len(value.encode()) > 64 or "\0" in value:
                    _refuse(f"Runner.{name}", value, "at most 64 bytes, none of them NUL")
        for name in ("uid_mappings", "gid_mappings"):
            if getattr(self, name):
                self._need(Namespace.USER, name, getattr(self, name))
        if len(self.seccomp) % 8:
            _refuse("Runner.seccomp", len(self.seccomp), "a filter is a multiple of 8 bytes")

    def _need(self, namespace: Namespace, field: str, value: object) -> None:
        if namespace not in self.namespaces:
            _refuse(f"Runner.{field}", value, f"it needs Namespace.{namespace.name}")


def check_args(args: Sequence[Text]) -> None:
    """Refuse an empty command and NUL bytes, which no argv can hold."""
    if isinstance(args, str | bytes):
        _refuse("args", args, "give a list of words, not one text")
    if not args:
        _refuse("args", args, "there is no command")
    for word in args:
        if not isinstance(word, str | bytes | os.PathLike):
            _refuse("args", word, "an argument is text")
        if b"\0" in os.fsencode(word):
            _refuse("args", word, "an argument cannot hold a NUL byte")


def check_env(env: Mapping[str, str]) -> None:
    """Refuse names and values that no environment can hold."""
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            _refuse("env", f"{name!r}: {value!r}", "names and values are text")
        if not name or "=" in name or "\0" in name:
            _refuse("env", name, "a name is not empty and holds neither = nor NUL")
        if "\0" in value:
            _refuse("env", f"{name}={value}", "a value cannot hold a NUL byte")


def _check_path(field: str, path: str) -> None:
    if not path.startswith("/"):
        _refuse(field, path, "give an absolute path")
    if "\0" in path:
        _refuse(field, path, "it holds a NUL byte")
    if ".." in path.split("/"):
        _refuse(field, path, "give a path without ..")


def _check_time(field: str, value: float | None, *, zero: bool) -> None:
    if value is None:
        return
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
    ):
        _refuse(field, value, "give seconds as a number, or None for no limit")
    if value < 0 or (value == 0 and not zero):
        _refuse(field, value, "give a positive number of seconds, or None for no limit")
    if value > MAX_SECONDS:
        _refuse(field, value, f"the longest time is {MAX_SECONDS} seconds")
    if 0 < value * NS_PER_S < 1:
        _refuse(field, value, "the shortest time is a nanosecond")


def _check_count(field: str, value: int | None, largest: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(field, value, "give a whole number, or None for no limit")
    if not 0 < value <= largest:
        _refuse(field, value, f"give 1 to {largest}, or None for no limit")


def _refuse(field: str, value: object, why: str) -> NoReturn:
    message = f"{field}: {value!r}: {why}"
    raise ConfigError(message)
