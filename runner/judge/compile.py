"""The compile step: source → artefacts, or why not."""

from __future__ import annotations

from runner.config import Limits
from runner.errors import HostError
from runner.judge.box import Box, StepError
from runner.judge.languages import Language
from runner.judge.workspace import ArtefactError, Workspace
from runner.result import Result, Status
from runner.units import KiB, format_size

MAX_MESSAGE_BYTES = 64 * KiB


class CompileError(Exception):
    """The source does not compile; the text is for its author."""


def compile_source(box: Box, workspace: Workspace, language: Language, source: bytes) -> None:
    """Compile into `workspace.run`.

    Raises CompileError, StepError for what we could not do, JudgingCancelled.
    """
    missing = language.missing_programs()
    if missing:
        lack = HostError(f"{language.name}: no {', '.join(missing)} here", language.remedy)
        raise StepError("compile", lack)
    workspace.put_source(language.source, source)
    limits = language.compile_limits.to_limits()
    result = box.run(
        "compile",
        language.compile,
        limits=limits,
        env=language.environment,
        capture_limit=MAX_MESSAGE_BYTES,
    )
    if result.status is Status.DISALLOWED_SYSCALL:
        call = result.violation or "what it calls"
        lack = HostError(f"the policy forbids {language.name} to call {call}")
        raise StepError("compile", lack)
    if not result.ok:
        raise CompileError(_message(result, limits))
    try:
        workspace.collect(language.artefacts)
    except ArtefactError as error:
        raise CompileError(str(error)) from error


def _message(result: Result, limits: Limits) -> str:
    """Put our reason, if there is one, before what the compiler said."""
    reasons = {
        Status.SIGNALLED: f"the compiler was killed by {result.signal_name}",
        Status.CPU_TIME_LIMIT: f"the compiler took more than {limits.cpu_time} s of CPU time",
        Status.WALL_TIME_LIMIT: f"the compiler took more than {limits.wall_time} s",
        Status.MEMORY_LIMIT: f"the compiler took more than {format_size(limits.memory or 0)}",
        Status.OUTPUT_LIMIT: f"the compiler wrote more than {format_size(limits.output or 0)}",
        Status.PROCESS_LIMIT: f"the compiler started more than {limits.processes} processes",
    }
    said = result.stderr + result.stdout
    cut = len(said) > MAX_MESSAGE_BYTES or result.stderr_truncated or result.stdout_truncated
    parts = [
        reasons.get(result.status, ""),
        said[:MAX_MESSAGE_BYTES].decode(errors="replace").strip(),
        "[cut here]" if cut else "",
    ]
    return "\n".join(part for part in parts if part) or f"exit code {result.exit_code}"
