"""What the keeper watches while a program runs: from its limits, streams and groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import streams, wire
from runner.units import seconds_to_ns

if TYPE_CHECKING:
    from runner.cgroup import Groups
    from runner.config import Limits


def group_fds(groups: Groups) -> list[int]:
    """Give what follows the streams in a run; `watch_of` and the plan say where each is."""
    fds = list(groups.placement)
    if groups.cpu is not None:
        fds.append(groups.cpu[0])
    if groups.pids_current is not None:
        fds.append(groups.pids_current)
    return [*fds, *groups.files.read_after]


def watch_of(
    limits: Limits, wanted: streams.Wanted, groups: Groups | None, cpus: int, first: int
) -> wire.Watch:
    """Say what is watched; `first` is where the groups' fds begin."""
    cpu_time = None if limits.cpu_time is None else limits.cpu_time + limits.extra_time
    watch = wire.Watch(
        wall_ns=_ns(limits.wall_time),
        cpu_ns=_ns(cpu_time),
        idle_ns=_ns(limits.idle_time),
        memory_bytes=limits.memory or 0,
        output_bytes=limits.output or 0,
        keep_stdout=wanted.capture_limit,
        keep_stderr=wanted.capture_limit,
        sink_stdout=wanted.sinks[0],
        sink_stderr=wanted.sinks[1],
        cpus=max(cpus, len(limits.cpus or ())),  # a cpuset may be wider than our own affinity
        ledger=wanted.calls_at,
    )
    if groups is None:
        return watch
    free = first + len(groups.placement)
    watch = watch._replace(memory_bytes=0)  # the cgroup's own limit holds it
    if groups.cpu is not None:
        watch = watch._replace(cpu_fd=free, cpu_format=groups.cpu[1])
        free += 1
    if groups.pids_current is not None:
        watch = watch._replace(procs_fd=free)
    return watch


def _ns(seconds: float | None) -> int:
    return 0 if seconds is None else seconds_to_ns(seconds)
