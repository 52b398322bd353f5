"""Files that an untrusted file may have named: opened without an effect, read in bounds."""

from __future__ import annotations

import errno
import os
import stat

from runner.config.checks import refuse


class File:
    """A regular file, to be read piece by piece; close it by `with`.

    Raises OSError where there is none that we may read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # Opening a device, a FIFO or a terminal can do something or wait; O_PATH does neither,
        # and nobody can exchange the file between the look and the second open.
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            status = os.fstat(place)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            self._fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(place)
        self._size = status.st_size
        self.executable = bool(status.st_mode & 0o111)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly these bytes; the caller has bounded their number."""
        data = self.read_up_to(offset, size)
        if len(data) < size:
            refuse("stage", self.path, "its end is missing: build or copy it anew")
        return data

    def read_up_to(self, offset: int, size: int) -> bytes:
        """Read these bytes, or those up to the file's end."""
        # A 64-bit offset from a header can be one that pread(2) does not take.
        return os.pread(self._fd, size, offset) if offset < self._size else b""
