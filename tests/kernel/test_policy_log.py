"""Which calls a policy has refused, counted, while the run goes on."""

from __future__ import annotations

import errno
import platform
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from runner import ConfigError, Limits, Mount, PolicyLog, Result, Sandbox, Status, TimeOffsets
from runner.seccomp import compile_policy, syscalls

pytestmark = pytest.mark.userns

ARCH = platform.machine()
NUMBERS = syscalls.numbers(ARCH)
GETPGID, GETPPID, SYNC, PTRACE = (
    NUMBERS[name] for name in ("getpgid", "getppid", "sync", "ptrace")
)
POLICY = """
default allow
errno EPERM getpgid if arg0 == 1
errno ENOSYS getpgid
log getppid
errno 0 sync
kill ptrace
"""
PRELUDE = """
import ctypes, os, signal, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*args):
    result = libc.syscall(*map(ctypes.c_ulong, args))
    return result if result >= 0 else -ctypes.get_errno()
"""


def compiled(text: str) -> bytes:
    return compile_policy(text, name="test", arch=ARCH)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(policy=compiled(POLICY), limits=Limits(wall_time=20)) as made:
        yield made


def python(code: str) -> list[str]:
    return ["/usr/bin/python3", "-S", "-c", PRELUDE + code]


def counts(result: Result) -> Mapping[tuple[str | None, str], int]:
    assert result.policy_log is not None
    assert result.policy_log.missed == 0
    return {(call.name, call.action): call.times for call in result.policy_log.calls}


CALLS = f"""
print([call({GETPGID}, 1), call({GETPGID}, 2), call({GETPGID}, 1)])
print(call({GETPPID}), call({SYNC}))
"""


def test_log_counts_what_is_refused_and_the_program_sees_what_the_policy_says(
    sandbox: Sandbox,
) -> None:
    result = sandbox.run(python(CALLS), policy_log=True)
    assert result.stdout == f"[-{errno.EPERM}, -{errno.ENOSYS}, -{errno.EPERM}]\n0 0\n".encode()
    assert counts(result) == {
        ("getpgid", "errno EPERM"): 2,
        ("getpgid", "errno ENOSYS"): 1,
        ("getppid", "log"): 1,
        ("sync", "errno 0"): 1,
    }


def test_log_gives_number_arguments_and_pid_of_the_first_call(sandbox: Sandbox) -> None:
    code = f"call({GETPGID}, 7, 2**64 - 1, 3, 4, 5, 6); call({GETPGID}, 8)"
    log = sandbox.run(python(code), policy_log="refusals").policy_log
    assert log is not None
    (call,) = log.calls
    assert (call.number, call.arch, call.times) == (GETPGID, ARCH, 2)
    assert call.args == (7, 2**64 - 1, 3, 4, 5, 6)
    assert call.pid > 1
    assert log.to_dict() == {"calls": [call._asdict()], "missed": 0}


def test_log_of_one_run_has_nothing_of_the_last(sandbox: Sandbox) -> None:
    assert counts(sandbox.run(python(CALLS), policy_log=True))
    assert sandbox.run(["true"], policy_log=True).policy_log == PolicyLog(())
    assert sandbox.run(["true"]).policy_log is None


def test_kill_ends_the_run_and_stands_in_the_log(sandbox: Sandbox) -> None:
    result = sandbox.run(python(f"call({GETPGID}, 1); call({PTRACE}, 0)"), policy_log=True)
    assert (result.status, result.signal) == (Status.DISALLOWED_SYSCALL, signal.SIGSYS)
    assert result.syscall == "ptrace"
    assert counts(result) == {("getpgid", "errno EPERM"): 1, ("ptrace", "kill"): 1}


def test_permissive_log_lets_all_through(sandbox: Sandbox) -> None:
    result = sandbox.run(
        python(f"print(call({GETPGID}, 1), call({PTRACE}, 0, 0, 0, 0))"),
        policy_log="permissive",
    )
    # Of pid 1, whose group is 0 or 1; PTRACE_TRACEME is 0.
    assert result.stdout in {b"0 0\n", b"1 0\n"}
    assert result.status is Status.OK
    assert counts(result) == {("getpgid", "errno EPERM"): 1, ("ptrace", "kill"): 1}


def test_permissive_log_lets_a_trap_through() -> None:
    with Sandbox(policy=compiled("default allow\ntrap getppid")) as sandbox:
        result = sandbox.run(python(f"print(call({GETPPID}))"), policy_log="permissive")
    assert (result.status, result.stdout) == (Status.OK, b"0\n")
    assert counts(result) == {("getppid", "trap"): 1}


def test_log_of_all_calls_begins_after_the_start(sandbox: Sandbox) -> None:
    words = python(f"call({GETPGID}, 1); call({GETPPID}); os.execv('/bin/true', ['true'])")
    found = counts(sandbox.run(words, policy_log="all"))
    assert found["getpgid", "errno EPERM"] == 1
    assert found["getppid", "log"] == 1
    assert found["execve", "allow"] == 1  # its own, not that by which it was started
    assert found["exit_group", "allow"] == 1
    assert found["read", "allow"] > 1


def test_log_of_all_calls_counts_children_and_threads(sandbox: Sandbox) -> None:
    code = f"""
def many():
    for _ in range(100):
        call({GETPGID}, 1)
threads = [threading.Thread(target=many) for _ in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
if os.fork() == 0:
    many()
else:
    os.wait()
    many()
"""
    assert counts(sandbox.run(python(code), policy_log="all"))["getpgid", "errno EPERM"] == 700


def test_log_counts_a_call_once_that_a_signal_interrupts(sandbox: Sandbox) -> None:
    """Linux 5.19 lets no signal take a call out that is being decided."""
    code = f"""
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
done = sum(call({GETPGID}, 1) == -{errno.EPERM} for _ in range(2000))
signal.setitimer(signal.ITIMER_REAL, 0)
print(done)
"""
    result = sandbox.run(python(code), policy_log=True)
    # A signal that comes before the keeper has heard of it makes it fail with EINTR instead.
    assert counts(result)["getpgid", "errno EPERM"] == int(result.stdout)


def test_log_of_a_static_program_has_its_calls(tmp_path: Path) -> None:
    source = tmp_path / "static.c"
    source.write_text("#include <unistd.h>\nint main(void) { return getppid() != 0; }")
    program = tmp_path / "static"
    _compile(source, program)
    tmp_path.chmod(0o755)
    mounts = [Mount.bind(str(tmp_path), "/work")]
    with Sandbox(policy=compiled(POLICY), mounts=mounts) as sandbox:
        result = sandbox.run(["/work/static"], policy_log="all")
    assert result.status is Status.OK
    assert counts(result)["getppid", "log"] == 1


def _compile(source: Path, program: Path) -> None:
    subprocess.run(["gcc", "-static", "-o", program, source], check=True)


def test_log_holds_in_another_time_namespace() -> None:
    offsets = TimeOffsets(monotonic=5.0)
    with Sandbox(policy=compiled(POLICY), time_offsets=offsets) as sandbox:
        assert counts(sandbox.run(python(CALLS), policy_log=True))["sync", "errno 0"] == 1


def test_log_finds_room_for_many_kinds_and_counts_the_rest(sandbox: Sandbox) -> None:
    code = "for number in range(5000, 6500): call(number)"
    log = sandbox.run(python(code), policy_log="all").policy_log
    assert log is not None
    assert len(log.calls) == 1024
    assert log.missed >= 1500 - 1024


def test_limits_hold_for_a_program_that_is_logged(sandbox: Sandbox) -> None:
    code = f"while True: call({GETPGID}, 1)"
    result = sandbox.run(python(code), limits=Limits(wall_time=0.5), policy_log=True)
    assert result.status is Status.WALL_TIME_LIMIT
    assert counts(result)["getpgid", "errno EPERM"] > 10


@pytest.mark.parametrize(
    ("options", "log", "message"),
    [
        (
            {},
            "some",
            "policy_log: 'some': known are True, refusals, permissive, all",
        ),
        ({"policy": None}, True, "policy_log: True: the sandbox has no policy"),
        (
            {"oom_score_adj": 5},
            True,
            "policy_log: True: not where oom_score_adj is set, as fds cannot be shared then",
        ),
    ],
)
def test_log_that_cannot_be_is_refused(
    options: dict[str, object], log: bool | str, message: str
) -> None:
    with Sandbox(**options) as sandbox, pytest.raises(ConfigError) as caught:  # type: ignore[arg-type]
        sandbox.run(["true"], policy_log=log)
    assert str(caught.value) == message
