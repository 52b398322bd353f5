"""Content in files that are nowhere: memfds, which may be sealed against all change."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_EXEC: Final = 0x10  # MFD_EXEC, Linux 6.3
_COPY_BYTES: Final = 1 << 30


def sealed_memfd(name: str, content: bytes | int) -> int:
    """Give a read-only fd of a new memfd that nobody can change; the caller owns the fd.

    An fd as content is that of a regular file: the kernel copies it, from its start, as much as
    it has now.
    """
    return _sealed(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), content)


def sealed_program(name: str, content: bytes | int, size: int | None = None) -> int:
    """Give the same of what may be executed; of a file `size` bytes at most.

    Somebody may let it grow meanwhile. Nobody but its owner may set its attributes, which
    whoever executes it next would see.
    """
    return _sealed(_executable(name), content, size, mode=0o555)


def memfd_of(name: str, content: bytes) -> int:
    """Give an fd of a new memfd that holds the content; the caller owns the fd."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        _write(fd, content)
    except BaseException:
        os.close(fd)
        raise
    return fd


def copy(source: int, target: int, size: int | None = None) -> None:
    """Copy a regular file, or its first bytes, which do not come through our memory."""
    at = 0
    if size is None:
        size = os.fstat(source).st_size
    while at < size and (sent := os.sendfile(target, source, at, min(size - at, _COPY_BYTES))):
        at += sent


def _executable(name: str) -> int:
    """Make a memfd that can be executed where vm.memfd_noexec is 1, too."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EACCES: vm.memfd_noexec is 2
            raise
        return os.memfd_create(name, flags)


def _sealed(
    fd: int, content: bytes | int, size: int | None = None, *, mode: int | None = None
) -> int:
    """Fill a new memfd, seal it, and open it again to be read; closes `fd`.

    Read-only, because before Linux 6.7 a sealed memfd that is open for writing cannot be mapped
    MAP_SHARED, not even for reading; and what is open for writing cannot be executed.
    """
    try:
        if isinstance(content, int):
            copy(content, fd, size)
        else:
            _write(fd, content)
        if mode is not None:
            os.fchmod(fd, mode)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
