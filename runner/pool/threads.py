r"""`SandboxPool`: sandboxes that threads share.

It starts no thread. Who asks for a sandbox while all are lent waits, in the order of asking; as
many as `queue_limit` may, and the next is refused, so that a flood is felt where it comes from.

>>> with SandboxPool(2) as pool:
...     pool.run(["echo", "hello"]).stdout
b'hello\n'
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from runner.config.checks import check_time, refuse
from runner.errors import PoolCancelled, PoolClosed, PoolTimeout, SandboxError
from runner.pool.cores import Core, physical_cores
from runner.pool.state import PoolState, PoolStats, is_ours
from runner.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from runner.pool.state import Grant
    from runner.result import Result

MAX_RUNS: Final = 10_000
CHECK_AFTER_S: Final = 10.0
WAITING_EACH: Final = 64


class SandboxPool:
    """`size` sandboxes, made with `options` of `Sandbox`; from any thread.

    queue_limit   how many may wait besides those that are served; None: 64 for each sandbox
    max_runs      a sandbox is replaced after so many runs …
    max_age       … or seconds; None: never for that reason
    check_after   one that was idle for so many seconds is asked whether it is alive
    pin           one physical core for each: its programs run on the core's first CPU, and no
                  other sandbox of the pool on its siblings; ConfigError if there are too few

    A sandbox is started when it is first needed. One that fails is replaced: a run that cannot
    have started is tried again, once; any other failure is raised, as ours. In a fork of the
    process it begins anew, with sandboxes of its own.
    """

    _aborted: bool

    def __init__(
        self,
        size: int,
        *,
        queue_limit: int | None = None,
        max_runs: int | None = MAX_RUNS,
        max_age: float | None = None,
        check_after: float | None = CHECK_AFTER_S,
        pin: bool = False,
        **options: Any,  # noqa: ANN401 - those of Sandbox, which checks them
    ) -> None:
        limit = WAITING_EACH * size if queue_limit is None else queue_limit

        def make_state() -> PoolState:
            return PoolState(
                size,
                queue_limit=limit,
                max_runs=max_runs,
                max_age=max_age,
                check_after=check_after,
            )

        self._make_state: Callable[[], PoolState] = make_state
        self._begin()
        self._cores = pinned_cores(size, options) if pin else []
        each = [options | {"cpus": (core.cpu,)} for core in self._cores] or [options] * size
        self._sandboxes = [_Lent(**one) for one in each]
        _pools.add(self)

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(wait=kind is None)

    @property
    def cores(self) -> Sequence[Core]:
        """The core of each sandbox, where they are pinned."""
        return tuple(self._cores)

    def acquire(self, *, timeout: float | None = None, key: Hashable | None = None) -> Lease:
        """Borrow a sandbox, waiting for `timeout` seconds at most; a context manager.

        `key` is what `cancel` knows it by. Raises PoolFull, PoolTimeout, PoolClosed and
        PoolCancelled.
        """
        check_time("timeout", timeout, zero=True)
        lease = Lease(self, object() if key is None else key)
        grant = self._await_grant(lease, timeout)
        try:
            self._prepare(lease.lent(self._sandboxes[grant.seat], grant.seat), grant)
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
        **options: Any,  # noqa: ANN401 - those of Sandbox.run, which checks them
    ) -> Result:
        """Run a program in a sandbox of the pool; `options` are those of `Sandbox.run`.

        `timeout` is for the wait and not for the run. Raises as `acquire` and `Sandbox.run`.
        """
        with self.acquire(timeout=timeout, key=key) as lease:
            return lease.run(args, **options)

    def cancel(self, key: Hashable) -> bool:
        """End what was asked for with this key; False if nothing of it waits or runs.

        What waits raises PoolCancelled, what runs ends with Status.CANCELLED, and what is about
        to run ends so too.
        """
        with self._lock:
            lease = self._leases.get(key)
            if lease is None:
                return False
            if self._state.withdraw(key):
                self._refuse(key, PoolCancelled("it was cancelled while it waited"))
                return True
        lease.cancel()
        return True

    def close(self, *, wait: bool = True) -> None:
        """Lend nothing more, and end all sandboxes; idempotent.

        With `wait`, those who wait are served, and what runs comes to its end. Without, those
        who wait get PoolClosed, and what runs is cancelled.
        """
        with self._lock:
            for ticket in self._state.close(wait=wait):
                self._refuse(ticket, PoolClosed("the pool was closed"))
            if not wait:
                self._aborted = True
            leases = list(self._leases.values()) if self._aborted else []
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
        """Have nothing lent and nobody wait; after a fork too, in the child."""
        self._state = self._make_state()
        self._lock = threading.Lock()  # guards what follows; never held for long
        self._changed = threading.Condition(self._lock)
        self._leases: dict[Hashable, Lease] = {}  # of those who wait, too
        self._aborted = False

    def _await_grant(self, lease: Lease, timeout: float | None) -> Grant:
        now = time.monotonic()
        deadline = None if timeout is None else now + timeout
        with self._lock:
            lease.grant = self._state.request(lease.key, now, deadline)
            self._leases[lease.key] = lease
            try:
                while lease.grant is None:
                    self._wait_turn(lease, deadline)
            except BaseException:
                del self._leases[lease.key]
                self._state.withdraw(lease.key)
                if lease.grant is not None:  # an interrupt, when it was its turn
                    self._release(lease.grant.seat)
                self._changed.notify_all()
                raise
            return lease.grant

    def _wait_turn(self, lease: Lease, deadline: float | None) -> None:
        if lease.error is not None:
            raise lease.error
        lease.turn = lease.turn or threading.Condition(self._lock)
        left = None if deadline is None else deadline - time.monotonic()
        if not lease.turn.wait(left):
            self._expire()

    def _prepare(self, sandbox: Sandbox, grant: Grant) -> None:
        if grant.renew:
            sandbox.close()
        elif not grant.check or sandbox.ping():
            return
        with self._lock:
            self._state.renewed(grant.seat)

    def _expire(self) -> None:
        for key in self._state.expire(time.monotonic()):
            self._refuse(key, PoolTimeout("no sandbox was free in time"))

    def _refuse(self, key: Hashable, error: SandboxError) -> None:
        lease = self._leases[key]
        lease.error = error
        if lease.turn is not None:
            lease.turn.notify()

    def _release(self, seat: int) -> None:
        served = self._state.release(seat, time.monotonic())
        if served is not None:
            lease = self._leases[served[0]]
            lease.grant = served[1]
            if lease.turn is not None:
                lease.turn.notify()
        self._changed.notify_all()

    # What a lease tells.

    def is_aborted(self) -> bool:
        """Tell whether the pool was closed at once."""
        return self._aborted

    def ran(self, seat: int, seconds: float) -> None:
        """Note a run, and replace its sandbox if that is due."""
        with self._lock:
            due = self._state.ran(seat, time.monotonic(), seconds=seconds)
        if due:
            self._sandboxes[seat].close()
            with self._lock:
                self._state.renewed(seat)

    def failed(self, seat: int) -> None:
        """Note a run that the sandbox failed."""
        with self._lock:
            self._state.failed(seat)

    def returned(self, lease: Lease, seat: int) -> None:
        """Take a sandbox back."""
        if self._aborted:
            self._sandboxes[seat].close()
        with self._lock:
            # In a fork's child, what was lent in the parent is not lent.
            if self._leases.get(lease.key) is lease:
                del self._leases[lease.key]
                self._release(seat)


class Lease:
    """A sandbox that is lent; a context manager that gives it back. One run at a time."""

    def __init__(self, pool: SandboxPool, key: Hashable) -> None:
        self.key: Final = key
        # Of the pool, while it waits; under the pool's lock.
        self.turn: threading.Condition | None = None
        self.grant: Grant | None = None
        self.error: SandboxError | None = None
        self._pool = pool
        self._sandbox: _Lent | None = None
        self._seat = -1
        self._cancelled = False

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def lent(self, sandbox: _Lent, seat: int) -> Sandbox:
        """Have a sandbox; it is the pool that calls this."""
        self._sandbox, self._seat = sandbox, seat
        sandbox.lend(lambda: self._cancelled or self._pool.is_aborted())
        return sandbox

    def run(self, args: Sequence[str], **options: Any) -> Result:  # noqa: ANN401 - as Sandbox.run
        """Run a program; `options` are those of `Sandbox.run`, which it raises as."""
        sandbox = self._held()
        before = time.monotonic()
        try:
            result = sandbox.run(args, **options)
        except SandboxError as error:
            if is_ours(error):
                self._pool.failed(self._seat)
            raise
        self._pool.ran(self._seat, time.monotonic() - before)
        return result

    def reset(self) -> None:
        """Leave nothing of earlier runs, where files stay (fresh="submission")."""
        self._held().reset()

    def cancel(self) -> None:
        """End the run in progress and all further ones of this lease; from any thread."""
        self._cancelled = True
        sandbox = self._sandbox
        if sandbox is not None:
            sandbox.cancel()

    def release(self) -> None:
        """Give it back; idempotent."""
        if self._sandbox is not None:
            self._sandbox = None
            self._pool.returned(self, self._seat)

    def _held(self) -> Sandbox:
        if self._sandbox is None or self._pool.is_aborted():
            raise PoolClosed("the sandbox was given back, or the pool closed")
        return self._sandbox


class _Lent(Sandbox):
    """A sandbox whose runs end when its lease says so, even one that is only about to start."""

    def lend(self, cancelled: Callable[[], bool]) -> None:
        self._life.cancelled_by = cancelled


def pinned_cores(size: int, options: dict[str, Any]) -> list[Core]:
    """Give a core for each sandbox; ConfigError if there are too few."""
    cores = physical_cores()
    if len(cores) < size:
        refuse("size", size, f"there are {len(cores)} cores to pin to: give at most as many")
    if "cpus" in options:
        refuse("cpus", options["cpus"], "the pool chooses them where it pins")
    return cores[:size]


_pools: weakref.WeakSet[SandboxPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in _pools:
        pool._begin()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
