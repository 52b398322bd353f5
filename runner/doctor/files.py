"""Small files of /proc and /sys, none of which every host has."""

from __future__ import annotations

import os


class Files:
    """The tree below `root`; what is not there, or not ours to read, is None."""

    def __init__(self, root: str = "/") -> None:
        self._root = root

    def read(self, path: str) -> str | None:
        """Read a file, without the white space around it."""
        try:
            with open(self._at(path), encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """Read a file that holds one number; None also for one that holds none."""
        text = self.read(path) or ""
        return int(text) if text.isascii() and text.isdecimal() else None

    def exists(self, path: str) -> bool:
        return os.path.lexists(self._at(path))

    def names(self, path: str) -> list[str]:
        """List a directory, in order; empty where there is none."""
        try:
            return sorted(os.listdir(self._at(path)))
        except OSError:
            return []

    def attribute(self, path: str, name: str) -> bytes | None:
        """Read an extended attribute."""
        try:
            return os.getxattr(self._at(path), name)
        except OSError:
            return None

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path.lstrip("/"))
