"""Attacks on the filter's kills: a call that the policy kills for never happens. X29."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import Limits, MiB, Mount, ProtocolError, Result, Sandbox, Status
from runner.seccomp import compile_policy, syscalls

pytestmark = pytest.mark.userns

ARCH = platform.machine()
NUMBERS = syscalls.numbers(ARCH)
# What the tests watch for is a directory that only this call could have made.
KILLS = compile_policy("default allow\nkill mkdirat", name="test", arch=ARCH)
LIMITS = Limits(wall_time=20, memory=512 * MiB, processes=50)
PRELUDE = f"""
import ctypes, os, signal, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def mkdir(path):
    result = libc.syscall({NUMBERS["mkdirat"]}, -100, path.encode(), 0o777)
    return result if result >= 0 else -ctypes.get_errno()
"""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory outside that programs may write to."""
    tmp_path.chmod(0o777)
    return tmp_path


@pytest.fixture
def sandbox(shared: Path) -> Iterator[Sandbox]:
    work = Mount.bind(str(shared), "/work", readonly=False)
    with Sandbox(policy=KILLS, limits=LIMITS, mounts=[work]) as made:
        yield made


def python(code: str) -> list[str]:
    return ["/usr/bin/python3", "-S", "-c", PRELUDE + code]


def assert_told(result: Result) -> None:
    assert result.status is Status.DISALLOWED_SYSCALL
    assert result.signal == signal.SIGSYS
    assert result.syscall == "mkdirat"


def test_program_that_may_make_the_directory_makes_it(shared: Path) -> None:
    """Without the filter: so what the others look for would be there."""
    work = Mount.bind(str(shared), "/work", readonly=False)
    with Sandbox(limits=LIMITS, mounts=[work]) as sandbox:
        assert sandbox.run(python("print(mkdir('/work/made'))")).stdout == b"0\n"
    assert (shared / "made").is_dir()


def test_call_never_happens_however_long_the_keeper_sleeps(
    sandbox: Sandbox, shared: Path
) -> None:
    """Someone has stopped the keeper, or the machine is too busy: the caller waits."""
    code = "open('/work/here', 'w').close(); time.sleep(0.3); mkdir('/work/made')"
    results: list[Result] = []
    waiting = threading.Thread(target=lambda: results.append(sandbox.run(python(code))))
    sandbox.start()
    keeper = sandbox.keeper_pid
    assert keeper is not None
    waiting.start()
    pidfd = os.pidfd_open(keeper)
    try:
        _await(shared / "here")
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        time.sleep(1)
        assert not (shared / "made").exists()
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        waiting.join()
        os.close(pidfd)
    assert not (shared / "made").exists()
    assert_told(results[0])


def test_keeper_that_dies_meanwhile_lets_nothing_through(
    sandbox: Sandbox, shared: Path
) -> None:
    """Its end makes the call fail with ENOSYS, if the caller lives to see it."""
    code = """
open('/work/here', 'w').close()
time.sleep(0.3)
open('/work/result', 'w').write(str(mkdir('/work/made')))
"""
    sandbox.start()
    keeper = sandbox.keeper_pid
    assert keeper is not None
    pidfd = os.pidfd_open(keeper)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            sandbox.run(python(code))
        except ProtocolError as error:
            failures.append(error)

    waiting = threading.Thread(target=run)
    waiting.start()
    _await(shared / "here")
    signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
    time.sleep(1)  # the call waits by now
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    waiting.join()
    os.close(pidfd)
    assert len(failures) == 1
    assert not (shared / "made").exists()
    result = shared / "result"
    assert not result.exists() or result.read_text() in {"", "-38"}


def test_signals_that_interrupt_the_call_do_not_let_it_through(
    sandbox: Sandbox, shared: Path
) -> None:
    """A signal that comes before the keeper has heard of the call makes it fail with EINTR."""
    code = """
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.00005, 0.00005)
for number in range(100000):
    result = mkdir(f"/work/{number}")
    if result != -4:
        print(number, result, flush=True)
"""
    assert_told(result := sandbox.run(python(code)))
    assert result.stdout == b""
    assert list(shared.iterdir()) == []


def test_many_violations_at_once_are_one_and_none_happens(
    sandbox: Sandbox, shared: Path
) -> None:
    code = """
barrier = threading.Barrier(20)
def violate(number):
    barrier.wait()
    mkdir(f"/work/{number}")
if os.fork() and os.fork():
    time.sleep(10)
for number in range(20):
    threading.Thread(target=violate, args=(f"{os.getpid()}.{number}",)).start()
"""
    for _ in range(5):
        assert_told(sandbox.run(python(code)))
        assert list(shared.iterdir()) == []
        assert sandbox.run(["true"]).ok


def test_violation_beside_the_end_of_the_program_leaves_the_sandbox_whole(
    sandbox: Sandbox, shared: Path
) -> None:
    """An orphan calls while the program ends: told or not, by who was first."""
    code = "os.fork() and os._exit(0); mkdir('/work/made')"
    for _ in range(20):
        result = sandbox.run(python(code))
        assert result.status in {Status.OK, Status.DISALLOWED_SYSCALL}
        assert list(shared.iterdir()) == []
    assert sandbox.run(["true"]).ok


def test_limits_hold_while_calls_wait(shared: Path) -> None:
    """A program of which one process violates is gone at once, with those that burn CPU."""
    work = Mount.bind(str(shared), "/work", readonly=False)
    with Sandbox(policy=KILLS, limits=Limits(wall_time=20), mounts=[work]) as sandbox:
        code = "os.fork() or mkdir('/work/made')\nwhile True: pass"
        result = sandbox.run(python(code))
    assert_told(result)
    assert result.wall_ns is not None
    assert result.wall_ns < 10 * 10**9


def _await(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.005)
