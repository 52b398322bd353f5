"""From what happened to the verdict. Pure: the tests are a table.

The first that holds, holds:
1. what the sandbox recorded as the cause: a limit that fired, or a forbidden system call;
2. a figure beyond its limit, or output cut short, where nothing enforced that limit;
3. the program failed because the heap that its language manages was full: MLE;
4. the program failed, by a signal or an exit code that is not 0: RTE;
5. what the checker says: AC or WA.
IE is not found here: it is given where we ourselves fail, before there is a result to look at.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from runner.config import Limits
from runner.judge.checkers import Outcome
from runner.result import Result, Status
from runner.units import seconds_to_ns


class Verdict(str, enum.Enum):
    """How a test or a submission is judged."""

    AC = "AC"  # accepted
    WA = "WA"  # wrong answer
    TLE = "TLE"  # time limit exceeded: CPU, wall or idle time
    MLE = "MLE"  # memory limit exceeded
    RTE = "RTE"  # run-time error
    OLE = "OLE"  # output limit exceeded
    CE = "CE"  # does not compile
    IE = "IE"  # internal error: our failure, nothing is known about the program


_RECORDED: Final[Mapping[Status, Verdict]] = {
    Status.CPU_TIME_LIMIT: Verdict.TLE,
    Status.WALL_TIME_LIMIT: Verdict.TLE,
    Status.IDLE_TIME_LIMIT: Verdict.TLE,
    Status.MEMORY_LIMIT: Verdict.MLE,
    Status.OUTPUT_LIMIT: Verdict.OLE,
    Status.PROCESS_LIMIT: Verdict.RTE,
    Status.DISK_LIMIT: Verdict.OLE,
    Status.DISALLOWED_SYSCALL: Verdict.RTE,
}


def of_run(result: Result, limits: Limits, *, out_of_memory: str = "") -> Verdict | None:
    """Give the verdict that the run alone decides, or None: the checker decides.

    `out_of_memory` is what stderr holds when the language's own heap was full.
    Raises ValueError for a cancelled run, which has no verdict.
    """
    if result.status is Status.CANCELLED:
        raise ValueError("a cancelled run has no verdict")
    recorded = _RECORDED.get(result.status) or _of_figures(result, limits)
    if recorded is not None:
        return recorded
    if result.ok:
        return None
    if out_of_memory and out_of_memory.encode() in result.stderr:
        return Verdict.MLE
    return Verdict.RTE


def of_check(outcome: Outcome) -> Verdict:
    """Give the verdict of a program that ended well."""
    return Verdict.AC if outcome.accepted else Verdict.WA


def explain(result: Result) -> str:
    """Say in a few words why a run failed; "" for one that did not."""
    if result.status is Status.NONZERO_EXIT:
        return _with_last_line(f"exit code {result.exit_code}", result.stderr)
    if result.status is Status.SIGNALLED:
        return _with_last_line(f"killed by {result.signal_name}", result.stderr)
    if result.status is Status.DISALLOWED_SYSCALL:
        if result.violation is None:
            return (
                "killed by SIGSYS: a system call that the policy forbids, or raised by itself"
            )
        return f"called {result.violation}, which the policy forbids"
    if result.status is Status.OK:
        return ""
    name: str = result.status.value
    return name.replace("_", " ")


def _of_figures(result: Result, limits: Limits) -> Verdict | None:
    if _beyond(result.cpu_ns, _to_ns(limits.cpu_time)):
        return Verdict.TLE
    if _beyond(result.wall_ns, _to_ns(limits.wall_time)):
        return Verdict.TLE
    if _beyond(result.memory_bytes, limits.memory):
        return Verdict.MLE
    return Verdict.OLE if result.stdout_truncated else None


def _beyond(figure: int | None, limit: int | None) -> bool:
    return figure is not None and limit is not None and figure > limit


def _to_ns(seconds: float | None) -> int | None:
    return None if seconds is None else seconds_to_ns(seconds)


def _with_last_line(text: str, stderr: bytes) -> str:
    lines = stderr[-500:].decode(errors="backslashreplace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{text}: {last[:200]}" if last else text
