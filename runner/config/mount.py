"""What a sandbox's file system is made of."""

from __future__ import annotations

import dataclasses
import enum

from runner.config.checks import check_path, refuse
from runner.units import MAX_BYTES


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
        check_path("Mount.target", self.target)
        if self.kind is MountKind.BIND:
            check_path("Mount.source", self.source)
        if "\0" in self.source:
            refuse("Mount.source", self.source, "it holds a NUL byte")
        if not 0 <= self.mode <= 0o7777:
            refuse("Mount.mode", oct(self.mode), "a mode is 0 to 0o7777")
        for name in ("size", "inodes"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MAX_BYTES:
                refuse(f"Mount.{name}", value, "give a positive number, or None")

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
