"""`Artefact`: content that many runs are given, in a memfd that nobody can change."""

from __future__ import annotations

import hashlib
import mmap
import os
import weakref
from typing import NamedTuple

from runner.memfd import sealed_program


class _Looks(NamedTuple):
    """What the owner of a file may set, though it is sealed."""

    mode: int
    modified_ns: int
    changed_ns: int
    attributes: tuple[str, ...]

    @classmethod
    def of(cls, fd: int) -> _Looks:
        found = os.fstat(fd)
        attributes = tuple(os.listxattr(fd))
        return cls(found.st_mode, found.st_mtime_ns, found.st_ctime_ns, attributes)


class Artefact:
    """Content that does not change. Its fd is its own, and closed when nobody holds it.

    digest   its SHA-256, in hexadecimal digits
    size     in bytes
    """

    def __init__(self, content: bytes | int, size: int | None = None) -> None:
        """Copy it: bytes, or the regular file behind an fd, which the kernel copies.

        `size`: no more of that than so many bytes.
        """
        self._fd = fd = sealed_program("artefact", content, size)
        self._end = weakref.finalize(self, os.close, fd)
        self.size = os.fstat(fd).st_size
        self.digest = _digest(fd, self.size)
        self._looks = _Looks.of(fd)

    def fileno(self) -> int:
        """Give the fd, which is for reading only, of a file that is sealed and as it was made.

        A program that is executed from it, and has our own uid, may give it another mode, time
        or attribute, for the next to see. Then the content is put into a new file.
        """
        if _Looks.of(self._fd) != self._looks:
            fresh = sealed_program("artefact", self._fd)
            try:
                # At once, and under the same number: another thread may be about to send it.
                os.dup2(fresh, self._fd, inheritable=False)
            finally:
                os.close(fresh)
            self._looks = _Looks.of(self._fd)
        return self._fd

    def read(self) -> bytes:
        """Give the content."""
        parts, at = [], 0
        while part := os.pread(self._fd, self.size - at, at):
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def __repr__(self) -> str:
        return f"<Artefact {self.digest[:12]}… of {self.size} bytes>"


def _digest(fd: int, size: int) -> str:
    """Hash what is sealed where it is, without a copy."""
    if size == 0:
        return hashlib.sha256().hexdigest()
    with mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as content:
        return hashlib.sha256(content).hexdigest()
