"""The sandboxes that a judge's workers share, and failed runs that are tried again.

What the program did comes back as a Result; what we could not do, after all attempts, as a
StepError naming the step. The two never mix.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from runner.errors import PoolClosed, SandboxError
from runner.pool import Lease, SandboxPool
from runner.result import Result, Status

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from runner.sandbox import RunOptions

_T = TypeVar("_T")

ATTEMPTS: Final = 3

# The constructor of `runner.pool.SandboxPool`.
MakePool = Callable[..., SandboxPool]


class StepError(Exception):
    """The sandbox failed at this step in every attempt; `cause` is the last failure."""

    def __init__(self, step: str, cause: SandboxError) -> None:
        super().__init__(f"{step}: {cause}")
        self.step: Final = step
        self.cause: Final = cause

    def to_dict(self) -> dict[str, object]:
        """Give the `error` object of a result."""
        return {"step": self.step} | self.cause.to_dict()


class JudgingCancelled(Exception):  # noqa: N818 (nothing is in error)
    """Somebody asked for all runs, in progress and to come, to end."""


class Sandboxes:
    """A pool for compilers, and one for the programs of each policy; each made when needed.

    As many sandboxes in each as there are workers, so that none waits for another; a sandbox is
    started when it is first needed. From any thread.
    """

    def __init__(self, workers: int, make_pool: MakePool = SandboxPool) -> None:
        self._workers: Final = workers
        self._make_pool: Final = make_pool
        self._lock: Final = threading.Lock()  # guards what follows
        self._pools: Final[dict[tuple[str, str], SandboxPool]] = {}
        self._closed = False

    def compiling(self, act: Callable[[Lent], _T]) -> _T:
        """Do what has to be done in one compiler's sandbox, where files stay until then.

        Raises StepError and JudgingCancelled.
        """
        return self._tried("compile", act, policy="compiler", fresh="submission")

    def running(self, step: str, policy: str, act: Callable[[Lent], _T]) -> _T:
        """Do what has to be done in a program's sandbox; raises the same."""
        return self._tried(step, act, policy=policy, fresh="run")

    def cancel(self) -> None:
        """End what runs, and refuse all that is to come."""
        for pool in self._close():
            pool.close(wait=False)

    def close(self) -> None:
        """End all sandboxes, when what runs has ended; idempotent."""
        for pool in self._close():
            pool.close()

    def _close(self) -> list[SandboxPool]:
        with self._lock:
            self._closed = True
            return list(self._pools.values())

    def _tried(self, step: str, act: Callable[[Lent], _T], *, policy: str, fresh: str) -> _T:
        for _ in range(ATTEMPTS):
            try:
                with self._pool(policy, fresh).acquire() as lease:
                    return act(Lent(lease))
            except SandboxError as error:  # noqa: PERF203 - one that fails takes much longer
                if isinstance(error, PoolClosed):
                    raise JudgingCancelled from error
                failure = error
        raise StepError(step, failure) from failure

    def _pool(self, policy: str, fresh: str) -> SandboxPool:
        with self._lock:
            if self._closed:
                raise JudgingCancelled
            pool = self._pools.get((policy, fresh))
            if pool is None:
                pool = self._make_pool(self._workers, policy=policy, fresh=fresh)
                self._pools[policy, fresh] = pool
            return pool


class Lent:
    """A sandbox that is lent for one step."""

    def __init__(self, lease: Lease) -> None:
        self._lease: Final = lease

    def run(self, args: list[str], **options: Unpack[RunOptions]) -> Result:
        """Run a program; raises SandboxError and JudgingCancelled."""
        result = self._lease.run(args, **options)
        if result.status is Status.CANCELLED:
            raise JudgingCancelled
        return result
