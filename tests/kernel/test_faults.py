"""Faults at every system call of the helper and in every message. FC12, FC19, FE1 and on.

A sandbox lives: it starts, runs a program twice, ends. Meanwhile one call of one process of the
helper fails, or one message is not what was sent. What then comes is an exception of ours, or
all is well as the call was not needed; never another verdict, and it never hangs. The next run
works.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import platform
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from runner import (
    ChildError,
    ErrorLocation,
    HostError,
    Limits,
    MiB,
    ProtocolError,
    Sandbox,
    SandboxError,
    Status,
    helper,
    sources,
    wire,
)
from runner.seccomp import syscalls

pytestmark = pytest.mark.userns

ROOT = Path(__file__).parents[2]
At = ErrorLocation
LIMITS = Limits(cpu_time=5, wall_time=30, memory=64 * MiB, processes=8, output=1 * MiB)
COMMAND = ["sh", "-c", "echo out; exit 5"]
PATIENCE = 20.0  # seconds: longer than each time that a process of ours waits for another
NUMBERS = syscalls.numbers(platform.machine())
NAMES = {number: name for name, number in NUMBERS.items()}

# Processes of the helper, by their birth.
KEEPER, INIT, PROGRAM = range(3)

# What a call may fail with; the others with EPERM and ENOMEM. Negative: it happens all the
# same, as close(2) does.
FDS = (errno.EMFILE, errno.ENOMEM)
SPACE = (errno.ENOSPC,)
WAITS = (errno.ENOMEM, errno.EINTR)
ERRNOS: dict[str, tuple[int, ...]] = {
    "close": (-errno.EIO,),
    **dict.fromkeys(("write", "pwrite64", "mkdir", "mkdirat", "symlink", "symlinkat"), SPACE),
    **dict.fromkeys(("mknod", "mknodat", "clone", "clone3"), (errno.ENOSPC, errno.ENOMEM)),
    **dict.fromkeys(("open", "openat", "openat2", "open_tree", "fsopen", "fsmount"), FDS),
    **dict.fromkeys(("dup2", "dup3", "fcntl", "pipe2", "socketpair", "pidfd_open"), FDS),
    **dict.fromkeys(("signalfd4", "epoll_create1"), FDS),
    **dict.fromkeys(("poll", "ppoll", "epoll_wait", "epoll_pwait", "wait4"), WAITS),
    **dict.fromkeys(("recvmsg", "sendmsg", "recvfrom", "sendto"), (errno.EMFILE, *WAITS)),
    "read": (errno.EIO, errno.EINTR),
    "pread64": (errno.EIO, errno.EINTR),
    "exit_group": (),
    "exit": (),
}


class Fault(NamedTuple):
    """The call that fails: of which process, which number, its how manieth, with what."""

    who: int
    number: int
    nth: int
    error: int

    def __str__(self) -> str:
        name = NAMES.get(self.number, str(self.number))
        return f"{name}, the {self.nth}th: {errno.errorcode[abs(self.error)]}"


class Injector:
    """Runs the first helper that is started with a fault, by fail_call.c."""

    def __init__(self, program: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._program = program
        self._wrapper = place / "keeper"
        self._record = place / "record"
        self._monkeypatch = monkeypatch

    def arm(self, fault: Fault) -> None:
        words = [self._program, *fault, self._record, KEEPER_PATH]
        self._wrapper.write_text("#!/bin/sh\nexec " + " ".join(map(str, words)) + "\n")
        self._wrapper.chmod(0o755)
        paths = [str(self._wrapper)]
        self._monkeypatch.setattr(
            helper, "keeper_path", lambda: paths.pop() if paths else KEEPER_PATH
        )
        self._monkeypatch.setattr(sources._Kernel, "has_new_calls", True)

    def calls(self) -> list[str]:
        """Give what was recorded, when the tracer has written it."""
        deadline = time.monotonic() + PATIENCE
        while not self._record.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        words = self._record.read_text().split()
        self._record.unlink()
        return words


KEEPER_PATH = helper.keeper_path()


@pytest.fixture(scope="session")
def fail_call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("fail") / "fail_call"
    source = ROOT / "tests" / "fail_call.c"
    subprocess.run(["gcc", "-Wall", "-o", program, source], check=True)
    return program


@pytest.fixture
def injector(fail_call: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Injector:
    return Injector(fail_call, tmp_path, monkeypatch)


@contextlib.contextmanager
def patience(sandbox: Sandbox) -> Iterator[None]:
    """Kill a helper that answers nothing, so that the test ends and can say so."""

    def kill() -> None:
        if (pid := sandbox.keeper_pid) is not None:
            os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(PATIENCE, kill)
    timer.start()
    start = time.monotonic()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
    assert time.monotonic() - start < PATIENCE, "it hangs"


def run(sandbox: Sandbox) -> SandboxError | None:
    """Run it; gives what was raised. Any verdict but the right one is a failure."""
    try:
        result = sandbox.run(COMMAND)
    except (ChildError, HostError, ProtocolError) as error:
        return error
    verdict = (result.status, result.exit_code, result.stdout)
    assert verdict == (Status.NONZERO_EXIT, 5, b"out\n")
    return None


def live() -> list[SandboxError | None]:
    """Start, run until a run has failed or twice, run once more, end."""
    with Sandbox(limits=LIMITS) as sandbox, patience(sandbox):
        raised = [run(sandbox)]
        raised.append(None if raised[0] else run(sandbox))
        if not any(raised):  # of some calls there are fewer at times: it may come now
            raised.append(run(sandbox))
        last = run(sandbox)
        if last is not None and not any(raised):  # or as late as this
            raised[-1], last = last, run(sandbox)
        assert last is None, "the fault is gone, and it does not work"
        return raised


def faults(who: int, calls: list[str]) -> Iterator[Fault]:
    """Give the faults of a life: of a loop of calls the first turn."""
    seen = set()
    times: collections.Counter[int] = collections.Counter()
    for at, word in enumerate(calls):
        number = int(word)
        times[number] += 1
        surroundings = tuple(calls[max(0, at - 1) : at + 2])
        if surroundings not in seen:
            seen.add(surroundings)
            default = (errno.EPERM, errno.ENOMEM)
            for error in ERRNOS.get(NAMES.get(number, ""), default):
                yield Fault(who, number, times[number], error)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", [KEEPER, INIT, PROGRAM], ids=["keeper", "init", "program"])
def test_call_that_fails_is_an_exception_or_nothing_and_the_next_run_works(
    who: int, injector: Injector
) -> None:
    injector.arm(Fault(who, -1, 0, 0))
    assert live() == [None, None, None]
    wrong, raised, missed = [], 0, 0
    for fault in faults(who, injector.calls()):
        injector.arm(fault)
        try:
            raised += any(live())
        except Exception as error:  # noqa: BLE001 - all of them are told at the end
            wrong.append(f"{fault}: {error!r}")
        missed += injector.calls()[-1] != "failed"
    assert wrong == []
    # That calls do fail, most that fail are told, and few are not in each life.
    assert raised > 15
    assert missed < 10


class Told(NamedTuple):
    """A fault by name, and what it is reported as: location and errno of a ChildError."""

    who: int
    call: str
    nth: int
    error: int
    location: ErrorLocation
    as_error: int | None = None


TOLD = (
    # The end of a life that has yet to begin.
    Told(KEEPER, "clone", 1, errno.ENOMEM, At.CLONE),
    Told(KEEPER, "socketpair", 1, errno.EMFILE, At.INIT),
    Told(KEEPER, "setns", 1, errno.EPERM, At.SETNS),
    Told(INIT, "pivot_root", 1, errno.EPERM, At.PIVOT_ROOT),
    Told(INIT, "sethostname", 1, errno.EPERM, At.HOSTNAME),
    Told(INIT, "signalfd4", 1, errno.EMFILE, At.INIT, errno.ECHILD),
    Told(INIT, "epoll_create1", 1, errno.EMFILE, At.INIT, errno.ECHILD),
    # In the middle of one.
    Told(KEEPER, "pipe2", 1, errno.EMFILE, At.PIPE),
    Told(KEEPER, "pipe2", 2, errno.EMFILE, At.PIPE),
    Told(KEEPER, "clone3", 1, errno.ENOMEM, At.CLONE),
    Told(KEEPER, "ppoll", 1, errno.ENOMEM, At.WATCH),
    Told(KEEPER, "wait4", 1, errno.EPERM, At.WATCH),
    Told(PROGRAM, "setsid", 1, errno.EPERM, At.SETSID),
    Told(PROGRAM, "keyctl", 1, errno.EDQUOT, At.KEYRING),
    Told(PROGRAM, "capset", 1, errno.EPERM, At.SET_CAP),
    Told(PROGRAM, "timer_create", 1, errno.EAGAIN, At.WATCH),
)


@pytest.mark.parametrize("told", TOLD, ids=lambda told: f"{told.call}-{told.nth}")
def test_call_that_fails_is_told_with_location_and_errno(
    told: Told, injector: Injector
) -> None:
    injector.arm(Fault(told.who, NUMBERS[told.call], told.nth, told.error))
    raised = next(error for error in live() if error)
    assert injector.calls()[-1] == "failed"
    assert isinstance(raised, ChildError)
    expected = told.error if told.as_error is None else told.as_error
    assert (raised.location, raised.errno) == (told.location, expected)


@pytest.mark.parametrize("nth", [3, 4])
def test_memory_that_there_is_not_for_a_plan_is_no_malformed_plan(
    nth: int, injector: Injector
) -> None:
    """The lists of a large plan are mapped: of START's here."""
    injector.arm(Fault(KEEPER, NUMBERS["mmap"], nth, errno.ENOMEM))
    raised = live()[0]
    assert isinstance(raised, ChildError)
    assert (raised.location, raised.errno) == (At.CLONE, errno.ENOMEM)


# Messages: somebody between the grader and the keeper, who changes one.

Frame = tuple[bytes, list[int]]
Change = Callable[[Frame], list[Frame]]


class Proxy:
    """Passes frames on between a grader and its first keeper; changes one of one direction."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = helper.socket.socketpair
        self._monkeypatch = monkeypatch
        self._left = 1
        self.changed = 0

    def arm(self, change: Change, *, reply: bool, nth: int) -> None:
        self._change, self._reply, self._nth, self._count = change, reply, nth, 0
        self._monkeypatch.setattr(helper.socket, "socketpair", self._pair)

    def _pair(self, *kind: int) -> tuple[socket.socket, socket.socket]:
        ours, theirs = self._real(*kind)
        if not self._left:
            return ours, theirs
        self._left -= 1
        near, far = self._real(*kind)
        for source, sink, reply in ((theirs, near, False), (near, theirs, True)):
            threading.Thread(target=self._pass, args=(source, sink, reply), daemon=True).start()
        return ours, far

    def _pass(self, source: socket.socket, sink: socket.socket, reply: bool) -> None:
        with contextlib.suppress(OSError):
            while True:
                frame, fds, _, _ = socket.recv_fds(source, 1 << 17, 253)
                if not frame:
                    break
                try:
                    for bytes_, with_fds in self._changed((frame, fds), reply=reply):
                        socket.send_fds(sink, [bytes_], with_fds)
                finally:
                    for fd in fds:
                        os.close(fd)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if not reply:
            self._reap(source, sink)

    def _changed(self, frame: Frame, *, reply: bool) -> list[Frame]:
        if reply == self._reply:
            self._count += 1
            if self._count == self._nth:
                self.changed += 1
                return self._change(frame)
        return [frame]

    @staticmethod
    def _reap(*ends: socket.socket) -> None:
        time.sleep(0.1)  # the other thread has heard of it by then
        for end in ends:
            end.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Proxy:
    return Proxy(monkeypatch)


def put(at: int, form: str, value: int) -> Change:
    """Write a number into a frame."""

    def change(frame: Frame) -> list[Frame]:
        content = bytearray(frame[0])
        struct.pack_into(form, content, at, value)
        return [(bytes(content), frame[1])]

    return change


def torn(frame: Frame) -> list[Frame]:
    return [(frame[0][:20], frame[1])]


def longer(frame: Frame) -> list[Frame]:
    return [(frame[0] + b"x", frame[1])]


def late(frame: Frame) -> list[Frame]:
    time.sleep(1.5)
    return [frame]


def cut(_: Frame) -> list[Frame]:
    raise OSError("the connection is cut")


GONE = "the keeper has ended: it was killed, or could not go on"
SENSELESS = "the keeper sent a reply that says nothing that we know"
HEADER = "the keeper refused a request: its header of the plan is malformed"
KIND, RUN_ID, CAUSE, LOCATION = 6, 8, 24, 28


class Garbled(NamedTuple):
    """What happens to the how manieth frame of one direction, and what is raised then."""

    change: Change
    text: str | None
    nth: int = 2


REPLIES = {
    "torn": Garbled(torn, "the keeper sent 20 bytes where a reply has {size}"),
    "torn, of START": Garbled(torn, "the keeper sent 20 bytes where a reply has {size}", 1),
    "longer": Garbled(longer, "the keeper sent {longer} bytes where a reply has {size}", 1),
    "another magic": Garbled(
        put(0, "=I", 7), f"the keeper speaks version {wire.VERSION}, this package", 1
    ),
    "unknown kind": Garbled(put(KIND, "=H", 99), SENSELESS),
    "unknown cause": Garbled(put(CAUSE, "=i", 99), SENSELESS),
    "unknown location": Garbled(put(LOCATION, "=i", 999), SENSELESS),
    "another kind": Garbled(
        put(KIND, "=H", 1), "the keeper answered 1 where the program should have ended"
    ),
    "another kind, of START": Garbled(
        put(KIND, "=H", 5), "the keeper answered 5 where a sandbox should have started", 1
    ),
    "of another run": Garbled(
        put(RUN_ID, "=Q", 77), "the keeper answered a request that was not ours"
    ),
    "twice": Garbled(
        lambda frame: [frame, frame], "the keeper answered a request that was not ours"
    ),
    "late": Garbled(late, None),
    "cut": Garbled(cut, GONE),
    "cut, of START": Garbled(cut, GONE, 1),
}
REQUESTS = {
    "torn": Garbled(torn, GONE),
    "torn, START": Garbled(torn, GONE, 1),
    "longer": Garbled(longer, GONE),
    "another magic": Garbled(put(0, "=I", 7), GONE),
    "unknown kind": Garbled(put(KIND, "=H", 99), HEADER),
    "START once more": Garbled(put(KIND, "=H", 1), HEADER),
    "late": Garbled(late, None),
    "cut": Garbled(cut, GONE),
    "cut, START": Garbled(cut, GONE, 1),
}


def garble(proxy: Proxy, garbled: Garbled, *, reply: bool) -> list[SandboxError | None]:
    """A root's second request is KEEP, of which nothing is heard: where RUN is meant, count."""
    nth = garbled.nth
    if not reply and nth > 1:
        nth += bool(groups())
    proxy.arm(garbled.change, reply=reply, nth=nth)
    raised = live()
    assert proxy.changed == 1
    return [error for error in raised if error]


def groups() -> bool:
    from runner.cgroup import Parent
    from runner.host import detect

    found = Parent.find(detect())
    return found is not None and not found.why_not


@pytest.mark.parametrize("name", REPLIES)
def test_reply_that_is_garbled_is_an_exception(name: str, proxy: Proxy) -> None:
    garbled = REPLIES[name]
    check(garble(proxy, garbled, reply=True), garbled)


@pytest.mark.parametrize("name", REQUESTS)
def test_request_that_is_garbled_is_an_exception(name: str, proxy: Proxy) -> None:
    garbled = REQUESTS[name]
    check(garble(proxy, garbled, reply=False), garbled)


def check(raised: list[SandboxError], garbled: Garbled) -> None:
    if garbled.text is None:
        assert raised == []
        return
    (error,) = raised
    assert isinstance(error, ProtocolError)
    size = wire.REPLY_SIZE
    assert str(error).startswith(garbled.text.format(size=size, longer=size + 1))


# The keeper itself, and pipes that are full.


def await_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith(state):
            return
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("running", [False, True], ids=["idle", "running"])
def test_keeper_that_is_killed_or_stopped_is_an_exception_and_the_next_run_works(
    number: int, running: bool
) -> None:
    with Sandbox(limits=LIMITS) as sandbox, patience(sandbox):
        assert run(sandbox) is None
        keeper = sandbox.keeper_pid
        assert keeper is not None
        after = 0.3 if running else 0
        timer = threading.Timer(after, os.kill, (keeper, number))
        timer.start()
        if not running:
            timer.join()
            await_state(keeper, "Z" if number == signal.SIGKILL else "T")
        with contextlib.ExitStack() as stack:
            if running or number == signal.SIGSTOP:
                caught = stack.enter_context(pytest.raises(ProtocolError))
                sandbox.run(["sleep", "20"])
        timer.join()
        if running and number == signal.SIGKILL:
            assert str(caught.value) == GONE
        assert run(sandbox) is None
        assert sandbox.keeper_pid != keeper


def test_cancels_that_nobody_hears_do_not_wait() -> None:
    """Of a keeper that is stopped: hundreds fill its socket."""
    with Sandbox(limits=LIMITS) as sandbox, patience(sandbox):
        assert run(sandbox) is None
        keeper = sandbox.keeper_pid
        assert keeper is not None
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                sandbox.run(["sleep", "20"])
            except ProtocolError as error:
                raised.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        os.kill(keeper, signal.SIGSTOP)
        start = time.monotonic()
        for _ in range(2000):
            sandbox.cancel()
        assert time.monotonic() - start < 0.9  # a second it is until anybody looks
        thread.join()
        assert len(raised) == 1
        assert run(sandbox) is None


def test_output_into_a_full_pipe_of_the_callers_is_the_programs_to_wait_for() -> None:
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(65536))
    os.set_blocking(write, True)
    limits = LIMITS.replace(wall_time=0.5, cpu_time=0.5)
    with Sandbox(limits=LIMITS) as sandbox, patience(sandbox):
        result = sandbox.run(["echo", "x"], stdout=write, limits=limits)
        assert result.status is Status.WALL_TIME_LIMIT
        assert run(sandbox) is None
    os.close(read)
    os.close(write)
