"""What may have disturbed the timing of a run, and whether its times are suspect for it.

Pure; `disturbance` looks.
"""

from __future__ import annotations

from typing import Final

from runner.quick import NamedTuple

# What is less is always there, on a quiet host too.
_LEAST_NS: Final = 500_000
_SHARE: Final = 0.01
_PRESSURE_SHARE: Final = 0.05
_FREQUENCY_SHARE: Final = 0.05
# A program that is alone on its CPU is taken off it for a moment by what the kernel has to do.
_SWITCHES: Final = 5
_NS_PER_SWITCH: Final = 20_000_000
_MIGRATIONS: Final = 2
_NS_PER_MIGRATION: Final = 50_000_000


class Noise(NamedTuple):
    """What happened meanwhile; None is what this host does not tell. docs/accuracy.md has more.

    of its main thread, with its set-up:
    ready_ns             it could have run, and waited for a CPU
    migrations           it went on on another CPU
    of what is above it:
    throttled_above_ns   cgroups above ours were out of their quota, added up
    of the whole host:
    steal_ns             the hypervisor ran others; all CPUs together, in steps of 10 ms
    cpu_pressure_ns      somebody waited for a CPU (PSI); the program counts too
    frequency_change     of the CPU whose frequency changed most, from start to end: 0.1 is 10 %
    load                 the load average of the minute before
    suspect              why its times are not to be trusted; empty if nothing was seen
    """

    ready_ns: int | None = None
    migrations: int | None = None
    throttled_above_ns: int | None = None
    steal_ns: int | None = None
    cpu_pressure_ns: int | None = None
    frequency_change: float | None = None
    load: float | None = None
    suspect: tuple[str, ...] = ()

    def judged(self, *, wall_ns: int, cpu_ns: int, switches: int) -> Noise:
        """Give the same with what is suspect in a run of these times.

        `switches` is how often its processes were taken off a CPU that they did not give up.
        """
        least = max(_LEAST_NS, int(wall_ns * _SHARE))
        pressure = max(_LEAST_NS, int(wall_ns * _PRESSURE_SHARE))
        found = []
        if (self.ready_ns or 0) > least:
            found.append(f"it waited {_ms(self.ready_ns)} for a CPU")
        if switches > _SWITCHES + cpu_ns // _NS_PER_SWITCH:
            found.append(f"it was taken off its CPU {switches} times")
        if (self.migrations or 0) > _MIGRATIONS + cpu_ns // _NS_PER_MIGRATION:
            found.append(f"it was moved to another CPU {self.migrations} times")
        if self.throttled_above_ns:
            found.append(f"a group above it was throttled for {_ms(self.throttled_above_ns)}")
        if self.steal_ns:
            found.append(f"the hypervisor ran others for {_ms(self.steal_ns)}")
        if (self.cpu_pressure_ns or 0) > pressure:
            found.append(f"CPUs were waited for {_ms(self.cpu_pressure_ns)}")
        if (self.frequency_change or 0.0) > _FREQUENCY_SHARE:
            found.append(f"a CPU's frequency changed by {self.frequency_change:.0%}")
        return self._replace(suspect=tuple(found))


def _ms(time_ns: int | None) -> str:
    return f"{(time_ns or 0) / 1e6:.1f} ms"
