"""The physical cores of this machine, and which CPUs are one core's (SMT siblings)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from runner.cgroup.cpus import from_text

if TYPE_CHECKING:
    from collections.abc import Collection

_TOPOLOGY = "/sys/devices/system/cpu"


class Core(NamedTuple):
    """A core: the CPU that programs are given, and all that share its execution units."""

    cpu: int
    siblings: tuple[int, ...]


def physical_cores(
    allowed: Collection[int] | None = None, *, topology: str = _TOPOLOGY
) -> list[Core]:
    """Give the cores that we may run on, by their lowest CPU that is allowed.

    Where the kernel does not tell who shares a core (sysfs is not mounted, or a container hides
    it), each CPU counts as a core.
    """
    mine = os.sched_getaffinity(0) if allowed is None else set(allowed)
    cores: dict[tuple[int, ...], Core] = {}
    for cpu in sorted(mine):
        siblings = _siblings(topology, cpu)
        cores.setdefault(siblings, Core(cpu, siblings))
    return list(cores.values())


def _siblings(topology: str, cpu: int) -> tuple[int, ...]:
    try:
        # Since Linux 5.2 also core_cpus_list; the same.
        with open(f"{topology}/cpu{cpu}/topology/thread_siblings_list", "rb") as file:
            return tuple(sorted(from_text(file.read()) | {cpu}))
    except OSError:
        return (cpu,)
