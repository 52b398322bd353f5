"""A sandbox that is replaced when it fails, and whose failed runs are tried again.

What the program did comes back as a Result; what we could not do, after all attempts, as a
StepError naming the step. The two never mix.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from runner.config import Limits
from runner.errors import SandboxError
from runner.result import Result, Status

ATTEMPTS: Final = 3
_COPY_BYTES: Final = 2**30
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class SandboxLike(Protocol):
    """What is used of `runner.sandbox.Sandbox`."""

    def run(
        self,
        args: Sequence[str],
        *,
        stdin: bytes | int | None = None,
        capture_limit: int = ...,
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> Result: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


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
    """Somebody asked for the run, or all further ones, to end."""


class Box:
    """Owns one sandbox at a time. `cancel` may be called from any thread, all else from one."""

    def __init__(self, make_sandbox: Callable[[], SandboxLike]) -> None:
        self._make: Final = make_sandbox
        self._lock: Final = threading.Lock()  # guards _sandbox, not the run
        self._sandbox: SandboxLike | None = None
        self._cancelled: Final = threading.Event()
        self.enforced: Mapping[str, str | None] = {}  # in the last run

    def run(
        self,
        step: str,
        args: Sequence[str],
        *,
        limits: Limits,
        env: Mapping[str, str],
        capture_limit: int,
        stdin: Path | None = None,
    ) -> Result:
        """Run a program; raises StepError after ATTEMPTS failures of the sandbox.

        `stdin` is a file of which each attempt gets a copy; see `sealed_copy`. Raises
        OSError if it cannot be read, and JudgingCancelled.
        """
        for _ in range(ATTEMPTS):
            outcome = self._attempt(args, limits, env, capture_limit, stdin)
            if isinstance(outcome, Result):
                return outcome
            failure = outcome
        raise StepError(step, failure) from failure

    def cancel(self) -> None:
        """End the run in progress and refuse all further ones.

        A run that is only just about to start is missed: call again until the thread is done.
        """
        self._cancelled.set()
        with self._lock:
            if self._sandbox is not None:
                self._sandbox.cancel()

    def close(self) -> None:
        """Close the sandbox; the next run makes another."""
        with self._lock:
            sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def _attempt(
        self,
        args: Sequence[str],
        limits: Limits,
        env: Mapping[str, str],
        capture_limit: int,
        stdin: Path | None,
    ) -> Result | SandboxError:
        if self._cancelled.is_set():
            raise JudgingCancelled
        fd = None if stdin is None else sealed_copy(stdin)
        try:
            result = self._get().run(
                args, stdin=fd, limits=limits, env=env, capture_limit=capture_limit
            )
        except SandboxError as error:
            self.close()
            return error
        finally:
            if fd is not None:
                os.close(fd)
        if result.status is Status.CANCELLED:
            raise JudgingCancelled
        self.enforced = result.enforced
        return result

    def _get(self) -> SandboxLike:
        with self._lock:
            if self._sandbox is None:
                self._sandbox = self._make()
            return self._sandbox


def sealed_copy(path: Path) -> int:
    """Copy a file to memory and give an fd, for reading only, of what nobody can change.

    Opening /proc/self/fd/0 reaches the very file that stdin is, whatever is mounted (proc(5)):
    a program that runs as our own user could rewrite a test's input for all who come after it.
    For reading only, because until Linux 6.7 no writable fd of a sealed file can be mapped
    MAP_SHARED, which fast readers of input do.
    """
    memory = os.memfd_create(path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with path.open("rb", buffering=0) as source:
            while os.sendfile(memory, source.fileno(), None, _COPY_BYTES):
                pass
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)
