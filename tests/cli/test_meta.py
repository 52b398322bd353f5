"""isolate's meta file: golden texts, and the file that the command writes."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cli import meta
from runner.errors import ChildError, ErrorLocation, HostError
from runner.result import Result, Status, Violation

Start = Callable[..., subprocess.Popen[bytes]]
Command = Callable[..., subprocess.CompletedProcess[bytes]]

PTRACE = Violation(
    name="ptrace", number=101, arch="x86_64", args=(0, 1, 2, 3, 4, 5), instruction=4096
)
FIGURES = {
    "cpu_ns": 1_234_999_999,
    "wall_ns": 12_005_000_000,
    "max_rss_bytes": 3 * 1024 * 1024 + 1023,
    "context_switches_voluntary": 7,
    "context_switches_involuntary": 0,
    "memory_bytes": 256 * 1024,
    "oom_kills": 0,
}
FIGURES_TEXT = """\
time:1.234
time-wall:12.005
max-rss:3072
csw-voluntary:7
csw-forced:0
cg-mem:256
"""
KILLED = {"signal": signal.SIGKILL} | FIGURES


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Result(status=Status.OK, exit_code=0, **FIGURES), FIGURES_TEXT + "exitcode:0\n"),
        (
            Result(status=Status.NONZERO_EXIT, exit_code=42, **FIGURES),
            FIGURES_TEXT + "exitcode:42\nstatus:RE\nmessage:Exited with error status 42\n",
        ),
        (
            Result(status=Status.PROCESS_LIMIT, limit="processes", exit_code=1, **FIGURES),
            FIGURES_TEXT + "exitcode:1\nstatus:RE\nmessage:Exited with error status 1\n",
        ),
        (
            Result(status=Status.SIGNALLED, signal=11, **FIGURES),
            FIGURES_TEXT + "exitsig:11\nstatus:SG\nmessage:Caught fatal signal 11\n",
        ),
        (  # the program's own SIGKILL
            Result(status=Status.SIGNALLED, **KILLED),
            FIGURES_TEXT + "exitsig:9\nstatus:SG\nmessage:Caught fatal signal 9\n",
        ),
        (
            Result(status=Status.DISALLOWED_SYSCALL, signal=31, **FIGURES),
            FIGURES_TEXT + "exitsig:31\nstatus:SG\nmessage:Caught fatal signal 31\n",
        ),
        (
            Result(status=Status.DISALLOWED_SYSCALL, signal=31, violation=PTRACE, **FIGURES),
            FIGURES_TEXT + "exitsig:31\nstatus:SG\n"
            "message:Caught fatal signal 31: system call ptrace (101 of x86_64)\n",
        ),
        (
            Result(status=Status.CPU_TIME_LIMIT, limit="cpu_time", **KILLED),
            "status:TO\nmessage:Time limit exceeded\nkilled:1\n" + FIGURES_TEXT,
        ),
        (  # it ended by itself, past the limit
            Result(status=Status.CPU_TIME_LIMIT, limit="cpu_time", exit_code=0, **FIGURES),
            FIGURES_TEXT + "status:TO\nmessage:Time limit exceeded\n",
        ),
        (
            Result(status=Status.WALL_TIME_LIMIT, limit="wall_time", **KILLED),
            "status:TO\nmessage:Time limit exceeded (wall clock)\nkilled:1\n" + FIGURES_TEXT,
        ),
        (
            Result(status=Status.IDLE_TIME_LIMIT, limit="idle_time", **KILLED),
            "status:TO\nmessage:Time limit exceeded (idle by the wall clock)\nkilled:1\n"
            + FIGURES_TEXT,
        ),
        (
            Result(status=Status.MEMORY_LIMIT, limit="memory", **(KILLED | {"oom_kills": 1})),
            FIGURES_TEXT
            + "cg-oom-killed:1\nexitsig:9\nstatus:SG\nmessage:Caught fatal signal 9\n",
        ),
        (  # a child was killed, and the program noticed
            Result(
                status=Status.MEMORY_LIMIT,
                limit="memory",
                exit_code=3,
                **(FIGURES | {"oom_kills": 2}),
            ),
            FIGURES_TEXT
            + "cg-oom-killed:1\nexitcode:3\nstatus:RE\nmessage:Exited with error status 3\n",
        ),
        (  # without a cgroup it is our kill
            Result(
                status=Status.MEMORY_LIMIT, limit="memory", **(KILLED | {"oom_kills": None})
            ),
            "exitsig:9\nstatus:SG\nmessage:Memory limit exceeded\nkilled:1\n"
            + FIGURES_TEXT
            + "cg-oom-killed:1\n",
        ),
        (
            Result(status=Status.OUTPUT_LIMIT, limit="output", signal=25, **FIGURES),
            FIGURES_TEXT + "exitsig:25\nstatus:SG\nmessage:Caught fatal signal 25\n",
        ),
        (
            Result(status=Status.OUTPUT_LIMIT, limit="output", **KILLED),
            "exitsig:9\nstatus:SG\nmessage:Output limit exceeded\nkilled:1\n" + FIGURES_TEXT,
        ),
        (
            Result(status=Status.CANCELLED, **KILLED),
            "exitsig:9\nstatus:SG\nmessage:Interrupted\nkilled:1\n" + FIGURES_TEXT,
        ),
        (
            Result(status=Status.CANCELLED, signal=signal.SIGTERM),
            "exitsig:15\nstatus:SG\nmessage:Interrupted\nkilled:1\n",
        ),
        (Result(status=Status.OK, exit_code=0), "exitcode:0\n"),
        (HostError("no cgroup\nhere", "ask"), "status:XX\nmessage:no cgroup here\n"),
        (
            ChildError(ErrorLocation.MOUNT, errno.EACCES, 3, subject="/usr"),
            "status:XX\nmessage:mount[3] /usr: Permission denied (EACCES)\n",
        ),
        (
            ChildError(ErrorLocation.EXECVE, errno.ENOENT, subject="./a"),
            "exitcode:127\nstatus:RE\nmessage:execve ./a: No such file or directory (ENOENT)\n",
        ),
        (
            ChildError(ErrorLocation.EXECVE, errno.EACCES, subject="./a"),
            "exitcode:126\nstatus:RE\nmessage:execve ./a: Permission denied (EACCES)\n",
        ),
    ],
)
def test_meta_is_isolates_text(outcome: Result | HostError, text: str) -> None:
    assert meta.render(outcome) == text


def test_meta_has_a_text_for_every_status() -> None:
    for status in Status:
        assert meta.render(Result(status=status, **KILLED)).count("status:") == (
            0 if status is Status.OK else 1
        ) or status in {Status.OK, Status.NONZERO_EXIT}


def fields(path: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in path.read_text().splitlines())


@pytest.mark.userns
def test_meta_file_of_a_run_has_its_keys_in_order(place: Path, command: Command) -> None:
    assert command("-q", "--meta=m", "sh", "-c", "exit 5").returncode == 5
    found = fields(place / "m")
    assert [*found] == [
        *("time", "time-wall", "max-rss", "csw-voluntary", "csw-forced", "cg-mem"),
        *("exitcode", "status", "message"),
    ]
    assert (found["exitcode"], found["status"]) == ("5", "RE")


@pytest.mark.userns
def test_meta_file_of_a_wall_limit_says_wall(place: Path, command: Command) -> None:
    assert command("-q", "--meta=m", "-w", "0.2", "sleep", "9").returncode == 124
    found = fields(place / "m")
    assert (found["status"], found["killed"]) == ("TO", "1")
    assert "wall" in found["message"]
    assert 0.2 <= float(found["time-wall"]) < 5


@pytest.mark.userns
def test_meta_file_is_written_when_the_sandbox_fails(place: Path, command: Command) -> None:
    done = command("--meta=m", "--json=j", "-C", "/no/such", "true")
    assert done.returncode == 125
    assert fields(place / "m")["status"] == "XX"
    assert fields(place / "m")["message"].startswith("chdir /no/such: No such file")
    assert '"sandbox_error"' in (place / "j").read_text()


@pytest.mark.userns
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_meta_file_of_an_interrupted_run_says_by_what(
    number: signal.Signals, place: Path, start: Start
) -> None:
    (place / "m").write_text("exitcode:0\n")
    script = "echo started; sleep 60"
    with start("-q", "--meta=m", "--json=j", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number
    assert (place / "m").read_text() == (
        f"exitsig:{number}\nstatus:SG\nmessage:Interrupted\nkilled:1\n"
    )
    found = json.loads((place / "j").read_text())
    assert (found["status"], found["signal"]) == ("cancelled", number)


@pytest.mark.userns
def test_meta_file_in_a_directory_of_the_program_replaces_what_it_has_put_there(
    place: Path, command: Command
) -> None:
    (place / "victim").write_text("untouched")
    inside = place / "inside"
    inside.mkdir(mode=0o777)
    inside.chmod(0o777)
    script = f"ln -s {place}/victim m; ln -s {place}/victim j; ls -l"
    words = ("--meta=m", "--json=j", "--writable", "sh", "-c", script)
    done = command("-q", *words, cwd=inside)
    assert (done.returncode, done.stdout.count(b"->")) == (0, 2)
    assert (place / "victim").read_text() == "untouched"
    assert not (inside / "m").is_symlink()
    assert fields(inside / "m")["exitcode"] == "0"
    assert not (inside / "j").is_symlink()


def test_meta_file_that_cannot_be_made_is_told_before_the_run(
    place: Path, command: Command
) -> None:
    done = command("--meta=m", "--json=m", "touch", "made")
    assert done.returncode == 125
    assert done.stderr.startswith(b"run-sandboxed: --meta: 'm': --json has this file")
    (place / "directory").mkdir()
    done = command("--meta=directory", "true")
    assert done.stderr == b"run-sandboxed: --meta: 'directory': Is a directory\n"
    assert done.returncode == 125
