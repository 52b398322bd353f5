"""From the keeper's reply and the cgroup's figures to a `Result`: the status and the numbers.

Pure. The status is what somebody recorded, in this order; docs/verdicts.md says more of each.

 1. the caller cancelled it
 2. an OOM kill that the kernel counted in the program's cgroup
 3. the limit, or the system call, for which the keeper killed it
 4. a limit that its own figures exceed, though it ended before the kill: CPU, wall, memory
 5. the kernel could not load it: its segments alone are larger than its address space, or data
 6. the signal by which the kernel enforces what we set: SIGXFSZ of a file size, SIGSYS of a
    filter of which the keeper does not hear. A program that raises one of these itself cannot
    be told apart then: wait(2) does not say who sent a signal
 7. a failed fork or thread, if the program then failed itself
 8. an output of ours that is as large as it may be, if it failed itself
 9. a place of its own that it has left full, if it failed itself
10. how it ended: signal, exit code

An OOM kill without the program's limit having been met is the host's trouble, or that of a
group above ours: HostError, whatever else there is, but for a cancel.
"""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING, Final

from runner.cgroup import GroupUsage
from runner.errors import Detail, HostError
from runner.quick import NamedTuple
from runner.result import LoggedCall, PolicyLog, Result, Status, Violation
from runner.units import seconds_to_ns
from runner.wire import FULL_BYTES, FULL_INODES, Cause, decode_ledger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.config import Limits
    from runner.wire import Reply

_BY_CAUSE: Final = {
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
}

# For what of the segments there was no room, and where memory is not held by a group.
_SEGMENT_LIMITS: Final[Mapping[int, tuple[int, str]]] = {
    Detail.BEYOND_ADDRESS_SPACE: (resource.RLIMIT_AS, "address_space"),
    Detail.BEYOND_DATA: (resource.RLIMIT_DATA, "memory"),
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


class Ending(NamedTuple):
    """How a run ended, and the field of `Limits` that ended it."""

    status: Status
    limit: str | None = None


def ending_of(
    reply: Reply,
    usage: GroupUsage | None,
    limits: Limits,
    figures: Figures,
    *,
    filtered: bool = False,
    output_full: bool = False,
) -> Ending:
    """Say how the program ended, by the order at the top of this module. Raises HostError.

    `filtered`: there was a filter; `output_full`: a file of the caller's that is its output is
    just as large as it may be.
    """
    number = os.WTERMSIG(reply.status) if os.WIFSIGNALED(reply.status) else 0
    return (
        _recorded(Cause(reply.cause), usage, limits)
        or _exceeded(reply, limits, figures, in_group=usage is not None)
        or _by_kernel(number, reply, limits, filtered=filtered and not reply.kills_heard)
        or _by_itself(number, reply, usage, limits, output_full=output_full)
    )


def _recorded(cause: Cause, usage: GroupUsage | None, limits: Limits) -> Ending | None:
    """Say what the caller, the kernel or the keeper has done to it."""
    if cause is Cause.CANCELLED:
        return Ending(Status.CANCELLED)
    if usage is not None and usage.oom_kills and limits.memory is not None:
        if usage.memory_limit_hits == 0:
            missing = (
                "memory ran out above the program's own limit, in a group above ours or on the "
                "whole host, and a process of it was killed"
            )
            remedy = "raise the limit of the group that we are in, or run fewer at a time"
            raise HostError(missing, remedy)
        return Ending(Status.MEMORY_LIMIT, "memory")
    status = _BY_CAUSE.get(cause)
    return None if status is None else Ending(status, _LIMIT_NAMES.get(status))


def _exceeded(
    reply: Reply, limits: Limits, figures: Figures, *, in_group: bool
) -> Ending | None:
    if limits.cpu_time is not None and figures.cpu_ns > seconds_to_ns(limits.cpu_time):
        return Ending(Status.CPU_TIME_LIMIT, "cpu_time")
    if limits.wall_time is not None and reply.wall_ns > seconds_to_ns(limits.wall_time):
        return Ending(Status.WALL_TIME_LIMIT, "wall_time")
    # A group's limit cannot be exceeded, and its kernel may tell but max_rss, in which is more.
    # Without one it can, for as long as nobody looked.
    memory = None if in_group else figures.memory_bytes
    if limits.memory is not None and memory is not None and memory > limits.memory:
        return Ending(Status.MEMORY_LIMIT, "memory")
    return None


def _by_kernel(number: int, reply: Reply, limits: Limits, *, filtered: bool) -> Ending | None:
    """Say what the kernel has enforced with a signal."""
    too_large = _too_large(reply.detail, limits)
    if too_large is not None:
        return Ending(Status.MEMORY_LIMIT, too_large)
    if number == signal.SIGXFSZ and (limits.output, limits.file_size) != (None, None):
        return Ending(Status.OUTPUT_LIMIT, _output_name(limits))
    if number == signal.SIGSYS and filtered:
        return Ending(Status.DISALLOWED_SYSCALL)
    return None


def _by_itself(
    number: int,
    reply: Reply,
    usage: GroupUsage | None,
    limits: Limits,
    *,
    output_full: bool,
) -> Ending:
    """Say how it ended, or what was refused to it before."""
    if reply.status == 0:
        return Ending(Status.OK)
    if usage is not None and usage.process_limit_hits and limits.processes is not None:
        return Ending(Status.PROCESS_LIMIT, "processes")
    if output_full:
        return Ending(Status.OUTPUT_LIMIT, _output_name(limits))
    if reply.full & FULL_BYTES and limits.disk is not None:
        return Ending(Status.DISK_LIMIT, "disk")
    if reply.full & FULL_INODES and limits.inodes is not None:
        return Ending(Status.DISK_LIMIT, "inodes")
    return Ending(Status.SIGNALLED if number else Status.NONZERO_EXIT)


def _violation_of(reply: Reply, ending: Ending) -> Violation | None:
    if reply.cause != Cause.SYSCALL or ending.status is not Status.DISALLOWED_SYSCALL:
        return None
    from runner.seccomp.names import describe  # few programs need it

    name, arch = describe(reply.call_number, reply.call_arch)
    return Violation(
        name=name,
        number=reply.call_number,
        arch=arch,
        args=reply.call_arguments,
        instruction=reply.call_instruction,
    )


def _too_large(detail: int, limits: Limits) -> str | None:
    """Name the limit for which the kernel could not load the program."""
    number, name = _SEGMENT_LIMITS.get(detail, (-1, ""))
    if any(rlimit.resource == number for rlimit in limits.rlimits):
        return "rlimits"
    return name if name and getattr(limits, name) is not None else None


def _output_name(limits: Limits) -> str:
    """Name the limit on the size of a file: the smaller of the two, as `rlimits` sets it."""
    sizes = {"output": limits.output, "file_size": limits.file_size}
    given = {name: size for name, size in sizes.items() if size is not None}
    return min(given, key=given.__getitem__)


def _log_of(content: bytes) -> PolicyLog:
    from runner.seccomp.evaluate import action_of  # few runs need them
    from runner.seccomp.names import describe

    entries, missed = decode_ledger(content)
    calls = [
        LoggedCall(
            name=describe(entry.number, entry.arch)[0],
            number=entry.number,
            arch=describe(entry.number, entry.arch)[1],
            action=str(action_of(entry.answer)),
            times=entry.times,
            args=entry.args,
            pid=entry.pid,
        )
        for entry in entries
    ]
    return PolicyLog(tuple(sorted(calls, key=lambda call: -call.times)), missed)


def result_of(
    reply: Reply,
    usage: GroupUsage | None,
    limits: Limits,
    *,
    stdout: Captured,
    stderr: Captured,
    enforced: Mapping[str, str | None],
    filtered: bool,
    output_full: bool = False,
    calls: bytes | None = None,
) -> Result:
    """Put the result of a run together. Raises HostError; see `ending_of`."""
    figures = figures_of(reply, usage)
    ending = ending_of(
        reply, usage, limits, figures, filtered=filtered, output_full=output_full
    )
    violation = _violation_of(reply, ending)
    # Our kill, or an end that it came too late for; the kernel would have sent SIGSYS.
    number = None if violation is None else int(signal.SIGSYS)
    exited = violation is None and os.WIFEXITED(reply.status)
    group = _NO_GROUP if usage is None else usage
    return Result(
        status=ending.status,
        exit_code=os.WEXITSTATUS(reply.status) if exited else None,
        signal=None if exited else number or os.WTERMSIG(reply.status),
        limit=ending.limit,
        violation=violation,
        policy_log=None if calls is None else _log_of(calls),
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
