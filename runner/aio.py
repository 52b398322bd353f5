"""`AsyncSandbox`: a sandbox for event loops, asyncio's (uvloop's too) and trio's.

It is a `Sandbox` that lets other tasks run while it waits; what is decided is in `runner.life`.
Needs anyio: the extra `async` of the package.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, TypeVar

from runner.config.checks import refuse
from runner.helper import LOOK_S
from runner.sandbox import RunOptions, SandboxBase

try:
    import anyio
    import anyio.to_thread
except ImportError as error:
    message = "AsyncSandbox needs anyio: pip install 'run-sandboxed[async]'"
    raise ImportError(message) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from runner.life import Wait, Work
    from runner.result import Result

_T = TypeVar("_T")


class AsyncSandbox(SandboxBase):
    r"""A place to run untrusted programs in, for the tasks of one event loop.

    Takes the options of `SandboxBase`. It starts at the first run, or by `start`. Tasks wait
    for each other's runs. Where the task of a run is cancelled, the program is killed at once,
    and the sandbox ended; the next run starts it anew.

    >>> import anyio
    >>> async def main():
    ...     async with AsyncSandbox() as sandbox:
    ...         return (await sandbox.run(["echo", "hello"])).stdout
    >>> anyio.run(main)
    b'hello\n'
    """

    _turn: anyio.Lock | None = None
    _turn_pid = -1

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start it now. Raises HostError, ChildError, ConfigError, ProtocolError."""
        async with self._lock():
            await _wait(self._life.start)

    async def run(self, args: Sequence[str], **options: Unpack[RunOptions]) -> Result:
        """Run one program to its end, and all that it started; see `Sandbox.run`."""
        for option in options.keys() - RunOptions.__annotations__.keys():
            refuse("AsyncSandbox.run", option, "no option of a run: see RunOptions")
        work = self._work(args, options)
        async with self._lock():
            return await drive(work)

    async def ping(self, timeout: float = 3.0) -> bool:  # noqa: ASYNC109 - as that of Sandbox
        """Ask it whether it is alive; see `Sandbox.ping`."""
        async with self._lock():
            return await drive(self._life.ping(timeout))

    async def reset(self) -> None:
        """Leave nothing of earlier runs, files neither; see `Sandbox.reset`."""
        with anyio.CancelScope(shield=True):
            async with self._lock():
                await _wait(self._life.reset)

    async def close(self) -> None:
        """Kill and remove all of it; idempotent. A run in progress is cancelled first."""
        self.cancel()
        with anyio.CancelScope(shield=True):
            async with self._lock():
                await _wait(self._life.discard)

    def _lock(self) -> anyio.Lock:
        """Give what tasks wait for in turn; a fork has no tasks of its parent's."""
        if self._turn is None or self._turn_pid != os.getpid():
            self._turn, self._turn_pid = anyio.Lock(), os.getpid()
        return self._turn


async def drive(work: Work[_T]) -> _T:
    """Do the work, and let other tasks run while there is something to wait for."""
    go_on = functools.partial(work.send, None)
    interrupted = False
    while True:
        try:
            wait = go_on()
        except StopIteration as done:
            result: _T = done.value
            return result
        try:
            # What follows an interrupt ends the sandbox, and is not to be interrupted.
            with anyio.CancelScope(shield=interrupted):
                readable = await _wait(wait)
        except GeneratorExit:  # the event loop has gone: nobody waits any more
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - the work decides what becomes of it
            interrupted = True
            go_on = functools.partial(work.throw, error)
        else:
            go_on = functools.partial(work.send, readable)


async def _wait(wait: Wait) -> bool:
    """Wait, for an fd at most for as long as goes by between two looks; False: that long."""
    if not isinstance(wait, int):
        await anyio.to_thread.run_sync(wait)  # it starts or ends a process
        return True
    with anyio.move_on_after(LOOK_S):
        await anyio.wait_readable(wait)
        return True
    return False
