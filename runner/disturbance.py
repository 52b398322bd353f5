"""What else went on while a program ran: read before and after, and put together as `Noise`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from runner.cgroup.place import groups_above, is_below
from runner.noise import Noise
from runner.quick import NamedTuple
from runner.wire import Note

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.host import Host
    from runner.result import Result

_CPUS: Final = "/sys/devices/system/cpu/cpufreq"
_NS_PER_US: Final = 1000
_THROTTLED: Final = {b"throttled_usec": _NS_PER_US, b"throttled_time": 1}  # v2 and v1


class _Look(NamedTuple):
    """What stood where at one moment."""

    steal_ns: int | None
    cpu_pressure_ns: int | None
    throttled_ns: int | None
    frequencies: Mapping[str, int]


class Disturbance:
    """Looks when it is made, and again when it is asked.

    `unified` is the cgroup v2 below which the program's group is, if it is in one of ours.
    """

    def __init__(self, host: Host, unified: str | None) -> None:
        self._above = [
            f"{directory}/cpu.stat"
            for directory, version in groups_above(host, "cpu")
            if version == 1 or unified is None or is_below(unified, directory)
        ]
        self._load = _load()
        self._before = self._look()

    def noise(self, result: Result, notes: Mapping[Note, bytes]) -> Noise:
        """Say what went on in the run that this is the result of."""
        before, after = self._before, self._look()
        return Noise(
            ready_ns=_ready_ns(notes.get(Note.SCHEDSTAT, b"")),
            migrations=_field(notes.get(Note.SCHED, b""), b"se.nr_migrations"),
            throttled_above_ns=_risen(before.throttled_ns, after.throttled_ns),
            steal_ns=_risen(before.steal_ns, after.steal_ns),
            cpu_pressure_ns=_risen(before.cpu_pressure_ns, after.cpu_pressure_ns),
            frequency_change=_change(before.frequencies, after.frequencies),
            load=self._load,
        ).judged(
            wall_ns=result.wall_ns or 0,
            cpu_ns=result.cpu_ns or 0,
            switches=result.context_switches_involuntary or 0,
        )

    def _look(self) -> _Look:
        return _Look(_steal_ns(), _pressure_ns(), _throttled_ns(self._above), _frequencies())


def _risen(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(after - before, 0)


def _read(path: str) -> bytes:
    """Read what may not be there."""
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _steal_ns() -> int | None:
    """Read the ninth word of the first line; proc_stat(5)."""
    words = _read("/proc/stat").split(b"\n")[0].split()
    if len(words) < 9:
        return None
    return int(words[8]) * (10**9 // os.sysconf("SC_CLK_TCK"))


def _pressure_ns() -> int | None:
    """Read the total of the line `some`; accounting/psi.rst of the kernel."""
    total = _read("/proc/pressure/cpu").split(b"\n")[0].rpartition(b"total=")[2]
    return int(total) * _NS_PER_US if total.isdigit() else None


def _throttled_ns(files: Iterable[str]) -> int | None:
    total = None
    for file in files:
        words = _read(file).split()
        for name, value in zip(words[::2], words[1::2], strict=False):
            if name in _THROTTLED:
                total = (total or 0) + int(value) * _THROTTLED[name]
    return total


def _frequencies() -> dict[str, int]:
    found = {}
    with contextlib.suppress(OSError):  # not every kernel sets frequencies
        for policy in os.listdir(_CPUS):
            value = _read(f"{_CPUS}/{policy}/scaling_cur_freq").strip()
            if value.isdigit():
                found[policy] = int(value)
    return found


def _change(before: Mapping[str, int], after: Mapping[str, int]) -> float | None:
    changes = [
        abs(after[cpu] / before[cpu] - 1) for cpu in before.keys() & after if before[cpu]
    ]
    return max(changes, default=None)


def _load() -> float | None:
    words = _read("/proc/loadavg").split()
    return float(words[0]) if words else None


def _ready_ns(text: bytes) -> int | None:
    """Read the second word: sched-stats.rst of the kernel. All are 0 where it keeps none."""
    words = text.split()
    return int(words[1]) if len(words) == 3 and words[0] != b"0" else None


def _field(text: bytes, name: bytes) -> int | None:
    """Read a field of /proc/PID/sched; its name, in the first line, cannot hold a newline."""
    for line in text.split(b"\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip() == name:
            return int(value)
    return None
