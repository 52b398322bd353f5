"""A worker's two directories on the host: one to compile in, one to run from.

The sandbox may write to the first, so nothing found there is trusted: no link is followed, no
fifo waited for, no size believed. Only copies of plain files reach the second, which is
read-only in the sandbox. Both lie in a directory that nobody else on this host may enter.
"""

from __future__ import annotations

import fcntl
import fnmatch
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from runner.units import MiB

_PREFIX: Final = "run-sandboxed.judge."
MAX_ARTEFACTS: Final = 1000
MAX_ARTEFACT_BYTES: Final = 256 * MiB  # all of a submission's together
_COPY_BYTES: Final = MiB


class ArtefactError(Exception):
    """The compile step left something that is no proper artefact; says what."""


class Workspace:
    """Owns the directories `build` and `run`; `close` removes them."""

    def __init__(self) -> None:
        remove_abandoned()
        self._parent, self._owned = _make_parent()
        self.build: Final = self._parent / "build"
        self.run: Final = self._parent / "run"
        for directory, mode in ((self.build, 0o777), (self.run, 0o755)):
            directory.mkdir()
            directory.chmod(mode)  # whatever the umask; the sandbox's user is not ours

    def put_source(self, name: str, source: bytes) -> None:
        """Empty both directories and write the source to compile."""
        self.clear()
        with _directory(self.build) as build, _create(name, build, 0o644) as target:
            target.write(source)

    def collect(self, patterns: Sequence[str], *, max_bytes: int = MAX_ARTEFACT_BYTES) -> None:
        """Copy the artefacts to `run` and empty `build`; raises ArtefactError."""
        with _directory(self.build) as build, _directory(self.run) as run:
            names = sorted(n for n in os.listdir(build) if _matches(n, patterns))
            if not names:
                raise ArtefactError(f"the compiler left no {' or '.join(patterns)}")
            if len(names) > MAX_ARTEFACTS:
                raise ArtefactError(
                    f"the compiler left {len(names)} files, above {MAX_ARTEFACTS}"
                )
            left = max_bytes
            for name in names:
                left -= _copy(name, build, run, left)
        _empty(self.build)

    def clear(self) -> None:
        """Empty both directories."""
        _empty(self.build)
        _empty(self.run)

    def close(self) -> None:
        """Remove everything; idempotent."""
        if self._owned >= 0:
            shutil.rmtree(self._parent)
            os.close(self._owned)
            self._owned = -1


def remove_abandoned() -> None:
    """Remove what was left by processes of this user that were killed."""
    with os.scandir(tempfile.gettempdir()) as entries:
        ours = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in ours:
        try:
            fd = _lock(path, fcntl.LOCK_NB)
        except OSError:  # in use, another user's, just gone, or no directory
            continue
        try:
            if _is_at(path, fd) and os.fstat(fd).st_uid == os.geteuid():
                # What cannot be removed stays: it is no reason not to judge.
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(fd)


def _make_parent() -> tuple[Path, int]:
    """Make the directory, mode 0700, and lock it: the kernel drops the lock when we die."""
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX)
        try:
            fd = _lock(path, 0)
        except FileNotFoundError:
            continue
        if _is_at(path, fd):
            return Path(path), fd
        os.close(fd)  # remove_abandoned, elsewhere, was faster: before the lock


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _lock(path: str, flags: int) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | flags)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _create(name: str, directory: int, mode: int) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=directory)
    os.fchmod(fd, mode)
    return os.fdopen(fd, "wb")


def _copy(name: str, build: int, run: int, max_bytes: int) -> int:
    """Copy one plain file, give its size; O_NONBLOCK: a fifo without a writer opens at once."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=build)
    except OSError as error:
        # ELOOP: a symbolic link; ENXIO: a socket; EACCES: a file without permissions.
        raise ArtefactError(f"{name}: no plain file: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ArtefactError(f"{name}: no plain file")
        copied = 0
        with _create(name, run, 0o755) as target:
            while block := os.read(fd, _COPY_BYTES):
                copied += len(block)
                if copied > max_bytes:
                    raise ArtefactError(f"{name}: the artefacts are above their size limit")
                target.write(block)
    finally:
        os.close(fd)
    return copied


def _empty(directory: Path) -> None:
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)  # does not follow links, whoever swaps one in
        else:
            os.unlink(entry.path)
