"""`Landlock`: what a program may do with files, TCP ports and other processes (landlock(7))."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from runner.config.checks import check_bytes, refuse
from runner.quick import dataclass

SCOPES: Final = ("abstract_unix_socket", "signal")
_PATHS: Final = ("read", "write", "execute")
_PORTS: Final = ("bind", "connect")


@dataclass(frozen=True, kw_only=True)
class Landlock:
    """Rules that the kernel holds the program and all its children to, without a namespace.

    None restricts nothing; an empty collection forbids all. Once one of the three for files is
    given, so are all: what is in none of them is forbidden.

    read      files that may be read, directories with all below them, which may be listed too
    write     that may be written, truncated, made, renamed, removed and linked
    execute   that may be executed; their interpreters and libraries have to be readable, and
              an interpreter executable
    bind      TCP ports that may be bound; 0 is any that the kernel picks
    connect   TCP ports that may be connected to
    scopes    what may not leave the program and its children: "signal", signals to others;
              "abstract_unix_socket", connections to abstract sockets of others
    best_effort   go on without what this kernel's Landlock cannot hold; else HostError

    Paths are looked up inside, from the working directory, with the program's rights; one that
    is not there is a ChildError. What is open already, such as `Runner.files`, stays usable.
    Rules add to what the file system, mounts and other policies allow: they never permit more.
    """

    read: Collection[str] | None = None
    write: Collection[str] | None = None
    execute: Collection[str] | None = None
    bind: Collection[int] | None = None
    connect: Collection[int] | None = None
    scopes: Collection[str] = ()
    best_effort: bool = False

    def __post_init__(self) -> None:
        for name in (*_PATHS, "scopes"):
            if isinstance(getattr(self, name), str | bytes):
                refuse(f"Landlock.{name}", getattr(self, name), "give a list, not one text")
        for name in _PATHS:
            for path in getattr(self, name) or ():
                if not path or not isinstance(path, str):
                    refuse(f"Landlock.{name}", path, "a path is a text that is not empty")
                check_bytes(f"Landlock.{name}", path)
        for name in _PORTS:
            for port in getattr(self, name) or ():
                if not isinstance(port, int) or not 0 <= port < 2**16:
                    refuse(f"Landlock.{name}", port, "a port is 0 to 65535")
        for scope in self.scopes:
            if scope not in SCOPES:
                refuse("Landlock.scopes", scope, "known are " + ", ".join(SCOPES))
        if not (self.restricts_files or self.restricts_ports or self.scopes):
            refuse("Landlock", self, "it restricts nothing: give paths, ports or scopes")

    @property
    def restricts_files(self) -> bool:
        """Tell whether there are rules for files."""
        return any(getattr(self, name) is not None for name in _PATHS)

    @property
    def restricts_ports(self) -> bool:
        """Tell whether there are rules for TCP ports."""
        return any(getattr(self, name) is not None for name in _PORTS)
