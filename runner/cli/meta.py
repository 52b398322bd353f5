"""The result as isolate's meta file: `key:value` lines, as CMS, Judge0 and others read them.

Times are seconds with three decimals, sizes KB of 1024 bytes, both rounded down; a figure that
could not be measured is left out. The order is isolate's: how it was ended, if that was our
doing, then the figures, then how it ended.

What a key means here, where that is not quite what it means there:

time            CPU time of the whole tree, with or without cgroups
time-wall       from exec to exit, without the set-up
max-rss, csw-*  of the program and those of its children that were waited for
cg-mem          the tree's peak by the best means there is, so without cgroups too; what the
                set-up used is not in it
cg-oom-killed   the memory limit ended something in the tree, also where it was our kill
killed          we killed it: for a limit, or because we were asked to; not for the kernel's
                kills, by which isolate means the same
exitsig         of a cancelled run it is the signal to us, if that is why it was
status          TO for the idle limit too, whose message contains `wall` as that of the wall
                clock does. SG for what is cancelled, and for a limit on memory or output that
                a signal enforced; where the program ended by itself, what that says.
                RE with 126 or 127 for a command that cannot be executed, as isolate's own
                child exits with 127; XX for all other failures of ours
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Final

from runner.cli.report import SANDBOX_FAILED, exit_status_of_error
from runner.errors import SandboxError
from runner.result import Result, Status
from runner.units import KiB

_NS_PER_MS: Final = 1_000_000

_TIMEOUTS: Final = {
    Status.CPU_TIME_LIMIT: "Time limit exceeded",
    Status.WALL_TIME_LIMIT: "Time limit exceeded (wall clock)",
    Status.IDLE_TIME_LIMIT: "Time limit exceeded (idle by the wall clock)",
}
_KILLS: Final = {
    Status.MEMORY_LIMIT: "Memory limit exceeded",
    Status.OUTPUT_LIMIT: "Output limit exceeded",
    Status.CANCELLED: "Interrupted",
}


def render(outcome: Result | SandboxError) -> str:
    """Give the text of the file."""
    lines = _of_error(outcome) if isinstance(outcome, SandboxError) else _of_result(outcome)
    return "".join(f"{key}:{value}\n" for key, value in lines)


def _of_error(error: SandboxError) -> Iterator[tuple[str, object]]:
    status = exit_status_of_error(error)
    if status != SANDBOX_FAILED:
        yield "exitcode", status
    yield "status", "XX" if status == SANDBOX_FAILED else "RE"
    yield "message", " ".join(str(error).split("\n"))


def _of_result(result: Result) -> Iterator[tuple[str, object]]:
    timeout = _TIMEOUTS.get(result.status)
    kill = _KILLS.get(result.status)
    if _is_our_kill(result):
        if timeout is None:
            yield "exitsig", result.signal
        yield "status", "SG" if timeout is None else "TO"
        yield "message", timeout or kill
        yield "killed", 1
        yield from _figures(result)
        return
    yield from _figures(result)
    if timeout is not None:  # it ended before the kill came
        yield "status", "TO"
        yield "message", timeout
    elif result.signal is not None:
        yield "exitsig", result.signal
        yield "status", "SG"
        call = "" if result.violation is None else f": system call {result.violation}"
        yield "message", f"Caught fatal signal {result.signal}{call}"
    elif result.exit_code is not None:
        yield "exitcode", result.exit_code
        if result.exit_code:
            yield "status", "RE"
            yield "message", f"Exited with error status {result.exit_code}"


def _is_our_kill(result: Result) -> bool:
    if result.status is Status.CANCELLED:
        return True
    by_kernel = result.status is Status.MEMORY_LIMIT and result.oom_kills
    ours = result.status in _TIMEOUTS or result.status in _KILLS
    return ours and result.signal == signal.SIGKILL and not by_kernel


def _figures(result: Result) -> Iterator[tuple[str, object]]:
    figures = (
        ("time", result.cpu_ns, _seconds),
        ("time-wall", result.wall_ns, _seconds),
        ("max-rss", result.max_rss_bytes, _kb),
        ("csw-voluntary", result.context_switches_voluntary, str),
        ("csw-forced", result.context_switches_involuntary, str),
        ("cg-mem", result.memory_bytes, _kb),
    )
    for key, value, text in figures:
        if value is not None:
            yield key, text(value)
    if result.oom_kills or result.status is Status.MEMORY_LIMIT:
        yield "cg-oom-killed", 1


def _seconds(time_ns: int) -> str:
    seconds, ms = divmod(time_ns // _NS_PER_MS, 1000)
    return f"{seconds}.{ms:03d}"


def _kb(size: int) -> str:
    return str(size // KiB)
