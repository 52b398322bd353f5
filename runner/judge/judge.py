"""A submission: compile once, run every test, check, give a verdict.

The compiler has a sandbox and the program another, so that what a submission does while it is
compiled is out of the program's reach, and the other way round; what goes from the one to the
other nobody can change. The program gets a test's input as its stdin and nothing else: answers
and other inputs are never mounted.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from runner.files import Artefact
from runner.judge import languages, verdict
from runner.judge.compile import CompileError, compile_source
from runner.judge.languages import Language
from runner.judge.messages import CaseResult, Submission, SubmissionResult
from runner.judge.problem import Case, Problem
from runner.judge.sandboxes import Lent, MakePool, Sandboxes, StepError
from runner.judge.verdict import Verdict
from runner.memfd import sealed_memfd
from runner.pool import SandboxPool
from runner.result import Result

OnTest = Callable[[CaseResult], None]


def ignore_test(_: CaseResult) -> None:
    """Do nothing with the result of a test."""


class Judge:
    """Judges for so many workers at a time, in threads of theirs; owns the sandboxes."""

    def __init__(
        self,
        workers: int = 1,
        *,
        known_languages: Mapping[str, Language] | None = None,
        make_pool: MakePool = SandboxPool,
    ) -> None:
        self._languages: Final = known_languages or languages.load()
        self._sandboxes: Final = Sandboxes(workers, make_pool)

    def judge(
        self,
        submission: Submission,
        problem: Problem,
        *,
        all_tests: bool = False,
        on_test: OnTest = ignore_test,
    ) -> SubmissionResult:
        """Judge one submission, stopping at the first test that is not AC unless `all_tests`.

        A failure of ours is the verdict IE. Raises ConfigError for an unknown language, and
        JudgingCancelled.
        """
        language = languages.find(self._languages, submission.language)
        try:
            program = compile_source(self._sandboxes, language, submission.code)
        except CompileError as error:
            return _summary(submission, problem, [], Verdict.CE, message=str(error))
        except StepError as error:
            return failure(submission, problem, error)
        done: list[CaseResult] = []
        enforced: Mapping[str, str | None] = {}
        for case in problem.cases:
            try:
                ran = self._sandboxes.running(
                    f"test {case.name}",
                    language.policy,
                    functools.partial(_run, problem, case, language, program),
                )
            except StepError as error:
                on_test(_failed_case(submission.id, case, error))
                return failure(submission, problem, error, done)
            enforced = ran.enforced
            result = _judge_run(submission.id, problem, case, language, ran)
            done.append(result)
            on_test(result)
            if result.verdict is not Verdict.AC and not all_tests:
                break
        failed = (result.verdict for result in done if result.verdict is not Verdict.AC)
        return _summary(submission, problem, done, next(failed, Verdict.AC), enforced=enforced)

    def cancel(self) -> None:
        """End all judging in progress, and refuse what is to come."""
        self._sandboxes.cancel()

    def close(self) -> None:
        """End the sandboxes; idempotent."""
        self._sandboxes.close()


def failure(
    submission: Submission,
    problem: Problem,
    error: Exception,
    done: Iterable[CaseResult] = (),
) -> SubmissionResult:
    """Give the IE of a submission that we failed to judge."""
    if isinstance(error, StepError):
        fields = error.to_dict()
    else:
        fields = {"step": "judge", "type": type(error).__name__, "message": str(error)}
    hint = fields.get("hint")
    message = f"{error}: {hint}" if hint else str(error) or type(error).__name__
    return _summary(submission, problem, done, Verdict.IE, message=message, error=fields)


def _summary(
    submission: Submission,
    problem: Problem,
    done: Iterable[CaseResult],
    found: Verdict,
    *,
    enforced: Mapping[str, str | None] | None = None,
    message: str = "",
    error: dict[str, object] | None = None,
) -> SubmissionResult:
    done = list(done)
    return SubmissionResult(
        id=submission.id,
        problem=submission.problem,
        language=submission.language,
        verdict=found,
        tests_run=len(done),
        tests_total=len(problem.cases),
        cpu_ns=_largest(result.cpu_ns for result in done),
        wall_ns=_largest(result.wall_ns for result in done),
        memory_bytes=_largest(result.memory_bytes for result in done),
        enforced=dict(enforced or {}),
        message=message,
        error=error,
    )


def _largest(figures: Iterable[int | None]) -> int | None:
    return max((figure for figure in figures if figure is not None), default=None)


def _run(
    problem: Problem,
    case: Case,
    language: Language,
    program: Mapping[str, Artefact],
    lent: Lent,
) -> Result:
    """Run a test, on a copy of its input that nobody can change and that is at its start.

    Opening /proc/self/fd/0 reaches the very file that stdin is, whatever is mounted (proc(5)):
    a program that runs as our own user could rewrite a test's input for all who come after it.
    """
    with case.input.open("rb", buffering=0) as source:
        stdin = sealed_memfd(case.name, source.fileno())
    others = {name: file for name, file in program.items() if name != language.executes}
    try:
        return lent.run(
            language.run_args(problem),
            limits=language.run_limits(problem),
            env=language.environment,
            capture_limit=problem.output_limit,
            stdin=stdin,
            exec_file=program.get(language.executes),
            files_in=others,
        )
    finally:
        os.close(stdin)


def _judge_run(
    submission_id: str, problem: Problem, case: Case, language: Language, result: Result
) -> CaseResult:
    limits = language.run_limits(problem)
    found = verdict.of_run(result, limits, out_of_memory=language.out_of_memory)
    feedback = verdict.explain(result)
    if found is None:
        with case.answer.open("rb") as answer:
            outcome = problem.checker(answer, result.stdout)
        found, feedback = verdict.of_check(outcome), outcome.feedback
    return CaseResult(
        id=submission_id,
        test=case.name,
        verdict=found,
        status=result.status.value,
        cpu_ns=result.cpu_ns,
        wall_ns=result.wall_ns,
        memory_bytes=result.memory_bytes,
        exit_code=result.exit_code,
        signal=result.signal,
        feedback=feedback,
    )


def _failed_case(submission_id: str, case: Case, error: StepError) -> CaseResult:
    return CaseResult(
        id=submission_id,
        test=case.name,
        verdict=Verdict.IE,
        status="sandbox_error",
        feedback=str(error),
    )
