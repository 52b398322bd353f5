"""`ArtefactDirectory`: artefacts that are kept on disk, for many processes and the next start.

Each is a file that has its SHA-256 as its name, mode 0600, in a directory that nobody else may
enter. What is there is not trusted: it is copied into a sealed memfd, and given only if that
has the SHA-256 that was asked for. So nobody need lock anything: a file comes into being by a
rename, whole, and whoever has opened one reads it to its end though another process removes it.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import re
import secrets
import stat
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from runner.config.checks import refuse
from runner.errors import HostError
from runner.files.artefact import Artefact
from runner.files.cache import CacheStats, check_bound
from runner.memfd import copy
from runner.units import GiB

if TYPE_CHECKING:
    from collections.abc import Iterator
_NAME: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NEW: Final = "new."  # what is being written, by whom has not died
_ABANDONED_S: Final = 3600
# O_NONBLOCK: a fifo opens at once, and is then none of ours.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class _Entry(NamedTuple):
    """A file of the directory. The least is that which was not used for longest."""

    used_ns: int
    name: str
    size: int


class ArtefactDirectory:
    """Artefacts in the directory `path`, which is made, but not its parents; from any thread.

    max_bytes   of all files together …
    max_files   … and how many; what was not used for longest goes first

    Processes that have the same directory share what is in it; each holds to its own bounds.
    Raises ConfigError for a directory that is not ours alone, HostError for one that is full.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, max_bytes: int = 4 * GiB, max_files: int = 4096
    ) -> None:
        check_bound("max_bytes", max_bytes)
        check_bound("max_files", max_files)
        self._path = os.fspath(path)
        self._max_bytes, self._max_files = max_bytes, max_files
        self._lock = threading.Lock()  # guards the counts
        self._counts: collections.Counter[str] = collections.Counter()
        # Of this process, as long as somebody holds them: they need not be read again.
        self._held: weakref.WeakValueDictionary[str, Artefact] = weakref.WeakValueDictionary()
        self._fd = _open_own(self._path)
        self._end = weakref.finalize(self, os.close, self._fd)

    def __enter__(self) -> ArtefactDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory; what is in it stays. Idempotent."""
        self._end()

    def add(self, content: bytes | int, size: int | None = None) -> Artefact:
        """Keep bytes, or a copy of the regular file behind an fd, and give the artefact.

        `size`: of a file no more than so many bytes.

        What is larger than the whole directory may be is given, and not kept.
        """
        made = Artefact(content, size)
        self._held[made.digest] = made
        if made.size <= self._max_bytes and not self._is_there(made):
            self._write(made)
            self._shrink()
        return made

    def get(self, digest: str) -> Artefact | None:
        """Give what has this SHA-256, in hexadecimal digits, if it is kept.

        A file that has another is removed.
        """
        found = self._find(digest) if _NAME.fullmatch(digest) else None
        self._count("misses" if found is None else "hits")
        return found

    def discard(self, digest: str) -> bool:
        """Keep it no more; whether it was kept."""
        return _NAME.fullmatch(digest) is not None and self._remove(digest)

    def clear(self) -> None:
        """Keep nothing more of what it has."""
        for entry in self._entries():
            self._remove(entry.name)

    def stats(self) -> CacheStats:
        """Count: files of all processes, and what this one has done."""
        entries = list(self._entries())
        with self._lock:
            counts = dict(self._counts)
        done = (counts.get(name, 0) for name in ("hits", "misses", "evicted", "corrupted"))
        return CacheStats(len(entries), sum(entry.size for entry in entries), *done)

    @property
    def _at(self) -> int:
        if not self._end.alive:  # its number may be another file's by now
            message = f"{self._path}: this ArtefactDirectory is closed"
            raise ValueError(message)
        return self._fd

    def _find(self, digest: str) -> Artefact | None:
        held = self._held.get(digest)
        try:
            fd = os.open(digest, _READ, dir_fd=self._at)
        except FileNotFoundError:
            return None  # nor do we keep what has been evicted, though somebody holds it
        except OSError:  # ELOOP: a symbolic link; ENXIO: a socket; EACCES: not as we write it
            self._remove_corrupted(digest)
            return None
        try:
            if not self._is_sound(os.fstat(fd)):
                self._remove_corrupted(digest)
                return None
            with contextlib.suppress(OSError):  # what cannot be written to is read all the same
                os.utime(fd)
            found = held or Artefact(fd)
        finally:
            os.close(fd)
        if found.digest != digest:
            self._remove_corrupted(digest)
            return None
        self._held[digest] = found
        return found

    def _is_sound(self, found: os.stat_result) -> bool:
        """Tell whether a file may be one of ours, without reading it."""
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        return ours and found.st_size <= self._max_bytes

    def _is_there(self, made: Artefact) -> bool:
        """Tell whether it seems to be kept, and then note that it is used.

        If it is not what it seems, whoever asks for it will find out.
        """
        try:
            found = os.stat(made.digest, dir_fd=self._at, follow_symlinks=False)
            if not self._is_sound(found) or found.st_size != made.size:
                return False
            os.utime(made.digest, dir_fd=self._at, follow_symlinks=False)
        except OSError:  # it is not, or was until now; or writing it will tell
            return False
        return True

    def _write(self, made: Artefact) -> None:
        new = f"{_NEW}{secrets.token_hex(16)}"
        try:
            fd = os.open(new, _WRITE, 0o600, dir_fd=self._at)
            try:
                copy(made.fileno(), fd)
                os.rename(new, made.digest, src_dir_fd=self._at, dst_dir_fd=self._at)
            except BaseException:
                self._remove(new)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in _FULL:
                missing = f"the file system of {self._path} is full"
                raise HostError(
                    missing, "make room there, or keep less by max_bytes"
                ) from error
            missing = f"{self._path} cannot be written to: {error.strerror}"
            raise HostError(missing, "give a directory that is ours, and empty") from error

    def _shrink(self) -> None:
        """Hold to the bounds. Several at once remove the same, as their order is the same."""
        entries = sorted(self._entries())
        size, count = sum(entry.size for entry in entries), len(entries)
        for entry in entries:
            if size <= self._max_bytes and count <= self._max_files:
                break
            size, count = size - entry.size, count - 1
            if self._remove(entry.name):
                self._count("evicted")

    def _entries(self) -> Iterator[_Entry]:
        """Give the files; what somebody began to write, and died, is removed."""
        # An fd of its own: the position in a directory is that of the open file.
        fd = os.open(".", _DIRECTORY, dir_fd=self._at)
        try:
            with os.scandir(fd) as found:
                for one in found:
                    with contextlib.suppress(FileNotFoundError):  # another process removed it
                        status = one.stat(follow_symlinks=False)
                        if _NAME.fullmatch(one.name):
                            yield _Entry(status.st_mtime_ns, one.name, status.st_size)
                        elif one.name.startswith(_NEW) and _is_abandoned(status):
                            self._remove(one.name)
        finally:
            os.close(fd)

    def _remove_corrupted(self, digest: str) -> None:
        if self._remove(digest):
            self._count("corrupted")

    def _remove(self, name: str) -> bool:
        try:
            os.unlink(name, dir_fd=self._at)
        except FileNotFoundError:
            return False
        except OSError as error:  # a directory, or one that is read-only
            missing = f"{self._path}/{name} cannot be removed: {error.strerror}"
            raise HostError(missing, "remove it by hand") from error
        return True

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


def _is_abandoned(found: os.stat_result) -> bool:
    return time.time() - found.st_mtime > _ABANDONED_S


def _open_own(path: str) -> int:
    """Open a directory that nobody else may enter, and make it if need be."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        fd = os.open(path, _DIRECTORY)
    except OSError as error:
        refuse("path", path, f"{error.strerror}: give a directory, or one that can be made")
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(fd)
        refuse("path", path, "others own it or may enter it: chown it to us, and chmod 0700")
    return fd
