"""`SandboxPool`: sandboxes that threads share. FJ11, X30; demands 21–23, 25, 26."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import (
    ChildError,
    ConfigError,
    Limits,
    PoolCancelled,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    ProtocolError,
    Result,
    SandboxPool,
    Status,
)
from runner.pool import Core, physical_cores

pytestmark = pytest.mark.userns

LONG = ["sleep", "60"]


@pytest.fixture
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(1, limits=Limits(wall_time=90)) as made:
        yield made


class Task(threading.Thread):
    """A call in a thread, and what became of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self._call()
        except BaseException as error:  # noqa: BLE001 - it is looked at
            self.error = error

    def done(self) -> Any:  # noqa: ANN401 - of any call
        self.join(60)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.value


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def running(pool: SandboxPool, key: str = "long") -> Task:
    """Let a long run begin."""
    task = Task(lambda: pool.run(LONG, key=key))
    eventually(lambda: pool.stats().busy == 1)
    return task


def waiting(pool: SandboxPool, count: int, call: Callable[[], Any]) -> Task:
    task = Task(call)
    eventually(lambda: pool.stats().waiting == count)
    return task


def ended(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - of any call
    """Give what it gave or raised."""
    task = Task(call)
    task.join(60)
    return task.value if task.error is None else task.error


def pool_keeper(pool: SandboxPool) -> int:
    pid = pool._sandboxes[0].keeper_pid
    assert pid is not None
    return pid


# Runs


def test_runs_in_a_pool_are_as_in_a_sandbox(pool: SandboxPool) -> None:
    result = pool.run(["cat", "a"], files_in={"a": b"x"}, files_out=["a"])
    assert (result.status, result.stdout) == (Status.OK, b"x")
    assert result.files["a"].content == b"x"
    stats = pool.stats()
    assert (stats.runs, stats.failures, stats.busy, stats.idle) == (1, 0, 0, 1)
    assert stats.run_p50_s == stats.run_max_s


def test_lease_runs_several_programs_in_one_sandbox(pool: SandboxPool) -> None:
    with pool.acquire() as lease:
        assert lease.run(["true"]).ok
        keeper = pool_keeper(pool)
        assert lease.run(["true"]).ok
        assert pool_keeper(pool) == keeper
        assert pool.stats().busy == 1
    assert pool.stats().busy == 0
    lease.release()
    with pytest.raises(PoolClosed):
        lease.run(["true"])


def test_pool_at_once_gives_the_verdicts_of_one_at_a_time() -> None:
    """X30, demand 13: no cross-talk, no verdict that load has made."""
    programs = {
        "ok": (["echo", "ok"], Status.OK),
        "exit": (["sh", "-c", "exit 3"], Status.NONZERO_EXIT),
        "signal": (["sh", "-c", "kill -SEGV $$"], Status.SIGNALLED),
        "wall": (LONG, Status.WALL_TIME_LIMIT),
    }
    wrong: list[object] = []

    def work(pool: SandboxPool, number: int) -> None:
        for turn in range(12):
            args, status = list(programs.values())[(number + turn) % len(programs)]
            mark = b"%d.%d" % (number, turn)
            result = pool.run(
                ["sh", "-c", 'cat >mark; cat mark; exec "$@"', "-", *args],
                stdin=mark,
                limits=Limits(wall_time=0.4),
            )
            if result.status is not status or not result.stdout.startswith(mark):
                wrong.append((args, result))

    with SandboxPool(2) as pool:
        for task in [Task(lambda n=number: work(pool, n)) for number in range(6)]:
            task.done()
        assert pool.stats().runs == 72
    assert wrong == []


# Waiting


def test_request_waits_for_a_sandbox_and_gets_it(pool: SandboxPool) -> None:
    with pool.acquire() as lease:
        task = waiting(pool, 1, lambda: pool.run(["echo", "served"]))
        assert lease.run(["true"]).ok
    assert task.done().stdout == b"served\n"
    assert pool.stats().waited_s > 0


def test_requests_are_served_in_the_order_of_asking(pool: SandboxPool) -> None:
    order: list[int] = []

    def ask(number: int) -> None:
        with pool.acquire():
            order.append(number)

    with pool.acquire():
        tasks = [waiting(pool, n + 1, lambda n=n: ask(n)) for n in range(5)]  # type: ignore[misc]
    for task in tasks:
        task.done()
    assert order == list(range(5))


def test_full_queue_refuses_and_says_how_many_wait() -> None:
    with SandboxPool(1, queue_limit=1) as pool, pool.acquire():
        task = waiting(pool, 1, pool.acquire)
        with pytest.raises(PoolFull) as caught:
            pool.run(["true"])
        assert caught.value.waiting == 1
        assert pool.stats().refused == 1
        pool.close(wait=False)
        with pytest.raises(PoolClosed):
            task.done()


def test_request_that_waits_for_too_long_gives_up(pool: SandboxPool) -> None:
    with pool.acquire():
        for timeout in (0, 0.05):
            with pytest.raises(PoolTimeout):
                pool.run(["true"], timeout=timeout)
        assert pool.stats().expired == 2
        assert pool.stats().waiting == 0
    assert pool.run(["true"], timeout=0).ok, "a free one needs no wait"


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_timeout_that_is_none_is_refused(pool: SandboxPool, timeout: Any) -> None:  # noqa: ANN401 - any is wrong
    with pytest.raises(ConfigError, match=r"^timeout: "):
        pool.acquire(timeout=timeout)


# Cancel


def test_cancel_of_a_run_ends_it(pool: SandboxPool) -> None:
    task = running(pool)
    before = time.monotonic()
    assert pool.cancel("long")
    assert task.done().status is Status.CANCELLED
    assert time.monotonic() - before < 10
    assert not pool.cancel("long"), "it is over"
    assert pool.run(["true"], key="long").ok, "and the key free again"


def test_cancel_of_one_that_waits_never_runs_it(pool: SandboxPool) -> None:
    with pool.acquire():
        task = waiting(pool, 1, lambda: pool.run(["true"], key="mine"))
        assert pool.cancel("mine")
        with pytest.raises(PoolCancelled):
            task.done()
    assert pool.stats().runs == 0


def test_cancel_before_the_run_of_a_lease_ends_it_all_the_same(pool: SandboxPool) -> None:
    with pool.acquire(key="mine") as lease:
        assert pool.cancel("mine")
        assert lease.run(LONG).status is Status.CANCELLED
    assert pool.run(["true"]).ok, "the next lease is another"


def test_cancel_at_any_moment_is_never_lost(pool: SandboxPool) -> None:
    for delay in range(40):
        task = Task(lambda: pool.run(LONG, key="mine"))
        eventually(lambda: pool.stats().busy == 1)
        time.sleep(delay / 20000)
        assert pool.cancel("mine")
        assert task.done().status is Status.CANCELLED


def test_key_in_use_is_refused(pool: SandboxPool) -> None:
    with pool.acquire(key="mine"), pytest.raises(ConfigError, match=r"^id: 'mine': "):
        pool.acquire(key="mine")


# What is replaced


def test_sandbox_is_replaced_after_its_runs() -> None:
    with SandboxPool(1, max_runs=2) as pool:
        keepers = []
        for _ in range(4):
            with pool.acquire() as lease:
                keepers.append(pool_keeper(pool) if pool.stats().runs % 2 else 0)
                lease.run(["true"])
        assert pool.stats().recycled == 2
        assert keepers[1] != keepers[3]


def test_sandbox_with_files_is_not_replaced_before_it_comes_back() -> None:
    with SandboxPool(1, fresh="submission", max_runs=2) as pool:
        for _ in range(2):
            with pool.acquire() as lease:
                assert lease.run(["touch", "/tmp/file"]).ok
                assert [lease.run(["ls", "/tmp"]).stdout for _ in range(3)] == [b"file\n"] * 3
        assert pool.stats().recycled == 1, "when it was lent again"


def test_lease_sees_nothing_of_the_one_before_where_files_stay() -> None:
    with SandboxPool(1, fresh="submission") as pool:
        look = ["ls", "/tmp", "/dev/shm"]
        for _ in range(2):
            with pool.acquire() as lease:
                before = lease.run(look).stdout
                assert lease.run(["touch", "/tmp/file", "/dev/shm/file"]).ok
                keeper = pool_keeper(pool)
            assert before == b"/dev/shm:\n\n/tmp:\n"
        with pool.acquire() as another:
            assert another.run(["touch", "/tmp/file"]).ok
            lease.release()  # once more, when it is another's
            assert another.run(["ls", "/tmp"]).stdout == b"file\n"
        assert pool.run(["touch", "/tmp/file"]).ok
        assert pool.run(look).stdout == before
        assert pool_keeper(pool) == keeper, "it was emptied where it is"


@pytest.mark.parametrize("who", ["keeper", "init"])
def test_run_in_a_sandbox_that_was_killed_is_tried_again(pool: SandboxPool, who: str) -> None:
    pool.run(["true"])
    sandbox = pool._sandboxes[0]
    pid = sandbox.keeper_pid if who == "keeper" else sandbox.init_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    first = ended(lambda: pool.run(["true"]).ok)
    assert first is True or isinstance(first, (ProtocolError, ChildError)), "no verdict"
    assert pool.run(["true"]).ok


def test_run_whose_keeper_dies_is_ours_and_the_next_one_works(pool: SandboxPool) -> None:
    task = running(pool)
    eventually(lambda: pool._sandboxes[0].keeper_pid is not None)
    time.sleep(0.1)
    os.kill(pool_keeper(pool), signal.SIGKILL)
    with pytest.raises(Exception, match="keeper has ended"):
        task.done()
    assert pool.stats().failures == 1
    assert pool.run(["true"]).ok


def test_idle_sandbox_that_hangs_is_found_before_it_is_lent() -> None:
    with SandboxPool(1, check_after=0) as pool:
        pool.run(["true"])
        init = pool._sandboxes[0].init_pid
        assert init is not None
        os.kill(init, signal.SIGKILL)
        with pool.acquire() as lease:
            assert pool.stats().recycled == 1
            assert lease.run(["true"]).ok
        assert pool.stats().failures == 0


def test_program_that_is_not_there_is_no_failure_of_the_sandbox(pool: SandboxPool) -> None:
    pool.run(["true"])
    keeper = pool_keeper(pool)
    with pytest.raises(Exception, match="ENOENT"):
        pool.run(["/no/such"])
    assert pool.run(["true"]).ok
    assert pool_keeper(pool) == keeper
    assert pool.stats().failures == 0


# The end


def test_close_waits_for_what_runs_and_serves_who_waits(pool: SandboxPool) -> None:
    with pool.acquire() as lease:
        task = waiting(pool, 1, lambda: pool.run(["echo", "served"]))
        closing = Task(pool.close)
        eventually(lambda: pool._state.closed)
        with pytest.raises(PoolClosed):
            pool.run(["true"])
        assert lease.run(["true"]).ok
        assert closing.is_alive()
    assert task.done().stdout == b"served\n"
    closing.done()
    pool.close()
    assert pool._sandboxes[0].keeper_pid is None


def test_close_at_once_cancels_what_runs_and_refuses_who_waits(pool: SandboxPool) -> None:
    task = running(pool)
    late = waiting(pool, 1, lambda: pool.run(["true"]))
    before = time.monotonic()
    pool.close(wait=False)
    assert task.done().status is Status.CANCELLED
    with pytest.raises(PoolClosed):
        late.done()
    assert time.monotonic() - before < 10


def test_pool_that_is_left_by_an_exception_is_closed_at_once() -> None:
    pool = SandboxPool(1)
    task = running(pool)
    pool.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert task.done().status is Status.CANCELLED


def test_lease_of_a_pool_that_was_closed_at_once_runs_nothing_more(pool: SandboxPool) -> None:
    with pool.acquire() as lease:
        pool.close(wait=False)
        with pytest.raises(PoolClosed):
            lease.run(["true"])


def test_interrupt_of_a_wait_leaves_no_place_taken(pool: SandboxPool) -> None:
    """As Ctrl-C does, in the main thread."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pool.acquire():
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            with pytest.raises(KeyboardInterrupt):
                pool.run(["true"])
            assert pool.stats().waiting == 0
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert pool.run(["true"], timeout=0).ok


def test_fork_of_the_process_has_a_pool_that_begins_anew(pool: SandboxPool) -> None:
    """As in a prefork server, with all lent and the lock held by another thread."""
    task = running(pool)
    with pool._lock:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                result: Result = pool.run(["echo", "child"], timeout=10)
                pool.close()
                code = 0 if result.stdout == b"child\n" else 2
            finally:
                os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert pool.cancel("long"), "and the parent's goes on"
    assert task.done().status is Status.CANCELLED


# Cores


def test_pinned_programs_run_on_their_core_alone() -> None:
    cores = physical_cores()
    with SandboxPool(len(cores), pin=True) as pool:
        assert pool.cores == tuple(cores)
        leases = [pool.acquire() for _ in cores]
        where = {int(lease.run(["nproc"]).stdout) for lease in leases}
        lists = [
            lease.run(["grep", "Cpus_allowed_list", "/proc/self/status"]) for lease in leases
        ]
        for lease in leases:
            lease.release()
    assert where == {1}
    assert {int(result.stdout.split()[-1]) for result in lists} == {core.cpu for core in cores}


def test_pinned_pool_of_more_than_the_cores_is_refused() -> None:
    count = len(physical_cores())
    with pytest.raises(ConfigError, match=rf"^size: {count + 1}: there are {count} cores"):
        SandboxPool(count + 1, pin=True)
    with pytest.raises(ConfigError, match=r"^cpus: "):
        SandboxPool(1, pin=True, cpus=(0,))


def test_cores_are_told_from_their_siblings(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        place = tmp_path / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{siblings}\n")
    cores = physical_cores({0, 1, 2, 3, 4}, topology=str(tmp_path))
    assert cores == [Core(0, (0, 2)), Core(1, (1, 3)), Core(4, (4,))]
    assert physical_cores({2, 3}, topology=str(tmp_path)) == [Core(2, (0, 2)), Core(3, (1, 3))]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": 0}, "size"),
        ({"size": 1, "queue_limit": -1}, "queue_limit"),
        ({"size": 1, "max_age": -1}, "max_age"),
        ({"size": 1, "nonsense": 1}, "Sandbox"),
    ],
)
def test_pool_that_cannot_be_meant_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        SandboxPool(**options)
