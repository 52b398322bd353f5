"""languages.toml and what is made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.config import Limits
from runner.errors import ConfigError
from runner.judge import languages
from runner.judge.problem import Problem
from runner.units import MiB

KNOWN = languages.load()
MakeProblem = Callable[..., Problem]


def test_load_gives_the_four_languages() -> None:
    assert list(KNOWN) == ["c", "cpp", "java", "python"]


def test_extensions_belong_to_one_language_each() -> None:
    extensions = [e for language in KNOWN.values() for e in language.extensions]
    assert len(extensions) == len(set(extensions))


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.c", "c"), ("a.cc", "cpp"), ("a.cpp", "cpp"), ("A.java", "java"), ("a.py", "python")],
)
def test_of_file_goes_by_the_extension(file: str, name: str) -> None:
    assert languages.of_file(KNOWN, Path(file)) == name


def test_of_file_with_unknown_extension_lists_the_known() -> None:
    with pytest.raises(ConfigError) as caught:
        languages.of_file(KNOWN, Path("a.pas"))
    assert str(caught.value) == (
        "a.pas: no language has the extension '.pas': known are .c, .cpp, .cc, .cxx, .java, .py"
    )


def test_find_with_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError) as caught:
        languages.find(KNOWN, "pascal")
    assert str(caught.value) == (
        "language 'pascal' is not known: write one of c, cpp, java, python"
    )


def test_limits_of_c_are_those_of_the_problem(make_problem: MakeProblem) -> None:
    problem = make_problem({"1": ("", "")}, time_limit=1.5)
    assert KNOWN["c"].run_limits(problem) == Limits(
        cpu_time=1.5,
        wall_time=4.0,
        memory=64 * MiB,
        stack=64 * MiB,
        output=MiB,
        processes=64,
    )


def test_limits_of_java_leave_room_for_the_virtual_machine(make_problem: MakeProblem) -> None:
    problem = make_problem({"1": ("", "")})
    limits = KNOWN["java"].run_limits(problem)
    assert (limits.cpu_time, limits.wall_time) == (1.5, 4.0)
    assert (limits.memory, limits.processes) == (192 * MiB, 256)
    assert "-Xmx64m" in KNOWN["java"].run_args(problem)


def test_missing_programs_names_those_that_path_does_not_have() -> None:
    missing = languages.Language(
        name="None",
        extensions=[],
        source="x",
        programs=["sh", "no-such-compiler"],
        remedy="",
        compile=["x"],
        artefacts=["x"],
        run=["x"],
        policy="strict",
    )
    assert missing.missing_programs() == ["no-such-compiler"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nmae = 'C'", "Object contains unknown field `nmae` - at `$[...]`"),
        ("time_add = '1'", "Expected `float`, got `str` - at `$[...].time_add`"),
    ],
)
def test_load_with_a_bad_key_names_file_and_key(
    tmp_path: Path, line: str, message: str
) -> None:
    text = "\n".join(languages.FILE.read_text().partition("[cpp]")[0].splitlines())
    path = tmp_path / "languages.toml"
    path.write_text(f"{text}\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        languages.load(path)
    assert str(caught.value) == f"{path}: {message}"
