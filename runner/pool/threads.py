r"""`SandboxPool`: sandboxes that threads share.

It starts no thread. Who asks for a sandbox while all are lent waits, in the order of asking; as
many as `queue_limit` may, and the next is refused, so that a flood is felt where it comes from.

A signal handler may raise anywhere in the main thread, as Celery's soft time limit does: what
belongs together is done with signals held, and a wait gives its place back.

>>> with SandboxPool(2) as pool:
...     pool.run(["echo", "hello"]).stdout
b'hello\n'
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from runner.config.checks import check_time
from runner.errors import PoolCancelled, PoolClosed, PoolTimeout, SandboxError
from runner.helper import signals_held
from runner.pool.base import LeaseBase, PoolBase
from runner.pool.state import PoolStats, is_ours
from runner.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from typing_extensions import Unpack

    from runner.pool.state import Grant
    from runner.result import Result
    from runner.sandbox import RunOptions


class SandboxPool(PoolBase[Sandbox, "Lease"]):
    """`size` sandboxes for any number of threads; takes the options of `PoolBase`."""

    _face = Sandbox

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(wait=kind is None)

    def acquire(self, *, timeout: float | None = None, key: Hashable | None = None) -> Lease:
        """Borrow a sandbox, waiting for `timeout` seconds at most; a context manager.

        `key` is what `cancel` knows it by. Raises PoolFull, PoolTimeout, PoolClosed and
        PoolCancelled.
        """
        lease = Lease(self, key)
        try:
            self._lend(lease, timeout)
        except BaseException:
            lease.release()
            raise
        return lease

    def run(
        self,
        args: Sequence[str],
        *,
        timeout: float | None = None,
        key: Hashable | None = None,
        **options: Unpack[RunOptions],
    ) -> Result:
        """Run a program in a sandbox of the pool; `options` are those of `Sandbox.run`.

        `timeout` is for the wait and not for the run. Raises as `acquire` and `Sandbox.run`.
        """
        lease = Lease(self, key)
        try:
            self._lend(lease, timeout)
            return lease.run(args, **options)
        finally:
            try:
                lease.release()
            finally:
                lease.release()  # again: a signal handler may have raised as the first began

    def cancel(self, key: Hashable) -> bool:
        """End what was asked for with this key; False if nothing of it waits or runs.

        What waits raises PoolCancelled, what runs ends with Status.CANCELLED, and what is about
        to run ends so too.
        """
        with self._locked():
            lease = self._leases.get(key)
            if lease is None:
                return False
            if self._state.withdraw(key):
                lease.refuse(PoolCancelled("it was cancelled while it waited"))
                return True
        lease.cancel()
        return True

    def close(self, *, wait: bool = True) -> None:
        """Lend nothing more, and end all sandboxes; idempotent.

        With `wait`, those who wait are served, and what runs comes to its end. Without, those
        who wait get PoolClosed, and what runs is cancelled.
        """
        with self._locked():
            for ticket in self._state.close(wait=wait):
                self._leases[ticket].refuse(PoolClosed("the pool was closed"))
            if not wait:
                self._aborted = True
            leases = list(self._leases.values()) if self._aborted else []
        with self._lock:
            while wait and not self._state.drained:
                self._changed.wait()
        for lease in leases:
            lease.cancel()
        for sandbox in self._sandboxes:
            sandbox.close()

    def stats(self) -> PoolStats:
        """Count."""
        with self._lock:
            return self._state.stats()

    def _begin(self) -> None:
        super()._begin()
        self._lock = threading.Lock()  # guards all that; never held for long
        self._changed = threading.Condition(self._lock)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock, to change what belongs together."""
        with signals_held(), self._lock:
            yield

    def _lend(self, lease: Lease, timeout: float | None) -> None:
        """Get a sandbox for a lease; if this raises, it is to be released."""
        check_time("timeout", timeout, zero=True)
        now = time.monotonic()
        deadline = None if timeout is None else now + timeout
        with self._locked():
            lease.grant = self._state.request(lease.key, now, deadline)
            self._leases[lease.key] = lease
        with self._lock:
            while (grant := lease.grant) is None:
                self._wait_turn(lease, deadline)
        sandbox = self._sandboxes[grant.seat]
        lease.lent(sandbox)
        self._prepare(sandbox, grant)

    def _wait_turn(self, lease: Lease, deadline: float | None) -> None:
        if lease.error is not None:
            raise lease.error
        lease.turn = lease.turn or threading.Condition(self._lock)
        left = None if deadline is None else deadline - time.monotonic()
        if not lease.turn.wait(left):
            with signals_held():
                for key in self._state.expire(time.monotonic()):
                    self._leases[key].refuse(PoolTimeout("no sandbox was free in time"))

    def _prepare(self, sandbox: Sandbox, grant: Grant) -> None:
        if grant.renew:
            sandbox.close()
        elif not grant.check or sandbox.ping():
            return
        with self._lock:
            self._state.renewed(grant.seat)

    # What a lease tells.

    def ran(self, seat: int, seconds: float) -> None:
        """Note a run, and replace its sandbox if that is due: with files when lent again."""
        with self._lock:
            due = self._state.ran(seat, time.monotonic(), seconds=seconds)
        if due and not self._keeps_files:
            self._sandboxes[seat].close()
            with self._lock:
                self._state.renewed(seat)

    def failed(self, seat: int) -> None:
        """Note a run that the sandbox failed."""
        with self._lock:
            self._state.failed(seat)

    def take_back(self, lease: Lease) -> None:
        """Take a sandbox back, or what was asked for and not given; idempotent."""
        grant = lease.grant
        try:
            if self._aborted and grant is not None:
                self._sandboxes[grant.seat].close()
            elif self._keeps_files and grant is not None:
                self._sandboxes[grant.seat].reset()
        finally:
            with self._locked():
                self._end(lease)
                self._changed.notify_all()


class Lease(LeaseBase[Sandbox]):
    """A sandbox that is lent; a context manager that gives it back. One run at a time."""

    def __init__(self, pool: SandboxPool, key: Hashable | None) -> None:
        super().__init__(pool, key)
        self.turn: threading.Condition | None = None  # the pool's, while it waits
        self._pool = pool

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def run(self, args: Sequence[str], **options: Unpack[RunOptions]) -> Result:
        """Run a program; `options` are those of `Sandbox.run`, which it raises as."""
        sandbox, seat = self._held()
        before = time.monotonic()
        try:
            result = sandbox.run(args, **options)
        except SandboxError as error:
            if is_ours(error):
                self._pool.failed(seat)
            raise
        self._pool.ran(seat, time.monotonic() - before)
        return result

    def reset(self) -> None:
        """Leave nothing of earlier runs, where files stay (fresh="submission")."""
        self._held()[0].reset()

    def release(self) -> None:
        """Give it back; idempotent."""
        self._pool.take_back(self)

    def _wake(self) -> None:
        if self.turn is not None:
            self.turn.notify()
