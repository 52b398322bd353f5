"""`start()`: a program set up exactly as a `Runner` says, and the `Process` that it is then."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

from runner import idmap, measure, plan, wire
from runner.config import Limits
from runner.errors import ConfigError, ProtocolError
from runner.helper import Keeper
from runner.host import detect

if TYPE_CHECKING:
    from runner.config import Runner
    from runner.plan import Step
    from runner.result import Result

# What a program without limits of ours can be told about.
_NO_LIMITS: Final = Limits()
_ENFORCED_NOTHING: Final[dict[str, str | None]] = {}


class Process:
    """A started program. Its `pid` is the host's; it lives until `wait` or `kill` say so.

    A context manager that kills it and everything in its pid namespace.
    """

    def __init__(self, keeper: Keeper, steps: list[Step], run_id: int, pid: int) -> None:
        self.pid: Final = pid
        self._keeper = keeper
        self._steps = steps
        self._run_id = run_id
        self._result: Result | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        with contextlib.suppress(ProtocolError):  # the keeper was killed, and all with it
            self.wait()

    def wait(self) -> Result:
        """Wait for its end and say what happened; ProtocolError if the keeper has died."""
        with self._lock:
            if self._result is None:
                try:
                    reply = self._keeper.receive(self._steps)
                finally:
                    self._keeper.close()
                nothing = measure.Captured(b"", None)
                self._result = measure.result_of(
                    reply,
                    None,
                    _NO_LIMITS,
                    stdout=nothing,
                    stderr=nothing,
                    enforced=_ENFORCED_NOTHING,
                    filtered=any(step.op is plan.Op.SECCOMP for step in self._steps),
                )
            return self._result

    def kill(self) -> None:
        """Kill it with SIGKILL, and all in its pid namespace if it has one of its own."""
        self._keeper.send_kill(self._run_id)


def start(runner: Runner) -> Process:
    """Start a program; returns when its exec has happened.

    Raises ChildError for the step that failed, ConfigError for an fd that is not open, and what
    `sync_func` raised; nothing of the program is left then.
    """
    _check_files(runner)
    host = detect()
    runner = idmap.with_default_maps(runner, euid=host.euid, egid=os.getegid())
    keeper = Keeper()
    try:
        steps = plan.box(runner, privileged=host.privileged, drop_groups=host.maps_ids)
        keeper.start(steps, clone_flags=int(plan.clone_flags(runner)))
        return _start_program(keeper, runner)
    except BaseException:
        keeper.close()
        raise


def _check_files(runner: Runner) -> None:
    for number, fd in enumerate(runner.files):
        if fd < 0:
            continue
        try:
            os.fstat(fd)
        except OSError as error:
            message = f"Runner.files[{number}]: {fd}: not an open file descriptor"
            raise ConfigError(message) from error


def _start_program(keeper: Keeper, runner: Runner) -> Process:
    fds = [fd for fd in runner.files if fd >= 0]
    indexes = iter(range(len(fds)))
    files = [next(indexes) if fd >= 0 else plan.FD_CLOSED for fd in runner.files]
    candidates = [os.fsencode(runner.args[0])]
    steps = plan.program(runner, candidates=candidates, files=files)
    run_id = keeper.send_run(
        wire.encode_plan(steps), fds=fds, watch=wire.NO_WATCH, flags=wire.NOTIFY_EXEC
    )
    reply = keeper.receive(steps)
    if reply.kind == wire.ReplyKind.SYNC:
        _call_sync_func(keeper, runner, reply.pid, steps)
        reply = keeper.receive(steps)
    if reply.kind != wire.ReplyKind.RUNNING:
        message = f"the keeper answered {reply.kind} where the program should be running"
        raise ProtocolError(message)
    return Process(keeper, steps, run_id, reply.pid)


def _call_sync_func(keeper: Keeper, runner: Runner, pid: int, steps: list[Step]) -> None:
    """Call it; if it raises, the program is killed and the very exception goes on."""
    if runner.sync_func is None:
        message = "the keeper waits for a callback that there is none of"
        raise ProtocolError(message)
    try:
        runner.sync_func(pid)
    except BaseException:
        keeper.send_sync(abort=True)
        keeper.receive(steps)
        raise
    keeper.send_sync(abort=False)
