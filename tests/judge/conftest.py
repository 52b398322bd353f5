"""A fake sandbox that plays a script, and small problem folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.config import Mount
from runner.judge import languages
from runner.judge import problem as problems
from runner.judge.messages import Submission
from runner.result import Result, Status

OK = Result(status=Status.OK, exit_code=0, cpu_ns=1000, wall_ns=2000, memory_bytes=4096)


class FakeSandbox:
    """Plays one entry of the script for each run: a Result, an exception, or a function."""

    def __init__(self, script: list[Any], log: list[str], mounts: Sequence[Mount]) -> None:
        self._script = script
        self._log = log
        self._writable = next((m.source for m in mounts if not m.readonly), None)
        log.append("made")

    def run(self, args: Sequence[str], *, stdin: int | None, **_: object) -> Result:
        assert args
        step = "run" if self._writable is None else "compile"
        self._log.append(f"{step} {os.read(stdin, 100).decode()}".strip() if stdin else step)
        entry = self._script.pop(0) if self._script else OK
        if callable(entry):
            entry = entry(self)
        if isinstance(entry, Exception):
            raise entry
        if self._writable is not None and entry.ok:
            Path(self._writable, "main").write_bytes(b"program")
        return entry

    def cancel(self) -> None:
        self._log.append("cancelled")

    def close(self) -> None:
        self._log.append("closed")


@pytest.fixture
def fake() -> Callable[..., Any]:
    """Give a constructor of sandboxes that share one script and one log."""

    def prepare(script: list[Any], log: list[str]) -> Callable[..., FakeSandbox]:
        def make(*, mounts: Sequence[Mount], work_dir: str) -> FakeSandbox:
            assert work_dir == "/box"
            return FakeSandbox(script, log, mounts)

        return make

    return prepare


@pytest.fixture
def fake_languages() -> Mapping[str, languages.Language]:
    """Give a language whose toolchain is there on every machine."""
    shell = languages.Language(
        name="Fake",
        extensions=[".fake"],
        source="main.fake",
        programs=["sh"],
        remedy="apt install dash",
        compile=["sh"],
        artefacts=["main"],
        run=["./main"],
        out_of_memory="heap is full",
    )
    return {"fake": shell}


PROBLEM = """
name = "Sum"
time_limit = {time_limit}
memory_limit = "64M"
output_limit = "1M"
"""


@pytest.fixture
def make_problem(tmp_path: Path) -> Callable[..., problems.Problem]:
    """Give a function that writes a problem folder and loads it."""

    def make(
        cases: Mapping[str, tuple[str, str]], *, time_limit: float = 1.0
    ) -> problems.Problem:
        folder = tmp_path / "problems" / "sum"
        (folder / "data").mkdir(parents=True)
        (folder / "submissions").mkdir()
        (folder / "problem.toml").write_text(PROBLEM.format(time_limit=time_limit))
        for name, (question, answer) in cases.items():
            (folder / "data" / f"{name}.in").write_text(question)
            (folder / "data" / f"{name}.ans").write_text(answer)
        return problems.load(folder)

    return make


@pytest.fixture
def submission() -> Callable[..., Submission]:
    """Give a function that makes a submission to that problem."""

    def make(source: str = "x", language: str = "fake", name: str = "s1") -> Submission:
        return Submission(id=name, problem="sum", language=language, source=source)

    return make
