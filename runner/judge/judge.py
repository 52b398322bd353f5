"""One submission at a time: compile once, run every test, check, give a verdict.

The compiler has a sandbox and the program another, so that what a submission does while it is
compiled is out of the program's reach, and the other way round. The program gets a test's input
as its stdin and nothing else: answers and other inputs are never mounted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from runner.config import Mount
from runner.judge import languages, verdict
from runner.judge.box import Box, SandboxLike, StepError
from runner.judge.compile import CompileError, compile_source
from runner.judge.languages import Language
from runner.judge.messages import CaseResult, Submission, SubmissionResult
from runner.judge.problem import Case, Problem
from runner.judge.verdict import Verdict
from runner.judge.workspace import Workspace
from runner.result import Result
from runner.sandbox import Sandbox

BOX: Final = "/box"


class MakeSandbox(Protocol):
    """The constructor of `runner.sandbox.Sandbox`, as far as it is used."""

    def __call__(self, *, mounts: list[Mount], work_dir: str) -> SandboxLike: ...


OnTest = Callable[[CaseResult], None]


def ignore_test(_: CaseResult) -> None:
    """Do nothing with the result of a test."""


class Judge:
    """Owns the sandboxes and directories of one worker.

    `cancel` may be called from any thread, all else from one at a time.
    """

    def __init__(
        self,
        *,
        known_languages: Mapping[str, Language] | None = None,
        make_sandbox: MakeSandbox = Sandbox,
    ) -> None:
        self._languages: Final = known_languages or languages.load()
        self._workspace: Final = Workspace()

        def box(directory: Path, *, readonly: bool) -> Box:
            mount = Mount.bind(str(directory), BOX, readonly=readonly)
            return Box(lambda: make_sandbox(mounts=[mount], work_dir=BOX))

        self._compiler: Final = box(self._workspace.build, readonly=False)
        self._program: Final = box(self._workspace.run, readonly=True)

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
            compile_source(self._compiler, self._workspace, language, submission.code)
        except CompileError as error:
            return _summary(submission, problem, [], Verdict.CE, message=str(error))
        except StepError as error:
            return failure(submission, problem, error)
        done: list[CaseResult] = []
        for case in problem.cases:
            try:
                result = self._run_case(submission.id, problem, case, language)
            except StepError as error:
                on_test(_failed_case(submission.id, case, error))
                return failure(submission, problem, error, done)
            done.append(result)
            on_test(result)
            if result.verdict is not Verdict.AC and not all_tests:
                break
        self._workspace.clear()
        failed = (result.verdict for result in done if result.verdict is not Verdict.AC)
        enforced = self._program.enforced
        return _summary(submission, problem, done, next(failed, Verdict.AC), enforced=enforced)

    def cancel(self) -> None:
        """End the judging in progress, for good; see Box.cancel for when to call again."""
        self._compiler.cancel()
        self._program.cancel()

    def close(self) -> None:
        """Close the sandboxes and remove the directories; idempotent."""
        self._compiler.close()
        self._program.close()
        self._workspace.close()

    def _run_case(
        self, submission_id: str, problem: Problem, case: Case, language: Language
    ) -> CaseResult:
        limits = language.run_limits(problem)
        result = self._program.run(
            f"test {case.name}",
            language.run_args(problem),
            limits=limits,
            env=language.environment,
            capture_limit=problem.output_limit,
            stdin=case.input,
        )
        found = verdict.of_run(result, limits, out_of_memory=language.out_of_memory)
        feedback = verdict.explain(result)
        if found is None:
            with case.answer.open("rb") as answer:
                outcome = problem.checker(answer, result.stdout)
            found, feedback = verdict.of_check(outcome), outcome.feedback
        return _case_result(submission_id, case, result, found, feedback=feedback)


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


def _case_result(
    submission_id: str, case: Case, result: Result, found: Verdict, *, feedback: str
) -> CaseResult:
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
