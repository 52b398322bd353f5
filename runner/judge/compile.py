"""The compile step: source → artefacts, or why not."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import Final

from runner.config import Limits
from runner.config.files import FileOut
from runner.errors import HostError
from runner.files import Artefact
from runner.judge.languages import Language
from runner.judge.sandboxes import Lent, Sandboxes, StepError
from runner.result import Result, Status
from runner.rootfs import TMP_SIZE
from runner.units import KiB, format_size

MAX_MESSAGE_BYTES: Final = 64 * KiB
MAX_ARTEFACTS: Final = 1000
MAX_FILE_BYTES: Final = TMP_SIZE // 2  # of those together that are put in for each test


class CompileError(Exception):
    """The source does not compile; the text is for its author."""


def compile_source(
    sandboxes: Sandboxes, language: Language, source: bytes
) -> Mapping[str, Artefact]:
    """Compile, and give what the program needs, by the names of files.

    Raises CompileError, StepError for what we could not do, JudgingCancelled.
    """
    missing = language.missing_programs()
    if missing:
        lack = HostError(f"{language.name}: no {', '.join(missing)} here", language.remedy)
        raise StepError("compile", lack)
    return sandboxes.compiling(lambda lent: _compile(lent, language, source))


def _compile(lent: Lent, language: Language, source: bytes) -> Mapping[str, Artefact]:
    limits = language.compile_limits.to_limits()
    result = lent.run(
        language.compile,
        limits=limits,
        env=language.environment,
        capture_limit=MAX_MESSAGE_BYTES,
        files_in={language.source: source},
    )
    if result.status is Status.DISALLOWED_SYSCALL:
        call = result.violation or "what it calls"
        lack = HostError(f"the policy forbids {language.name} to call {call}")
        raise StepError("compile", lack)
    if not result.ok:
        raise CompileError(_message(result, limits))
    # The place with the files has room for them still, when they are listed and taken.
    limits = Limits(cpu_time=5.0, wall_time=20.0, processes=8, disk=limits.disk)
    return _take(lent, language, _list(lent, language, limits), limits)


def _list(lent: Lent, language: Language, limits: Limits) -> Sequence[str]:
    """Find what the compiler has left; the names are its author's, and only data here."""
    listed = lent.run(
        ["ls", "-A"],
        limits=limits,
        env=language.environment,
        capture_limit=MAX_ARTEFACTS * KiB,
    )
    if not listed.ok:
        raise CompileError(f"what the compiler left cannot be listed: {listed.status.value}")
    found = set(os.fsdecode(listed.stdout).split("\n"))
    names = sorted(name for name in found if _matches(name, language.artefacts))
    if not names:
        raise CompileError(f"the compiler left no {' or '.join(language.artefacts)}")
    if len(names) > MAX_ARTEFACTS or listed.stdout_truncated:
        raise CompileError(f"the compiler left more files than {MAX_ARTEFACTS}")
    return names


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _take(
    lent: Lent, language: Language, names: Sequence[str], limits: Limits
) -> Mapping[str, Artefact]:
    """Take them out: no link is followed, no fifo waited for, no size believed."""
    largest = limits.disk or 0
    store = _Bounded(largest)
    wanted = [FileOut(name, largest, store=store) for name in names]
    result = lent.run(["true"], limits=limits, files_out=wanted)
    artefacts = {}
    for name, file in result.files.items():
        if not isinstance(file.artefact, Artefact):
            raise CompileError(f"{name}: {file.why or 'it is too large'}")
        artefacts[name] = file.artefact
    files = (file.size for name, file in artefacts.items() if name != language.executes)
    if sum(files) > MAX_FILE_BYTES:
        raise CompileError(f"what it leaves is above {format_size(MAX_FILE_BYTES)}")
    return artefacts


class _Bounded:
    """Keeps what is taken out, up to a size of all together.

    That of the place where they are does not bound it: of a sparse file, it holds no more than
    what was written.
    """

    def __init__(self, largest: int) -> None:
        self._largest: Final = largest
        self._left = largest

    def add(self, content: int, size: int) -> Artefact:
        self._left -= size
        if self._left < 0:
            raise CompileError(f"what it leaves is above {format_size(self._largest)}")
        return Artefact(content, size)


def _message(result: Result, limits: Limits) -> str:
    """Put our reason, if there is one, before what the compiler said."""
    reasons = {
        Status.SIGNALLED: f"the compiler was killed by {result.signal_name}",
        Status.CPU_TIME_LIMIT: f"the compiler took more than {limits.cpu_time} s of CPU time",
        Status.WALL_TIME_LIMIT: f"the compiler took more than {limits.wall_time} s",
        Status.MEMORY_LIMIT: f"the compiler took more than {format_size(limits.memory or 0)}",
        Status.OUTPUT_LIMIT: f"the compiler wrote more than {format_size(limits.output or 0)}",
        Status.DISK_LIMIT: f"the compiler wrote more than {format_size(limits.disk or 0)}",
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
