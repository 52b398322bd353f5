"""The pool for event loops: who waits, who is refused, what is cancelled."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runner import (
    Call,
    PoolCancelled,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    Result,
    SandboxPool,
    Status,
    Supervision,
)

anyio = pytest.importorskip("anyio")

from runner import AsyncSandboxPool  # noqa: E402 - needs anyio

pytestmark = pytest.mark.userns

Run = Callable[[Callable[[], Awaitable[object]]], Any]


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    pytest.importorskip(request.param)
    return functools.partial(anyio.run, backend=request.param)


async def caught(awaitable: Awaitable[object], into: list[object]) -> None:
    try:
        into.append(await awaitable)
    except (PoolCancelled, PoolClosed, PoolFull, PoolTimeout) as error:
        into.append(type(error))


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.002)


def test_as_many_run_at_once_as_there_are_sandboxes_and_all_are_served(run: Run) -> None:
    most = 0

    async def main() -> list[bytes]:
        nonlocal most
        outputs: list[bytes] = []

        async def one(number: int) -> None:
            result = await pool.run(["sh", "-c", f"sleep 0.05; echo {number}"])
            outputs.append(result.stdout)

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, pool.stats().busy)
                await anyio.sleep(0.002)

        async with AsyncSandboxPool(2) as pool:
            async with anyio.create_task_group() as watchers:
                watchers.start_soon(watch)
                async with anyio.create_task_group() as tasks:
                    for number in range(6):
                        tasks.start_soon(one, number)
                watchers.cancel_scope.cancel()
            assert pool.stats().runs == 6
        return outputs

    outputs = run(main)
    assert sorted(outputs) == [b"%d\n" % number for number in range(6)]
    assert most == 2


def test_who_waits_is_refused_times_out_or_is_cancelled(run: Run) -> None:
    async def main() -> dict[str, list[object]]:
        got: dict[str, list[object]] = {name: [] for name in ("runs", "late", "key", "full")}
        async with AsyncSandboxPool(1, queue_limit=2) as pool:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(caught, pool.run(["sleep", "50"], key="runs"), got["runs"])
                await until(lambda: pool.stats().busy)
                tasks.start_soon(caught, pool.run(["true"], timeout=0.1), got["late"])
                tasks.start_soon(caught, pool.run(["true"], key="key"), got["key"])
                await until(lambda: pool.stats().waiting == 2)
                await caught(pool.run(["true"]), got["full"])
                assert pool.cancel("key")
                await until(lambda: got["late"] and got["key"])
                assert pool.cancel("runs")
            assert not pool.cancel("runs")
            assert (await pool.run(["true"])).ok
            stats = pool.stats()
            assert (stats.busy, stats.waiting, stats.refused, stats.expired) == (0, 0, 1, 1)
        return got

    got = run(main)
    assert (got["late"], got["key"], got["full"]) == (
        [PoolTimeout],
        [PoolCancelled],
        [PoolFull],
    )
    (result,) = got["runs"]
    assert isinstance(result, Result)
    assert result.status is Status.CANCELLED


def test_cancelled_tasks_give_their_sandboxes_and_turns_back(run: Run) -> None:
    async def main() -> bool:
        async with AsyncSandboxPool(1) as pool:
            with anyio.move_on_after(0.2):
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        tasks.start_soon(pool.run, ["sleep", "50"])
            stats = pool.stats()
            assert (stats.busy, stats.waiting) == (0, 0)
            return (await pool.run(["true"])).ok

    assert run(main)


def test_lease_is_for_several_programs_until_it_ends(run: Run) -> None:
    async def main() -> list[bytes]:
        async with AsyncSandboxPool(1, fresh="submission") as pool:
            async with pool.acquire() as lease:
                assert (await lease.run(["sh", "-c", "echo built >file"])).ok
                outputs = [(await lease.run(["cat", "file"])).stdout]
                await lease.reset()
                outputs.append((await lease.run(["ls"])).stdout)
            with pytest.raises(PoolClosed):
                await lease.run(["true"])
            stats = pool.stats()
            assert (stats.busy, stats.runs) == (0, 3)
        return outputs

    assert run(main) == [b"built\n", b""]


def test_lease_that_nobody_can_have_is_refused_or_waited_for_in_vain(run: Run) -> None:
    async def main() -> None:
        async with AsyncSandboxPool(1, queue_limit=1) as pool, pool.acquire() as lease:
            with pytest.raises(PoolTimeout):
                async with pool.acquire(timeout=0.05):
                    pass
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold, pool)
                await until(lambda: pool.stats().waiting)
                with pytest.raises(PoolFull):
                    async with pool.acquire():
                        pass
                tasks.cancel_scope.cancel()
            assert pool.stats().waiting == 0
            assert (await lease.run(["true"])).ok

    run(main)


async def hold(pool: AsyncSandboxPool) -> None:
    async with pool.acquire():
        await anyio.sleep(600)


def test_cancelled_holder_and_cancelled_waiter_give_their_places_up(run: Run) -> None:
    """In the order of asking: who waited behind them is served."""

    async def main() -> bool:
        async with AsyncSandboxPool(1) as pool, anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as first:
                first.start_soon(hold, pool)
                await until(lambda: pool.stats().busy)
                first.start_soon(hold, pool)
                await until(lambda: pool.stats().waiting)
                got: list[object] = []
                tasks.start_soon(caught, pool.run(["true"]), got)
                await until(lambda: pool.stats().waiting == 2)
                first.cancel_scope.cancel()
            await until(lambda: got)
            assert pool._leases == {}
            return isinstance(got[0], Result) and got[0].ok

    assert run(main)


def test_cancel_by_key_ends_the_run_of_a_lease_and_all_further_ones(run: Run) -> None:
    async def main() -> list[object]:
        got: list[object] = []
        async with AsyncSandboxPool(1) as pool:
            async with pool.acquire(key="k") as lease, anyio.create_task_group() as tasks:
                tasks.start_soon(caught, lease.run(["sleep", "500"]), got)
                await anyio.sleep(0.2)
                assert pool.cancel("k")
                await until(lambda: got)
                got.append(await lease.run(["sleep", "500"]))
            assert (await pool.run(["true"], key="k")).ok
        return got

    assert [result.status for result in run(main)] == [Status.CANCELLED] * 2


def test_options_of_a_run_reach_it_through_every_face(run: Run) -> None:
    """And whom a sandbox asks about calls."""
    args: list[str] = ["sh", "-c", "unshare --user true; cat /etc/passwd"]
    asked: list[str] = []

    def decide(call: Call) -> str:
        asked.append(call.path)
        return "EACCES" if call.path == "/etc/passwd" else "allow"

    rules = Supervision(calls={"openat": "ask"}, decide=decide, by="notify")

    async def main() -> list[Result]:
        async with AsyncSandboxPool(1) as pool, pool.acquire() as lease:
            logged = [await lease.run(args, policy_log=True)]
        async with AsyncSandboxPool(1, supervision=rules) as pool:
            return [*logged, await pool.run(["cat", "/etc/passwd"])]

    logged, refused = run(main)
    with SandboxPool(1) as pool:
        same = pool.run(args, policy_log=True).policy_log
    for log in (logged.policy_log, same):
        assert log is not None
        assert [call.name for call in log.calls] == ["unshare"]
    assert refused.exit_code == 1
    with SandboxPool(1, supervision=rules) as pool:
        assert pool.run(["cat", "/etc/passwd"]).exit_code == 1
    assert asked.count("/etc/passwd") == 2


def test_close_at_once_cancels_and_refuses(run: Run) -> None:
    async def main() -> list[list[object]]:
        pool = AsyncSandboxPool(1)
        got: list[list[object]] = [[], [], []]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caught, pool.run(["sleep", "50"]), got[0])
            await until(lambda: pool.stats().busy)
            tasks.start_soon(caught, pool.run(["true"]), got[1])
            await until(lambda: pool.stats().waiting)
            await pool.close(wait=False)
        await caught(pool.run(["true"]), got[2])
        return got

    (runs,), waits, late = run(main)
    assert runs.status is Status.CANCELLED
    assert (waits, late) == ([PoolClosed], [PoolClosed])


def test_close_waits_for_what_runs(run: Run) -> None:
    async def main() -> object:
        got: list[object] = []
        pool = AsyncSandboxPool(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caught, pool.run(["sh", "-c", "sleep 0.3; echo done"]), got)
            await until(lambda: pool.stats().busy)
            await pool.close()
        return got[0]

    assert run(main).stdout == b"done\n"


def test_sandbox_is_replaced_after_so_many_runs(run: Run) -> None:
    async def main() -> int:
        async with AsyncSandboxPool(1, max_runs=2) as pool:
            for _ in range(4):
                assert (await pool.run(["true"])).ok
            recycled: int = pool.stats().recycled
            return recycled

    assert run(main) == 2


def test_lease_with_files_keeps_them_and_the_next_sees_nothing(run: Run) -> None:
    async def main() -> tuple[list[bytes], int]:
        outputs = []
        async with AsyncSandboxPool(1, fresh="submission", max_runs=2) as pool:
            for _ in range(2):
                async with pool.acquire() as lease:
                    outputs.append((await lease.run(["ls"])).stdout)
                    assert (await lease.run(["touch", "file"])).ok
                    outputs.append((await lease.run(["ls"])).stdout)
            recycled: int = pool.stats().recycled
        return outputs, recycled

    assert run(main) == ([b"", b"file\n"] * 2, 1)


def test_fork_begins_anew() -> None:
    """With asyncio, as trio cannot be begun again in a fork of its loop."""
    pools: list[AsyncSandboxPool] = []

    async def child() -> bool:
        ok: bool = (await pools[0].run(["true"])).ok
        await pools[0].close()
        return ok

    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                asyncio._set_running_loop(None)
                code = 0 if asyncio.new_event_loop().run_until_complete(child()) else 1
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def main() -> int:
        async with AsyncSandboxPool(1) as pool:
            pools.append(pool)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.run, ["sleep", "0.5"])
                await until(lambda: pool.stats().busy)
                return fork()

    assert asyncio.run(main()) == 0
