"""`ArtefactCache`: artefacts that are kept in memory once, and found by their SHA-256."""

from __future__ import annotations

import collections
import threading
from typing import NamedTuple

from runner.config.checks import refuse
from runner.files.artefact import Artefact
from runner.units import MiB


class CacheStats(NamedTuple):
    """What a cache holds now, and what it has done.

    `corrupted`: how many entries of a directory were not what they should be, and removed.
    """

    artefacts: int
    bytes_kept: int
    hits: int
    misses: int
    evicted: int
    corrupted: int = 0


class ArtefactCache:
    """Artefacts, of `max_bytes` together; that which was not used for longest goes first.

    One that has gone from the cache lives on for those who hold it. From any thread.
    """

    def __init__(self, max_bytes: int = 256 * MiB) -> None:
        check_bound("max_bytes", max_bytes)
        self._max = max_bytes
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[str, Artefact] = collections.OrderedDict()
        self._size = 0
        self._counts: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> ArtefactCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def add(self, content: bytes | int, size: int | None = None) -> Artefact:
        """Keep bytes, or a copy of the regular file behind an fd, and give the artefact.

        `size`: of a file no more than so many bytes.

        What is kept already is given as it is; what is larger than the whole cache is given,
        and not kept.
        """
        made = Artefact(content, size)
        with self._lock:
            found = self._kept.get(made.digest)
            self._counts["misses" if found is None else "hits"] += 1
            if found is not None:
                self._kept.move_to_end(made.digest)
                return found
            if made.size <= self._max:
                self._kept[made.digest] = made
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


def check_bound(name: str, value: int) -> None:
    """Refuse what is no bound of a cache."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        refuse(name, value, f"give a number{' of bytes' if 'bytes' in name else ''}, 1 or more")
