"""What both pools are: their options, their sandboxes, and a new beginning in a fork."""

from __future__ import annotations

import abc
import functools
import os
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from runner.config.checks import refuse
from runner.errors import PoolClosed
from runner.pool.cores import Core, physical_cores
from runner.pool.state import PoolState
from runner.sandbox import SandboxBase

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from runner.errors import SandboxError
    from runner.pool.state import Grant

MAX_RUNS: Final = 10_000
CHECK_AFTER_S: Final = 10.0
WAITING_EACH: Final = 64

_S = TypeVar("_S", bound=SandboxBase)
_L = TypeVar("_L", bound="LeaseBase[Any]")


class PoolBase(abc.ABC, Generic[_S, _L]):
    """`size` sandboxes, made with `options` of `Sandbox`.

    queue_limit   how many may wait besides those that are served; None: 64 for each sandbox
    max_runs      a sandbox is replaced after so many runs …
    max_age       … or seconds; None: never for that reason
    check_after   one that was idle for so many seconds is asked whether it is alive
    pin           one physical core for each: its programs run on the core's first CPU, and no
                  other sandbox of the pool on its siblings; ConfigError if there are too few

    A sandbox is started when it is first needed. One that fails is replaced: a run that cannot
    have started is tried again, once; any other failure is raised, as ours. In a fork of the
    process the pool begins anew, with sandboxes of its own.
    """

    _face: type[_S]

    def __init__(
        self,
        size: int,
        *,
        queue_limit: int | None = None,
        max_runs: int | None = MAX_RUNS,
        max_age: float | None = None,
        check_after: float | None = CHECK_AFTER_S,
        pin: bool = False,
        **options: Any,  # noqa: ANN401 - those of SandboxBase, which checks them
    ) -> None:
        self._make_state = functools.partial(
            PoolState,
            size,
            queue_limit=WAITING_EACH * size if queue_limit is None else queue_limit,
            max_runs=max_runs,
            max_age=max_age,
            check_after=check_after,
        )
        # What a lease leaves is not for the next; and is not lost while it is lent.
        self._keeps_files = options.get("fresh") == "submission"
        self._begin()
        self._cores = _pinned_cores(size, options) if pin else []
        each = [options | {"cpus": (core.cpu,)} for core in self._cores] or [options] * size
        self._sandboxes = [self._face(**one) for one in each]
        _pools.add(self)

    @property
    def cores(self) -> Sequence[Core]:
        """The core of each sandbox, where they are pinned."""
        return tuple(self._cores)

    def is_aborted(self) -> bool:
        """Tell whether the pool was closed at once."""
        return self._aborted

    def _begin(self) -> None:
        """Have nothing lent and nobody wait; after a fork too, in the child."""
        self._state = self._make_state()
        self._leases: dict[Hashable, _L] = {}  # of those who wait, too
        self._aborted = False

    def _end(self, lease: _L) -> None:
        """End a lease, whatever became of it, and serve the next; idempotent."""
        # In a fork's child, what was lent in the parent is not lent.
        if self._leases.get(lease.key) is lease:
            del self._leases[lease.key]
            if lease.grant is None:
                self._state.withdraw(lease.key)
            else:
                served = self._state.release(lease.grant.seat, time.monotonic())
                if served is not None:
                    self._leases[served[0]].serve(served[1])
        lease.ended()


class LeaseBase(abc.ABC, Generic[_S]):
    """What was asked of a pool: it waits for a sandbox, has one, or has given it back.

    key, grant, error   the pool's: whose it is, what it was lent, and why it is not served
    """

    def __init__(self, pool: PoolBase[_S, Any], key: Hashable | None) -> None:
        self.key: Final[Hashable] = object() if key is None else key
        self.grant: Grant | None = None
        self.error: SandboxError | None = None
        self._pool_aborted = pool.is_aborted
        self._sandbox: _S | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End the run in progress and all further ones of this lease; from any thread."""
        self._cancelled = True
        sandbox = self._sandbox
        if sandbox is not None:
            sandbox.cancel()

    # What the pool tells.

    def serve(self, grant: Grant) -> None:
        """End the wait with a sandbox."""
        self.grant = grant
        self._wake()

    def refuse(self, error: SandboxError) -> None:
        """End the wait with an exception."""
        self.error = error
        self._wake()

    def lent(self, sandbox: _S) -> None:
        """Have a sandbox."""
        self._sandbox = sandbox
        sandbox.ends_if(lambda: self._cancelled or self._pool_aborted())

    def ended(self) -> None:
        """Have it no more."""
        self.grant = self._sandbox = None

    @abc.abstractmethod
    def _wake(self) -> None:
        """Let who waits look at what became of it."""

    def _held(self) -> tuple[_S, int]:
        """Give the sandbox and its seat."""
        sandbox, grant = self._sandbox, self.grant
        if sandbox is None or grant is None or self._pool_aborted():
            raise PoolClosed("the sandbox was given back, or the pool closed")
        return sandbox, grant.seat


def _pinned_cores(size: int, options: dict[str, Any]) -> list[Core]:
    """Give a core for each sandbox; ConfigError if there are too few."""
    cores = physical_cores()
    if len(cores) < size:
        refuse("size", size, f"there are {len(cores)} cores to pin to: give at most as many")
    if "cpus" in options:
        refuse("cpus", options["cpus"], "the pool chooses them where it pins")
    return cores[:size]


_pools: weakref.WeakSet[PoolBase[Any, Any]] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in _pools:
        pool._begin()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
