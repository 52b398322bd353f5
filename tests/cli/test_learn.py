"""`policy learn` and `policy audit`: a run, and what it says of policies."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest

from runner.seccomp import learn
from tests.cli.conftest import Command

pytestmark = pytest.mark.userns

SCRIPT = ["sh", "-c", "ls / > /dev/null; cat /proc/self/status > /dev/null; mkdir /tmp/x"]
QUIET = "-q"
MKDIR, RMDIR = ("mkdir", "rmdir") if platform.machine() == "x86_64" else ("mkdirat", "unlinkat")


def learned(text: str) -> dict[str, int]:
    """Give the counts by name, in the order of the text."""
    return dict(learn.read(text, "").calls)


def test_learned_policy_is_one_under_which_the_command_runs(
    command: Command, place: Path
) -> None:
    done = command("policy", "learn", "./own.policy", QUIET, "--", *SCRIPT)
    text = (place / "own.policy").read_text()
    calls = learned(text)
    assert done.returncode == 0
    assert (
        done.stderr.decode() == f"run-sandboxed: ./own.policy: {len(calls)} calls, in 1 runs\n"
    )
    assert calls[MKDIR] == 1
    assert calls["read"] > 1
    assert list(calls.values()) == sorted(calls.values(), reverse=True)
    again = command("--policy", "./own.policy", "--policy-log", "--", *SCRIPT)
    assert again.returncode == 0
    assert again.stderr.decode().splitlines()[-1] == (
        "run-sandboxed: the policy has refused nothing"
    )


def test_learned_policy_refuses_what_was_not_seen(command: Command, place: Path) -> None:
    assert command("policy", "learn", "./own.policy", QUIET, "true").returncode == 0
    done = command("--policy", "./own.policy", QUIET, "sh", "-c", "exec true")
    assert done.returncode == 126
    assert MKDIR not in (place / "own.policy").read_text()


def test_second_run_is_added_to_the_first(command: Command, place: Path) -> None:
    command("policy", "learn", "./own.policy", QUIET, "--", *SCRIPT)
    first = learned((place / "own.policy").read_text())
    done = command("policy", "learn", "./own.policy", QUIET, "rmdir", "/tmp/none")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].endswith("calls, in 2 runs")
    both = learned((place / "own.policy").read_text())
    assert (both[MKDIR], both[RMDIR]) == (1, 1)
    assert both["mmap"] > first["mmap"]


def test_learning_from_a_static_program_works_the_same(command: Command, place: Path) -> None:
    source = place / "static.c"
    source.write_text("#include <unistd.h>\nint main(void) { return getppid() != 0; }")
    subprocess.run(["gcc", "-static", "-o", place / "static", source], check=True)
    assert command("policy", "learn", "./own.policy", QUIET, "./static").returncode == 0
    calls = learned((place / "own.policy").read_text())
    assert calls["getppid"] == 1
    assert "openat" not in calls
    assert command("--policy", "./own.policy", QUIET, "./static").returncode == 0


def test_learning_keeps_to_the_policy_within_which_it_learns(
    command: Command, place: Path
) -> None:
    words = ("policy", "learn", "--within=strict", "./own.policy", QUIET)
    done = command(*words, "sh", "-c", "/bin/true; :")
    assert done.returncode == 128 + 31  # it may start no other: killed
    assert "kill" in (place / "own.policy").read_text()
    done = command("policy", "learn", "./own.policy", QUIET, "true")
    assert done.returncode == 1
    message = "./own.policy: it was learned within strict, not default"
    assert done.stderr.decode() == f"run-sandboxed: policy learn: {message}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["own.policy", "true"], "'own.policy': write it with a slash: ./own.policy"),
        (
            ["./mine.policy", "true"],
            "./mine.policy: it was not learned: name a new file, it would be overwritten",
        ),
        (
            ["./own.policy", "--policy", "strict", "true"],
            "--policy: it cannot be given here",
        ),
        (
            ["./own.policy", "--no-seccomp", "true"],
            "--policy and --no-seccomp exclude each other; give one",
        ),
    ],
)
def test_learning_that_cannot_be_meant_is_refused_and_changes_nothing(
    command: Command, place: Path, words: list[str], message: str
) -> None:
    (place / "mine.policy").write_text("default allow\n")
    done = command("policy", "learn", *words)
    assert (done.returncode, done.stderr.decode()) == (
        1,
        f"run-sandboxed: policy learn: {message}\n",
    )
    assert (place / "mine.policy").read_text() == "default allow\n"
    assert not (place / "own.policy").exists()


def test_audit_tells_what_would_be_refused_and_lets_it_through(command: Command) -> None:
    # One child: a SIGCHLD of the first could interrupt the second's fork, which waits for us.
    done = command("policy", "audit", "strict", "--", "sh", "-c", "cat /dev/null; echo a")
    assert (done.returncode, done.stdout) == (0, b"a\n")
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("run-sandboxed: note: ") or ": ok, " in lines[0]
    assert any(re.search(r"kill: (clone|fork|vfork) \(", line) for line in lines)
    assert any(re.search(r"errno ENOSYS: wait4 \(", line) for line in lines)


def test_audit_by_a_policy_of_which_nothing_is_refused_says_so(command: Command) -> None:
    done = command("policy", "audit", "default", "--", "true")
    last = done.stderr.decode().splitlines()[-1]
    assert (done.returncode, last) == (0, "run-sandboxed: the policy has refused nothing")
