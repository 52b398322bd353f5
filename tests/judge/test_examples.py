"""The examples hold what they promise, as far as it shows without running a submission."""

from __future__ import annotations

import collections
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROBLEMS = ("bells", "copyists", "overdraft", "voucher")
AT_LEAST = {"AC": 16, "WA": 2, "TLE": 3, "MLE": 2, "RTE": 5, "OLE": 2, "CE": 3}
LANGUAGES = {".c", ".cpp", ".java", ".py"}
LARGEST_COMMITTED = 1024


def _labels(problem: str) -> dict[str, str]:
    text = (EXAMPLES / problem / "submissions.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, str])


def _generate(problem: str, directory: Path) -> dict[str, bytes]:
    script = EXAMPLES / problem / "generate.py"
    subprocess.run([sys.executable, "-B", script, directory], check=True)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_examples_are_the_known_problems() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/problem.toml")} == set(PROBLEMS)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_labels_name_the_submissions_and_no_others(problem: str) -> None:
    files = {path.name for path in (EXAMPLES / problem / "submissions").iterdir()}
    assert set(_labels(problem)) == files


@pytest.mark.parametrize("problem", PROBLEMS)
def test_labels_are_verdicts(problem: str) -> None:
    assert set(_labels(problem).values()) <= set(AT_LEAST)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_label_says_why_or_is_a_plain_compile_error(problem: str) -> None:
    lines = (EXAMPLES / problem / "submissions.toml").read_text("utf-8").splitlines()
    labels = [line for line in lines if line.startswith('"')]
    assert [line for line in labels if " # " not in line and not line.endswith('"CE"')] == []


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_problem_is_solved_in_every_language(problem: str) -> None:
    accepted = (name for name, verdict in _labels(problem).items() if verdict == "AC")
    assert {Path(name).suffix for name in accepted} == LANGUAGES


def test_each_verdict_has_enough_submissions() -> None:
    counts = collections.Counter(v for problem in PROBLEMS for v in _labels(problem).values())
    assert {v: counts[v] for v, least in AT_LEAST.items() if counts[v] < least} == {}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_generator_run_twice_gives_the_same_tests(problem: str, tmp_path: Path) -> None:
    first = _generate(problem, tmp_path / "first")
    assert _generate(problem, tmp_path / "second") == first
    questions = {Path(name).stem for name in first if name.endswith(".in")}
    assert set(first) == {name + end for name in questions for end in (".in", ".ans")}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_generator_makes_the_samples_in_the_repository(problem: str, tmp_path: Path) -> None:
    made = _generate(problem, tmp_path)
    for name in ("01-sample.in", "01-sample.ans"):
        sample = (EXAMPLES / problem / "data" / name).read_bytes()
        assert made[name] == sample
        assert len(sample) < LARGEST_COMMITTED


def test_generator_keeps_what_exists_and_mends_what_is_half_there(tmp_path: Path) -> None:
    made = _generate("copyists", tmp_path)
    (tmp_path / "01-sample.in").write_bytes(b"kept\nkept\n")
    (tmp_path / "04-short.ans").unlink()
    kept = made | {"01-sample.in": b"kept\nkept\n"}
    assert _generate("copyists", tmp_path) == kept
