"""What is said at the end: the exit status, the summary, the failure.

Written with write(2) to fd 2, which may be closed, full or a pipe that nobody reads: then there
is nobody to tell, and the exit status still holds.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from runner.errors import ChildError, ErrorLocation, SandboxError
from runner.result import PolicyLog, Result, Status
from runner.units import NS_PER_S, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runner.repeated import Spread

LIMIT_REACHED: Final = 124
SANDBOX_FAILED: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127

# The limits that a `Result.limit` or a guarantee of the same name stands for.
_TIMES: Final = frozenset(("cpu_time", "wall_time", "idle_time"))
_SIZES: Final = frozenset(("memory", "output", "file_size", "disk", "address_space"))


def say(text: str) -> None:
    """Write lines to stderr, each with our name before it."""
    write(2, "".join(f"run-sandboxed: {line}\n" for line in text.splitlines()))


def write(fd: int, text: str) -> None:
    """Write all of a text; bytes of paths that are not UTF-8 come out as they were."""
    left = memoryview(text.encode("utf-8", "surrogateescape"))
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        return  # a reader that has gone, or a full disk: see the top of this file


def exit_status(result: Result) -> int:
    """Give the status that env(1) and timeout(1) would."""
    if result.status.is_limit:
        return LIMIT_REACHED
    if result.signal is not None:
        return 128 + result.signal
    if result.exit_code is not None:
        return result.exit_code
    return SANDBOX_FAILED


def exit_status_of_error(error: SandboxError) -> int:
    """Give 126 or 127 if only the command itself could not be executed, 125 otherwise."""
    if not isinstance(error, ChildError) or error.location is not ErrorLocation.EXECVE:
        return SANDBOX_FAILED
    return NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE


def summary(result: Result, limit: float | None) -> str:
    """Give the line that says how it ended and what it used; `limit` is the one reached."""
    how = [result.status.value]
    if result.status.is_limit and limit is not None:
        how.append(f"limit {_format_limit(result.limit, limit)}")
    elif result.status is Status.DISALLOWED_SYSCALL:
        how.append(f"system call {result.violation or 'unknown'}")
    elif result.signal is not None:
        how.append(f"signal {result.signal} ({result.signal_name})")
    elif result.exit_code is not None:
        how.append(f"exit {result.exit_code}")
    used = (
        f"cpu {_format_time(result.cpu_ns)}",
        f"wall {_format_time(result.wall_ns)}",
        f"memory {_format_size(result.memory_bytes)}",
    )
    return ", ".join((*how, *used))


def logged(log: PolicyLog) -> str:
    """Give a line for each kind of call that the policy refused or logged."""
    lines = [
        f"{call.action}: {call.name or call.number} ({call.number} of {call.arch}), "
        f"{_times(call.times)}, first by {call.pid}: "
        f"({', '.join(f'{argument:#x}' for argument in call.args)})"
        for call in log.calls
    ]
    if log.missed:
        lines.append(f"at least: {log.missed} calls more of other kinds")
    return "\n".join(lines) or "the policy has refused nothing"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def asked_for(result: Result, measures: Collection[str], rate: int | None) -> str:
    """Give a line for each figure that is told on request; `rate`: instructions a second."""
    lines = []
    if result.noise is not None:
        why = "; ".join(result.noise.suspect)
        lines.append(f"suspect: {why}" if why else "nothing seen that disturbed its times")
    if "instructions" in measures:
        lines.append(f"instructions: {_instructions(result, rate)}")
    if result.vm_hwm_bytes is not None:
        lines.append(f"its first process: peak {_format_size(result.vm_hwm_bytes)}")
    if result.repeated is not None:
        spreads = (
            _format_spread("cpu", result.repeated.cpu_ns, _format_time),
            _format_spread("wall", result.repeated.wall_ns, _format_time),
            _format_spread("memory", result.repeated.memory_bytes, _format_size),
        )
        lines.append(f"of {len(result.repeated.results)} runs: " + ", ".join(spreads))
    return "\n".join(lines)


def _instructions(result: Result, rate: int | None) -> str:
    if result.instructions is None:
        return "not counted here; run-sandboxed --check says why"
    if rate is None:
        return str(result.instructions)
    time = _format_time(result.instruction_time_ns(rate))
    return f"{result.instructions}, which take {time} at {rate} a second"


def _format_spread(name: str, spread: Spread | None, text: Callable[[int | None], str]) -> str:
    if spread is None:
        return f"{name} unknown"
    return f"{name} {text(spread.min)} to {text(spread.max)}, median {text(spread.median)}"


def guarantees(result: Result) -> str:
    """Give a line of what was enforced and by what, and one of what was not."""
    held = [f"{name} ({by})" for name, by in result.enforced.items() if by is not None]
    lines = ["enforced: " + (", ".join(held) or "nothing")]
    missing = [name for name, by in result.enforced.items() if by is None]
    if missing:
        lines.append("not enforced: " + ", ".join(missing))
    return "\n".join(lines)


def explain(error: SandboxError) -> str:
    """Give the failure, and on a second line what to do about it."""
    return f"{error}\n{error.hint}" if error.hint else str(error)


def _format_limit(name: str | None, limit: float) -> str:
    if name in _TIMES:
        return f"{limit:.3f} s"
    return format_size(int(limit)) if name in _SIZES else f"{limit:g}"


def _format_time(time_ns: int | None) -> str:
    return "unknown" if time_ns is None else f"{time_ns / NS_PER_S:.3f} s"


def _format_size(size: int | None) -> str:
    return "unknown" if size is None else format_size(size)
