"""worker.py and the demo as commands: streams, exit statuses, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from runner.judge.messages import Submission, encoder
from runner.judge.problem import Problem

pytestmark = pytest.mark.userns

WORKER = str(Path(__file__).parents[2] / "worker.py")
RIGHT = "print(sum(map(int, input().split())))"
WRONG = "print(0)"


@pytest.fixture
def problem(make_problem: Callable[..., Problem]) -> Problem:
    return make_problem({"01": ("1 2", "3"), "02": ("3 4", "7")}, time_limit=20.0)


@pytest.fixture
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the command make its directories where we see that it removes them."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    directory.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


def submit(name: str, source: str) -> Submission:
    return Submission(id=name, problem="sum", language="python", source=source)


def run(*args: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, WORKER, *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


def lines(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def results(output: bytes) -> dict[str, str]:
    return {m["id"]: m["verdict"] for m in lines(output) if m["type"] == "result"}


def test_stream_of_json_lines_is_judged(problem: Problem, own_tmp: Path) -> None:
    sent = b"".join(map(encoder("jsonl"), [submit("a", RIGHT), submit("b", WRONG)]))
    done = run("-j2", "--problems", problem.folder.parent, stdin=sent)
    assert (done.returncode, done.stderr) == (0, b"")
    assert results(done.stdout) == {"a": "AC", "b": "WA"}
    assert sorted((m["id"], m["test"]) for m in lines(done.stdout) if m["type"] == "test") == [
        ("a", "01"),
        ("a", "02"),
        ("b", "01"),
    ]
    assert list(own_tmp.iterdir()) == []


def test_stream_of_msgpack_from_a_file_is_judged_on_all_tests(
    problem: Problem, tmp_path: Path
) -> None:
    file = tmp_path / "in"
    file.write_bytes(encoder("msgpack")(submit("b", WRONG)))
    options = ("--all-tests", "--format", "msgpack", "--input", file)
    done = run(*options, "--problems", problem.folder.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    unpacker = msgpack.Unpacker()
    unpacker.feed(done.stdout)
    assert [(m["type"], m["verdict"]) for m in unpacker] == [
        ("test", "WA"),
        ("test", "WA"),
        ("result", "WA"),
    ]


def test_folder_is_judged(problem: Problem) -> None:
    (problem.folder / "submissions" / "right.py").write_text(RIGHT)
    (problem.folder / "submissions" / "wrong.py").write_text(WRONG)
    done = run(problem.folder)
    assert results(done.stdout) == {"sum/right.py": "AC", "sum/wrong.py": "WA"}
    one = run(problem.folder / "submissions" / "right.py")
    assert results(one.stdout) == {"sum/right.py": "AC"}


def test_message_that_is_refused_makes_the_status_125(problem: Problem) -> None:
    sent = b"nonsense\n" + encoder("jsonl")(submit("a", RIGHT))
    done = run("--problems", problem.folder.parent, stdin=sent)
    assert (done.returncode, done.stderr) == (125, b"")
    assert results(done.stdout) == {"a": "AC"}
    assert [m["number"] for m in lines(done.stdout) if m["type"] == "refused"] == [1]


def test_stream_that_breaks_judges_what_came_before(problem: Problem) -> None:
    sent = encoder("msgpack")(submit("a", RIGHT)) + b"\xc1"
    done = run("--format=msgpack", "--problems", problem.folder.parent, stdin=sent)
    assert done.returncode == 125
    assert b"message not understood" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"result" in done.stdout


def test_reader_that_goes_away_ends_the_command(problem: Problem, own_tmp: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    sent = b"".join(encoder("jsonl")(submit(str(n), RIGHT)) for n in range(5))
    done = subprocess.run(
        [sys.executable, WORKER, "--problems", problem.folder.parent],
        input=sent,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (125, b"worker.py: [Errno 32] Broken pipe\n")
    assert list(own_tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("-j", "0"), "argument -j/--jobs: '0': give a number from 1 to 1024"),
        (("-j", "x"), "argument -j/--jobs: 'x': give a number from 1 to 1024"),
        (("--input", "x", "y"), "--input x: not together with a FOLDER"),
        (("--format", "xml"), "argument --format: invalid choice: 'xml'"),
        (("--input", "/nowhere"), "[Errno 2] No such file or directory: '/nowhere'"),
        (("/dev/null",), "/dev/null: there is no problem.toml"),
    ],
)
def test_bad_argument_is_refused_with_its_value(args: tuple[str, ...], error: str) -> None:
    done = run(*args)
    assert done.returncode == 125
    assert error in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@contextmanager
def judging(problem: Problem, *sources: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker, and wait until the first submission has passed its first test."""
    sent = b"".join(
        encoder("jsonl")(submit(str(n), source)) for n, source in enumerate(sources)
    )
    with subprocess.Popen(
        [sys.executable, WORKER, "-j1", "--problems", problem.folder.parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(sent)
        process.stdin.flush()  # and not closed: it goes on waiting for more
        assert json.loads(process.stdout.readline())["test"] == "01"
        try:
            yield process
        finally:
            process.kill()


def second_test_sleeps(seconds: float) -> str:
    return f"""
import time
a, b = map(int, input().split())
if a == 3:
    time.sleep({seconds})
print(a + b)
"""


def end(process: subprocess.Popen[bytes]) -> tuple[int, list[dict[str, Any]], bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    status = process.wait(15)
    return status, lines(process.stdout.read()), process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_finishes_what_runs_and_cancels_the_rest(
    problem: Problem, own_tmp: Path, number: signal.Signals
) -> None:
    with judging(problem, second_test_sleeps(1), RIGHT, RIGHT) as process:
        process.send_signal(number)
        status, messages, stderr = end(process)
    assert (status, stderr) == (128 + number, b"")
    assert [(m["type"], m["id"]) for m in messages] == [
        ("cancelled", "1"),
        ("cancelled", "2"),
        ("test", "0"),
        ("result", "0"),
    ]
    assert messages[-1]["verdict"] == "AC"
    assert list(own_tmp.iterdir()) == []


def test_signal_from_the_terminal_reaches_no_sandbox(problem: Problem) -> None:
    with judging(problem, second_test_sleeps(1)) as process:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: all of the foreground
        status, messages, stderr = end(process)
    assert (status, stderr) == (128 + signal.SIGINT, b"")
    assert [m["verdict"] for m in messages] == ["AC", "AC"]


def test_second_signal_cancels_what_runs_at_once(problem: Problem, own_tmp: Path) -> None:
    with judging(problem, second_test_sleeps(30), RIGHT) as process:
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        status, messages, stderr = end(process)
        assert time.monotonic() - start < 5  # the program would sleep for 30 s
    assert (status, stderr) == (128 + signal.SIGINT, b"")
    assert [(m["type"], m["id"]) for m in messages] == [("cancelled", "1"), ("cancelled", "0")]
    assert list(own_tmp.iterdir()) == []


def label(problem: Problem, text: str) -> None:
    for name, source in (("right.py", RIGHT), ("wrong.py", WRONG)):
        (problem.folder / "submissions" / name).write_text(source)
    (problem.folder / "submissions.toml").write_text(text)


def test_demo_with_all_verdicts_as_expected_succeeds(problem: Problem) -> None:
    label(problem, '"right.py" = "AC"\n"wrong.py" = "WA"\n')
    done = run("--demo", problem.folder.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    rows = [line.split()[:5] for line in done.stdout.decode().splitlines()]
    assert ["sum", "right.py", "Python", "AC", "AC"] in rows
    assert ["sum", "wrong.py", "Python", "WA", "WA"] in rows
    assert b"2 of 2 verdicts as expected." in done.stdout
    assert b"differs" not in done.stdout


def test_demo_with_another_verdict_fails_and_marks_the_row(problem: Problem) -> None:
    label(problem, '"right.py" = "AC"\n"wrong.py" = "TLE"\n')
    done = run("--demo", problem.folder.parent)
    assert (done.returncode, done.stderr) == (1, b"")
    marked = [
        line for line in done.stdout.decode().splitlines() if line.endswith("<-- differs")
    ]
    assert [line.split()[1] for line in marked] == ["wrong.py"]
    assert b"1 of 2 verdicts as expected." in done.stdout


def test_demo_without_a_label_for_a_submission_is_refused(problem: Problem) -> None:
    label(problem, '"right.py" = "AC"\n')
    done = run("--demo", problem.folder.parent)
    assert done.returncode == 125
    assert b"no label for wrong.py" in done.stderr


def test_demo_runs_the_generators_first(problem: Problem) -> None:
    label(problem, '"right.py" = "AC"\n"wrong.py" = "AC"\n')
    (problem.folder / "generate.py").write_text(
        "import pathlib\n"
        "data = pathlib.Path(__file__).parent / 'data'\n"
        "for name in ('01', '02'): (data / f'{name}.ans').write_text('0')\n"
    )
    done = run("--demo", problem.folder.parent)
    assert done.returncode == 1
    assert b"1 of 2 verdicts as expected." in done.stdout  # those of the new answers: WRONG's


@pytest.mark.parametrize(("option", "status"), [((), 1), (("--allow-missing",), 0)])
def test_demo_without_a_compiler_names_the_language(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], status: int
) -> None:
    label(problem, '"right.py" = "AC"\n"wrong.py" = "WA"\n"none.c" = "AC"\n')
    (problem.folder / "submissions" / "none.c").touch()
    code = (
        "import shutil, sys, worker; which = shutil.which;"
        "shutil.which = lambda name, path: None if name == 'gcc' else which(name, path=path);"
        "sys.exit(worker.main(sys.argv[1:]))"
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(WORKER).parent))
    done = subprocess.run(
        [sys.executable, "-c", code, "--demo", problem.folder.parent, *option],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (status, b"")
    assert b"C was skipped: no gcc here. Try: apt install gcc libc6-dev" in done.stdout
    assert b"2 of 3 verdicts as expected." in done.stdout


def test_signal_before_the_first_job_ends_the_command(own_tmp: Path) -> None:
    """Its threads must not outlast an interrupt that came before there was a pool to drop."""
    code = (
        "import os, signal, sys, worker\n"
        "from runner.judge import session\n"
        "whole = session.Session.run\n"
        "def run(self, jobs):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return whole(self, jobs)\n"
        "session.Session.run = run\n"
        "sys.exit(worker.main(['-j', '1', '--problems', sys.argv[1]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(own_tmp)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        timeout=20,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGINT
