"""A fake pool of sandboxes that plays a script, and small problem folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.errors import PoolClosed
from runner.files import Artefact
from runner.judge import languages
from runner.judge import problem as problems
from runner.judge.messages import Submission
from runner.result import FileState, OutFile, Result, Status

OK = Result(status=Status.OK, exit_code=0, cpu_ns=1000, wall_ns=2000, memory_bytes=4096)


class FakePool:
    """Lends itself, and plays one entry of the script for each run of compiler or program.

    An entry is a Result, an exception, or a function of the fake. `left` is what a compiler
    leaves that ends well.
    """

    def __init__(self, script: list[Any], log: list[str], *, policy: str, fresh: str) -> None:
        self._script = script
        self._log = log
        self._compiles = fresh == "submission"
        self.policy = policy
        self.left = {"main": OutFile("main", FileState.OK, artefact=Artefact(b"program"))}
        self.listed: Result | None = None
        self.closed = False

    def acquire(self) -> FakePool:
        if self.closed:
            raise PoolClosed("closed")
        return self

    def run(self, args: Sequence[str], **options: Any) -> Result:  # noqa: ANN401 - those of a run
        if self.closed:
            raise PoolClosed("closed")
        if args == ["ls", "-A"]:
            names = "".join(f"{name}\n" for name in ["main.fake", *self.left])
            return self.listed or Result(
                status=Status.OK, exit_code=0, stdout=names.encode(errors="surrogateescape")
            )
        if args == ["true"]:
            wanted = [file.name for file in options["files_out"]]
            return OK._replace(files={name: self.left[name] for name in wanted})
        if self._compiles:
            assert options["files_in"] == {"main.fake": b"x"}
            self._log.append("compile")
        else:
            assert options["exec_file"].read() == b"program"
            assert options["files_in"] == {}
            self._log.append(f"run {os.read(options['stdin'], 100).decode()}")
        entry = self._script.pop(0) if self._script else OK
        if callable(entry):
            entry = entry(self)
        if isinstance(entry, Exception):
            raise entry
        return entry

    def __enter__(self) -> FakePool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self, *, wait: bool = True) -> None:
        if not self.closed:
            self._log.append("closed" if wait else "cancelled")
        self.closed = True


@pytest.fixture
def fake() -> Callable[..., Any]:
    """Give a constructor of pools that share one script and one log."""

    def prepare(script: list[Any], log: list[str]) -> Callable[..., FakePool]:
        def make(size: int, *, policy: str, fresh: str) -> FakePool:
            assert size == 1
            log.append(f"made {policy}")
            return FakePool(script, log, policy=policy, fresh=fresh)

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
        executes="main",
        run=["./main"],
        policy="strict",
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
