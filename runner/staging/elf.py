"""What kernel and loader go by in an ELF file, read in bounded time from one nobody trusts.

Only the program headers and the dynamic table count for them. The section headers, of which a
small sparse file can announce 2**40, are not read here at all; pyelftools goes through them, so
it is not what reads an untrusted file. See elf(5).
"""

from __future__ import annotations

import dataclasses
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from runner.config.checks import refuse

if TYPE_CHECKING:
    from runner.staging.files import File

# <elf.h>
_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 14, 15, 29

# By class and e_machine.
_TRIPLETS: Final = {
    (32, 3): "i386-linux-gnu",
    (32, 40): "arm-linux-gnueabihf",
    (32, 62): "x86_64-linux-gnux32",
    (64, 62): "x86_64-linux-gnu",
    (64, 183): "aarch64-linux-gnu",
    (64, 243): "riscv64-linux-gnu",
}

_HEADERS_MAX: Final = 64 * 1024  # as the kernel's load_elf_phdrs()
_DYNAMIC_MAX: Final = 64 * 1024  # linkers make a few KiB
_NEEDED_MAX: Final = 1024
_NAME_MAX: Final = 4096  # PATH_MAX
_SEARCH_PATH_MAX: Final = 16 * 1024

# By class, without byte order: the header from e_type on, a program header, a dynamic entry.
_LAYOUTS: Final = {32: ("HHIIIIIHHH", "8I", "iI"), 64: ("HHIQQQIHHH", "2I6Q", "qQ")}


class Kind(NamedTuple):
    """What two files must share to be loaded together."""

    bits: int
    order: str  # struct's sign for the byte order
    machine: int

    @property
    def triplet(self) -> str:
        """The directory that multiarch distributions have for it; "" where we know none."""
        return _TRIPLETS.get((self.bits, self.machine), "")

    def __str__(self) -> str:
        return self.triplet or f"{self.bits} bits, machine {self.machine}"


@dataclasses.dataclass(frozen=True, slots=True)
class Elf:
    """A program or shared library, by what has to be there for it to start.

    Strings are those of the file; `runpath` is None where there is no DT_RUNPATH, because it is
    its presence that makes the loader ignore `rpath`.
    """

    kind: Kind
    interpreter: str | None = None
    needed: tuple[str, ...] = ()
    soname: str | None = None
    rpath: str = ""
    runpath: str | None = None


class _Segment(NamedTuple):
    purpose: int  # p_type
    offset: int
    address: int
    size: int


def kind_of(file: File) -> Kind | None:
    """Give class, byte order and machine; None if it is no ELF file."""
    head = file.read_up_to(0, 20)
    if (
        len(head) < 20
        or head[:4] != b"\x7fELF"
        or head[4] not in {1, 2}
        or head[5] not in {1, 2}
    ):
        return None
    order = "<" if head[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", head, 18)
    return Kind(32 * head[4], order, machine)


def read(file: File, kind: Kind) -> Elf:
    """Read what the file needs. Raises ConfigError if it is damaged or beyond all measure."""
    segments = _segments(file, kind)
    interpreter = next((s for s in segments if s.purpose == _PT_INTERP), None)
    dynamic = next((s for s in segments if s.purpose == _PT_DYNAMIC), None)
    elf = Elf(kind)
    if dynamic is not None:
        elf = _dynamic(file, kind, segments, dynamic)
    if interpreter is not None:
        elf = dataclasses.replace(elf, interpreter=_interpreter(file, interpreter))
    return elf


def _segments(file: File, kind: Kind) -> list[_Segment]:
    header, layout, _ = (struct.Struct(kind.order + text) for text in _LAYOUTS[kind.bits])
    fields = header.unpack(file.read(16, header.size))
    file_type, offset, size, count = fields[0], fields[4], fields[8], fields[9]
    if file_type not in {_ET_EXEC, _ET_DYN}:
        refuse("stage", file.path, "it is neither a program nor a shared library: link it")
    if count and size != layout.size:
        _damaged(file, f"its program headers have {size} bytes each")
    if count * size > _HEADERS_MAX:
        _damaged(file, f"it has {count} program headers, more than the kernel takes")
    at = (0, 2, 3, 5) if kind.bits == 64 else (0, 1, 2, 4)  # p_flags has another place in each
    table = layout.iter_unpack(file.read(offset, count * layout.size))
    return [_Segment(*(row[index] for index in at)) for row in table]


def _interpreter(file: File, segment: _Segment) -> str:
    if not 2 <= segment.size <= _NAME_MAX:  # as the kernel's load_elf_binary()
        _damaged(file, f"its loader's name has {segment.size} bytes")
    return _text(file, segment.offset, _NAME_MAX)


def _dynamic(file: File, kind: Kind, segments: list[_Segment], segment: _Segment) -> Elf:
    if segment.size > _DYNAMIC_MAX:
        _damaged(file, f"it has a dynamic table of {segment.size} bytes")
    entry = struct.Struct(kind.order + _LAYOUTS[kind.bits][2])
    # The loader finds it by its address; p_offset may say another place.
    start = _offset(file, segments, segment.address)
    values: dict[int, int] = {}
    needed = []
    for tag, value in entry.iter_unpack(
        file.read(start, segment.size // entry.size * entry.size)
    ):
        if tag == _DT_NULL:
            break
        values[tag] = value
        if tag == _DT_NEEDED:
            needed.append(value)
    if len(needed) > _NEEDED_MAX:
        _damaged(file, f"it needs {len(needed)} libraries")
    wanted = {_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH} & values.keys()
    if not wanted:
        return Elf(kind)
    if _DT_STRTAB not in values:
        _damaged(file, "it has a dynamic table without strings")
    strings = _offset(file, segments, values[_DT_STRTAB])

    def text(tag: int, limit: int) -> str | None:
        return _text(file, strings + values[tag], limit) if tag in values else None

    return Elf(
        kind,
        needed=tuple(_text(file, strings + value, _NAME_MAX) for value in needed),
        soname=text(_DT_SONAME, _NAME_MAX),
        rpath=text(_DT_RPATH, _SEARCH_PATH_MAX) or "",
        runpath=text(_DT_RUNPATH, _SEARCH_PATH_MAX),
    )


def _offset(file: File, segments: list[_Segment], address: int) -> int:
    """Find what is loaded at an address in the file."""
    loaded = (segment for segment in segments if segment.purpose == _PT_LOAD)
    segment = next((s for s in loaded if 0 <= address - s.address < s.size), None)
    if segment is None:
        _damaged(file, f"nothing of it is loaded at {address:#x}")
    return segment.offset + address - segment.address


def _text(file: File, offset: int, limit: int) -> str:
    """Read up to the NUL byte that ends a string."""
    data, end, _ = file.read_up_to(offset, limit).partition(b"\0")
    if not end:
        _damaged(file, f"it holds a string without an end within {limit} bytes")
    return os.fsdecode(data)


def _damaged(file: File, what: str) -> NoReturn:
    refuse("stage", file.path, f"{what}: it is damaged, build or copy it anew")
