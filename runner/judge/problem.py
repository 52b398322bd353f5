"""A problem folder: `problem.toml`, tests in `data/`, labelled submissions.

problem.toml:  name, time_limit (seconds of CPU time), memory_limit ("64M"), and if wanted
               wall_limit (seconds), output_limit ("16M"), checker ("tokens")
data/          NAME.in and NAME.ans for each test; tests run in the order of their names
submissions/   one file each, and submissions.toml beside it: "file.cpp" = "AC"
generate.py    optional: writes those files of data/ that are missing
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from runner.errors import ConfigError
from runner.judge import checkers
from runner.judge.verdict import Verdict
from runner.units import parse_size


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One test: what goes to stdin, and the file that the checker compares with."""

    name: str
    input: Path
    answer: Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem with its tests; times in seconds, sizes in bytes.

    `wall_limit` None means: twice the CPU time and one second more.
    """

    folder: Path
    name: str
    time_limit: float
    memory_limit: int
    output_limit: int
    checker: checkers.Checker
    cases: tuple[Case, ...]
    wall_limit: float | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    time_limit: float
    memory_limit: str
    wall_limit: float | None = None
    output_limit: str = "16M"
    checker: str = "tokens"


FILE: Final = "problem.toml"
LABELS: Final = "submissions.toml"


def load(folder: Path) -> Problem:
    """Read a problem; raises ConfigError naming the file and what is wrong with it."""
    path = folder / FILE
    try:
        file = msgspec.toml.decode(_read(path), type=_File)
        return _from_file(folder, file)
    except (msgspec.DecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _from_file(folder: Path, file: _File) -> Problem:
    if not file.time_limit > 0:
        raise ConfigError(f"time_limit: {file.time_limit!r}: give a positive number of seconds")
    return Problem(
        folder=folder,
        name=file.name,
        time_limit=file.time_limit,
        memory_limit=parse_size(file.memory_limit),
        output_limit=parse_size(file.output_limit),
        wall_limit=file.wall_limit,
        checker=checkers.find(file.checker),
        cases=_find_cases(folder / "data"),
    )


def load_labels(folder: Path) -> dict[str, Verdict]:
    """Read the expected verdicts by file name; each label must have its file.

    Raises ConfigError.
    """
    path = folder / LABELS
    try:
        labels = msgspec.toml.decode(_read(path), type=dict[str, Verdict])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    for name in labels:
        if not (folder / "submissions" / name).is_file():
            raise ConfigError(
                f"{path}: there is no submissions/{name}: add it, or drop the label"
            )
    return labels


def folders(path: Path) -> list[Path]:
    """Give `path` if it is a problem folder, else those in it; raises ConfigError for none."""
    if (path / FILE).is_file():
        return [path]
    found = sorted(file.parent for file in path.glob(f"*/{FILE}"))
    if not found:
        raise ConfigError(f"{path}: there is no {FILE}, neither in it nor one level below")
    return found


def submissions(folder: Path) -> list[Path]:
    """List the submission files of a problem, by name."""
    directory = folder / "submissions"
    if not directory.is_dir():
        raise ConfigError(f"{directory} is not a directory: put the submissions there")
    return sorted(path for path in directory.iterdir() if path.is_file())


def generate(folder: Path) -> None:
    """Run the problem's generate.py, if any; it is trusted, as the whole folder is."""
    script = folder / "generate.py"
    if not script.exists():
        return
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(
            f"{script} failed with status {done.returncode}: {done.stderr.strip()}"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from error


def _find_cases(data: Path) -> tuple[Case, ...]:
    cases = []
    for question in sorted(data.glob("*.in")):
        answer = question.with_suffix(".ans")
        if not answer.is_file():
            raise ConfigError(f"{answer} is missing: each .in needs its .ans")
        cases.append(Case(question.stem, question, answer))
    if not cases:
        raise ConfigError(
            f"{data} holds no tests: add NAME.in and NAME.ans, or run generate.py"
        )
    return tuple(cases)
