"""What we fail to do is IE after exact retries, and never the program's verdict."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import pytest

from runner.errors import ChildError, ErrorLocation, ProtocolError
from runner.judge.judge import Judge
from runner.judge.languages import Language
from runner.judge.messages import CaseResult, Submission, SubmissionResult
from runner.judge.problem import Problem
from runner.judge.sandboxes import JudgingCancelled
from runner.judge.verdict import Verdict
from runner.result import FileState, OutFile, Result, Status, Violation

OK = Result(status=Status.OK, exit_code=0)
FORK = ChildError(ErrorLocation.CLONE, errno.EAGAIN)
BROKEN = ProtocolError("the keeper died")
TWO = {"01": ("1 2", "3"), "02": ("3 4", "7")}


class Bench:
    """A judge whose pools play a script; remembers what they were asked."""

    def __init__(
        self,
        fake: Callable[..., Any],
        known_languages: Mapping[str, Language],
        problem: Problem,
        submission: Submission,
    ) -> None:
        self._fake, self._languages = fake, known_languages
        self._problem, self._submission = problem, submission
        self.log: list[str] = []
        self.tests: list[CaseResult] = []

    def judge(self, *script: object, all_tests: bool = False) -> SubmissionResult:
        judge = Judge(
            known_languages=self._languages, make_pool=self._fake(list(script), self.log)
        )
        try:
            with closing(judge):
                return judge.judge(
                    self._submission,
                    self._problem,
                    all_tests=all_tests,
                    on_test=self.tests.append,
                )
        finally:
            for entry in script:
                if isinstance(entry, Exception):
                    entry.__traceback__ = None  # it would keep what our frames have open


@pytest.fixture
def bench(
    fake: Callable[..., Any],
    fake_languages: Mapping[str, Language],
    make_problem: Callable[..., Problem],
    submission: Callable[..., Submission],
) -> Bench:
    return Bench(fake, fake_languages, make_problem(TWO), submission())


def output(text: str) -> Result:
    return Result(status=Status.OK, exit_code=0, stdout=text.encode(), cpu_ns=len(text))


def test_judge_of_a_right_program_is_ac_on_every_test(bench: Bench) -> None:
    result = bench.judge(OK, output("3"), output(" 7\n"))
    assert result.verdict is Verdict.AC
    assert (result.tests_run, result.tests_total, result.cpu_ns) == (2, 2, 3)
    assert [test.verdict for test in bench.tests] == [Verdict.AC, Verdict.AC]
    assert bench.log == [
        "made compiler",
        "compile",
        "made strict",
        "run 1 2",
        "run 3 4",
        "closed",
        "closed",
    ]


def test_judge_stops_at_the_first_failed_test(bench: Bench) -> None:
    result = bench.judge(OK, output("4"), output("7"))
    assert (result.verdict, result.tests_run) == (Verdict.WA, 1)
    assert bench.tests[0].feedback == "token 1: expected '3', got '4'"


def test_judge_of_all_tests_goes_on_and_keeps_the_first_verdict(bench: Bench) -> None:
    crash = Result(status=Status.SIGNALLED, signal=11)
    result = bench.judge(OK, output("4"), crash, all_tests=True)
    assert (result.verdict, result.tests_run) == (Verdict.WA, 2)
    assert [test.verdict for test in bench.tests] == [Verdict.WA, Verdict.RTE]


@pytest.mark.parametrize("error", [FORK, BROKEN])
@pytest.mark.parametrize("failures", [1, 2])
def test_run_that_fails_less_than_three_times_is_retried(
    bench: Bench, error: Exception, failures: int
) -> None:
    result = bench.judge(OK, *[error] * failures, output("3"), output("7"))
    assert result.verdict is Verdict.AC
    # Each attempt reads the input from its start.
    assert bench.log[2:-2] == ["made strict", *["run 1 2"] * failures, "run 1 2", "run 3 4"]


def test_run_that_fails_three_times_is_ie_naming_the_step(bench: Bench) -> None:
    result = bench.judge(OK, output("3"), FORK, BROKEN, FORK, output("never asked for"))
    assert result.verdict is Verdict.IE
    assert result.tests_run == 1
    assert result.error == {"step": "test 02"} | FORK.to_dict()
    assert result.error["location"] == "clone"
    assert result.error["errno"] == "EAGAIN"
    assert result.message == f"test 02: {FORK}: {FORK.hint}"
    assert [(t.test, t.verdict, t.status) for t in bench.tests] == [
        ("01", Verdict.AC, "ok"),
        ("02", Verdict.IE, "sandbox_error"),
    ]
    assert bench.log.count("run 3 4") == 3


def test_run_that_fails_is_ie_and_ends_all_tests_too(bench: Bench) -> None:
    result = bench.judge(OK, output("4"), BROKEN, BROKEN, BROKEN, all_tests=True)
    assert result.verdict is Verdict.IE


def test_compile_that_fails_three_times_is_ie_and_not_ce(bench: Bench) -> None:
    result = bench.judge(BROKEN, BROKEN, BROKEN)
    assert (result.verdict, result.tests_run) == (Verdict.IE, 0)
    assert result.error == {"step": "compile"} | BROKEN.to_dict()
    assert bench.log == ["made compiler", *["compile"] * 3, "closed"]


def test_compile_that_fails_twice_is_retried(bench: Bench) -> None:
    assert bench.judge(FORK, FORK, OK, output("3"), output("7")).verdict is Verdict.AC


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            Result(status=Status.NONZERO_EXIT, exit_code=1, stderr=b"main: error\n"),
            "main: error",
        ),
        (Result(status=Status.NONZERO_EXIT, exit_code=4), "exit code 4"),
        (Result(status=Status.SIGNALLED, signal=11), "the compiler was killed by SIGSEGV"),
        (
            Result(status=Status.CPU_TIME_LIMIT, stderr=b"note"),
            "the compiler took more than 10.0 s of CPU time\nnote",
        ),
        (Result(status=Status.WALL_TIME_LIMIT), "the compiler took more than 30.0 s"),
        (Result(status=Status.MEMORY_LIMIT), "the compiler took more than 512.0 MiB"),
        (Result(status=Status.OUTPUT_LIMIT), "the compiler wrote more than 64.0 MiB"),
        (Result(status=Status.DISK_LIMIT), "the compiler wrote more than 256.0 MiB"),
        (Result(status=Status.PROCESS_LIMIT), "the compiler started more than 32 processes"),
        (
            Result(status=Status.NONZERO_EXIT, stderr=b"x" * 65537),
            "x" * 65536 + "\n[cut here]",
        ),
    ],
)
def test_compile_that_the_source_fails_is_ce_with_the_reason(
    bench: Bench, result: Result, message: str
) -> None:
    found = bench.judge(result)
    assert (found.verdict, found.message, found.error) == (Verdict.CE, message, None)
    assert bench.log.count("compile") == 1


def test_compile_that_our_policy_stops_is_ie(bench: Bench) -> None:
    call = Violation(name=None, number=999, arch="i386", args=(0,) * 6, instruction=0)
    result = bench.judge(Result(status=Status.DISALLOWED_SYSCALL, violation=call))
    assert result.verdict is Verdict.IE
    assert result.message == "compile: the policy forbids Fake to call 999 of i386"


LEFT: dict[str, dict[str, Any]] = {
    "the compiler left no main": {"left": {}},
    "main: it is a symbolic link": {
        "left": {"main": OutFile("main", FileState.REFUSED, why="it is a symbolic link")}
    },
    "main: it is too large": {
        "left": {"main": OutFile("main", FileState.TRUNCATED, content=b"x", size=2**40)}
    },
    "the compiler left more files than 1000": {
        "listed": Result(status=Status.OK, exit_code=0, stdout=b"main", stdout_truncated=True)
    },
    "what the compiler left cannot be listed: wall_time_limit": {
        "listed": Result(status=Status.WALL_TIME_LIMIT)
    },
}


@pytest.mark.parametrize("message", LEFT)
def test_compile_that_leaves_no_plain_file_is_ce(bench: Bench, message: str) -> None:
    def leave(pool: Any) -> Result:  # noqa: ANN401 - the fake
        vars(pool).update(LEFT[message])
        return OK

    result = bench.judge(leave)
    assert (result.verdict, result.message) == (Verdict.CE, message)
    assert bench.log == ["made compiler", "compile", "closed"]


def test_missing_toolchain_is_ie_with_language_and_remedy(
    bench: Bench, fake_languages: Mapping[str, Language]
) -> None:
    fake_languages["fake"].programs.append("no-such-compiler")
    result = bench.judge()
    assert result.verdict is Verdict.IE
    assert result.message == "compile: Fake: no no-such-compiler here: apt install dash"
    assert bench.log == []


def test_cancelled_run_has_no_verdict(bench: Bench) -> None:
    with pytest.raises(JudgingCancelled):
        bench.judge(OK, Result(status=Status.CANCELLED))


def test_cancel_ends_a_run_and_all_further_ones(
    fake: Callable[..., Any],
    fake_languages: Mapping[str, Language],
    make_problem: Callable[..., Problem],
    submission: Callable[..., Submission],
) -> None:
    log: list[str] = []

    def cancel(_: object) -> Result:
        judge.cancel()
        return OK

    judge = Judge(known_languages=fake_languages, make_pool=fake([cancel], log))
    with closing(judge), pytest.raises(JudgingCancelled):
        judge.judge(submission(), make_problem(TWO))
    assert log == ["made compiler", "compile", "cancelled"]
