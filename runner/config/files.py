"""Files that go into a sandbox before a run, and those that are taken out after it. Pure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from runner.config.checks import check_bytes, check_text, refuse
from runner.quick import NamedTuple, dataclass
from runner.units import MiB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FILE_LIMIT: Final = 64 * MiB
_NAME_MAX: Final = 4095
_PART_MAX: Final = 255


@runtime_checkable
class HasFileno(Protocol):
    """What an fd stands behind: an open file, an `Artefact`."""

    def fileno(self) -> int: ...


class Store(Protocol):
    """What keeps a file that is taken out: an `ArtefactCache` or `ArtefactDirectory`."""

    def add(self, content: int, size: int) -> HasFileno: ...


Source = bytes | os.PathLike[str] | int | HasFileno


@dataclass(frozen=True)
class FileIn:
    """A file that goes in.

    source   bytes; a path of the caller's; an fd, or what has a `fileno`: all of that file,
             wherever the fd's position is. A path or fd is that of a regular file
    mode     its permissions; it belongs to the program's user
    """

    source: Source
    mode: int = 0o644

    def __post_init__(self) -> None:
        if isinstance(self.source, bool) or not isinstance(
            self.source, bytes | os.PathLike | int | HasFileno
        ):
            refuse("files_in", self.source, "give bytes, a pathlib.Path, an fd or an Artefact")
        if isinstance(self.mode, bool) or not isinstance(self.mode, int):
            refuse("files_in", self.mode, "a mode is a number, such as 0o755")
        if self.mode & ~0o777:
            refuse("files_in", oct(self.mode), "a mode is 0 to 0o777")


@dataclass(frozen=True)
class LinkIn:
    """A symbolic link that goes in; its target is read by programs, never by us."""

    target: str

    def __post_init__(self) -> None:
        check_text("files_in", self.target)
        if check_bytes("files_in", self.target) > _NAME_MAX:
            refuse("files_in", self.target, f"a target has at most {_NAME_MAX} bytes")


@dataclass(frozen=True)
class FileOut:
    """A file that is taken out, by its name below the working directory.

    max_bytes   so much of it is read; a longer one is `truncated`
    optional    whether it is no error of the run's that it is missing
    store       keeps it, if it is whole: an `ArtefactCache` or `ArtefactDirectory`; its content
                is there then, and never comes through our memory
    """

    name: str
    max_bytes: int = FILE_LIMIT
    optional: bool = False
    store: Store | None = None

    def __post_init__(self) -> None:
        check_file_name("files_out", self.name)
        if (
            isinstance(self.max_bytes, bool)
            or not isinstance(self.max_bytes, int)
            or self.max_bytes < 0
        ):
            refuse("files_out", self.max_bytes, "max_bytes is a number of bytes, 0 or more")


class Transfers(NamedTuple):
    """What goes in before a run, and what is taken out after it."""

    given: tuple[tuple[str, FileIn | LinkIn | None], ...] = ()
    wanted: tuple[FileOut, ...] = ()


def check_file_name(field: str, name: str) -> None:
    """Refuse what is no path of plain names below a directory."""
    if not isinstance(name, str):
        refuse(field, name, "a name is text")
    check_text(field, name)
    if name.startswith("/"):
        refuse(field, name, "give a name relative to the working directory")
    parts = name.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        refuse(field, name, "give a name without . and .. and empty parts")
    if check_bytes(field, name) > _NAME_MAX or any(
        len(os.fsencode(part)) > _PART_MAX for part in parts
    ):
        refuse(field, name, f"a name has at most {_PART_MAX} bytes between two /")


def files_in(
    given: Mapping[str, FileIn | LinkIn | Source | None],
) -> tuple[tuple[str, FileIn | LinkIn | None], ...]:
    """Check what goes in, and give it as pairs; None: what is there is removed."""
    for name in given:
        check_file_name("files_in", name)
    return tuple(
        (name, what if what is None or isinstance(what, FileIn | LinkIn) else FileIn(what))
        for name, what in given.items()
    )


def files_out(given: Iterable[FileOut | str]) -> tuple[FileOut, ...]:
    """Check what comes out; a text is a name."""
    if isinstance(given, str):
        refuse("files_out", given, "give a list of names, not one text")
    wanted = tuple(FileOut(one) if isinstance(one, str) else one for one in given)
    names: set[str] = set()
    for one in wanted:
        if not isinstance(one, FileOut):
            refuse("files_out", one, "give a name or a FileOut")
        if one.name in names:
            refuse("files_out", one.name, "it is named twice")
        names.add(one.name)
    return wanted
