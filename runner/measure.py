"""From the keeper's reply and the cgroup's figures to a `Result`: the status and the numbers.

Pure. The status is what somebody recorded, in this order:

 1. the caller cancelled it
 2. an OOM kill that the kernel counted in the program's cgroup
 3. the limit, or the system call, for which the keeper killed it
 4. a limit that its own figures exceed, though it ended before the kill: CPU, wall, memory
 5. the signal by which the kernel enforces what we set: SIGXFSZ of a file size, SIGSYS of a
    filter of which the keeper does not hear. A program that raises one of these itself cannot
    be told apart then: wait(2) does not say who sent a signal
 6. a failed fork or thread, if the program then failed itself
 7. a place of its own that it has left full, if it failed itself
 8. how it ended: signal, exit code
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final, NamedTuple

from runner.cgroup import GroupUsage
from runner.result import Result, Status, Violation
from runner.units import seconds_to_ns
from runner.wire import FULL_BYTES, FULL_INODES, Cause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.config import Limits
    from runner.wire import Reply

_BY_CAUSE: Final = {
    Cause.CANCELLED: Status.CANCELLED,
    Cause.CPU_TIME: Status.CPU_TIME_LIMIT,
    Cause.WALL_TIME: Status.WALL_TIME_LIMIT,
    Cause.IDLE_TIME: Status.IDLE_TIME_LIMIT,
    Cause.MEMORY: Status.MEMORY_LIMIT,
    Cause.OUTPUT: Status.OUTPUT_LIMIT,
    Cause.SYSCALL: Status.DISALLOWED_SYSCALL,
}

_LIMIT_NAMES: Final = {
    Status.CPU_TIME_LIMIT: "cpu_time",
    Status.WALL_TIME_LIMIT: "wall_time",
    Status.IDLE_TIME_LIMIT: "idle_time",
    Status.MEMORY_LIMIT: "memory",
    Status.OUTPUT_LIMIT: "output",
    Status.PROCESS_LIMIT: "processes",
}

_NO_GROUP: Final = GroupUsage()


class Captured(NamedTuple):
    """What was kept of one stream, and how much there was (None: not carried by us)."""

    kept: bytes
    total: int | None

    @property
    def truncated(self) -> bool:
        """Tell whether something was dropped."""
        return self.total is not None and self.total > len(self.kept)


class Figures(NamedTuple):
    """CPU time and memory of the tree, from the best source."""

    cpu_ns: int
    user_ns: int | None
    system_ns: int | None
    memory_bytes: int | None


def figures_of(reply: Reply, usage: GroupUsage | None) -> Figures:
    """Choose the sources: the cgroup where it counts, else the keeper's wait4 and /proc.

    `setup_cpu_ns` is what we used ourselves after the program's process had entered the group.
    """
    waited_ns = reply.user_ns + reply.system_ns
    followed = reply.memory_bytes if reply.memory_bytes >= 0 else None
    memory = max(filter(None, (followed, reply.max_rss_bytes)), default=None)
    if usage is None or usage.cpu_ns is None:
        return Figures(waited_ns, reply.user_ns, reply.system_ns, memory)
    cpu_ns = max(usage.cpu_ns - reply.setup_cpu_ns, 0)
    user_ns, system_ns = usage.user_ns, usage.system_ns
    if user_ns is None or system_ns is None:
        user_ns, system_ns = reply.user_ns, reply.system_ns
    if usage.memory_bytes is not None:
        memory = usage.memory_bytes
    return Figures(cpu_ns, user_ns, system_ns, memory)


def status_of(
    reply: Reply, usage: GroupUsage | None, limits: Limits, figures: Figures, *, filtered: bool
) -> Status:
    """Say how the program ended, by the order at the top of this module."""
    cause = Cause(reply.cause)
    if cause is Cause.CANCELLED:
        return Status.CANCELLED
    if usage is not None and usage.oom_kills and limits.memory is not None:
        return Status.MEMORY_LIMIT
    if cause is not Cause.NONE:
        return _BY_CAUSE[cause]
    exceeded = _exceeded(reply, limits, figures)
    if exceeded is not None:
        return exceeded
    number = os.WTERMSIG(reply.status) if os.WIFSIGNALED(reply.status) else 0
    by_kernel = _by_signal(number, limits, filtered=filtered and not reply.kills_heard)
    if by_kernel is not None:
        return by_kernel
    if reply.status == 0:
        return Status.OK
    if usage is not None and usage.process_limit_hits and limits.processes is not None:
        return Status.PROCESS_LIMIT
    if _full(reply, limits):
        return Status.DISK_LIMIT
    return Status.SIGNALLED if number else Status.NONZERO_EXIT


def _exceeded(reply: Reply, limits: Limits, figures: Figures) -> Status | None:
    if limits.cpu_time is not None and figures.cpu_ns > seconds_to_ns(limits.cpu_time):
        return Status.CPU_TIME_LIMIT
    if limits.wall_time is not None and reply.wall_ns > seconds_to_ns(limits.wall_time):
        return Status.WALL_TIME_LIMIT
    # A cgroup cannot be exceeded; without one it can, for as long as nobody looked.
    if (
        limits.memory is not None
        and figures.memory_bytes is not None
        and figures.memory_bytes > limits.memory
    ):
        return Status.MEMORY_LIMIT
    return None


def _by_signal(number: int, limits: Limits, *, filtered: bool) -> Status | None:
    if number == signal.SIGXFSZ and (limits.output, limits.file_size) != (None, None):
        return Status.OUTPUT_LIMIT
    if number == signal.SIGSYS and filtered:
        return Status.DISALLOWED_SYSCALL
    return None


def _full(reply: Reply, limits: Limits) -> str | None:
    """Name the limit on its own places of which nothing is left."""
    if reply.full & FULL_BYTES and limits.disk is not None:
        return "disk"
    return "inodes" if reply.full & FULL_INODES and limits.inodes is not None else None


def _violation_of(reply: Reply, status: Status) -> Violation | None:
    if reply.cause != Cause.SYSCALL or status is not Status.DISALLOWED_SYSCALL:
        return None
    from runner.seccomp.names import describe  # few programs need them

    name, arch = describe(reply.call_number, reply.call_arch)
    return Violation(
        name=name,
        number=reply.call_number,
        arch=arch,
        args=reply.call_arguments,
        instruction=reply.call_instruction,
    )


def _limit_of(status: Status, limits: Limits, reply: Reply) -> str | None:
    """Name the field of `Limits` that ended it."""
    if status is Status.DISK_LIMIT:
        return _full(reply, limits)
    if status is Status.OUTPUT_LIMIT and limits.output is None:
        return "file_size"
    return _LIMIT_NAMES.get(status)


def result_of(
    reply: Reply,
    usage: GroupUsage | None,
    limits: Limits,
    *,
    stdout: Captured,
    stderr: Captured,
    enforced: Mapping[str, str | None],
    filtered: bool,
) -> Result:
    """Put the result of a run together."""
    figures = figures_of(reply, usage)
    status = status_of(reply, usage, limits, figures, filtered=filtered)
    violation = _violation_of(reply, status)
    # Our kill, or an end that it came too late for; the kernel would have sent SIGSYS.
    number = None if violation is None else int(signal.SIGSYS)
    exited = violation is None and os.WIFEXITED(reply.status)
    group = _NO_GROUP if usage is None else usage
    return Result(
        status=status,
        exit_code=os.WEXITSTATUS(reply.status) if exited else None,
        signal=None if exited else number or os.WTERMSIG(reply.status),
        limit=_limit_of(status, limits, reply),
        violation=violation,
        cpu_ns=figures.cpu_ns,
        user_ns=figures.user_ns,
        system_ns=figures.system_ns,
        wall_ns=reply.wall_ns,
        setup_ns=reply.setup_ns,
        memory_bytes=figures.memory_bytes,
        max_rss_bytes=reply.max_rss_bytes,
        swap_bytes=group.swap_bytes,
        oom_kills=group.oom_kills,
        processes_peak=group.processes_peak,
        throttled_periods=group.throttled_periods,
        throttled_ns=group.throttled_ns,
        cpu_pressure_some_ns=group.cpu_pressure_some_ns,
        cpu_pressure_full_ns=group.cpu_pressure_full_ns,
        memory_pressure_some_ns=group.memory_pressure_some_ns,
        memory_pressure_full_ns=group.memory_pressure_full_ns,
        io_pressure_some_ns=group.io_pressure_some_ns,
        io_pressure_full_ns=group.io_pressure_full_ns,
        page_faults_major=reply.page_faults_major,
        page_faults_minor=reply.page_faults_minor,
        context_switches_voluntary=reply.switches_voluntary,
        context_switches_involuntary=reply.switches_involuntary,
        stdout=stdout.kept,
        stderr=stderr.kept,
        stdout_bytes=stdout.total,
        stdout_truncated=stdout.truncated,
        stderr_bytes=stderr.total,
        stderr_truncated=stderr.truncated,
        enforced={**enforced, **group.enforced} if group.enforced else enforced,
    )
