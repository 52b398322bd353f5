"""The small files of a cgroup directory: opened once, then read and written with no path walk.

A pread at offset 0 makes the kernel produce the text anew. It does not for v1's `tasks` and
`cgroup.procs`, whose list of pids it keeps for a second: open those again for each look.
"""

from __future__ import annotations

import os
from typing import Final

from runner.errors import HostError

# What we keep open holds a few short lines; cpu.stat has the most, under 500 bytes.
_LONGEST: Final = 4096


class Directory:
    """An open cgroup directory, and the files opened in it, which `close` closes with it."""

    __slots__ = ("_fds", "fd")

    def __init__(self, path: str, *, dir_fd: int | None = None) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=dir_fd)
        self._fds = [self.fd]

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open a file here; the fd stays ours."""
        fd = os.open(name, flags, dir_fd=self.fd)
        self._fds.append(fd)
        return fd

    def open_if_present(self, name: str, flags: int = os.O_RDONLY) -> int | None:
        """Open a file that not every kernel has; None where there is none."""
        try:
            return self.open(name, flags)
        except FileNotFoundError:
            return None

    def open_needed(self, name: str, flags: int, remedy: str) -> int:
        """Open a file without which there is no run; raises HostError where there is none."""
        fd = self.open_if_present(name, flags)
        if fd is None:
            message = f"this kernel's cgroups have no {name}"
            raise HostError(message, remedy)
        return fd

    def close(self) -> None:
        """Close the directory and all files opened here; idempotent."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)


def read(fd: int) -> bytes:
    """Read the whole of a small file, as it is now."""
    return os.pread(fd, _LONGEST, 0)


def read_number(fd: int) -> int:
    """Read a file that holds one number."""
    return int(os.pread(fd, 64, 0))


def read_fields(fd: int) -> dict[bytes, int]:
    """Read a flat keyed file: a name and a number on each line; cgroup-v2.rst, "Format"."""
    return fields(read(fd))


def fields(text: bytes) -> dict[bytes, int]:
    """Take such a file's text apart."""
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def write(fd: int, text: bytes) -> None:
    """Write a value; the kernel takes all of it or raises OSError."""
    os.pwrite(fd, text, 0)


def write_limit(fd: int, text: bytes, *, name: str, remedy: str) -> None:
    """Write a value; raises HostError, which names the file and the value, if it is refused."""
    try:
        os.pwrite(fd, text, 0)
    except OSError as error:
        message = f"cannot set {name} to {text.decode().strip()!r}: {error.strerror}"
        raise HostError(message, remedy) from error
