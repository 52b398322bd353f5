"""How long a group waited for CPU, memory and disks (PSI); accounting/psi.rst, Linux 4.20."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.cgroup.files import read

if TYPE_CHECKING:
    from runner.cgroup.files import Directory
    from runner.config import Limits

_RESOURCES: Final = ("cpu", "memory", "io")
_NS_PER_US: Final = 1000


class PressureMeter:
    """The totals of `some` (a task waited) and `full` (all waited), in ns.

    There are none where the kernel has no PSI or it is switched off (psi=0, cgroup.pressure).
    """

    def __init__(self, directory: Directory) -> None:
        self._files = {
            name: directory.open_if_present(f"{name}.pressure") for name in _RESOURCES
        }
        self._asked = False
        self._start: dict[str, int] = {}

    def prepare(self, limits: Limits) -> None:
        self._asked = limits.pressure
        if self._asked:
            self._start = self._read()

    def measure(self) -> dict[str, int | None]:
        if not self._asked:
            return {}
        return {name: total - self._start.get(name, 0) for name, total in self._read().items()}

    def close(self) -> None:
        """All ends with the group."""

    def _read(self) -> dict[str, int]:
        totals = {}
        for resource, fd in self._files.items():
            if fd is None:
                continue
            for line in read(fd).decode().splitlines():
                kind, *fields = line.split()
                total_us = int(fields[-1].partition("=")[2])
                totals[f"{resource}_pressure_{kind}_ns"] = total_us * _NS_PER_US
        return totals
