"""Content in files that are nowhere: memfds, which may be sealed against all change."""

from __future__ import annotations

import fcntl
import os
from typing import Final

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def sealed_memfd(name: str, content: bytes) -> int:
    """Give a read-only fd of a new memfd that nobody can change; the caller owns the fd.

    Read-only, because before Linux 6.7 a sealed memfd that is open for writing cannot be mapped
    MAP_SHARED, not even for reading.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write(fd, content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def memfd_of(name: str, content: bytes) -> int:
    """Give an fd of a new memfd that holds the content; the caller owns the fd."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        _write(fd, content)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
