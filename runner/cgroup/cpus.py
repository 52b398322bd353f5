"""The CPUs that a group runs on (cpuset), which its processes cannot widen as an affinity.

v1 takes only what the parent has. v2 takes anything, and uses the parent's where nothing of it
is there; so what is in effect is read back.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.cgroup.files import read, write, write_limit
from runner.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Collection

    from runner.cgroup.files import Directory
    from runner.config import Limits

_REMEDY: Final = "name CPUs that are online and in the cpuset of the groups above"


class CpusV1:
    """cpuset.cpus; cgroup-v1/cpusets.rst."""

    def __init__(self, directory: Directory) -> None:
        self._cpus = directory.open("cpuset.cpus", os.O_RDWR)
        self._inherited = read(self._cpus)
        self._set: Collection[int] | None = None

    def prepare(self, limits: Limits) -> None:
        if limits.cpus != self._set:
            value = self._inherited if limits.cpus is None else to_text(limits.cpus)
            write_limit(self._cpus, value, name="cpuset.cpus", remedy=_REMEDY)
            self._set = limits.cpus

    def measure(self) -> dict[str, int | None]:
        return {}

    def close(self) -> None:
        """All ends with the group."""


class CpusV2:
    """cpuset.cpus; cgroup-v2.rst, "Cpuset Interface Files"."""

    def __init__(self, directory: Directory) -> None:
        self._cpus = directory.open("cpuset.cpus", os.O_WRONLY)
        self._effective = directory.open("cpuset.cpus.effective")
        self._set: Collection[int] | None = None

    def prepare(self, limits: Limits) -> None:
        if limits.cpus == self._set:
            return
        if limits.cpus is None:
            write(self._cpus, b"\n")
        else:
            write_limit(self._cpus, to_text(limits.cpus), name="cpuset.cpus", remedy=_REMEDY)
            missing = set(limits.cpus) - from_text(read(self._effective))
            if missing:
                message = f"CPU {min(missing)} cannot be used here"
                raise HostError(message, _REMEDY)
        self._set = limits.cpus

    def measure(self) -> dict[str, int | None]:
        return {}

    def close(self) -> None:
        """All ends with the group."""


def inherit(directory: Directory) -> None:
    """Let a new v1 group have the CPUs and memory nodes of its parent.

    It begins with none, and then nobody can join: ENOSPC.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        fd = directory.open_if_present(name, os.O_RDWR)
        if fd is None:
            return
        if not read(fd).strip():  # cgroup.clone_children may have done it
            write(fd, read(directory.open(f"../{name}")))


def to_text(cpus: Collection[int]) -> bytes:
    """Write numbers as the kernel reads them: `0,2,3`."""
    return ",".join(map(str, sorted(cpus))).encode()


def from_text(text: bytes) -> set[int]:
    """Read the kernel's list, such as `0-2,5`."""
    cpus: set[int] = set()
    for item in text.decode().strip().split(","):
        first, _, last = item.partition("-")
        if first:
            cpus.update(range(int(first), int(last or first) + 1))
    return cpus
