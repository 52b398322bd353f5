"""From what happened to the verdict, as a table."""

from __future__ import annotations

import pytest

from runner.config import Limits
from runner.judge import verdict
from runner.judge.checkers import Outcome
from runner.judge.verdict import Verdict
from runner.result import Result, Status, Violation
from runner.units import MiB

LIMITS = Limits(cpu_time=1.0, wall_time=3.0, memory=64 * MiB, output=MiB)
S = 1_000_000_000
PTRACE = Violation(name="ptrace", number=101, arch="x86_64", args=(0,) * 6, instruction=0)

OF_STATUS = {
    Status.OK: None,
    Status.NONZERO_EXIT: Verdict.RTE,
    Status.SIGNALLED: Verdict.RTE,
    Status.CPU_TIME_LIMIT: Verdict.TLE,
    Status.WALL_TIME_LIMIT: Verdict.TLE,
    Status.IDLE_TIME_LIMIT: Verdict.TLE,
    Status.MEMORY_LIMIT: Verdict.MLE,
    Status.OUTPUT_LIMIT: Verdict.OLE,
    Status.PROCESS_LIMIT: Verdict.RTE,
    Status.DISK_LIMIT: Verdict.OLE,
    Status.DISALLOWED_SYSCALL: Verdict.RTE,
}


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.CANCELLED])
def test_verdict_for_each_status_is_the_one_of_the_table(status: Status) -> None:
    assert verdict.of_run(Result(status=status), LIMITS) == OF_STATUS[status]


def test_verdict_of_a_cancelled_run_is_refused() -> None:
    with pytest.raises(ValueError, match="a cancelled run has no verdict"):
        verdict.of_run(Result(status=Status.CANCELLED), LIMITS)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        # At the limit is within it; one more is beyond.
        (Result(status=Status.OK, cpu_ns=S), None),
        (Result(status=Status.OK, cpu_ns=S + 1), Verdict.TLE),
        (Result(status=Status.OK, wall_ns=3 * S), None),
        (Result(status=Status.OK, wall_ns=3 * S + 1), Verdict.TLE),
        (Result(status=Status.OK, memory_bytes=64 * MiB), None),
        (Result(status=Status.OK, memory_bytes=64 * MiB + 1), Verdict.MLE),
        (Result(status=Status.OK, stdout_truncated=True), Verdict.OLE),
        (Result(status=Status.OK, stderr_truncated=True), None),
        # A figure that is not known is beyond nothing.
        (Result(status=Status.OK, cpu_ns=None, wall_ns=None, memory_bytes=None), None),
        # Where no limit stopped it, a figure beyond one goes before the failure it led to.
        (Result(status=Status.SIGNALLED, signal=11, memory_bytes=65 * MiB), Verdict.MLE),
        (Result(status=Status.NONZERO_EXIT, exit_code=1, cpu_ns=2 * S), Verdict.TLE),
        (Result(status=Status.OK, cpu_ns=2 * S, memory_bytes=65 * MiB), Verdict.TLE),
        # What was recorded goes before every figure.
        (Result(status=Status.MEMORY_LIMIT, cpu_ns=2 * S), Verdict.MLE),
        (Result(status=Status.OUTPUT_LIMIT, memory_bytes=65 * MiB), Verdict.OLE),
        (Result(status=Status.PROCESS_LIMIT, cpu_ns=2 * S), Verdict.RTE),
    ],
)
def test_verdict_of_figures_beyond_a_limit(result: Result, expected: Verdict | None) -> None:
    assert verdict.of_run(result, LIMITS) is expected


@pytest.mark.parametrize(
    ("status", "stderr", "expected"),
    [
        (Status.NONZERO_EXIT, b"Error: heap is full\n", Verdict.MLE),
        (Status.SIGNALLED, b"Error: heap is full\n", Verdict.MLE),
        (Status.NONZERO_EXIT, b"Error: other\n", Verdict.RTE),
        (Status.OK, b"heap is full, but it went on\n", None),
        (Status.CPU_TIME_LIMIT, b"heap is full\n", Verdict.TLE),
    ],
)
def test_verdict_when_the_languages_heap_is_full(
    status: Status, stderr: bytes, expected: Verdict | None
) -> None:
    result = Result(status=status, stderr=stderr)
    assert verdict.of_run(result, LIMITS, out_of_memory="heap is full") is expected


def test_verdict_of_checker_is_ac_or_wa() -> None:
    assert verdict.of_check(Outcome(accepted=True)) is Verdict.AC
    assert verdict.of_check(Outcome(accepted=False)) is Verdict.WA


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Result(status=Status.OK), ""),
        (Result(status=Status.NONZERO_EXIT, exit_code=3), "exit code 3"),
        (
            Result(status=Status.NONZERO_EXIT, exit_code=1, stderr=b"a\nZeroDivisionError\n\n"),
            "exit code 1: ZeroDivisionError",
        ),
        (Result(status=Status.SIGNALLED, signal=11), "killed by SIGSEGV"),
        (Result(status=Status.CPU_TIME_LIMIT), "cpu time limit"),
        (
            Result(status=Status.DISALLOWED_SYSCALL, violation=PTRACE),
            "called ptrace (101 of x86_64), which the policy forbids",
        ),
        (
            Result(status=Status.DISALLOWED_SYSCALL),
            "killed by SIGSYS: a system call that the policy forbids, or raised by itself",
        ),
    ],
)
def test_explain_says_why(result: Result, text: str) -> None:
    assert verdict.explain(result) == text
