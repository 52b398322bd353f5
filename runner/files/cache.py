"""`ArtefactCache`: content that many runs are given, kept once, found by its SHA-256.

Each is in a memfd that is sealed: nobody can change it, so that what many runs get is the same.
"""

from __future__ import annotations

import collections
import hashlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, NamedTuple

from runner.config.checks import refuse
from runner.memfd import sealed_memfd
from runner.units import MiB

if TYPE_CHECKING:
    from types import TracebackType


class Artefact:
    """Content that does not change. Its fd is its own, and closed when nobody holds it."""

    def __init__(self, digest: str, content: bytes) -> None:
        self.digest = digest
        self.size = len(content)
        self._fd = sealed_memfd("artefact", content)
        self._end = weakref.finalize(self, os.close, self._fd)

    def fileno(self) -> int:
        """Give the fd, which is for reading only and sealed."""
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


class CacheStats(NamedTuple):
    """What a cache holds now, and what it has done."""

    artefacts: int
    bytes_kept: int
    hits: int
    misses: int
    evicted: int


class ArtefactCache:
    """Artefacts, of `max_bytes` together; that which was not used for longest goes first.

    One that has gone from the cache lives on for those who hold it. From any thread.
    """

    def __init__(self, max_bytes: int = 256 * MiB) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            refuse("max_bytes", max_bytes, "give a number of bytes, 1 or more")
        self._max = max_bytes
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[str, Artefact] = collections.OrderedDict()
        self._size = 0
        self._counts: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> ArtefactCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def add(self, content: bytes) -> Artefact:
        """Keep it, if it is not kept already, and give it.

        What is larger than the whole cache is given, and not kept.
        """
        digest = hashlib.sha256(content).hexdigest()
        found = self.get(digest)
        if found is not None:
            return found
        made = Artefact(digest, content)
        with self._lock:
            found = self._kept.get(digest)
            if found is not None:  # another thread was faster
                return found
            if made.size <= self._max:
                self._kept[digest] = made
                self._size += made.size
                self._shrink()
        return made

    def get(self, digest: str) -> Artefact | None:
        """Give what has this SHA-256, in hexadecimal digits, if it is kept."""
        with self._lock:
            found = self._kept.get(digest)
            self._counts["misses" if found is None else "hits"] += 1
            if found is not None:
                self._kept.move_to_end(digest)
            return found

    def discard(self, digest: str) -> bool:
        """Keep it no more; whether it was kept."""
        with self._lock:
            found = self._kept.pop(digest, None)
            if found is not None:
                self._size -= found.size
            return found is not None

    def clear(self) -> None:
        """Keep nothing more of what it has."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def stats(self) -> CacheStats:
        """Count."""
        with self._lock:
            counts = self._counts
            return CacheStats(
                len(self._kept), self._size, counts["hits"], counts["misses"], counts["evicted"]
            )

    def _shrink(self) -> None:
        while self._size > self._max:
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.size
            self._counts["evicted"] += 1
