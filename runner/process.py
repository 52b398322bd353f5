"""`start()`: a program set up exactly as a `Runner` says, and the `Process` that it is then."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

from runner import measure, plan, resolve, scarcity, sources, wire
from runner.config import Limits
from runner.config.checks import refuse
from runner.errors import ChildError, ProtocolError
from runner.helper import START_TIMEOUT_S, Keeper
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

    `waiting` is true until its exec has happened: it was started with a `stop_…`, and `resume`
    has not been called. A context manager that kills it and everything in its pid namespace.
    """

    def __init__(
        self,
        keeper: Keeper,
        steps: list[Step],
        run_id: int,
        reply: wire.Reply,
        *,
        stopped: bool,
    ) -> None:
        self.pid: Final = reply.pid
        self.waiting = reply.kind != wire.ReplyKind.RUNNING
        # A pid may be another's when we come to continue it. -1: it has ended already.
        self._pidfd = _pidfd(reply.pid) if stopped else -1
        self._keeper = keeper
        self._steps = steps
        self._run_id = run_id
        self._result: Result | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        # The keeper was killed, and all with it; or the set-up that went on has failed.
        with contextlib.suppress(ProtocolError, ChildError):
            self.wait()

    def fileno(self) -> int:
        """Give an fd that is readable when `wait` will not block; it is the process's own."""
        return self._keeper.fileno()

    def resume(self) -> None:
        """Let it go on that has stopped, by SIGCONT, or waits before its exec.

        Where its exec is still to come, returns when that has happened, and raises ChildError
        if it or the filter fails. With a tracer that answers for its stops in this thread, do
        not call this, but let the tracer continue it.
        """
        with self._lock:
            if self._result is not None:
                return
            if self._pidfd >= 0:
                with contextlib.suppress(ProcessLookupError):  # `wait` tells
                    signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)
            if not self.waiting:
                return
            if self._pidfd < 0:
                self._keeper.send_sync(abort=False)
            try:
                _expect_running(self._keeper.receive(self._steps))
            except BaseException:
                self._close()
                raise
            self.waiting = False

    def wait(self) -> Result:
        """Wait for its end and say what happened; ProtocolError if the keeper has died.

        One that a tracer has let go on may fail in what is left of its set-up: ChildError.
        """
        with self._lock:
            if self._result is None:
                try:
                    reply = self._keeper.receive(self._steps)
                    if self.waiting and reply.kind == wire.ReplyKind.RUNNING:
                        reply = self._keeper.receive(self._steps)
                finally:
                    self._close()
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

    def _close(self) -> None:
        self._keeper.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def kill(self) -> None:
        """Kill it with SIGKILL, and all in its pid namespace if it has one of its own."""
        self._keeper.send_kill(self._run_id)


def start(
    runner: Runner, *, path: str | None = None, name: str = "", sealed: bool = False
) -> Process:
    """Start a program; returns when its exec has happened, or it waits as it was told to.

    `path`: directories as in PATH, in which args[0] is looked up, inside the new root.
    `name`, `sealed`: of the helper process, see `Keeper`.

    Raises ChildError for the step that failed, ConfigError for what is not there (an fd that is
    not open, a namespace of another type, a hook's program, a name that the sandbox's passwd
    does not have), HostError for what the host lacks, and what `sync_func` raised; nothing of
    the program is left then.
    """

    def start_with(old_mounts: bool) -> Process:  # noqa: FBT001 - called by with_mount_calls
        return _start(runner, path, name, sealed=sealed, old_mounts=old_mounts)

    with scarcity.named():
        return sources.with_mount_calls(start_with)


def _start(
    runner: Runner, path: str | None, name: str, *, sealed: bool, old_mounts: bool
) -> Process:
    _check(runner)
    host = detect()
    with contextlib.ExitStack() as opened:
        sent = resolve.gather(runner, opened)
        runner, map_helpers = resolve.with_ids(runner, host)
        # Who lives where it enters may reach its file.
        copied = sealed or bool(runner.join)
        keeper = Keeper(retain_session=runner.retain_session, name=name, sealed=copied)
        try:
            steps = plan.box(
                runner,
                privileged=host.privileged,
                drop_groups=host.maps_ids,
                map_helpers=map_helpers,
                join=sent.join,
                hooks=sent.hooks,
                old_mounts=old_mounts,
            )
            keeper.start(
                steps,
                clone_flags=int(plan.clone_flags(runner)),
                fds=sent.fds,
                timeout=START_TIMEOUT_S + sum(hook.timeout for hook in runner.hooks),
            )
            return _start_program(keeper, runner, path)
        except BaseException:
            keeper.close()
            raise


def _check(runner: Runner) -> None:
    if runner.supervision is not None and runner.supervision.by != "ptrace":
        refuse("Runner.supervision", runner.supervision.by, "in a Sandbox alone: give ptrace")


def _start_program(keeper: Keeper, runner: Runner, path: str | None) -> Process:
    fds = [fd for fd in runner.files if fd >= 0]
    indexes = iter(range(len(fds)))
    files = [next(indexes) if fd >= 0 else plan.FD_CLOSED for fd in runner.files]
    exec_file = None
    if runner.exec_file is not None:
        exec_file = len(fds)
        fds.append(runner.exec_file)
    program = os.fsencode(runner.args[0])
    candidates = [program] if path is None else plan.candidates(program, path)
    steps = plan.program(
        runner,
        candidates=candidates,
        files=files,
        exec_file=exec_file,
        ruleset=resolve.ruleset(runner.landlock),
        rules=resolve.rules(runner.supervision),
    )
    run_id = keeper.send_run(
        wire.encode_plan(steps), fds=fds, watch=wire.NO_WATCH, flags=wire.NOTIFY_EXEC
    )
    reply = keeper.receive(steps)
    if reply.kind == wire.ReplyKind.SYNC and not runner.stop_before_exec:
        _call_sync_func(keeper, runner, reply.pid, steps)
        reply = keeper.receive(steps)
    stopped = reply.kind == wire.ReplyKind.STOPPED
    if not stopped and reply.kind != wire.ReplyKind.SYNC:
        _expect_running(reply)
    return Process(keeper, steps, run_id, reply, stopped=stopped or runner.ptrace)


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def _expect_running(reply: wire.Reply) -> None:
    if reply.kind != wire.ReplyKind.RUNNING:
        message = f"the keeper answered {reply.kind} where the program should be running"
        raise ProtocolError(message)


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
