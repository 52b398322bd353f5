"""The end of the command's process, which is not Python's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, os, sys
from runner.cli.entry import main
atexit.register(os.write, 1, b"at exit, ")
print("printed", end="")
sys.argv = ["run-sandboxed", *{words!r}]
main()
os.write(1, b"after the end")
"""


@pytest.fixture(autouse=True)
def _buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def test_process_that_ends_has_done_what_it_was_to_do_at_its_end() -> None:
    program = PROGRAM.format(words=["--version"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"at exit, printed")


@pytest.mark.userns
def test_process_that_ends_has_the_status_of_the_program() -> None:
    program = PROGRAM.format(words=["--", "sh", "-c", "exit 7"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (7, b"at exit, printed")


def test_process_whose_output_cannot_be_written_says_so() -> None:
    program = "print(1); import sys; from runner.cli.entry import main; sys.exit(main())"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 120  # Python's own
    assert b"No space left on device" in done.stderr


def test_process_without_standard_output_ends_as_another() -> None:
    command = f"exec {sys.executable} -c 'from runner.cli.entry import main; main()' >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (125, False)
