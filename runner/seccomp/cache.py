"""Compiled filters, kept by the content that they were compiled from.

In $XDG_CACHE_HOME or ~/.cache, and only there where nobody else could have put them: a filter
decides what a program may do. Without such a directory nothing is kept, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final

# What is kept was made by this generation of the compiler: count on when its output changes.
_GENERATION: Final = "1"
_LONGEST: Final = 8 * 4096
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def kept(parts: Iterable[str], make: Callable[[], bytes]) -> bytes:
    """Give the filter for this content: the one that is kept, or else a new one."""
    digest = hashlib.sha256()
    for part in (_GENERATION, *parts):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    name = f"{digest.hexdigest()}.bpf"
    with _directory() as directory:
        program = None if directory is None else _read(name, directory)
        if program is None:
            program = make()
            if directory is not None:
                _write(name, directory, program)
    return program


@contextlib.contextmanager
def _directory() -> Iterator[int | None]:
    """Open the directory, made if need be; None where it is not ours alone."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parent, name = os.path.split(cache)
    with contextlib.ExitStack() as fds:
        at = _open(parent, None, fds) if os.path.isabs(parent) else None
        for step in (name, "run-sandboxed"):
            if at is not None:
                with contextlib.suppress(OSError):  # of which to open it tells
                    os.mkdir(step, 0o700, dir_fd=at)
                at = _open(step, at, fds)
        yield at


def _open(name: str, at: int | None, fds: contextlib.ExitStack) -> int | None:
    """Open a directory in which only we can write.

    Each on the way is looked at: sudo keeps HOME, and then root neither trusts nor writes what
    is the user's.
    """
    try:
        fd = os.open(name, _DIRECTORY | (0 if at is None else os.O_NOFOLLOW), dir_fd=at)
    except OSError:
        return None
    fds.callback(os.close, fd)
    found = os.fstat(fd)
    ours = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return fd if ours else None


def _read(name: str, directory: int) -> bytes | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    with open(fd, "rb") as file:
        program = file.read(_LONGEST + 1)
    return program if 0 < len(program) <= _LONGEST and not len(program) % 8 else None


def _write(name: str, directory: int, program: bytes) -> None:
    """Keep it; a full disk is no reason not to run."""
    fresh = f"{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        fd = os.open(fresh, flags, 0o600, dir_fd=directory)
        with open(fd, "wb") as file:
            file.write(program)
        os.replace(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
