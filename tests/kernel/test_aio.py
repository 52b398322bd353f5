"""Sandboxes in event loops: asyncio's, uvloop and trio."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from runner import ConfigError, Limits, Mount, ProtocolError, Result, Sandbox, Status

anyio = pytest.importorskip("anyio")

from runner import AsyncSandbox  # noqa: E402 - needs anyio

pytestmark = pytest.mark.userns

T = TypeVar("T")
Run = Callable[[Callable[[], Awaitable[T]]], T]

LOOPS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


@pytest.fixture(scope="module", autouse=True)
def warmed_up() -> None:
    """Have each open what it opens once for all, before leaks are looked for."""
    for name, options in LOOPS.items():
        if importlib.util.find_spec(name):
            anyio.run(anyio.sleep, 0, **options)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run[Any]:
    pytest.importorskip(request.param)
    return functools.partial(anyio.run, **LOOPS[request.param])


def work_in(path: Path) -> Mount:
    path.chmod(0o777)
    return Mount.bind(str(path), "/work", readonly=False)


def is_alive(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.002)


def test_result_is_that_of_a_thread(run: Run[Any]) -> None:
    args, options = ["sh", "-c", "cat; echo no >&2; exit 3"], {"stdin": b"in"}

    async def main() -> Result:
        async with AsyncSandbox() as sandbox:
            await sandbox.start()
            return await sandbox.run(args, **options)  # type: ignore[typeddict-item]

    result = run(main)
    with Sandbox() as sandbox:
        same = sandbox.run(args, **options)  # type: ignore[arg-type]
    for name in ("status", "exit_code", "stdout", "stderr", "enforced"):
        assert getattr(result, name) == getattr(same, name)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"in", b"no\n")


def test_other_tasks_run_while_a_program_does(run: Run[Any]) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    async def main() -> None:
        async with AsyncSandbox() as sandbox, anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            assert (await sandbox.run(["sleep", "0.5"])).ok
            tasks.cancel_scope.cancel()

    run(main)
    assert ticks > 5


def test_tasks_wait_for_each_other_in_one_sandbox_but_not_in_two(run: Run[Any]) -> None:
    async def main(sandboxes: list[AsyncSandbox]) -> float:
        started = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for sandbox in sandboxes:
                tasks.start_soon(sandbox.run, ["sleep", "0.4"])
        return time.monotonic() - started

    async def both() -> tuple[float, float]:
        async with AsyncSandbox() as one, AsyncSandbox() as other:
            await one.start()
            await other.start()
            return await main([one, one, one]), await main([one, other])

    in_one, in_two = run(both)
    assert in_one >= 1.2
    assert in_two < 0.8 + 0.4 * in_one / 1.2


def test_cancelled_task_kills_its_program_at_once(run: Run[Any], tmp_path: Path) -> None:
    async def main() -> tuple[float, bool]:
        async with AsyncSandbox(mounts=[work_in(tmp_path)]) as sandbox:
            ended = 0.0
            async with anyio.create_task_group() as tasks:
                program = "while :; do date +%s.%N > /work/t; mv /work/t /work/last; done"
                tasks.start_soon(sandbox.run, ["sh", "-c", program])
                await until((tmp_path / "last").exists)
                ended = time.time()
                tasks.cancel_scope.cancel()
            # It was still at work when we cancelled, and is not much later: 10 ms on a machine
            # of its own.
            last = float((tmp_path / "last").read_text())
            return last - ended, (await sandbox.run(["true"])).ok

    late, works = run(main)
    assert works
    assert late < 0.2


def test_timeout_ends_the_sandbox_and_the_next_run_has_another(run: Run[Any]) -> None:
    async def main() -> None:
        async with AsyncSandbox() as sandbox:
            await sandbox.start()
            keeper = sandbox.keeper_pid
            with anyio.move_on_after(0.1) as scope:
                await sandbox.run(["sleep", "50"])
            assert scope.cancelled_caught
            assert not is_alive(keeper)
            assert (await sandbox.run(["echo", "again"])).stdout == b"again\n"

    run(main)


def test_cancel_from_another_task_is_a_result_and_keeps_the_sandbox(run: Run[Any]) -> None:
    async def main() -> None:
        async with AsyncSandbox() as sandbox:
            await sandbox.start()
            keeper = sandbox.keeper_pid

            async def cancel() -> None:
                await anyio.sleep(0.1)
                sandbox.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel)
                result = await sandbox.run(["sleep", "50"])
            assert result.status is Status.CANCELLED
            assert (await sandbox.run(["true"])).ok
            assert sandbox.keeper_pid == keeper

    run(main)


def test_close_while_a_program_runs_ends_it(run: Run[Any]) -> None:
    async def main() -> Status:
        sandbox = AsyncSandbox()
        await sandbox.start()

        async def close() -> None:
            await anyio.sleep(0.1)
            await sandbox.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            status: Status = (await sandbox.run(["sleep", "50"])).status
        return status

    assert run(main) is Status.CANCELLED


def test_damaged_sandbox_is_replaced(run: Run[Any]) -> None:
    async def main() -> None:
        async with AsyncSandbox() as sandbox:
            assert (await sandbox.run(["true"])).ok
            keeper = sandbox.keeper_pid
            assert keeper is not None
            os.kill(keeper, signal.SIGKILL)
            state = Path(f"/proc/{keeper}/stat")
            await until(lambda: ") Z " in state.read_text())  # its socket is closed then
            assert (await sandbox.run(["true"])).ok
            assert sandbox.keeper_pid != keeper
            assert await sandbox.ping()

    run(main)


@pytest.mark.parametrize(
    "options",
    [{}, {"stdout": lambda _: None}],
    ids=["captured", "streamed"],
)
def test_keeper_that_is_stopped_is_an_exception_while_other_tasks_run(
    run: Run[Any], options: dict[str, Any]
) -> None:
    """It holds no limit then: the sleep goes on, whatever its time."""
    errors: list[BaseException] = []
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await anyio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    async def use(sandbox: AsyncSandbox) -> None:
        try:
            await sandbox.run(["sleep", "500"], limits=Limits(wall_time=1), **options)
        except ProtocolError as error:
            errors.append(error)

    async def main() -> None:
        async with AsyncSandbox() as sandbox:
            await sandbox.start()
            keeper = sandbox.keeper_pid
            assert keeper is not None
            async with anyio.create_task_group() as others:
                others.start_soon(tick)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(use, sandbox)
                    await anyio.sleep(0.2)
                    os.kill(keeper, signal.SIGSTOP)
                others.cancel_scope.cancel()
            assert not is_alive(keeper)
            assert (await sandbox.run(["true"])).ok

    run(main)
    assert [str(error) for error in errors] == [
        "the keeper was stopped, by a signal that is not ours, and has been killed"
    ]
    assert longest < 0.9  # nothing waits in the loop for as long as between two looks


def test_fork_has_its_own_sandbox_in_its_own_loop(run: Run[Any]) -> None:
    sandbox = AsyncSandbox()

    async def use() -> bytes:
        output: bytes = (await sandbox.run(["echo", "hello"])).stdout
        return output

    async def leave() -> None:
        await sandbox.close()

    async def child() -> bytes:
        try:
            return await use()
        finally:
            await leave()

    assert run(use) == b"hello\n"
    keeper = sandbox.keeper_pid
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if asyncio.new_event_loop().run_until_complete(child()) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sandbox.keeper_pid == keeper
    assert run(use) == b"hello\n"
    run(leave)


def test_asyncios_own_ways_to_cancel_end_the_program() -> None:
    async def main() -> None:
        async with AsyncSandbox() as sandbox:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(sandbox.run(["sleep", "50"]), 0.3)
            task = asyncio.create_task(sandbox.run(["sleep", "50"]))
            await asyncio.sleep(0.1)
            task.cancel()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await sandbox.run(["true"])).ok

    asyncio.run(main())


def test_loop_that_ends_with_a_run_in_progress_leaves_nothing() -> None:
    """Another program, as Python complains of what its event loop left behind."""
    code = (
        "import asyncio, runner\n"
        "sandbox = runner.AsyncSandbox()\n"
        "async def main():\n"
        "    await sandbox.start()\n"
        "    print(sandbox.keeper_pid, flush=True)\n"
        "    global task\n"
        "    task = asyncio.create_task(sandbox.run(['sleep', '50']))\n"
        "    await asyncio.sleep(0.2)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.stderr == b""
    deadline = time.monotonic() + 10  # whoever adopts it may take its time to reap it
    while is_alive(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_option_that_a_run_does_not_have_is_refused(run: Run[Any]) -> None:
    async def main() -> None:
        await AsyncSandbox().run(["true"], time_limit=1)  # type: ignore[call-arg]

    with pytest.raises(ConfigError, match=r"AsyncSandbox\.run: 'time_limit': .*RunOptions"):
        run(main)


def test_without_anyio_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['anyio'] = None; import runner; runner.AsyncSandbox"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert "pip install 'run-sandboxed[async]'" in done.stderr.splitlines()[-1]
