"""The pool for event loops: who waits, who is refused, what is cancelled."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runner import PoolCancelled, PoolClosed, PoolFull, PoolTimeout, Result, Status

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
