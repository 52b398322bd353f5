"""Stage programs: find what they need to start in a root that has nothing else.

Files are read and nothing is run: ldd(1) has the loader that a program names do the work, and
so runs whatever an untrusted program names.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Final

from runner.config import Mount
from runner.config.checks import check_path, refuse
from runner.staging import elf, script
from runner.staging.files import File
from runner.staging.libraries import Libraries, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["stage"]

_FILES_MAX: Final = 240  # a sandbox has room for 256 binds, some of which are the caller's
_SCRIPTS_MAX: Final = 5  # as the kernel's exec_binprm(), which then says ELOOP
_KERNEL: Final = ("/proc/", "/sys/", "/dev/")


def stage(
    programs: Iterable[str | tuple[str, str]], *, library_path: Sequence[str] = ()
) -> list[Mount]:
    """Give read-only binds of programs, their loaders, libraries and interpreters.

    `programs`: absolute paths, or pairs of a path and the one at which the sandbox has it. A
    script brings the interpreter of its #! line, and what env(1) starts for it, found in
    /usr/local/bin, /usr/bin and /bin. `library_path`: what LD_LIBRARY_PATH will be.

    Each file appears where the loader looks for it (ld.so(8); of musl's too), and with a
    library that is found by /etc/ld.so.cache alone, that cache. Data is not found this way:
    modules of Python, locales, what a program opens by itself. Where libraries are named
    relative to $ORIGIN, loaders ask /proc for it: add `Mount.proc()`.

    What an untrusted program names becomes readable to it: but only programs and libraries, by
    their content. Raises ConfigError for what is missing, damaged or neither ELF nor script.
    """
    if isinstance(programs, str):
        refuse("stage", programs, "give a list of programs")
    for directory in library_path:
        check_path("stage library_path", directory)
    libraries = Libraries(library_path)
    mounts: dict[str, Mount] = {}
    for program in programs:
        place = Place.same(program) if isinstance(program, str) else Place(*program)
        for path in place:
            check_path("stage", path)
        for needed in _needs(place, libraries):
            _add(mounts, needed)
    return list(mounts.values())


def _needs(
    place: Place, libraries: Libraries, scripts: tuple[str, ...] = ()
) -> Iterator[Place]:
    """Give a program and all that it needs; `scripts` are those that lead to it."""
    if len(scripts) > _SCRIPTS_MAX:
        refuse("stage", scripts[0], f"more than {_SCRIPTS_MAX} scripts start each other")
    by = scripts[-1] if scripts else ""
    try:
        with File(place.host) as file:
            if by and not file.executable:
                refuse("stage", by, f"its interpreter {place.host!r} lacks the x bit: chmod +x")
            yield place
            if kind := elf.kind_of(file):
                yield from libraries.of(place, file, kind)
                return
            head = file.read_up_to(0, script.HEAD)
    except OSError as error:
        if by:
            what = f"it exists, its interpreter {place.host!r} does not ({error.strerror})"
            refuse("stage", by, f"{what}: install it, or correct the script's first line")
        refuse("stage", place.host, f"{error.strerror}: give a program that you may read")
    if not head.startswith(b"#!"):
        refuse("stage", place.host, "neither ELF nor a script with #!: show it by Mount.bind")
    for interpreter in script.interpreters(place.host, head):
        yield from _needs(Place.same(interpreter), libraries, (*scripts, place.host))


def _add(mounts: dict[str, Mount], place: Place) -> None:
    """Add the bind of a file, and the directories that its path goes up from."""
    parts = place.inside.split("/")
    for index, part in enumerate(parts):
        if part == "..":  # the directory before it has to exist
            directory = _normal("/".join(parts[:index]))
            mounts.setdefault(directory, Mount.directory(directory))
    target = _normal(place.inside)
    if target.startswith(_KERNEL):
        refuse("stage", target, "no program or library is of the kernel's: link it anew")
    mount = Mount.bind(os.path.realpath(place.host), target)
    if mounts.setdefault(target, mount) != mount:
        what = f"both {mounts[target].source!r} and {mount.source!r} have to be there"
        refuse("stage", target, f"{what}: stage one of the programs elsewhere")
    if len(mounts) > _FILES_MAX:
        refuse("stage", target, f"more than {_FILES_MAX} files: bind whole directories instead")


def _normal(path: str) -> str:
    """Resolve `.` and `..` by the names alone: in a new root no directory is a symlink."""
    return posixpath.normpath("/" + path.lstrip("/"))
