"""`Sandbox`: what programs in it see, how they end, what is captured, what they leave."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner import (
    STDOUT,
    ChildError,
    ConfigError,
    ErrorLocation,
    HostError,
    Limits,
    MiB,
    Mount,
    ProtocolError,
    Sandbox,
    Status,
)
from runner.cgroup import Parent
from runner.guarantees import GUARANTEES
from runner.host import detect, parse_kernel

pytestmark = pytest.mark.userns

PYTHON = "/usr/bin/python3"
# A user-space CPU burner, as one process and in two children.
BURN = [PYTHON, "-S", "-c", "while True: pass"]
BURN_IN_CHILDREN = ["sh", "-c", "(while :; do :; done) & (while :; do :; done) & wait"]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(wall_time=20)) as made:
        made.start()
        yield made


def has_cgroup(sandbox: Sandbox) -> bool:
    return sandbox.enforced["memory"] == "cgroup"


def test_program_that_succeeds_is_ok_with_all_figures(sandbox: Sandbox) -> None:
    result = sandbox.run(["true"])
    assert (result.status, result.exit_code, result.signal) == (Status.OK, 0, None)
    assert result.cpu_ns is not None
    assert result.wall_ns is not None
    assert result.setup_ns is not None
    assert 0 < result.cpu_ns < 10**9
    assert 0 < result.wall_ns < 10**9
    assert 0 < result.setup_ns < 10**9


@pytest.mark.parametrize("code", [1, 7, 137, 255])
def test_exit_code_is_the_programs_own_whatever_it_is(sandbox: Sandbox, code: int) -> None:
    result = sandbox.run(["sh", "-c", f"exit {code}"])
    assert (result.status, result.exit_code) == (Status.NONZERO_EXIT, code)
    assert (result.signal, result.limit) == (None, None)


@pytest.mark.parametrize("name", ["KILL", "SEGV", "ABRT", "TERM", "XCPU", "XFSZ", "SYS"])
def test_signal_of_its_own_is_signalled_never_a_limit(sandbox: Sandbox, name: str) -> None:
    """Without a limit of ours, no signal number means one. X5, FR5, FJ10, T7."""
    number = signal.Signals[f"SIG{name}"]
    with Sandbox(policy=None) as unfiltered:
        result = unfiltered.run(["sh", "-c", f"kill -{name} $$"])
    assert (result.status, result.signal) == (Status.SIGNALLED, number)
    assert result.limit is None


def test_program_is_looked_up_inside_by_path(sandbox: Sandbox) -> None:
    with pytest.raises(ChildError) as caught:
        sandbox.run(["no-such-program"])
    assert caught.value.location is ErrorLocation.EXECVE
    assert str(caught.value) == "execve no-such-program: No such file or directory (ENOENT)"
    with pytest.raises(ChildError):
        sandbox.run(["true"], env={"PATH": "/nowhere"})
    assert sandbox.run(["/usr/bin/true"], env={}).ok


def test_environment_is_small_and_exact(sandbox: Sandbox) -> None:
    shown = sandbox.run(["env"]).stdout.decode().splitlines()
    assert sorted(shown) == [
        "HOME=/tmp",
        "LANG=C.UTF-8",
        "PATH=/usr/local/bin:/usr/bin:/bin",
    ]
    assert sandbox.run(["env"], env={"PATH": "/usr/bin"}).stdout == b"PATH=/usr/bin\n"


def test_guarantees_are_all_named(sandbox: Sandbox) -> None:
    assert tuple(sandbox.enforced) == GUARANTEES
    assert sandbox.enforced["user"] == ("namespace" if detect().maps_ids else None)
    assert sandbox.enforced["network"] == "namespace"
    assert sandbox.enforced["syscalls"] == "seccomp"


def test_guarantee_that_is_not_given_is_refused_when_required() -> None:
    sandbox = Sandbox(network="host", require=["network"])
    with pytest.raises(HostError, match="the guarantee 'network' cannot be given"):
        sandbox.start()
    with pytest.raises(ConfigError, match="'teleport': known are cpu_time"):
        Sandbox(require=["teleport"])


def test_required_memory_without_a_cgroup_is_refused_with_the_remedy() -> None:
    parent = Parent.find(detect())
    with Sandbox(require=["memory"]) as sandbox:
        if parent is not None and not parent.why_not:  # one is ours, or delegated to us
            sandbox.start()
            assert sandbox.enforced["memory"] == "cgroup"
        else:
            with pytest.raises(HostError) as caught:
                sandbox.start()
            assert caught.value.hint


# Streams


def test_stdin_is_bytes_an_fd_or_empty(sandbox: Sandbox, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    assert sandbox.run(["cat"], stdin=data).stdout == data
    (tmp_path / "in").write_bytes(b"from a file")
    with open(tmp_path / "in", "rb") as file:
        assert sandbox.run(["cat"], stdin=file.fileno()).stdout == b"from a file"
    assert sandbox.run(["cat"], stdin=tmp_path / "in").stdout == b"from a file"
    assert sandbox.run(["cat"]).stdout == b""


def test_stdin_of_a_file_that_is_not_there_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent': No such file or directory"):
        sandbox.run(["cat"], stdin=tmp_path / "absent")


def test_cgroup_namespace_is_rooted_where_the_program_is(sandbox: Sandbox) -> None:
    """T15: the groups that it was placed in, which are ours, are its `/`. M30."""
    lines = sandbox.run(["cat", "/proc/self/cgroup"]).stdout.decode().split()
    names = {line.split(":")[1]: line.split(":", 2)[2] for line in lines}
    for controller in ("memory", "pids", "cpuacct") if "memory" in names else ("",):
        assert names[controller] == "/", lines


def test_stdin_that_is_not_an_fd_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match="stdin: 999: not an open file descriptor"):
        sandbox.run(["cat"], stdin=999)


def test_stdin_of_bytes_cannot_be_changed_by_the_program(sandbox: Sandbox) -> None:
    result = sandbox.run(["sh", "-c", "echo x > /proc/self/fd/0"], stdin=b"answer")
    assert result.status is Status.NONZERO_EXIT


def test_program_that_never_reads_a_large_stdin_hangs_nobody(sandbox: Sandbox) -> None:
    assert sandbox.run(["true"], stdin=b"x" * (4 * MiB)).ok


def test_program_that_closes_its_outputs_hangs_nobody(sandbox: Sandbox) -> None:
    result = sandbox.run(["sh", "-c", "exec >&- 2>&-; sleep 0.1; exit 4"])
    assert (result.exit_code, result.stdout) == (4, b"")


def test_grandchild_that_holds_the_pipe_hangs_nobody(sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = sandbox.run(["sh", "-c", "setsid sleep 15 & echo out; echo err >&2"])
    assert (result.status, result.stdout, result.stderr) == (Status.OK, b"out\n", b"err\n")
    assert time.monotonic() - started < 10  # the sleep alone takes 15 s


def test_output_on_both_pipes_at_once_is_whole(sandbox: Sandbox) -> None:
    script = "head -c 3000000 /dev/zero & head -c 2000000 /dev/zero >&2; wait"
    result = sandbox.run(["sh", "-c", script])
    assert (len(result.stdout), len(result.stderr)) == (3_000_000, 2_000_000)


@pytest.mark.parametrize(("limit", "truncated"), [(9, True), (10, False), (11, False)])
def test_capture_keeps_a_prefix_and_says_so(
    sandbox: Sandbox, limit: int, truncated: bool
) -> None:
    result = sandbox.run(["printf", "0123456789"], capture_limit=limit)
    assert result.stdout == b"0123456789"[:limit]
    assert (result.stdout_bytes, result.stdout_truncated) == (10, truncated)
    assert result.status is Status.OK  # truncation is not a failure


def test_output_beyond_its_limit_is_output_limit(sandbox: Sandbox) -> None:
    result = sandbox.run(["yes"], limits=Limits(output=100_000, wall_time=20))
    assert (result.status, result.limit) == (Status.OUTPUT_LIMIT, "output")


def test_output_of_exactly_its_limit_is_ok(sandbox: Sandbox) -> None:
    limits = Limits(output=100_000, wall_time=20)
    command = "head -c 60000 /dev/zero; head -c 40000 /dev/zero >&2"
    assert sandbox.run(["sh", "-c", command], limits=limits).status is Status.OK
    more = f"{command}; printf x"
    assert sandbox.run(["sh", "-c", more], limits=limits).status is Status.OUTPUT_LIMIT


def test_file_beyond_the_output_limit_is_output_limit(sandbox: Sandbox) -> None:
    command = ["head", "-c", "200000", "/dev/zero"]
    with open(os.memfd_create("out"), "wb") as file:
        result = sandbox.run(command, stdout=file.fileno(), limits=Limits(output=100_000))
    assert result.status is Status.OUTPUT_LIMIT
    assert result.signal == signal.SIGXFSZ


def test_stderr_is_joined_to_stdout_where_asked_for(sandbox: Sandbox) -> None:
    result = sandbox.run(["sh", "-c", "echo a; echo b >&2; echo c"], stderr=STDOUT)
    assert (result.stdout, result.stderr) == (b"a\nb\nc\n", b"")
    with pytest.raises(ConfigError, match="stdout: it cannot be joined to itself"):
        sandbox.run(["true"], stdout=STDOUT)


def test_output_that_is_not_text_comes_back_as_it_is(sandbox: Sandbox) -> None:  # X26
    result = sandbox.run(["printf", r"\377\000\376"])
    assert result.stdout == b"\xff\x00\xfe"
    json.loads(result.to_json())


# Limits


def test_cpu_time_limit_ends_a_busy_program(sandbox: Sandbox) -> None:
    result = sandbox.run(BURN, limits=Limits(cpu_time=0.3, wall_time=20))
    assert (result.status, result.limit) == (Status.CPU_TIME_LIMIT, "cpu_time")
    assert result.cpu_ns is not None
    # From below: it was not ended early. From above: two cores for the few ms of a look.
    assert 0.3e9 <= result.cpu_ns < 0.5e9


def test_cpu_time_of_children_counts(sandbox: Sandbox) -> None:  # X12
    result = sandbox.run(BURN_IN_CHILDREN, limits=Limits(cpu_time=0.4, wall_time=20))
    assert result.status is Status.CPU_TIME_LIMIT
    assert result.cpu_ns is not None
    assert 0.4e9 <= result.cpu_ns < 0.6e9


def test_cpu_time_of_orphans_counts(sandbox: Sandbox) -> None:  # X12
    burn = f"{PYTHON} -S -c 'import time\nwhile time.process_time() < 0.3: pass'"
    wait = "while pgrep python3 >/dev/null; do sleep 0.02; done"
    result = sandbox.run(["sh", "-c", f"(({burn}) &); sleep 0.05; {wait}; exit 5"])
    assert result.exit_code == 5
    assert result.cpu_ns is not None
    assert result.cpu_ns >= 0.3e9


def test_extra_time_shows_how_long_it_would_have_taken(sandbox: Sandbox) -> None:
    code = "import time\nwhile time.process_time() < 0.4: pass"
    limits = Limits(cpu_time=0.2, extra_time=20.0, wall_time=120)
    result = sandbox.run([PYTHON, "-S", "-c", code], limits=limits)
    assert (result.status, result.exit_code) == (Status.CPU_TIME_LIMIT, 0)
    assert result.cpu_ns is not None
    assert result.cpu_ns >= 0.4e9


def test_wall_time_limit_ends_a_sleeping_program(sandbox: Sandbox) -> None:
    result = sandbox.run(["sleep", "30"], limits=Limits(wall_time=0.3))
    assert (result.status, result.limit) == (Status.WALL_TIME_LIMIT, "wall_time")
    assert result.wall_ns is not None
    assert 0.3e9 <= result.wall_ns < 0.8e9


def test_idle_time_limit_ends_a_deadlock_but_not_a_busy_program(sandbox: Sandbox) -> None:  # X4
    limits = Limits(idle_time=0.3, wall_time=20)
    result = sandbox.run(["sleep", "30"], limits=limits)
    assert (result.status, result.limit) == (Status.IDLE_TIME_LIMIT, "idle_time")
    code = "import time\nwhile time.process_time() < 0.6: pass"
    assert sandbox.run([PYTHON, "-S", "-c", code], limits=limits).status is Status.OK


def test_memory_limit_ends_a_hog(sandbox: Sandbox) -> None:
    code = "b = []\nwhile True: b.append(bytearray(1 << 20))"
    result = sandbox.run(
        [PYTHON, "-S", "-c", code], limits=Limits(memory=64 * MiB, wall_time=20)
    )
    assert (result.status, result.limit) == (Status.MEMORY_LIMIT, "memory")
    assert result.memory_bytes is not None
    # It got near the limit; without a cgroup, what it takes between two looks comes on top.
    assert 60 * MiB <= result.memory_bytes <= (64 * MiB if has_cgroup(sandbox) else 256 * MiB)


def test_memory_of_children_counts_together(sandbox: Sandbox) -> None:
    hold = f"{PYTHON} -S -c 'b = bytearray(40 << 20); import time; time.sleep(20)'"
    result = sandbox.run(
        ["sh", "-c", f"{hold} & {hold} & {hold} & wait; wait"],
        limits=Limits(memory=100 * MiB, wall_time=15),
    )
    assert result.status is Status.MEMORY_LIMIT


def test_memory_figure_is_what_was_touched(sandbox: Sandbox) -> None:
    code = "b = bytearray(100 << 20)"
    result = sandbox.run([PYTHON, "-S", "-c", code], limits=Limits(memory=400 * MiB))
    assert result.status is Status.OK
    assert result.memory_bytes is not None
    # 100 MiB and an interpreter, which is under 20 MiB.
    assert 100 * MiB <= result.memory_bytes < 120 * MiB


def test_memory_of_the_grader_is_not_the_programs(sandbox: Sandbox) -> None:  # X13
    ballast = bytearray(200 * MiB)
    ballast[::4096] = b"x" * len(ballast[::4096])
    result = sandbox.run(["true"])
    assert result.memory_bytes is not None
    assert result.memory_bytes < 8 * MiB
    del ballast


def test_process_limit_stops_a_fork_bomb(sandbox: Sandbox) -> None:
    code = (
        "import os, sys\n"
        "for i in range(100):\n"
        "    try:\n"
        "        if os.fork() == 0:\n"
        "            import time; time.sleep(10); os._exit(0)\n"
        "    except OSError:\n"
        "        sys.exit(50 + i)\n"
    )
    limits = Limits(processes=8, wall_time=20)
    result = sandbox.run([PYTHON, "-S", "-c", code], limits=limits)
    assert result.exit_code == 50 + 7  # it is the eighth itself
    if has_cgroup(sandbox):
        assert (result.status, result.limit) == (Status.PROCESS_LIMIT, "processes")
        assert result.processes_peak in {None, 8}
    else:
        assert result.status is Status.NONZERO_EXIT


def test_limits_of_one_run_do_not_hold_for_the_next(sandbox: Sandbox) -> None:
    code = "b = bytearray(64 << 20)"
    tight = Limits(memory=32 * MiB, processes=1, open_files=8)
    assert not sandbox.run([PYTHON, "-S", "-c", code], limits=tight).ok
    assert sandbox.run([PYTHON, "-S", "-c", code]).ok


def test_cancel_from_another_thread_ends_the_run(sandbox: Sandbox) -> None:
    timer = threading.Timer(0.2, sandbox.cancel)
    timer.start()
    result = sandbox.run(["sleep", "30"])
    timer.join()
    assert (result.status, result.limit) == (Status.CANCELLED, None)
    assert sandbox.run(["true"]).ok


# What a run leaves


def test_processes_of_a_run_are_gone_when_it_ends(sandbox: Sandbox) -> None:
    sandbox.run(["sh", "-c", "for i in 1 2 3; do setsid sleep 60 & done"])
    names = sandbox.run(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout.split()
    assert b"sleep" not in names


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_files_of_a_run_are_gone_in_the_next(sandbox: Sandbox, place: str) -> None:
    leave = f"cd {place}; echo x > f; mkdir -p d/e; chmod 700 d; ln -s /etc l; echo y > d/g"
    assert sandbox.run(["sh", "-c", leave]).ok
    shown = sandbox.run(["sh", "-c", f"ls -A {place}; stat -c '%a %u' {place}"])
    assert shown.stdout == (b"1777 0\n" if detect().maps_ids else b"1777 1000\n")


def test_ipc_objects_of_a_run_are_gone_in_the_next(sandbox: Sandbox) -> None:
    assert sandbox.run(["ipcmk", "-M", "4096", "-Q", "-S", "3"]).ok
    shown = sandbox.run(
        ["sh", "-c", "cat /proc/sysvipc/shm /proc/sysvipc/msg /proc/sysvipc/sem"]
    )
    assert shown.stdout.count(b"\n") == 3  # the three headings


def test_directory_of_the_host_is_shown_as_bound(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # root's program is another user
    (tmp_path / "given").write_text("content")
    mounts = (Mount.bind(str(tmp_path), "/box"), Mount.file("/etc/own", b"mine"))
    with Sandbox(mounts=mounts, work_dir="/box") as sandbox:
        shown = sandbox.run(["sh", "-c", "pwd; cat given /etc/own; touch x"])
    assert shown.stdout == b"/box\ncontentmine"
    assert b"Read-only file system" in shown.stderr


@pytest.mark.root
def test_directory_that_only_root_may_enter_can_be_bound(tmp_path: Path) -> None:
    closed = tmp_path / "closed" / "inner"
    closed.mkdir(parents=True)
    (closed / "f").write_text("seen")
    closed.parent.chmod(0o700)
    with Sandbox(mounts=[Mount.bind(str(closed), "/box")]) as sandbox:
        assert sandbox.run(["cat", "/box/f"]).stdout == b"seen"


def can_be_owned(directory: Path) -> bool:
    """Tell whether the kernel has idmapped mounts of its file system, or needs none."""
    command = ["stat", "--file-system", "--format=%T", str(directory)]
    kind = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    too_old = kind == "tmpfs" and parse_kernel(os.uname().release) < (6, 3)
    return os.geteuid() != 0 or not (too_old or kind == "overlayfs")


def test_owned_directory_is_the_programs_to_write_and_stays_the_callers(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("mine")
    (tmp_path / "private").chmod(0o600)
    tmp_path.chmod(0o700)
    mount = Mount.bind(str(tmp_path), "/box", readonly=False, owned=True)
    command = "cd /box && cat private && echo x > made && stat -c %u private made"
    with Sandbox(mounts=[mount]) as sandbox:
        shown = sandbox.run(["sh", "-c", command])
    if not can_be_owned(tmp_path):  # then the program may do less, never more
        assert (shown.ok, shown.stdout) == (False, b"")
        return
    assert shown.stdout == b"mine1000\n1000\n"
    assert (tmp_path / "made").stat().st_uid == os.geteuid()


@pytest.mark.root
def test_sandboxes_have_host_ids_of_their_own() -> None:  # FC6
    uids = []
    with Sandbox() as one, Sandbox() as two:
        for sandbox in (one, two):
            line = sandbox.run(["cat", "/proc/self/uid_map"]).stdout.split()
            uids += [int(line[1]), int(line[4])]
    assert len(set(uids)) == 4
    assert min(uids) >= 1_900_000_000


def test_thousand_runs_leave_nothing(tmp_path: Path) -> None:
    """No process, fd, cgroup, mount or file; the test's own surroundings check the rest."""

    def state(keeper: int) -> tuple[int, int, int]:
        fds = len(os.listdir(f"/proc/{keeper}/fd")) if os.geteuid() == 0 else 0
        mounts = len(Path(f"/proc/{keeper}/mountinfo").read_text().splitlines())
        return len(os.listdir("/proc/self/fd")), fds, mounts

    command = ["sh", "-c", "echo x > /tmp/x; true & true"]
    with Sandbox(limits=Limits(cpu_time=1, wall_time=5, memory=64 * MiB)) as sandbox:
        for _ in range(20):
            sandbox.run(command)
        time.sleep(0.2)
        assert sandbox.keeper_pid is not None
        # A user may not read its keeper's mounts: it is not dumpable.
        keeper = sandbox.keeper_pid if os.geteuid() == 0 else os.getpid()
        before = state(keeper)
        for _ in range(1000):
            assert sandbox.run(command).ok
        deadline = time.monotonic() + 2  # it cleans up when it has answered
        while state(keeper) != before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert state(keeper) == before


# Failures of ours


def test_killed_keeper_is_an_exception_and_the_next_run_works(sandbox: Sandbox) -> None:
    with Sandbox() as mine:
        mine.start()
        assert mine.keeper_pid is not None
        killer = threading.Timer(0.2, os.kill, (mine.keeper_pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(ProtocolError, match="the keeper has ended"):
            mine.run(["sleep", "10"])
        killer.join()
        assert mine.run(["true"]).ok


def test_killed_init_during_a_run_is_an_exception_and_the_next_run_works() -> None:
    with Sandbox() as mine:
        mine.start()
        assert mine.init_pid is not None
        killer = threading.Timer(0.2, os.kill, (mine.init_pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(ChildError) as caught:
            mine.run(["sleep", "10"])
        killer.join()
        assert caught.value.location is ErrorLocation.INIT
        assert mine.run(["true"]).ok


@pytest.mark.parametrize("held", [0.02, None])
def test_program_that_is_still_open_for_writing_is_tried_again(
    tmp_path: Path, held: float | None
) -> None:  # F27, M13
    tmp_path.chmod(0o755)
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    with Sandbox(mounts=[Mount.bind(str(tmp_path), "/box")]) as sandbox:
        sandbox.start()
        writer = os.open(program, os.O_WRONLY)
        if held is not None:
            timer = threading.Timer(held, os.close, (writer,))
            timer.start()
            assert sandbox.run(["/box/program"]).ok
            timer.join()
        else:
            with pytest.raises(ChildError) as caught:
                sandbox.run(["/box/program"])
            os.close(writer)
            at = (caught.value.location, caught.value.errno)
            assert at == (ErrorLocation.EXECVE, errno.ETXTBSY)


def test_cancel_while_a_program_is_tried_again_is_not_lost(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with Sandbox(mounts=[Mount.bind(str(tmp_path), "/box")]) as sandbox:
        sandbox.start()
        writer = os.open(program, os.O_WRONLY)
        timers = [
            threading.Timer(0.015, sandbox.cancel),
            threading.Timer(0.03, os.close, (writer,)),
        ]
        for timer in timers:
            timer.start()
        assert sandbox.run(["/box/program", "5"]).status is Status.CANCELLED
        for timer in timers:
            timer.join()


def test_output_guarantee_is_that_of_the_run(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        with Sandbox() as sandbox, open(tmp_path / "out", "wb") as file:
            assert sandbox.run(["true"]).enforced["output"] == "keeper"
            run = sandbox.run(["true"], stdout=file.fileno(), stderr=None)
            assert run.enforced["output"] == "rlimit"
            assert sandbox.run(["true"], stdout=writing).enforced["output"] is None
        with Sandbox(require=["output"]) as sandbox:
            with pytest.raises(HostError, match="'output' cannot be given for a pipe"):
                sandbox.run(["true"], stdout=writing)
            assert sandbox.run(["true"]).ok
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stdin": True}, "stdin: True: give bytes, an fd, a path, or None"),
        ({"stdin": bytearray(b"x")}, "stdin: bytearray.*: give bytes"),
        ({"stdout": "x"}, "stdout: 'x': give CAPTURE, an fd, a function, or None"),
        ({"env": {"A": 1}}, "env: .*names and values are text"),
    ],
)
def test_option_of_another_kind_is_refused(options: dict[str, Any], message: str) -> None:
    with Sandbox() as sandbox, pytest.raises(ConfigError, match=message):
        sandbox.run(["true"], **options)


def test_argument_that_is_no_text_is_refused() -> None:
    with Sandbox() as sandbox, pytest.raises(ConfigError, match="args: 1: an argument is text"):
        sandbox.run(["true", 1])  # type: ignore[list-item]


def test_one_shot_run_takes_the_options_of_both() -> None:
    result = runner.run(["cat"], stdin=b"x", limits=Limits(wall_time=10), host_name="other")
    assert result.stdout == b"x"
    with pytest.raises(ConfigError, match="bogus"):
        runner.run(["true"], bogus=1)


@pytest.mark.root
def test_two_sandboxes_have_different_host_uids() -> None:  # M65
    uids = set()
    with Sandbox() as one, Sandbox() as two:
        for sandbox in (one, two):
            sandbox.start()
            maps = Path(f"/proc/{sandbox.init_pid}/uid_map").read_text().split()
            uids.update((maps[1], maps[4]))
    assert len(uids) == 4
    assert all(int(uid) >= 1_900_000_000 for uid in uids)


@pytest.mark.parametrize(
    ("user", "ids"), [((0, 0), (0, 0)), ((7, 8), (7, 8)), ("nobody", (65534, 65534))]
)
def test_user_is_what_the_program_is_inside(
    user: tuple[int, int] | str, ids: tuple[int, int]
) -> None:
    with Sandbox(user=user) as sandbox:
        uid, gid = ids
        text = "id -u; id -g; grep CapEff /proc/self/status; echo x >/tmp/x; stat -c %u /tmp/x"
        result = sandbox.run(["sh", "-c", text])
        assert result.stdout.decode().split() == [
            *(str(uid), str(gid), "CapEff:", "0" * 16, str(uid))
        ]
        assert sandbox.enforced["user"] == ("namespace" if detect().maps_ids else None)
        assert not sandbox.run(["sh", "-c", "echo >/etc/passwd"]).ok


def test_user_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="alice"), Sandbox(user="alice") as sandbox:
        sandbox.start()
