"""`AsyncSandboxPool`: sandboxes that the tasks of an event loop share.

What is decided is in `runner.pool.state`, as for `SandboxPool`. Only tasks of one event loop
come here, one at a time, so there is no lock: nothing changes but between two awaits.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING

import anyio

from runner.aio import AsyncSandbox
from runner.config.checks import check_time
from runner.errors import PoolCancelled, PoolClosed, PoolTimeout, SandboxError
from runner.pool.base import LeaseBase, PoolBase
from runner.pool.state import PoolStats, is_ours

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Sequence

    from typing_extensions import Unpack

    from runner.pool.state import Grant
    from runner.result import Result
    from runner.sandbox import RunOptions


class AsyncSandboxPool(PoolBase[AsyncSandbox, "AsyncLease"]):
    r"""`size` sandboxes for the tasks of one event loop; takes the options of `PoolBase`.

    >>> async def main():
    ...     async with AsyncSandboxPool(2) as pool:
    ...         return (await pool.run(["echo", "hello"])).stdout
    >>> anyio.run(main)
    b'hello\n'
    """

    _face = AsyncSandbox

    async def __aenter__(self) -> AsyncSandboxPool:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.close(wait=kind is None)

    @contextlib.asynccontextmanager
    async def acquire(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - for the wait, not for what follows
        key: Hashable | None = None,
    ) -> AsyncIterator[AsyncLease]:
        """Borrow a sandbox for an `async with`; see `SandboxPool.acquire`.

        A task that is cancelled while it waits gives up its place.
        """
        lease = AsyncLease(self, key)
        try:
            grant = await self._granted(lease, timeout)
            sandbox = self._sandboxes[grant.seat]
            lease.lent(sandbox)
            if grant.renew:
                await sandbox.close()
            if grant.renew or (grant.check and not await sandbox.ping()):
                self._state.renewed(grant.seat)
            yield lease
        finally:
            await self.take_back(lease)

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - for the wait, not for the run
        key: Hashable | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Run a program in a sandbox of the pool; see `SandboxPool.run`."""
        async with self.acquire(timeout=timeout, key=key) as lease:
            return await lease.run(args, **options)

    def cancel(self, key: Hashable) -> bool:
        """End what was asked for with this key; see `SandboxPool.cancel`."""
        lease = self._leases.get(key)
        if lease is None:
            return False
        if self._state.withdraw(key):
            lease.refuse(PoolCancelled("it was cancelled while it waited"))
        else:
            lease.cancel()
        return True

    async def close(self, *, wait: bool = True) -> None:
        """Lend nothing more, and end all sandboxes; see `SandboxPool.close`."""
        for key in self._state.close(wait=wait):
            self._leases[key].refuse(PoolClosed("the pool was closed"))
        if not wait:
            self._aborted = True
            for lease in self._leases.values():
                lease.cancel()
        while wait and not self._state.drained:
            await self._returned.wait()
        with anyio.CancelScope(shield=True):
            for sandbox in self._sandboxes:
                await sandbox.close()

    def stats(self) -> PoolStats:
        """Count."""
        return self._state.stats()

    def _begin(self) -> None:
        super()._begin()
        self._returned = anyio.Event()

    async def _granted(self, lease: AsyncLease, seconds: float | None) -> Grant:
        """Wait for a sandbox; if this raises, the lease is to be ended."""
        check_time("timeout", seconds, zero=True)
        now = time.monotonic()
        deadline = math.inf if seconds is None else now + seconds
        lease.grant = self._state.request(lease.key, now, deadline)
        self._leases[lease.key] = lease
        if lease.grant is None:
            with anyio.move_on_after(seconds):
                await lease.turn.wait()
        if lease.grant is None:
            if lease.error is None:
                self._state.expire(deadline)
            raise lease.error or PoolTimeout("no sandbox was free in time")
        return lease.grant

    # What a lease tells.

    async def ran(self, seat: int, seconds: float) -> None:
        """Note a run, and replace its sandbox if that is due: with files when lent again."""
        due = self._state.ran(seat, time.monotonic(), seconds=seconds)
        if due and not self._keeps_files:
            await self._sandboxes[seat].close()
            self._state.renewed(seat)

    def failed(self, seat: int) -> None:
        """Note a run that the sandbox failed."""
        self._state.failed(seat)

    async def take_back(self, lease: AsyncLease) -> None:
        """Take a sandbox back, or what was asked for and not given; idempotent."""
        grant = lease.grant
        try:
            if self._aborted and grant is not None:
                await self._sandboxes[grant.seat].close()
            elif self._keeps_files and grant is not None:
                await self._sandboxes[grant.seat].reset()
        finally:
            self._end(lease)
            self._returned.set()
            self._returned = anyio.Event()


class AsyncLease(LeaseBase[AsyncSandbox]):
    """A sandbox that is lent to a task, as long as its `async with`. One run at a time."""

    def __init__(self, pool: AsyncSandboxPool, key: Hashable | None) -> None:
        super().__init__(pool, key)
        self.turn = anyio.Event()  # the pool's, while it waits
        self._pool = pool

    async def run(self, args: Sequence[str], **options: Unpack[RunOptions]) -> Result:
        """Run a program; `options` are those of `Sandbox.run`, which it raises as."""
        sandbox, seat = self._held()
        before = time.monotonic()
        try:
            result = await sandbox.run(args, **options)
        except SandboxError as error:
            if is_ours(error):
                self._pool.failed(seat)
            raise
        await self._pool.ran(seat, time.monotonic() - before)
        return result

    async def reset(self) -> None:
        """Leave nothing of earlier runs, where files stay (fresh="submission")."""
        await self._held()[0].reset()

    def _wake(self) -> None:
        self.turn.set()
