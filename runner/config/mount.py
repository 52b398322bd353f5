"""What a sandbox's file system is made of."""

from __future__ import annotations

import enum
import functools
import os
import stat
from typing import TYPE_CHECKING, Final

from runner.config.checks import check_bytes, check_path, refuse
from runner.quick import dataclass
from runner.units import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class MountKind(enum.Enum):
    """What a `Mount` puts at its target."""

    BIND = "bind"
    TMPFS = "tmpfs"
    PROC = "proc"
    SYSFS = "sysfs"
    MQUEUE = "mqueue"
    DEV = "dev"
    DEVICE = "device"
    NODE = "node"
    OVERLAY = "overlay"
    SYMLINK = "symlink"
    DIRECTORY = "directory"
    FILE = "file"
    MASK = "mask"
    READONLY = "readonly"
    REMOUNT = "remount"


# These restrict what is at their target already, when all is there.
RESTRICTING: Final = frozenset({MountKind.MASK, MountKind.READONLY, MountKind.REMOUNT})

_DEVICE_TYPES: Final = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One thing in the sandbox's file system; use the constructors below.

    A target that is a symbolic link is followed, inside the new root; one that leads to the
    root itself is refused. What lies in a directory of the caller's (below a bind, or in
    `Runner.root`) is never made: it has to be there.

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
    follow: bool = True
    size: int | None = None
    inodes: int | None = None
    mode: int = 0o755
    content: bytes = b""
    fresh: bool = False
    masked: bool | None = None
    pts: bool = False
    console: str = ""
    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    ephemeral: bool = False
    number: int = 0

    def __post_init__(self) -> None:
        check_path("Mount.target", self.target)
        if self.kind in {MountKind.BIND, MountKind.DEVICE}:
            check_path("Mount.source", self.source)
        check_bytes("Mount.source", self.source)
        if self.kind not in RESTRICTING and not self.target.strip("/"):
            refuse("Mount.target", self.target, "the root itself: give a path below it")
        node = stat.S_IFMT(self.mode) if self.kind is MountKind.NODE else 0
        if not 0 <= self.mode - node <= 0o7777:
            refuse("Mount.mode", oct(self.mode), "a mode is 0 to 0o7777")
        for name in ("size", "inodes"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MAX_BYTES:
                refuse(f"Mount.{name}", value, "give a positive number, or None")
        if self.console:
            check_path("Mount.console", self.console)
        if self.kind is MountKind.OVERLAY:
            self._check_overlay()

    def _check_overlay(self) -> None:
        if not self.lower:
            refuse("Mount.lower", self.lower, "an overlay has at least one lower directory")
        for path in self.lower:
            check_path("Mount.lower", path)
        if bool(self.upper) != bool(self.work):
            refuse("Mount.work", self.work, "upper and work go together")
        if not self.upper:
            return
        for name in ("upper", "work"):
            path = getattr(self, name)
            check_path(f"Mount.{name}", path)
            if set(path) & set(",:\\"):
                refuse(f"Mount.{name}", path, "the kernel reads , : and \\ as separators")
        if self.ephemeral:
            refuse("Mount.upper", self.upper, "an ephemeral overlay has its own")
        if is_within(self.work, self.upper) or is_within(self.upper, self.work):
            refuse("Mount.work", self.work, "upper and work lie beside each other")
        for path in self.lower:
            for name in ("upper", "work"):
                if is_within(getattr(self, name), path):
                    refuse(f"Mount.{name}", getattr(self, name), f"it lies in lower {path!r}")

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
        executable: bool = True,
        owned: bool = False,
        follow: bool = True,
    ) -> Mount:
        """Show the host's file or directory `source` at `target` (default: the same path).

        `follow`: a source that is a symbolic link leads to what is shown; else it is refused
        (ELOOP), which who lists a directory that others may change has to ask for.

        `recursive`: with what is mounted below it, read-only too if it is. `optional`: a source
        that is not there is left out.

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
            executable=executable,
            owned=owned,
            follow=follow,
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
    def proc(
        cls, target: str = "/proc", *, readonly: bool = True, masked: bool | None = None
    ) -> Mount:
        """Mount proc(5) of the sandbox's own pid namespace.

        Not `readonly`, the parts by which a program with the host's uid 0 could change the host
        stay so: sys, bus, fs, irq, sysrq-trigger. `masked` hides what tells about the host's
        kernel to that uid alone; None does where the sandbox has it.
        """
        return cls(kind=MountKind.PROC, target=target, readonly=readonly, masked=masked)

    @classmethod
    def sysfs(cls, target: str = "/sys", *, readonly: bool = True) -> Mount:
        """Mount sysfs(5), with the devices of the sandbox's own network namespace."""
        return cls(kind=MountKind.SYSFS, target=target, readonly=readonly)

    @classmethod
    def mqueue(cls, target: str = "/dev/mqueue") -> Mount:
        """Mount the message queues, mq_overview(7), of the sandbox's own IPC namespace."""
        return cls(kind=MountKind.MQUEUE, target=target, readonly=False)

    @classmethod
    def dev(
        cls,
        target: str = "/dev",
        *,
        readonly: bool = True,
        pts: bool = False,
        console: str = "",
    ) -> Mount:
        """Make a minimal /dev: null, zero, full, random, urandom, tty, standard links, shm.

        `pts`: with pseudo-terminals of its own: pts, ptmx. Not by default, for the kernel has
        them only where ids 0 are mapped, which the sandbox of a plain user is without.
        `console`: a terminal of the host's, such as /dev/pts/3, that is console.
        """
        return cls(
            kind=MountKind.DEV, target=target, readonly=readonly, pts=pts, console=console
        )

    @classmethod
    def device(cls, source: str, target: str | None = None, *, readonly: bool = False) -> Mount:
        """Show the host's device, such as /dev/fuse, at `target` (default: the same path)."""
        return cls(
            kind=MountKind.DEVICE,
            source=source,
            target=source if target is None else target,
            readonly=readonly,
            devices=True,
            recursive=False,
        )

    @classmethod
    def node(
        cls, target: str, device_type: str, major: int, minor: int, *, mode: int = 0o666
    ) -> Mount:
        """Make a device node ("c" or "b") below a `Mount.dev`: mknod(2).

        No user namespace may; there, `device` shows one of the host's.
        """
        if device_type not in _DEVICE_TYPES:
            refuse(
                "Mount.node", device_type, 'a device is "c", of characters, or "b", of blocks'
            )
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            refuse("Mount.node", (major, minor), "a major is 12 bits, a minor is 20")
        return cls(
            kind=MountKind.NODE,
            target=target,
            mode=mode | _DEVICE_TYPES[device_type],
            number=os.makedev(major, minor),
        )

    @classmethod
    def overlay(
        cls,
        target: str,
        *,
        lower: Sequence[str],
        upper: str = "",
        work: str = "",
        ephemeral: bool = False,
        owned: bool = False,
        size: int | None = None,
        mode: int = 0o755,
    ) -> Mount:
        """Lay directories over each other: overlayfs, Linux 5.11.

        lower       directories that are only read, the topmost first
        upper       what is written goes here, and stays
        work        an empty directory beside it, for the kernel's own use
        ephemeral   what is written goes to a tmpfs of at most `size` bytes, and is lost; `mode`
                    is that of the root directory then
        owned       the caller's files in lower are the program's, as with `bind`: it may read
                    them, and change what it sees of them; those in upper always are

        Without upper and not ephemeral, it is read-only. As far as what they show: the mounts
        below these directories are not part of it.
        """
        return cls(
            kind=MountKind.OVERLAY,
            target=target,
            lower=tuple(lower),
            upper=upper,
            work=work,
            readonly=not upper and not ephemeral,
            ephemeral=ephemeral,
            owned=owned,
            size=size,
            mode=mode,
        )

    @classmethod
    def mask(cls, target: str) -> Mount:
        """Hide a file or directory behind an empty one of mode 000; one that is there."""
        return cls(kind=MountKind.MASK, target=target)

    @classmethod
    def read_only(cls, target: str, *, optional: bool = False) -> Mount:
        """Make a path read-only, and all that is mounted below it."""
        return cls(kind=MountKind.READONLY, target=target, optional=optional)

    @classmethod
    def remount(
        cls,
        target: str,
        *,
        readonly: bool = True,
        devices: bool = True,
        executable: bool = True,
        recursive: bool = True,
    ) -> Mount:
        """Restrict an existing mount: what is not allowed here is taken away, nothing given."""
        return cls(
            kind=MountKind.REMOUNT,
            target=target,
            readonly=readonly,
            devices=devices,
            executable=executable,
            recursive=recursive,
        )

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


def is_within(path: str, directory: str) -> bool:
    """Tell whether a path is a directory or lies below it, by their texts."""
    return f"{normal(path)}/".startswith(f"{normal(directory).rstrip('/')}/")


@functools.lru_cache(maxsize=1024)
def normal(path: str) -> str:
    """Give an absolute path without what means nothing in it."""
    return "/" + "/".join(word for word in path.split("/") if word not in {"", "."})


def in_order(mounts: Iterable[Mount]) -> list[tuple[int, Mount]]:
    """Give the mounts as they are made, with their places in the list that was given.

    Parents come before what lies below them, else all is as given; of two for the same target
    the later one holds. What restricts comes last, and replaces only its like.
    """
    kept: dict[tuple[MountKind | None, str], tuple[int, Mount]] = {}
    for index, mount in enumerate(mounts):
        kind = mount.kind if mount.kind in RESTRICTING else None
        kept[kind, normal(mount.target)] = (index, mount)

    def place(numbered: tuple[int, Mount]) -> tuple[bool, int]:
        target = normal(numbered[1].target)
        return numbered[1].kind in RESTRICTING, len(target[1:]) and target.count("/")

    return sorted(kept.values(), key=place)
