"""The command with a real sandbox: exit statuses, streams, environment, files, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.result import Result, Status

Start = Callable[..., subprocess.Popen[bytes]]
Command = Callable[..., subprocess.CompletedProcess[bytes]]

pytestmark = pytest.mark.userns

_FIGURES = rb"cpu \d+\.\d{3} s, wall \d+\.\d{3} s, memory (\d+(\.\d)? [KMG]?i?B|unknown)\n"


def _write(path: Path, text: str, *, mode: int = 0o755) -> None:
    path.write_text(text)
    path.chmod(mode)


# Exit status.


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -SEGV $$"], 139),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["-w", "0.2", "sleep", "60"], 124),
        (["-t", "0.2", "sh", "-c", "while :; do :; done"], 124),
        (["no-such-program"], 127),
        (["/no/such/program"], 127),
        (["./no-such-program"], 127),
        (["/etc/passwd"], 126),
        (["/usr"], 126),
    ],
)
def test_exit_status_is_that_of_timeout_and_env(
    words: list[str], status: int, command: Command
) -> None:
    assert command("-q", *words).returncode == status


@pytest.mark.parametrize(
    ("mode", "content", "status"),
    [(0o644, "#!/bin/sh\n", 126), (0o755, "#!/bin/sh\nexit 3", 3), (0o755, "\0\1\2\3", 126)],
)
def test_exit_status_of_file_depends_on_its_mode_and_format(
    mode: int, content: str, status: int, place: Path, command: Command
) -> None:
    _write(place / "prog", content, mode=mode)
    assert command("-q", "./prog").returncode == status


def test_exit_status_of_interpreter_that_is_missing_is_127(
    place: Path, command: Command
) -> None:
    _write(place / "prog", "#!/no/such/interpreter\n")
    assert command("-q", "./prog").returncode == 127


# Words.


def test_words_of_the_command_pass_unchanged(command: Command) -> None:
    words = ["-m", "--", "--json", "", "a b", "*", "\N{SNOWMAN}", b"\xff\xfe\n"]
    done = command("-q", "--", "printf", "%s\\0", *words)
    expected = [word if isinstance(word, bytes) else word.encode() for word in words]
    assert done.stdout.split(b"\0")[:-1] == expected


# Streams.


def test_stdin_passes_through_as_bytes(command: Command) -> None:
    data = bytes(range(256)) * 4096
    assert command("-q", "cat", data=data).stdout == data


def test_stdin_that_is_never_read_hangs_nobody(command: Command) -> None:
    assert command("-q", "true", data=b"x" * 2**20).returncode == 0


def test_stderr_of_the_program_passes_through(command: Command) -> None:
    done = command("-q", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_streams_can_be_files(place: Path, command: Command) -> None:
    (place / "in").write_bytes(b"data\xff")
    (place / "out").write_text("longer than what comes")
    script = "cat; echo err >&2"
    words = ["--stdin=in", "--stdout=out", "--stderr", "err", "sh", "-c", script]
    done = command("-q", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (place / "out").read_bytes() == b"data\xff"
    assert (place / "err").read_bytes() == b"err\n"


def test_stderr_can_go_to_stdout(command: Command) -> None:
    done = command("-q", "--stderr-to-stdout", "sh", "-c", "echo 1; echo 2 >&2; echo 3")
    assert (done.stdout, done.stderr) == (b"1\n2\n3\n", b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_stream_is_dev_null_in_the_program(
    closed: str, place: Path, command: Command
) -> None:
    shell = ("sh", "-c", f'"$@" {closed}', "sh")
    script = "for fd in 0 1 2; do readlink /proc/self/fd/$fd; done > names"
    assert command("-q", "--writable", "sh", "-c", script, prefix=shell).returncode == 0
    names = (place / "names").read_text().splitlines()
    null = [fd for fd, sign in ((0, "<&-"), (2, "2>&-")) if sign in closed]
    assert [names[fd] for fd in null] == ["/dev/null"] * len(null)


def test_summary_when_its_reader_has_gone_changes_nothing(command: Command) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert command("sh", "-c", "exit 3", stderr=writer).returncode == 3
    os.close(writer)


# Report.


def test_summary_of_a_run_is_one_line(command: Command) -> None:
    done = command("true")
    assert re.fullmatch(rb"run-sandboxed: ok, exit 0, " + _FIGURES, done.stderr)


def test_summary_of_a_limit_names_it_and_both_times(command: Command) -> None:
    done = command("-w", "0.25", "sleep", "60")
    head = rb"run-sandboxed: wall_time_limit, limit 0\.250 s, "
    assert re.fullmatch(head + _FIGURES, done.stderr)


def test_summary_of_a_crash_names_the_signal(command: Command) -> None:
    done = command("sh", "-c", "kill -SEGV $$")
    head = rb"run-sandboxed: signalled, signal 11 \(SIGSEGV\), "
    assert re.fullmatch(head + _FIGURES, done.stderr)


def test_json_has_the_keys_of_the_schema(command: Command) -> None:
    done = command("--json", "sh", "-c", "exit 7")
    result = json.loads(done.stderr)
    assert list(result) == list(Result(status=Status.OK).to_dict())
    assert (result["schema"], result["status"], result["exit_code"]) == (1, "nonzero_exit", 7)
    assert set(result["enforced"]) == {
        *("cpu_time", "wall_time", "memory", "swap", "processes", "output"),
        *("disk", "network", "files", "user", "syscalls", "capabilities"),
    }


def test_json_of_a_failure_has_the_same_keys(place: Path, command: Command) -> None:
    done = command("--json=result.json", "-C", "/no/such/directory", "true")
    result = json.loads((place / "result.json").read_bytes())
    assert done.returncode == 125
    assert list(result) == list(Result(status=Status.OK).to_dict())
    assert result["status"] == "sandbox_error"
    assert result["error"]["location"] == "chdir"
    assert result["error"]["errno"] == "ENOENT"


# Environment.


def test_environment_is_path_home_and_lang(command: Command) -> None:
    done = command("-q", "/usr/bin/env")
    assert {line.partition(b"=")[0] for line in done.stdout.split(b"\n")[:-1]} == {
        *(b"PATH", b"HOME", b"LANG")
    }
    assert b"HOME=/tmp\n" in done.stdout


def test_environment_takes_values_and_the_callers_own(
    command: Command, environment: dict[str, str]
) -> None:
    environment["MINE"] = os.fsdecode(b"\xff=")
    done = command("-q", "-E", "MINE", "-E", "A=b=c", "-E", "LANG=C", "/usr/bin/env")
    lines = done.stdout.split(b"\n")
    assert {b"MINE=\xff=", b"A=b=c", b"LANG=C", b"HOME=/tmp"} < set(lines)


def test_environment_whole_is_the_callers(
    command: Command, environment: dict[str, str]
) -> None:
    environment["MINE"] = "1"
    done = command("-q", "--full-env", "-E", "HOME=/x", "/usr/bin/env")
    expected = environment | {"HOME": "/x"}
    lines = done.stdout.decode().splitlines()
    assert dict(line.split("=", 1) for line in lines) == expected


# Files.


def test_current_directory_is_where_it_starts(place: Path, command: Command) -> None:
    assert command("-q", "pwd").stdout == f"{place}\n".encode()


def test_current_directory_is_read_only(place: Path, command: Command) -> None:
    (place / "file").write_text("mine")
    done = command("-q", "sh", "-c", "cat file; echo x > new")
    assert done.stdout == b"mine"
    assert b"Read-only file system" in done.stderr
    assert sorted(os.listdir(place)) == ["file"]


def test_current_directory_is_writable_on_request(place: Path, command: Command) -> None:
    assert command("-q", "--writable", "sh", "-c", "echo x > new").returncode == 0
    assert (place / "new").read_text() == "x\n"


def test_current_directory_in_tmp_leaves_the_rest_of_tmp_private(
    place: Path, command: Command
) -> None:
    mark = place.parent / "beside"
    mark.write_text("")
    done = command("-q", "sh", "-c", f"test ! -e {mark} && echo x > /tmp/y && cat /tmp/y")
    assert (done.returncode, done.stdout) == (0, b"x\n")
    assert not os.path.exists("/tmp/y")


def test_current_directory_in_the_default_root_works(command: Command) -> None:
    assert command("-q", "sh", "-c", "pwd; test -x env", cwd="/usr/bin").stdout == b"/usr/bin\n"


def test_current_directory_of_the_system_is_told_and_not_shown(command: Command) -> None:
    done = command("sh", "-c", "pwd; ls", cwd="/")
    note = b"/ belongs to the system: it is not shown in the sandbox; starting in /tmp"
    assert done.stdout == b"/tmp\n"
    assert done.stderr.startswith(b"run-sandboxed: note: " + note + b"\n")


def test_bind_shows_a_directory_elsewhere(place: Path, command: Command) -> None:
    (place / "sub").mkdir()
    (place / "sub/file").write_text("x")
    done = command("-q", "-b", "sub:/data/in", "sh", "-c", "cat /data/in/file; >/data/in/new")
    assert done.stdout == b"x"
    assert b"Read-only file system" in done.stderr


def test_bind_that_is_missing_can_be_optional(command: Command) -> None:
    assert command("-q", "-b", "/nowhere:optional", "true").returncode == 0


def test_tmpfs_is_writable_up_to_its_size(command: Command) -> None:
    script = "head -c 65536 /dev/zero > /data/x && head -c 1048576 /dev/zero > /data/y"
    done = command("-q", "--tmpfs=/data:256K", "sh", "-c", script)
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr


def test_root_takes_the_place_of_the_system(place: Path, command: Command) -> None:
    root = place / "root"
    root.mkdir()
    (root / "usr").mkdir()
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    words = ["--root", str(root), "-b", "/usr", "sh", "-c", "pwd; ls /"]
    assert command("-q", *words).stdout.split() == [
        *(b"/", b"bin", b"dev", b"lib", b"lib64", b"proc", b"tmp", b"usr")
    ]


def test_hostname_is_the_one_given(command: Command) -> None:
    assert command("-q", "--hostname", "box", "uname", "-n").stdout == b"box\n"


# Limits.


def test_rlimit_options_reach_the_program(command: Command) -> None:
    words = ["--open-files=32", "--stack=4M", "--rlimit=CORE=0:64K", "--file-size=1M"]
    script = "ulimit -n; ulimit -s; ulimit -Sc; ulimit -Hc; ulimit -f"
    # dash counts core and file sizes in blocks of 512 bytes, the stack in KiB.
    assert command("-q", *words, "sh", "-c", script).stdout.split() == [
        *(b"32", b"4096", b"0", b"128", b"2048")
    ]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["-t0.2", "sh", "-c", "while :; do :; done"], "cpu_time_limit"),
        (["-w0.2", "sleep", "60"], "wall_time_limit"),
        (["--idle-time=0.2", "sleep", "60"], "idle_time_limit"),
        (["-m16M", "sh", "-c", "exec head -c 200M /dev/zero | tail -c 199M"], "memory_limit"),
        pytest.param(
            ["-p8", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 9 & done"],
            "process_limit",
            marks=pytest.mark.cgroup,  # only a cgroup counts the forks that it refused
        ),
        (["--stdout=out", "--output=64K", "head", "-c1M", "/dev/zero"], "output_limit"),
        (["--file-size=64K", "dd", "if=/dev/zero", "of=/tmp/x", "count=999"], "output_limit"),
        (["--disk=64K", "dd", "if=/dev/zero", "of=/tmp/x", "count=999"], "disk_limit"),
    ],
)
def test_limit_reached_is_124_and_named(
    words: list[str], status: str, command: Command
) -> None:
    done = command("--json=/dev/stderr", "-q", *words)
    result = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, result["status"]) == (124, status)


def test_extra_time_lets_it_run_on_past_the_limit(command: Command) -> None:
    done = command("--json", "-t0.1", "--extra-time=0.2", "sh", "-c", "while :; do :; done")
    result = json.loads(done.stderr)
    assert (done.returncode, result["status"]) == (124, "cpu_time_limit")
    # It is killed at 0.3 s; a busy machine may look late, never early.
    assert result["cpu_ns"] >= 300_000_000


def test_output_limit_of_a_pipe_is_told_to_be_none(command: Command) -> None:
    done = command("--output=1K", "true")
    note = b"--output does not count what goes to a terminal or into a pipe\n"
    assert done.stderr.startswith(b"run-sandboxed: note: " + note)


# Interruption.


def _processes_with(mark: str) -> list[int]:
    """Find processes of which the mark is an argument."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _has(pid, mark)]


def _has(pid: str, mark: str) -> bool:
    try:
        return mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False  # it ended meanwhile


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_to_the_command_ends_everything(number: int, start: Start) -> None:
    mark = uuid.uuid4().hex
    script = "trap '' INT TERM HUP; setsid sleep 60 & echo ready; wait; sleep 60"
    with start("sh", "-c", script, mark) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(_processes_with(mark)) >= 2  # ours, and the program's
        process.send_signal(number)
        _out, err = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert err == f"run-sandboxed: cancelled by {signal.Signals(number).name}\n".encode()
    assert _processes_with(mark) == []


def test_signal_during_start_leaves_nothing(start: Start) -> None:
    mark = uuid.uuid4().hex
    statuses = set()
    for delay_ms in range(5, 105, 5):
        with start("-q", "sh", "-c", "sleep 60; :", mark) as process:
            time.sleep(delay_ms / 1000)
            process.terminate()
            _out, err = process.communicate(timeout=10)
        statuses.add((process.returncode, err))
    # Before our handler is there the default one ends Python itself.
    cancelled = (143, b"run-sandboxed: cancelled by SIGTERM\n")
    assert statuses <= {cancelled, (-signal.SIGTERM, b"")}
    assert _processes_with(mark) == []


def test_signal_that_the_caller_ignores_stays_ignored(start: Start) -> None:
    script = "echo ready; sleep 0.5"
    with start("-q", "sh", "-c", script, prefix=("nohup",)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_output_into_a_pipe_is_not_said_to_be_held(command: Command) -> None:
    done = command("--output", "1M", "--json", "echo", "x")
    assert json.loads(done.stderr.splitlines()[-1])["enforced"]["output"] is None


def test_output_into_a_pipe_is_refused_when_it_is_required_to_be_held(command: Command) -> None:
    done = command("--output", "1M", "--require", "output", "echo", "x")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"the guarantee 'output' cannot be given for a pipe or a terminal" in done.stderr


def test_policy_without_an_end_is_refused(command: Command) -> None:
    done = command("--policy", "/dev/zero", "true")
    assert done.returncode == 125
    assert b"--policy: '/dev/zero': it is longer than 1 MiB" in done.stderr


# What is told on request.


def test_measure_and_repeat_are_in_the_summary_and_in_json(
    command: Command, tmp_path: Path
) -> None:
    words = ("--measure=noise,status", "--repeat=3", f"--json={tmp_path}/j", "echo", "x")
    done = command(*words, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, b"x\n" * 3)
    lines = [line.removeprefix("run-sandboxed: ") for line in done.stderr.decode().splitlines()]
    assert lines[0].startswith("ok, exit 0, ")
    assert lines[1].startswith(("suspect: it ", "suspect: ", "nothing seen that disturbed"))
    assert lines[2].startswith("its first process: peak ")
    assert lines[3].startswith("of 3 runs: cpu 0.0")
    form = json.loads((tmp_path / "j").read_text())
    assert form["repeated"]["runs"] == 3
    assert form["repeated"]["cpu_ns"]["median"] == form["cpu_ns"]
    assert form["at_exit"]["status"].startswith("Name:\techo\n")
    assert form["noise"]["steal_ns"] is not None


def test_repeat_of_a_program_that_reads_a_pipe_is_refused(command: Command) -> None:
    done = command("--repeat=2", "cat", data=b"x")
    assert done.returncode == 125
    assert done.stderr == (
        b"run-sandboxed: stdin: 0: it cannot be read again: give bytes or a file\n"
    )


def test_first_run_that_fails_gives_the_exit_status(command: Command) -> None:
    done = command("-q", "--repeat=3", "sh", "-c", "echo x; exit 3", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (3, b"x\n")
