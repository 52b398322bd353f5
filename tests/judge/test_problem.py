"""Problem folders, and the submissions found in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import ConfigError
from runner.judge import jobs, languages
from runner.judge import problem as problems
from runner.judge.messages import Refused, Submission, encoder
from runner.judge.verdict import Verdict
from runner.units import MiB

MakeProblem = Callable[..., problems.Problem]
KNOWN = languages.load()


def test_load_reads_limits_and_orders_tests_by_name(make_problem: MakeProblem) -> None:
    problem = make_problem({"10": ("", ""), "02": ("", ""), "b": ("", "")})
    assert [case.name for case in problem.cases] == ["02", "10", "b"]
    assert (problem.time_limit, problem.memory_limit, problem.output_limit) == (
        1.0,
        64 * MiB,
        MiB,
    )


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (
            "time_limit = 1.0",
            "time_limit = 0",
            "time_limit: 0.0: give a positive number of seconds",
        ),
        ("time_limit", "time", "Object contains unknown field `time`"),
        ('"64M"', "64", "Expected `str`, got `int` - at `$.memory_limit`"),
        ('"64M"', '"64"', "'64' has no unit: write 64B, 64K or 64M (1M is 1024K)"),
        ("name", 'checker = "x"\nname', "checker 'x' is not known: write one of tokens"),
    ],
)
def test_load_of_a_bad_file_names_it_and_the_key(
    make_problem: MakeProblem, old: str, new: str, error: str
) -> None:
    path = make_problem({"1": ("", "")}).folder / "problem.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError) as caught:
        problems.load(path.parent)
    assert str(caught.value) == f"{path}: {error}"


def test_load_without_answer_names_it(make_problem: MakeProblem) -> None:
    folder = make_problem({"1": ("", "")}).folder
    (folder / "data" / "1.ans").unlink()
    with pytest.raises(ConfigError, match=r"1\.ans is missing: each \.in needs its \.ans"):
        problems.load(folder)


def test_load_without_tests_says_how_to_get_them(make_problem: MakeProblem) -> None:
    with pytest.raises(ConfigError, match=r"holds no tests: add .* or run generate\.py"):
        make_problem({})


def test_generate_runs_the_script_and_shows_its_failure(make_problem: MakeProblem) -> None:
    folder = make_problem({"1": ("", "")}).folder
    problems.generate(folder)  # there is none: nothing to do
    script = folder / "generate.py"
    script.write_text("import pathlib; pathlib.Path(__file__).with_name('made').touch()")
    problems.generate(folder)
    assert (folder / "made").exists()
    script.write_text("raise SystemExit('no disk')")
    with pytest.raises(ConfigError) as caught:
        problems.generate(folder)
    assert str(caught.value) == f"{script} failed with status 1: no disk"


def test_labels_are_verdicts_of_files_that_exist(make_problem: MakeProblem) -> None:
    folder = make_problem({"1": ("", "")}).folder
    (folder / "submissions" / "a.c").touch()
    labels = folder / "submissions.toml"
    labels.write_text('"a.c" = "AC"')
    assert problems.load_labels(folder) == {"a.c": Verdict.AC}
    labels.write_text('"a.c" = "OK"')
    with pytest.raises(ConfigError, match="Invalid enum value 'OK'"):
        problems.load_labels(folder)
    labels.write_text('"b.c" = "AC"')
    with pytest.raises(ConfigError, match=r"there is no submissions/b\.c: add it, or drop"):
        problems.load_labels(folder)


def test_jobs_of_a_folder_of_a_parent_and_of_a_file(make_problem: MakeProblem) -> None:
    folder = make_problem({"1": ("", "")}).folder
    (folder / "submissions" / "b.py").write_bytes(b"\xff")
    (folder / "submissions" / "a.c").write_bytes(b"int main;")
    ids = ["sum/a.c", "sum/b.py"]
    assert [job.submission.id for job in jobs.of_path(folder, KNOWN)] == ids
    assert [job.submission.id for job in jobs.of_path(folder.parent, KNOWN)] == ids
    (job,) = jobs.of_path(folder / "submissions" / "b.py", KNOWN)
    assert job.submission == Submission(
        id="sum/b.py", problem="sum", language="python", source_bytes=b"\xff"
    )
    assert job.problem.name == "Sum"


def test_jobs_of_a_path_without_problem_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.c").touch()
    with pytest.raises(ConfigError, match=r"no folder above it has a problem\.toml"):
        jobs.of_path(tmp_path / "a.c", KNOWN)
    with pytest.raises(ConfigError, match=r"there is no problem\.toml, neither in it nor one"):
        jobs.of_path(tmp_path, KNOWN)


@pytest.mark.parametrize(
    ("problem", "language", "error"),
    [
        ("../sum", "c", "problem '../sum': a name is letters, digits, and inside . - _"),
        (".", "c", "problem '.': a name is letters, digits, and inside . - _"),
        ("sum", "rust", "language 'rust' is not known: write one of c, cpp, java, python"),
    ],
)
def test_stream_with_an_unknown_name_is_refused(
    make_problem: MakeProblem, problem: str, language: str, error: str
) -> None:
    folder = make_problem({"1": ("", "")}).folder
    sent = [
        Submission(id="bad", problem=problem, language=language),
        Submission(id="good", problem="sum", language="c"),
    ]
    found = jobs.of_stream(
        map(encoder("jsonl"), sent),
        "jsonl",
        directory=jobs.ProblemDirectory(folder.parent),
        languages=KNOWN,
    )
    refused, job = found
    assert refused == Refused(number=1, id="bad", error=error)
    assert isinstance(job, jobs.Job)
    assert job.submission == sent[1]
