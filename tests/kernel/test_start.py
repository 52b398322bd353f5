"""`start()`: how a process begins, as the program itself sees it. F3, F18–F25, H14, U45–U49."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pty
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner import (
    ADDR_NO_RANDOMIZE,
    Capabilities,
    ChildError,
    ConfigError,
    Credential,
    ErrorLocation,
    IdMap,
    Mount,
    Namespace,
    Runner,
    Status,
    User,
)
from runner.memfd import sealed_memfd
from tests.kernel.starting import output_of, script, status_fields

pytestmark = pytest.mark.userns

At = ErrorLocation
USER = Namespace.USER | Namespace.PID | Namespace.MOUNT


@pytest.fixture(scope="module")
def static_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A static program: writes its argv[0] and ends with 7."""
    directory = tmp_path_factory.mktemp("static")
    source = directory / "static.c"
    source.write_text(
        "#include <stdio.h>\nint main(int c, char **v) { puts(v[0]); return 7 * (c > 0); }\n"
    )
    program = directory / "static"
    subprocess.run(["musl-gcc", "-static", "-o", program, source], check=True)
    return str(program)


def sealed(path: str) -> int:
    return sealed_memfd("program", Path(path).read_bytes())


# exec_file: F3, M5


@pytest.mark.parametrize("files", [(0, 1, 2), (), (0,) * 30])
def test_exec_file_in_an_empty_root_is_executed(
    static_program: str, files: tuple[int, ...]
) -> None:
    fd = sealed(static_program)
    try:
        config = Runner(
            args=["/no/such/path"],
            exec_file=fd,
            files=files,
            namespaces=USER,
            pivot_root="/tmp",
        )
        with runner.start(config) as process:
            assert process.wait().exit_code == 7
    finally:
        os.close(fd)


def test_exec_file_that_is_among_the_files_too_is_executed(static_program: str) -> None:
    fd = sealed(static_program)
    reading, writing = os.pipe()
    try:
        # Its number, 1 in the program, is overwritten by the pipe: it has to move first.
        config = Runner(args=["name"], exec_file=fd, files=(fd, writing, 2, fd))
        with runner.start(config) as process:
            os.close(writing)
            assert os.read(reading, 100) == b"name\n"
            assert process.wait().exit_code == 7
    finally:
        os.close(fd)
        os.close(reading)


def test_exec_file_that_is_a_script_fails_as_it_is_closed_by_the_exec(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text("#!/bin/sh\nexit 0\n")
    with path.open() as file, pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["x"], exec_file=file.fileno()))
    assert (caught.value.location, caught.value.errno) == (At.EXECVE, errno.EACCES)
    path.chmod(0o755)
    with path.open() as file, pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["x"], exec_file=file.fileno()))
    assert (caught.value.location, caught.value.errno) == (At.EXECVE, errno.ENOENT)


def test_exec_file_that_is_no_open_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Runner.exec_file: 999: not an open"):
        runner.start(Runner(args=["x"], exec_file=999))
    reading, writing = os.pipe()
    with pytest.raises(ConfigError, match=f"Runner.exec_file: {reading}: not a regular file"):
        runner.start(Runner(args=["x"], exec_file=reading))
    os.close(reading)
    os.close(writing)


# What exec keeps


def test_umask_is_set_and_else_the_callers() -> None:
    assert script("umask", umask=0o027) == "0027\n"
    before = os.umask(0o013)
    try:
        assert script("umask") == "0013\n"
    finally:
        os.umask(before)


def test_nice_is_added_to_the_program_alone() -> None:
    before = os.nice(0)
    assert int(script("cut -d ' ' -f 19 /proc/self/stat", nice=before + 3)) == before + 3
    assert os.nice(0) == before


def test_cpus_are_those_that_it_may_use() -> None:
    (first, *_) = sorted(os.sched_getaffinity(0))
    assert status_fields(cpus=(first,))["Cpus_allowed_list"] == str(first)


def test_cpus_that_do_not_exist_are_reported_with_their_numbers() -> None:
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["/bin/true"], cpus=(4095,)))
    error = caught.value
    assert (error.location, error.errno) == (At.AFFINITY, errno.EINVAL)
    assert str(error) == "affinity 4095: Invalid argument (EINVAL)"


def test_personality_without_randomised_addresses_gives_the_same_stack() -> None:
    def stacks(**fields: Any) -> set[str]:  # noqa: ANN401
        return {script("grep stack /proc/self/maps", **fields) for _ in range(4)}

    assert len(stacks(personality=ADDR_NO_RANDOMIZE)) == 1
    assert len(stacks()) == 4


@pytest.mark.parametrize("namespaces", [Namespace(0), USER])
def test_oom_score_adj_is_the_programs_alone(namespaces: Namespace) -> None:
    text = script("cat /proc/self/oom_score_adj", oom_score_adj=700, namespaces=namespaces)
    assert text == "700\n"
    assert Path("/proc/self/oom_score_adj").read_text() != "700\n"


def test_oom_score_adj_leaves_the_keeper_and_init_hidden() -> None:
    config = Runner(args=["/bin/sleep", "9"], oom_score_adj=700, namespaces=USER)
    with runner.start(config) as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        keeper = int(stat.rpartition(")")[2].split()[1])
        # Root's, as it is not dumpable: proc(5). A test's own uid tells it where it is not 0.
        assert Path(f"/proc/{keeper}/stat").stat().st_uid == 0
        if os.geteuid() != 0:
            with pytest.raises(PermissionError):
                os.listdir(f"/proc/{keeper}/fd")


# Signals: F28, M14


def test_signals_are_at_their_default_though_the_caller_ignores_and_blocks() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGXFSZ})
    try:
        fields = status_fields()
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert int(fields["SigIgn"], 16) == 0
    assert int(fields["SigBlk"], 16) == 0


def test_signals_ignored_and_blocked_are_exactly_those_asked_for() -> None:
    fields = status_fields(
        ignored_signals=(signal.SIGHUP, signal.SIGRTMAX), blocked_signals={signal.SIGUSR1}
    )
    assert int(fields["SigIgn"], 16) == 1 | 1 << 63
    assert int(fields["SigBlk"], 16) == 1 << (signal.SIGUSR1 - 1)


# Sessions and terminals: F24, F25, M8, M9


def test_session_is_the_programs_own() -> None:
    pid, group, session = script("exec cut -d ' ' -f 1,5,6 /proc/self/stat").split()
    assert pid == group == session


def test_session_that_is_retained_is_the_callers() -> None:
    text = script("exec cut -d ' ' -f 5,6 /proc/self/stat", retain_session=True)
    assert text.split() == [str(os.getpgid(0)), str(os.getsid(0))]


def test_session_retained_ignores_nothing_and_blocks_nothing() -> None:
    fields = status_fields(retain_session=True)
    assert (int(fields["SigBlk"], 16), int(fields["SigIgn"], 16)) == (0, 0)


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def test_ctty_is_the_terminal_at_fd_0() -> None:
    with terminal() as (master, slave):
        config = Runner(
            args=["/bin/sh", "-c", "tty && echo controlled >/dev/tty"],
            files=(slave, slave, slave),
            ctty=True,
        )
        with runner.start(config) as process:
            process.wait()
        text = f"{os.ttyname(slave)}\r\ncontrolled\r\n"
        assert os.read(master, 1000).decode() == text


def test_ctty_that_is_no_terminal_is_reported_as_ioctl() -> None:
    reading, writing = os.pipe()
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["/bin/true"], files=(reading,), ctty=True))
    os.close(reading)
    os.close(writing)
    assert (caught.value.location, caught.value.errno) == (At.IOCTL, errno.ENOTTY)


def test_ctty_of_another_session_is_not_stolen() -> None:
    with terminal() as (_master, slave):
        first = Runner(args=["/bin/sleep", "9"], files=(slave,), ctty=True)
        with runner.start(first):
            with pytest.raises(ChildError) as caught:
                runner.start(Runner(args=["/bin/true"], files=(slave,), ctty=True))
            assert (caught.value.location, caught.value.errno) == (At.IOCTL, errno.EPERM)


# Capabilities and securebits: F15, F21, H16, U46, M61–M63

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def capability_sets(**fields: Any) -> dict[str, int]:  # noqa: ANN401
    status = status_fields(**fields)
    return {name: int(status[name], 16) for name in SETS}


def test_capabilities_chosen_in_all_sets_are_the_programs_whatever_its_uid() -> None:
    chosen = Capabilities.all_of(["NET_ADMIN", "CAP_SYS_CHROOT"])
    sets = capability_sets(namespaces=USER, capabilities=chosen)
    assert set(sets.values()) == {1 << 12 | 1 << 18}


def test_capabilities_chosen_survive_a_change_of_ids() -> None:
    maps = {"uid_mappings": (runner.IdMap(1000, os.geteuid()),)}
    maps["gid_mappings"] = (runner.IdMap(1000, os.getegid()),)
    chosen = Capabilities.all_of(["NET_ADMIN"])
    credential = Credential(1000, 1000)
    sets = capability_sets(namespaces=USER, capabilities=chosen, credential=credential, **maps)
    assert set(sets.values()) == {1 << 12}


def test_capabilities_that_are_not_ambient_are_lost_at_exec_but_for_uid_0() -> None:
    chosen = Capabilities(permitted=frozenset({"NET_ADMIN"}), bounding=frozenset({"KILL"}))
    maps = {"uid_mappings": (runner.IdMap(1000, os.geteuid()),)}
    sets = capability_sets(namespaces=USER, capabilities=chosen, **maps)
    assert sets == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 1 << 5, "CapAmb": 0}
    root = capability_sets(namespaces=USER, capabilities=chosen)
    assert root == {"CapInh": 0, "CapPrm": 1 << 5, "CapEff": 1 << 5, "CapBnd": 32, "CapAmb": 0}


def test_securebits_are_set_and_locked_with_capabilities_and_without() -> None:
    program = (
        "/usr/bin/python3",
        "-c",
        "import ctypes; print(ctypes.CDLL(None).prctl(27, 0, 0, 0, 0))",
    )
    assert output_of(*program, namespaces=USER, securebits=0x2F) == "47\n"
    both = {"securebits": 0x2F, "capabilities": Capabilities.all_of(["KILL"])}
    assert output_of(*program, namespaces=USER, **both) == "47\n"


def test_capabilities_that_are_unknown_or_contradict_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Capabilities.bounding: 'FLY': known are CHOWN"):
        Capabilities(bounding=frozenset({"CAP_FLY"}))
    with pytest.raises(ConfigError, match=r"Capabilities.effective: \['KILL'\]: permitted"):
        Capabilities(effective=frozenset({"KILL"}))
    with pytest.raises(ConfigError, match=r"Capabilities.ambient: \['KILL'\]: permitted"):
        Capabilities(permitted=frozenset({"KILL"}), ambient=frozenset({"KILL"}))


# Stops: F18, F20, M12, T4


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_program_stopped_before_exec_starts_when_resumed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    config = Runner(args=["/usr/bin/touch", str(marker)], stop_before_exec=True)
    with runner.start(config) as process:
        assert process.waiting
        assert Path(f"/proc/{process.pid}/comm").read_text() == "keeper\n"
        assert not marker.exists()
        process.resume()
        assert not process.waiting
        assert process.wait().ok
    assert marker.exists()


def test_program_stopped_before_exec_reports_a_failing_exec_when_resumed() -> None:
    process = runner.start(Runner(args=["/nonexistent"], stop_before_exec=True))
    with pytest.raises(ChildError) as caught:
        process.resume()
    assert (caught.value.location, caught.value.errno) == (At.EXECVE, errno.ENOENT)


def test_program_stopped_before_exec_can_be_killed() -> None:
    with runner.start(Runner(args=["/bin/true"], stop_before_exec=True)) as process:
        process.kill()
        assert process.wait().status is Status.CANCELLED


ALLOW_ALL = b"\x06\0\0\0\0\0\xff\x7f"


def test_program_stopped_before_its_filter_may_stay_so_for_long() -> None:
    """Longer than a set-up that hangs would be given: 10 s."""
    config = Runner(args=["/bin/true"], stop_before_seccomp=True, seccomp=ALLOW_ALL)
    with runner.start(config) as process:
        time.sleep(10.3)
        process.resume()
        assert process.wait().status is Status.OK


def test_program_continued_by_another_at_once_is_started_all_the_same() -> None:
    """Somebody's SIGCONT may come before the keeper has seen it stop."""
    code = (
        "import os, signal\n"
        "print(flush=True)\n"
        "def below(pid): return open(f'/proc/{pid}/task/{pid}/children').read().split()\n"
        "while True:\n"
        "    try:\n"
        "        for pid in [pid for keeper in below(os.getppid()) for pid in below(keeper)]:\n"
        "            if open(f'/proc/{pid}/comm').read() == 'sleep\\n':\n"
        "                os.kill(int(pid), signal.SIGCONT)\n"
        "    except OSError: pass\n"
    )
    words = [sys.executable, "-S", "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"\n"
            for _ in range(8):
                began = time.monotonic()
                with runner.start(Runner(args=["/bin/sleep", "20"], ptrace=True)):
                    assert time.monotonic() - began < 10
        finally:
            other.kill()


@pytest.mark.parametrize("namespaces", [Namespace(0), USER], ids=["bare", "pid namespace"])
def test_program_stopped_before_its_filter_has_none_yet(namespaces: Namespace) -> None:
    config = Runner(
        args=["/bin/sleep", "9"],
        seccomp=ALLOW_ALL,
        stop_before_seccomp=True,
        namespaces=namespaces,
    )
    with runner.start(config) as process:
        assert state(process.pid) == "T"
        assert "\nSeccomp:\t0\n" in Path(f"/proc/{process.pid}/status").read_text()
        process.resume()
        assert state(process.pid) in "SR"
        assert "\nSeccomp:\t2\n" in Path(f"/proc/{process.pid}/status").read_text()


def test_program_stopped_before_a_filter_that_fails_reports_it_when_resumed() -> None:
    broken = b"\x05\0\0\0\xff\0\0\0"
    process = runner.start(Runner(args=["/bin/true"], seccomp=broken, stop_before_seccomp=True))
    with pytest.raises(ChildError) as caught:
        process.resume()
    assert (caught.value.location, caught.value.errno) == (At.SECCOMP, errno.EINVAL)


LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_DETACH, PTRACE_SEIZE, WALL = 17, 0x4206, 0x40000000
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


@pytest.mark.parametrize("namespaces", [Namespace(0), USER], ids=["bare", "pid namespace"])
def test_ptrace_leaves_it_stopped_at_its_first_instruction(namespaces: Namespace) -> None:
    config = Runner(args=["/bin/true"], ptrace=True, namespaces=namespaces)
    with runner.start(config) as process:
        assert state(process.pid) == "T"
        assert "TracerPid:\t0" in Path(f"/proc/{process.pid}/status").read_text()
        assert Path(f"/proc/{process.pid}/comm").read_text() == "true\n"
        # A tracer can take it: nobody else does, and it has run nothing yet.
        assert LIBC.ptrace(PTRACE_SEIZE, process.pid, None, None) == 0, ctypes.get_errno()
        # It shows its stop to the tracer, and only then can be let go.
        _, status = os.waitpid(process.pid, os.WUNTRACED | WALL)
        assert os.WIFSTOPPED(status)
        assert LIBC.ptrace(PTRACE_DETACH, process.pid, None, None) == 0, ctypes.get_errno()
        process.resume()
        assert process.wait().ok


def test_ptrace_with_a_filter_stops_before_it() -> None:
    config = Runner(args=["/bin/true"], ptrace=True, seccomp=ALLOW_ALL)
    with runner.start(config) as process:
        assert process.waiting
        assert state(process.pid) == "T"
        process.resume()
        assert process.wait().ok


def test_fileno_is_readable_when_the_program_has_ended() -> None:
    with runner.start(Runner(args=["/bin/sleep", "0.2"])) as process:
        assert select.select([process], [], [], 0)[0] == []
        assert select.select([process], [], [], 10)[0] == [process]
        assert process.wait().ok


def test_stops_that_contradict_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Runner.sync_func: 'stop_before_exec'"):
        Runner(args=["x"], sync_func=print, stop_before_exec=True)
    with pytest.raises(ConfigError, match=r"Runner.ptrace: 'stop_before_exec'"):
        Runner(args=["x"], ptrace=True, stop_before_exec=True)


def test_waiting_program_whose_keeper_dies_dies_with_it() -> None:
    with runner.start(Runner(args=["/bin/true"], stop_before_exec=True)) as process:
        keeper = int(
            Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1]
        )
        os.kill(keeper, signal.SIGKILL)
        deadline = time.monotonic() + 2
        while os.path.exists(f"/proc/{process.pid}") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not os.path.exists(f"/proc/{process.pid}")


# What an ordinary value may be


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("umask", 0o1000, "Runner.umask: 512: it is 0 to 511, or None"),
        ("nice", 20, "Runner.nice: 20: it is -20 to 19, or None"),
        ("oom_score_adj", 1001, "Runner.oom_score_adj: 1001: it is -1000 to 1000, or None"),
        ("cpus", (-1,), "Runner.cpus: -1: a CPU is 0 to 8191"),
        ("ignored_signals", (9,), "Runner.ignored_signals: 9: 1 to 64, but for SIGKILL"),
        ("blocked_signals", (65,), "Runner.blocked_signals: 65: 1 to 64, but for SIGKILL"),
        ("securebits", 256, "Runner.securebits: 256: it is 0 to 255, or None"),
        ("exec_file", -1, "Runner.exec_file: -1: an fd is 0 or more"),
    ],
)
def test_value_out_of_its_range_is_refused_by_name(
    field: str, value: object, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Runner(args=["x"], **{field: value})
    assert str(caught.value).startswith(text)


def test_rlimits_of_the_keeper_are_the_callers() -> None:  # T23, U48
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    config = Runner(args=["/bin/sleep", "9"], rlimits=(runner.Rlimit.named("NOFILE", 16),))
    with runner.start(config) as process:
        keeper = int(
            Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1]
        )
        assert resource.prlimit(keeper, resource.RLIMIT_NOFILE) == before
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (16, 16)


# Ids by name, as the sandbox's own files have them: K32, M64

SANDBOX_PASSWD = b"root:x:0:0::/:/bin/sh\nalice:x:7:8::/:/bin/sh\n"
SANDBOX_GROUP = b"root:x:0:\nstaff:x:8:\nextra:x:9:bob,alice\nother:x:5:\n"


@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "shown"),
    [
        (User("alice"), "uid=7(alice) gid=8(staff) groups=8(staff),9(extra)"),
        (
            User("alice", "other", ("staff",)),
            "uid=7(alice) gid=5(other) groups=5(other),8(staff)",
        ),
        (User("7", "9"), "uid=7(alice) gid=9(extra) groups=9(extra)"),
    ],
    ids=["by its groups", "by given groups", "by numbers"],
)
def test_user_by_name_is_the_sandboxs_own(user: User, shown: str) -> None:
    system = [Mount.bind(path) for path in ("/bin", "/lib", "/lib64", "/usr")]
    maps = (IdMap(0, 400000, 100),)
    text = output_of(
        "/usr/bin/id",
        namespaces=USER,
        pivot_root="/mnt",
        mounts=[
            *(mount for mount in system if os.path.exists(mount.source)),
            Mount.file("/etc/passwd", SANDBOX_PASSWD),
            Mount.file("/etc/group", SANDBOX_GROUP),
        ],
        uid_mappings=maps,
        gid_mappings=maps,
        gid_mappings_enable_setgroups=True,
        credential=user,
    )
    assert text == f"{shown}\n"


def test_user_that_the_sandbox_does_not_know_is_refused_before_any_process() -> None:
    config = Runner(
        args=["x"],
        namespaces=USER,
        pivot_root="/mnt",
        mounts=[Mount.file("/etc/passwd", SANDBOX_PASSWD), Mount.file("/etc/group", b"")],
        credential=User("root2"),
    )
    with pytest.raises(ConfigError, match=r"root2"):
        runner.start(config)


# ETXTBSY: F27, M13


def test_program_that_is_open_for_writing_for_a_moment_is_waited_for(
    static_program: str, tmp_path: Path
) -> None:
    path = tmp_path / "busy"
    path.write_bytes(Path(static_program).read_bytes())
    path.chmod(0o755)
    tmp_path.chmod(0o755)
    with path.open("ab") as writer:
        threading.Timer(0.02, writer.close).start()
        with runner.start(Runner(args=[str(path)], files=())) as process:
            assert process.wait().exit_code == 7


def test_program_that_stays_open_for_writing_is_reported(
    static_program: str, tmp_path: Path
) -> None:
    path = tmp_path / "busy"
    path.write_bytes(Path(static_program).read_bytes())
    path.chmod(0o755)
    tmp_path.chmod(0o755)
    with path.open("ab"), pytest.raises(ChildError) as caught:
        runner.start(Runner(args=[str(path)]))
    assert (caught.value.location, caught.value.errno) == (At.EXECVE, errno.ETXTBSY)


# T22: filters are the kernel's, for every program


def test_filter_holds_for_a_static_program(static_program: str) -> None:
    number = 20 if os.uname().machine == "x86_64" else 66  # writev, by which musl's puts writes
    no_writev = struct.pack(
        "=HBBIHBBIHBBIHBBI",
        *(0x20, 0, 0, 0),
        *(0x15, 0, 1, number),
        *(0x06, 0, 0, 0x80000000),
        *(0x06, 0, 0, 0x7FFF0000),
    )
    fd = sealed(static_program)
    try:
        with runner.start(Runner(args=["x"], exec_file=fd, seccomp=no_writev)) as process:
            assert process.wait().signal == signal.SIGSYS
    finally:
        os.close(fd)


@pytest.mark.parametrize("stop", ["ptrace", "stop_before_exec", "stop_before_seccomp"])
def test_resume_of_a_program_that_has_ended_signals_nobody(stop: str) -> None:
    with runner.start(Runner(args=["/bin/true"], **{stop: True})) as process:
        process.kill()
        assert process.wait().status is Status.CANCELLED
        process.resume()  # its pid may be another's by now


def test_resume_continues_what_stopped_and_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for fields in ({"ptrace": True}, {"stop_before_seccomp": True, "seccomp": ALLOW_ALL}):
        with runner.start(Runner(args=["/bin/true"], **fields)) as process:
            process.resume()
            assert process.wait().ok
    assert len(os.listdir("/proc/self/fd")) == before
