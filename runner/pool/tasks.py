"""`AsyncSandboxPool`: sandboxes that the tasks of an event loop share.

What is decided is in `runner.pool.state`, as for `SandboxPool`. Only tasks of one event loop
come here, one at a time, so there is no lock: nothing changes but between two awaits.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from typing import TYPE_CHECKING, Any, Final

import anyio

from runner.aio import AsyncSandbox
from runner.config.checks import check_time
from runner.errors import PoolCancelled, PoolClosed, PoolTimeout, SandboxError
from runner.pool.state import PoolState, PoolStats, is_ours
from runner.pool.threads import CHECK_AFTER_S, MAX_RUNS, WAITING_EACH, pinned_cores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Sequence

    from typing_extensions import Unpack

    from runner.pool.state import Grant
    from runner.result import Result
    from runner.sandbox import RunOptions


class AsyncSandboxPool:
    r"""`size` sandboxes for the tasks of one event loop; options as of `SandboxPool`.

    >>> async def main():
    ...     async with AsyncSandboxPool(2) as pool:
    ...         return (await pool.run(["echo", "hello"])).stdout
    >>> anyio.run(main)
    b'hello\n'
    """

    def __init__(
        self,
        size: int,
        *,
        queue_limit: int | None = None,
        max_runs: int | None = MAX_RUNS,
        max_age: float | None = None,
        check_after: float | None = CHECK_AFTER_S,
        pin: bool = False,
        **options: Any,  # noqa: ANN401 - those of AsyncSandbox, which checks them
    ) -> None:
        self._make_state = functools.partial(
            PoolState,
            size,
            queue_limit=WAITING_EACH * size if queue_limit is None else queue_limit,
            max_runs=max_runs,
            max_age=max_age,
            check_after=check_after,
        )
        self._begin()
        cores = pinned_cores(size, options) if pin else []
        each = [options | {"cpus": (core.cpu,)} for core in cores] or [options] * size
        self._sandboxes = [AsyncSandbox(**one) for one in each]

    async def __aenter__(self) -> AsyncSandboxPool:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.close(wait=kind is None)

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - for the wait, not for the run
        key: Hashable | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Run a program in a sandbox of the pool; see `SandboxPool.run`."""
        async with self._lent(timeout, key) as (sandbox, seat):
            before = time.monotonic()
            try:
                result = await sandbox.run(args, **options)
            except SandboxError as error:
                if is_ours(error):
                    self._state.failed(seat)
                raise
            now = time.monotonic()
            if self._state.ran(seat, now, seconds=now - before):
                await sandbox.close()
                self._state.renewed(seat)
            return result

    def cancel(self, key: Hashable) -> bool:
        """End what was asked for with this key; see `SandboxPool.cancel`."""
        ticket = self._tickets.get(key)
        if ticket is None:
            return False
        if self._state.withdraw(key):
            ticket.refuse(PoolCancelled("it was cancelled while it waited"))
        else:
            ticket.cancel()
        return True

    async def close(self, *, wait: bool = True) -> None:
        """Lend nothing more, and end all sandboxes; see `SandboxPool.close`."""
        for key in self._state.close(wait=wait):
            self._tickets[key].refuse(PoolClosed("the pool was closed"))
        if not wait:
            self._aborted = True
            for ticket in self._tickets.values():
                ticket.cancel()
        while wait and not self._state.drained:
            await self._returned.wait()
        with anyio.CancelScope(shield=True):
            for sandbox in self._sandboxes:
                await sandbox.close()

    def stats(self) -> PoolStats:
        """Count."""
        return self._state.stats()

    def _begin(self) -> None:
        """Have nothing lent and nobody wait; in a fork too, which has none of our tasks."""
        self._pid = os.getpid()
        self._state = self._make_state()
        self._tickets: dict[Hashable, _Ticket] = {}
        self._aborted = False
        self._returned = anyio.Event()

    @contextlib.asynccontextmanager
    async def _lent(
        self, seconds: float | None, key: Hashable | None
    ) -> AsyncIterator[tuple[AsyncSandbox, int]]:
        check_time("timeout", seconds, zero=True)
        if self._pid != os.getpid():
            self._begin()
        ticket = _Ticket(object() if key is None else key)
        grant = await self._granted(ticket, seconds)
        sandbox = self._sandboxes[grant.seat]
        try:
            ticket.sandbox = sandbox
            sandbox.ends_if(lambda: ticket.cancelled or self._aborted)
            if grant.renew:
                await sandbox.close()
            if grant.renew or (grant.check and not await sandbox.ping()):
                self._state.renewed(grant.seat)
            yield sandbox, grant.seat
        finally:
            self._give_back(ticket, grant)

    async def _granted(self, ticket: _Ticket, seconds: float | None) -> Grant:
        now = time.monotonic()
        deadline = math.inf if seconds is None else now + seconds
        ticket.grant = self._state.request(ticket.key, now, deadline)
        self._tickets[ticket.key] = ticket
        try:
            if ticket.grant is None:
                with anyio.move_on_after(seconds):
                    await ticket.turn.wait()
        except BaseException:
            self._state.withdraw(ticket.key)
            if ticket.grant is None:
                del self._tickets[ticket.key]
            else:  # cancelled, when it was its turn
                self._give_back(ticket, ticket.grant)
            raise
        if ticket.grant is not None:
            return ticket.grant
        if ticket.error is None:
            self._state.expire(deadline)
        del self._tickets[ticket.key]
        raise ticket.error or PoolTimeout("no sandbox was free in time")

    def _give_back(self, ticket: _Ticket, grant: Grant) -> None:
        del self._tickets[ticket.key]
        served = self._state.release(grant.seat, time.monotonic())
        if served is not None:
            next_one = self._tickets[served[0]]
            next_one.grant = served[1]
            next_one.turn.set()
        self._returned.set()
        self._returned = anyio.Event()


class _Ticket:
    """Who has asked for a sandbox, waits for it, or has it."""

    def __init__(self, key: Hashable) -> None:
        self.key: Final = key
        self.turn: Final = anyio.Event()
        self.grant: Grant | None = None
        self.error: SandboxError | None = None
        self.sandbox: AsyncSandbox | None = None
        self.cancelled = False

    def refuse(self, error: SandboxError) -> None:
        """End the wait."""
        self.error = error
        self.turn.set()

    def cancel(self) -> None:
        """End the run, or what is about to run."""
        self.cancelled = True
        if self.sandbox is not None:
            self.sandbox.cancel()
