"""Where the dynamic loader will find libraries, found without it: by the rules of ld.so(8).

Not looked into: the subdirectories for processors' capabilities (glibc-hwcaps), whose libraries
stand in the plain directories too; relative directories, which depend on where the program is
started; DT_AUDIT, DT_FILTER and DT_AUXILIARY; what a program opens itself by dlopen(3).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
import posixpath
import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from runner.config.checks import refuse
from runner.errors import ConfigError, HostError
from runner.staging import elf
from runner.staging.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CACHE: Final = "/etc/ld.so.cache"
MUSL_PATH: Final = "/etc/ld-musl-{}.path"

_PROBES_MAX: Final = 100_000  # about a second; programs of a distribution make up to 300
_SETTINGS_MAX: Final = 16 * 1024 * 1024
_PATH_MAX: Final = 4096
_SHOWN: Final = 12  # places in a message

_TOKEN: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_MUSL: Final = re.compile(r"(?:/.*)?/ld-musl-([^/]+)\.so\.1")


class Place(NamedTuple):
    """A file or directory of the host, and the path at which the sandbox will have it."""

    host: str
    inside: str

    @classmethod
    def same(cls, path: str) -> Place:
        return cls(path, path)

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.host}/{name}", f"{self.inside}/{name}")


class _Candidate(NamedTuple):
    place: Place
    settings: Place | None = None  # the file without which the loader would not look there


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """An object that the loader has mapped; `origin` is what $ORIGIN is for it."""

    path: str
    elf: elf.Elf
    origin: Place
    needed_by: _Loaded | None = None

    def chain(self) -> Iterator[_Loaded]:
        """Give this, what needed it, and so on up to the program."""
        each: _Loaded | None = self
        while each is not None:
            yield each
            each = each.needed_by


class Libraries:
    """Finds what ELF programs need; one for all that is staged together, for its bound."""

    def __init__(self, library_path: Sequence[str]) -> None:
        self._library_path = [Place.same(path) for path in library_path]
        self._probes = 0

    def of(self, program: Place, file: File, kind: elf.Kind) -> Iterator[Place]:
        """Give the loader and the libraries of a program, and what the loader finds them by."""
        read = elf.read(file, kind)
        names: set[str | None] = set()
        if read.interpreter is not None:
            names.add(_loader_name(program.host, read.interpreter, kind))
            yield Place.same(read.interpreter)
        musl = _MUSL.fullmatch(read.interpreter or "")
        search = _Musl(self._library_path, musl[1]) if musl else self._glibc
        # For a program's $ORIGIN its loader asks /proc/self/exe, which has no symlinks.
        host = program.host if read.interpreter is None else os.path.realpath(program.host)
        origin = Place(posixpath.dirname(host), posixpath.dirname(program.inside))
        queue = collections.deque([_Loaded(program.host, read, origin)])
        while queue:  # breadth first, as the loader: it decides whose RUNPATH counts
            by = queue.popleft()
            for name in by.elf.needed:
                if name in names or search.own.match(name):
                    continue
                candidate, found = self._find(name, by, search)
                yield candidate.place
                if candidate.settings is not None:
                    yield candidate.settings
                # A later name may be met by what was loaded by another (DT_SONAME).
                names |= {name, found.elf.soname}
                queue.append(found)

    @functools.cached_property
    def _glibc(self) -> _Glibc:
        return _Glibc(self._library_path, read_cache(CACHE))

    def _find(
        self, name: str, by: _Loaded, search: _Glibc | _Musl
    ) -> tuple[_Candidate, _Loaded]:
        looked: dict[str, None] = {}
        candidates = search.candidates(name, by)
        if "/" in name:
            candidates = map(_Candidate, _expand(name, by))
        for candidate in candidates:
            self._probes += 1
            if self._probes > _PROBES_MAX:
                refuse("stage", by.path, f"{_PROBES_MAX} places searched: shorten its RUNPATH")
            if all(path.startswith("/") for path in candidate.place):
                looked[posixpath.dirname(candidate.place.host)] = None
                if found := _load(candidate.place, by):
                    return candidate, found
        where = ", ".join([*looked][:_SHOWN]) or "nothing but relative directories"
        what = f"it needs the library {name!r} ({by.elf.kind}), looked for in {where}"
        message = f"stage: {by.path!r}: {what}: install it, or name its place in library_path"
        raise ConfigError(message)


def _load(place: Place, by: _Loaded) -> _Loaded | None:
    """Look at a library; None if the loader would go on to the next place."""
    try:
        with File(place.host) as file:
            if elf.kind_of(file) != by.elf.kind:
                return None
            read = elf.read(file, by.elf.kind)
    except OSError:  # not there, or not for us to read
        return None
    return _Loaded(place.host, read, Place(*map(posixpath.dirname, place)), by)


def _loader_name(program: str, path: str, kind: elf.Kind) -> str | None:
    """Look at a program's loader; give its name as a library, by which libc needs it."""
    if not path.startswith("/"):
        refuse("stage", program, f"its loader {path!r} is no absolute path: link it anew")
    try:
        with File(path) as file:
            if elf.kind_of(file) != kind or not file.executable:
                what = f"its loader {path!r} is no executable for {kind}"
                refuse("stage", program, f"{what}: link it anew")
            return elf.read(file, kind).soname
    except OSError as error:
        what = f"the file exists, its loader {path!r} does not ({error.strerror})"
        refuse("stage", program, f"{what}: install the C library that it was linked with")


class _Glibc:
    """The search of glibc's loader."""

    own: Final = re.compile(r"(?!)")  # it stands for no other library

    def __init__(self, library_path: Sequence[Place], cache: Mapping[str, list[str]]) -> None:
        self._library_path = library_path
        self._cache = cache

    def candidates(self, name: str, by: _Loaded) -> Iterator[_Candidate]:
        """Give the places for a library, in the order in which the loader tries them."""
        for place in self._directories(by):
            yield _Candidate(place / name)
        default = _default_directories(by.elf.kind)
        for path in self._cache.get(name, ()):
            built_in = posixpath.dirname(path) in default
            settings = None if built_in else Place(CACHE, "/etc/ld.so.cache")
            yield _Candidate(Place.same(path), settings)
        for directory in default:
            yield _Candidate(Place.same(directory) / name)

    def _directories(self, by: _Loaded) -> Iterator[Place]:
        if by.elf.runpath is None:
            for each in by.chain():
                if each.elf.runpath is None:
                    yield from _search_path(each.elf.rpath, each)
        yield from self._library_path
        yield from _search_path(by.elf.runpath or "", by)


class _Musl:
    """The search of musl's loader: DT_RUNPATH is inherited there, as DT_RPATH is."""

    # The rest of its C library is in the loader too, whatever follows the dot.
    own: Final = re.compile(r"lib(c|pthread|rt|m|dl|util|xnet)\.")

    def __init__(self, library_path: Sequence[Place], machine: str) -> None:
        self._library_path = library_path
        self._settings: Place | None = None
        system = "/lib:/usr/local/lib:/usr/lib"
        path = MUSL_PATH.format(machine)
        with contextlib.suppress(OSError), File(path) as file:  # it is optional
            system = os.fsdecode(file.read_up_to(0, _SETTINGS_MAX))
            self._settings = Place.same(path)
        self._system = [Place.same(path) for path in re.split(r"[:\n]+", system) if path]

    def candidates(self, name: str, by: _Loaded) -> Iterator[_Candidate]:
        """Give the places for a library, in the order in which the loader tries them."""
        for place in self._library_path:
            yield _Candidate(place / name)
        for each in by.chain():
            path = each.elf.rpath if each.elf.runpath is None else each.elf.runpath
            for place in _search_path(path, each):
                yield _Candidate(place / name)
        for place in self._system:
            yield _Candidate(place / name, self._settings)


def read_cache(path: str) -> dict[str, list[str]]:
    """Read ldconfig(8)'s cache: the paths of each library, in the loader's order.

    The loader itself reads no ld.so.conf(5), so neither do we. Empty without a cache; raises
    HostError for a damaged one. Format: glibc's sysdeps/generic/dl-cache.h.
    """
    found: dict[str, list[str]] = {}
    try:
        with File(path) as file:
            data = file.read_up_to(0, _SETTINGS_MAX)
    except OSError:  # not every system has one
        return found
    _, mark, data = data.partition(b"glibc-ld.so.cache1.1")
    try:
        (count,) = struct.unpack_from("=I", data) if mark else (0,)
        for index in range(count):
            _, key, value, _, capabilities = struct.unpack_from("=iIIIQ", data, 28 + 24 * index)
            # Offsets count from the mark. A library for some processors only has a plain twin.
            if not capabilities:
                name, where = (
                    os.fsdecode(data[at - len(mark) : data.index(b"\0", at - len(mark))])
                    for at in (key, value)
                )
                found.setdefault(name, []).append(where)
    except (struct.error, ValueError) as error:
        raise HostError(f"{path} is damaged", "make it anew: as root run ldconfig") from error
    return found


def _search_path(text: str, by: _Loaded) -> Iterator[Place]:
    for directory in text.split(":"):
        yield from _expand(directory, by)


def _expand(text: str, by: _Loaded) -> Iterator[Place]:
    """Replace $ORIGIN, $LIB and $PLATFORM.

    Each distribution's loader has its own $LIB; on a host, only one of them finds anything.
    """
    if not text or text.count("$") * max(map(len, by.origin)) > _PATH_MAX:
        text = "."  # "" is the working directory, and what is so long opens nothing
    bits = by.elf.kind.bits
    triplet = by.elf.kind.triplet
    platform = triplet.partition("-")[0].replace("i386", "i686")
    for lib in (f"lib/{triplet}", f"lib{bits}", "lib") if "LIB" in text else ("",):

        def replaced(origin: str, lib: str = lib) -> str:
            values = {"ORIGIN": origin, "LIB": lib, "PLATFORM": platform}
            return _TOKEN.sub(lambda match: values.get(match[1] or match[2], match[0]), text)

        yield Place(*map(replaced, by.origin))


def _default_directories(kind: elf.Kind) -> list[str]:
    names = [f"lib/{kind.triplet}"] if kind.triplet else []
    names += ["lib64", "lib"] if kind.bits == 64 else ["lib"]
    return [f"/{parent}{name}" for name in names for parent in ("", "usr/")]
