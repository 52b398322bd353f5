"""Bytes and operations per second that a group may read from a disk and write to it.

On v1 what goes through the page cache is written back by the kernel's own threads, and is
nobody's; on v2 it is charged where the file system knows whose it is (ext4, btrfs, xfs).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from runner.cgroup.files import write_limit
from runner.errors import HostError

if TYPE_CHECKING:
    from runner.cgroup.files import Directory
    from runner.config import IoLimit, Limits

_NEEDS_THROTTLING: Final = "use a kernel with CONFIG_BLK_DEV_THROTTLING"
_REMEDY: Final = "name a disk that exists: see lsblk"

# Fields of IoLimit, with their files in v1 and their keys in v2.
_RATES: Final = (
    ("read_bytes", "blkio.throttle.read_bps_device", "rbps"),
    ("write_bytes", "blkio.throttle.write_bps_device", "wbps"),
    ("read_ops", "blkio.throttle.read_iops_device", "riops"),
    ("write_ops", "blkio.throttle.write_iops_device", "wiops"),
)


class _Io:
    """What v1 and v2 have in common: the disks that were limited before are set free."""

    def __init__(self) -> None:
        self._set: tuple[IoLimit, ...] = ()
        self._disks: set[str] = set()

    def prepare(self, limits: Limits) -> None:
        if limits.io == self._set:
            return
        self._set = ()
        wanted = {disk_of(limit.device): limit for limit in limits.io}
        for disk in self._disks - wanted.keys():
            self._write(disk, dict.fromkeys(name for name, _, _ in _RATES))
        self._disks |= wanted.keys()
        for disk, limit in wanted.items():
            self._write(disk, {name: getattr(limit, name) for name, _, _ in _RATES})
        self._disks = set(wanted)
        self._set = limits.io

    def measure(self) -> dict[str, int | None]:
        return {}

    def close(self) -> None:
        """All ends with the group."""

    def _write(self, disk: str, rates: dict[str, int | None]) -> None:
        raise NotImplementedError


class IoV1(_Io):
    """blkio.throttle.*; cgroup-v1/blkio-controller.rst."""

    def __init__(self, directory: Directory) -> None:
        super().__init__()
        self._files = {
            name: directory.open_needed(file, os.O_WRONLY, _NEEDS_THROTTLING)
            for name, file, _ in _RATES
        }

    def _write(self, disk: str, rates: dict[str, int | None]) -> None:
        for name, file, _ in _RATES:
            value = f"{disk} {rates[name] or 0}".encode()
            write_limit(self._files[name], value, name=file, remedy=_REMEDY)


class IoV2(_Io):
    """io.max; cgroup-v2.rst, "IO Interface Files"."""

    def __init__(self, directory: Directory) -> None:
        super().__init__()
        self._max = directory.open_needed("io.max", os.O_WRONLY, _NEEDS_THROTTLING)

    def _write(self, disk: str, rates: dict[str, int | None]) -> None:
        keys = (f"{key}={rates[name] or 'max'}" for name, _, key in _RATES)
        value = " ".join((disk, *keys)).encode()
        write_limit(self._max, value, name="io.max", remedy=_REMEDY)


def disk_of(device: str) -> str:
    """Give MAJOR:MINOR of the whole disk that a device, partition or file is on.

    Raises HostError for what is on no disk, such as a file in a tmpfs.
    """
    number = device
    if device.startswith("/"):
        try:
            status = os.stat(device)
        except OSError as error:
            message = f"io: cannot look at {device}: {error.strerror}"
            raise HostError(message, _REMEDY) from error
        file = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
        number = f"{os.major(file)}:{os.minor(file)}"
    entry = f"/sys/dev/block/{number}"
    if not os.path.exists(entry):
        message = f"io: {device} is on no disk"
        raise HostError(message, _REMEDY)
    if os.path.exists(f"{entry}/partition"):
        with open(f"{entry}/../dev", encoding="ascii") as text:
            number = text.read().strip()
    return number
