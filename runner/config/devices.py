"""Limits on disks and devices, which few runs have."""

from __future__ import annotations

import re
from typing import Final

from runner.config.checks import check_count, check_path, refuse
from runner.quick import dataclass
from runner.units import MAX_BYTES

_BLOCK_DEVICE: Final = re.compile(r"[0-9]+:[0-9]+", re.ASCII)
_DEVICE: Final = re.compile(r"[bc] ([0-9]+|\*):([0-9]+|\*)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class IoLimit:
    """How much a run may read from a disk and write to it, each second; None is unlimited.

    `device` is MAJOR:MINOR, or the path of a block device or of a file on one; a partition
    stands for its disk.
    """

    device: str
    read_bytes: int | None = None
    write_bytes: int | None = None
    read_ops: int | None = None
    write_ops: int | None = None

    def __post_init__(self) -> None:
        if not _BLOCK_DEVICE.fullmatch(self.device):
            check_path("IoLimit.device", self.device)
        rates = ("read_bytes", "write_bytes", "read_ops", "write_ops")
        for name in rates:
            check_count(f"IoLimit.{name}", getattr(self, name), MAX_BYTES)
            if getattr(self, name) == 1:
                refuse(f"IoLimit.{name}", 1, "the least that the kernel can hold is 2")
        if all(getattr(self, name) is None for name in rates):
            refuse("IoLimit", self.device, "give one of " + ", ".join(rates))


@dataclass(frozen=True)
class DeviceAccess:
    """A device node that a run may use: `r` read, `w` write, `m` make such a node.

    `device` is the path of a node, or `c MAJOR:MINOR` or `b MAJOR:MINOR`, where * is any.
    """

    device: str
    access: str = "rw"

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            check_path("DeviceAccess.device", self.device)
        if not self.access or len(set(self.access) & set("rwm")) != len(self.access):
            refuse("DeviceAccess.access", self.access, "give some of r, w, m, each once")
