"""Death runs downhill: whoever of grader, keeper and init dies, all below is gone at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner import ProtocolError, Sandbox, SandboxPool, Status
from runner.seccomp import load

pytestmark = pytest.mark.userns

# The promise is 100 ms; the machines that run this are shared, so the test allows for a pause.
AT_ONCE = 0.1
PATIENCE = 5.0

GRADER = """
import sys, runner
sandbox = runner.Sandbox()
sandbox.start()
print(sandbox.keeper_pid, sandbox.init_pid, flush=True)
sandbox.run(["sh", "-c", "setsid sleep 4242 & setsid sleep 4242 & sleep 4242"])
"""


def alive(pid: int) -> bool:
    """Tell whether it still has a memory image: one that only waits to be reaped has none.

    A killed keeper leaves its zombies to the host's reaper, which may take its time.
    """
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def sleepers() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if path.read_bytes() == b"sleep\x004242\x00":
                found.append(int(path.parent.name))
    return found


def wait_until(condition: object, seconds: float) -> float:
    """Poll until it holds; gives how long it took."""
    assert callable(condition)
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.001)
    return time.monotonic() - started


def cost_of(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


class Scene:
    """A grader in a process of its own, with a keeper, an init and three sleepers below it."""

    def __init__(self) -> None:
        started = time.monotonic()
        self.grader = subprocess.Popen(
            [sys.executable, "-c", GRADER],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        assert self.grader.stdout is not None
        self.keeper, self.init = map(int, self.grader.stdout.readline().split())
        wait_until(lambda: len(sleepers()) == 3, PATIENCE)
        self.start_time = time.monotonic() - started

    def inside_gone(self) -> bool:
        return not alive(self.init) and not sleepers()

    def gone(self) -> bool:
        return not alive(self.keeper) and self.inside_gone()

    def close(self) -> None:
        assert self.grader.stdout is not None
        self.grader.kill()
        self.grader.wait()
        self.grader.stdout.close()


@pytest.mark.parametrize("victim", ["grader", "keeper", "init"])
def test_killing_one_ends_all_below_at_once(victim: str) -> None:
    times, starts = [], []
    for _ in range(3):
        scene = Scene()
        try:
            starts.append(scene.start_time)
            pid = {"grader": scene.grader.pid, "keeper": scene.keeper, "init": scene.init}[
                victim
            ]
            os.kill(pid, signal.SIGKILL)
            times.append(wait_until(scene.inside_gone, PATIENCE))
            if victim != "init":
                times[-1] += wait_until(scene.gone, PATIENCE)
            # Of a killed init the keeper tells, and its grader prints so before both end.
            wait_until(scene.gone, PATIENCE)
        finally:
            scene.close()
    # A machine that takes a second to start them is slower than the promise is made for.
    assert min(times) < max(AT_ONCE, min(starts) / 10)


def test_killed_keeper_ends_the_programs_at_once() -> None:
    with Sandbox() as sandbox:
        sandbox.start()
        thread = threading.Thread(target=_run_and_fail, args=(sandbox,))
        thread.start()
        wait_until(sleepers, PATIENCE)
        keeper = sandbox.keeper_pid
        assert keeper is not None
        os.kill(keeper, signal.SIGKILL)
        assert wait_until(lambda: not sleepers(), PATIENCE) < 10 * AT_ONCE
        thread.join()


def _run_and_fail(sandbox: Sandbox) -> None:
    with pytest.raises(ProtocolError):
        sandbox.run(["sleep", "4242"])


def test_close_from_another_thread_ends_the_run() -> None:
    sandbox = Sandbox()
    threading.Timer(0.3, sandbox.close).start()
    result = sandbox.run(["sleep", "30"])
    assert result.status is Status.CANCELLED


def test_close_during_the_start_is_not_forgotten() -> None:
    """A cancel that comes before the program exists still ends it."""
    for delay in (0.0, 0.002, 0.004, 0.008):
        sandbox = Sandbox()
        timer = threading.Timer(delay, sandbox.cancel)
        started = time.monotonic()
        timer.start()
        # One that comes before the run has begun is of no run: then this one takes its time.
        result = sandbox.run(["sleep", "1"])
        timer.join()
        sandbox.close()
        if result.status is Status.CANCELLED:
            assert time.monotonic() - started < 0.9
            assert result.wall_ns is not None
            assert 0 <= result.wall_ns < 10**9
        else:
            assert delay == 0.0


def test_fork_of_the_grader_does_not_keep_the_sandbox_alive() -> None:
    """multiprocessing and gunicorn fork; the copy of the socket must not matter."""
    sandbox = Sandbox()
    sandbox.start()
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        started = time.monotonic()
        sandbox.close()
        assert time.monotonic() - started < 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_sandbox_in_a_fork_of_the_grader_is_the_graders(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        sandbox.start()
        child = os.fork()
        if child == 0:
            sandbox.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert sandbox.run(["true"]).ok


def test_sandbox_that_is_forgotten_is_ended() -> None:
    sandbox = Sandbox()
    sandbox.start()
    keeper = sandbox.keeper_pid
    assert keeper is not None
    with pytest.warns(ResourceWarning, match="a sandbox was not closed"):
        del sandbox
    assert not alive(keeper)


def test_sandbox_that_is_open_at_the_end_of_python_is_ended() -> None:
    code = "import runner; s = runner.Sandbox(); s.start(); print(s.keeper_pid)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stderr == b""
    assert not alive(int(done.stdout))


def test_death_of_a_grader_that_has_forked_ends_the_sandbox() -> None:
    code = (
        "import os, time, runner\n"
        "sandbox = runner.Sandbox()\n"
        "sandbox.start()\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(20); os._exit(0)\n"
        "print(sandbox.keeper_pid, child, flush=True)\n"
        "time.sleep(20)\n"
    )
    grader = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert grader.stdout is not None
    with grader.stdout:
        keeper, child = map(int, grader.stdout.readline().split())
        try:
            grader.kill()
            grader.wait()
            wait_until(lambda: not alive(keeper), PATIENCE)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.fixture
def interrupted() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Give what calls something 150 times, with KeyboardInterrupts all along; gives how many.

    With one thread: a signal that another one gets is handled in ours, whatever it holds back.
    """
    deadline = time.monotonic() + 30  # trio keeps the threads of earlier tests for a while
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == 1

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def is_interrupted(use: Callable[[], object], after: float) -> bool:
        try:
            signal.setitimer(signal.ITIMER_REAL, after)
            use()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            return True
        return False

    def call(use: Callable[[], object]) -> int:
        whole = min(cost_of(use) for _ in range(3))
        times = (whole * number / 150 for number in range(1, 151))
        return sum(is_interrupted(use, after) for after in times)

    before = signal.signal(signal.SIGALRM, interrupt)
    yield call
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


# An interrupt of its own close leaves it to be collected.
@pytest.mark.filterwarnings("ignore:a sandbox was not closed:ResourceWarning")
def test_interrupts_at_any_time_leave_nothing(
    interrupted: Callable[[Callable[[], object]], int],
) -> None:
    """Of a sandbox: the test's surroundings look for leftovers."""
    # Read before: of a file whose `with` an interrupt forestalls, Python itself complains.
    policy = load("default")

    def use() -> None:
        with Sandbox(policy=policy) as sandbox:
            sandbox.run(["sleep", "0.005"])

    caught = interrupted(use)
    assert caught > 30  # not all, as some uses take less time than those that were measured


def test_interrupts_at_any_time_leave_no_place_of_a_pool_taken(
    interrupted: Callable[[Callable[[], object]], int],
) -> None:
    """As Celery's soft time limit and gunicorn's abort do: nobody would be served any more."""
    with SandboxPool(1) as pool:

        def use() -> None:
            pool.run(["true"], timeout=0)

        for _ in range(6):  # most of the time of a run is the program's
            assert interrupted(use) > 20
            assert (pool.stats().busy, pool._leases) == (0, {})
        assert pool.run(["true"], timeout=0).ok
