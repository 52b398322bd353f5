"""The keeper, seen from Python: start it, send it requests, receive its replies.

The only module that starts a process. Nothing of ours ever runs in a forked copy of the grader:
posix_spawn shares its memory until exec, so the price does not grow with it.
"""

from __future__ import annotations

import _socket as socket  # what the other adds, enums and selectors, takes long to import
import array
import contextlib
import fcntl
import os
import select
import signal
import struct
import time
from typing import TYPE_CHECKING, Final

from runner import scarcity, wire
from runner.config.checks import check_name
from runner.errors import ChildError, Detail, ErrorLocation, HostError, ProtocolError
from runner.memfd import sealed_memfd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.plan import Step

CONTROL_FD: Final = 3
START_TIMEOUT_S: Final = 30.0
_END_TIMEOUT_MS: Final = 5000
LOOK_S: Final = 1  # so often we look whether a keeper is stopped
# What programs install raising handlers for. Not all signals: Python makes an object of each.
# abort() lets SIGABRT through by itself.
_HANDLED: Final = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT),
    *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
# SIGKILL and SIGSTOP have no disposition to reset.
_SIGNALS: Final = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def keeper_path() -> str:
    """Find the compiled helper, beside this file. Raises HostError if it cannot be run.

    No environment variable can name another: it would run with our privileges.
    """
    path = os.path.join(os.path.dirname(__file__), "keeper")
    if not os.access(path, os.X_OK):
        missing = f"the helper {path} is missing or not executable"
        raise HostError(missing, "reinstall the package, or `make build` in a checkout")
    return path


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let signals wait: an exception of a handler would leave half of something behind.

    Holds for the calling thread, which must be the main one for a handler to run in it at all.
    Where there are other threads, one that does not block the signal may get it, and then its
    handler runs in the main one all the same: signal(7).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # Apart: where a handler was due, this raises what it raises, and has blocked them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Keeper:
    """One keeper process and its control socket. Not thread-safe, but for `send_kill`."""

    def __init__(
        self,
        path: str | None = None,
        *,
        stderr: int | None = None,
        retain_session: bool = False,
        name: str = "",
        sealed: bool = False,
    ) -> None:
        """Start a keeper; `stderr` is borrowed for its own messages, of which it has none.

        `retain_session`: it and its programs stay in the caller's session.
        `name`: the sandbox's, for whoever looks for it in /proc; ConfigError if it is none.
        `sealed`: run it from a copy that cannot be changed. Where it enters a sandbox that
        others live in, these may reach its file by /proc/PID/exe (CVE-2019-5736).
        """
        check_name("name", name)
        program = keeper_path() if path is None else path
        words = ["keeper", *(["--retain-session"] if retain_session else ())]  # ps shows them
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # By the kernel, so that it costs nothing.
        each = struct.pack("2l", LOOK_S, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, each)
        self._was_stopped = False  # when we last looked
        self._looked_at = 0.0
        self._run_id = 0
        self.pid, self._pidfd = 0, -1
        try:
            with (
                contextlib.closing(theirs),
                _sealed(program) if sealed else contextlib.nullcontext(program) as file,
            ):
                self._spawn(file, [*words, name] if name else words, theirs.fileno(), stderr)
        except BaseException:  # of a handler too: another thread may have got the signal
            self._socket.close()  # which ends it
            if self.pid:
                os.waitpid(self.pid, 0)
            if self._pidfd >= 0:
                os.close(self._pidfd)
            raise

    def _spawn(self, file: str, words: list[str], control: int, stderr: int | None) -> None:
        try:
            self.pid = os.posix_spawn(
                file,
                words,
                {},
                file_actions=_file_actions(control, stderr),
                setsigmask=[],
                setsigdef=_SIGNALS,
            )
        except OSError as error:
            missing = f"the helper {file} does not start: {error.strerror}"
            lack = HostError(missing, "is it mounted noexec, or built for another machine?")
            raise scarcity.of(error) or lack from error
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            lack = HostError(f"pidfds: {error.strerror}", "Linux 5.3 has them")
            raise scarcity.of(error) or lack from error

    def start(
        self,
        steps: Sequence[Step],
        *,
        clone_flags: int,
        fds: Sequence[int] = (),
        timeout: float = START_TIMEOUT_S,
    ) -> int:
        """Make the sandbox; returns init's pid, or -1 without one.

        Raises ChildError for a step that failed.
        """
        self.send_start(steps, clone_flags=clone_flags, fds=fds)
        return self.await_start(steps, timeout=timeout)

    def send_start(
        self, steps: Sequence[Step], *, clone_flags: int, fds: Sequence[int] = ()
    ) -> None:
        """Let the keeper begin to make the sandbox."""
        encoded = wire.encode_plan(steps)
        self._send(wire.RequestKind.START, encoded, fds, clone_flags=clone_flags)

    def await_start(self, steps: Sequence[Step], *, timeout: float = START_TIMEOUT_S) -> int:
        """Wait until the sandbox is made; see `start`."""
        self._socket.settimeout(timeout)
        try:
            reply = self._receive(steps)
        finally:
            self._socket.settimeout(None)
        if reply.kind != wire.ReplyKind.STARTED:
            message = f"the keeper answered {reply.kind} where a sandbox should have started"
            raise ProtocolError(message)
        return reply.pid

    def send_run(
        self, encoded_plan: bytes, *, fds: Sequence[int], watch: bytes, flags: int
    ) -> int:
        """Start a program; returns the run's id, for `send_kill`."""
        self._send(wire.RequestKind.RUN, encoded_plan, fds, watch=watch, flags=flags)
        return self._run_id

    def send_kept(self, fds: Sequence[int], uses: bytes) -> None:
        """Give fds that follow those of each run, and say what is done with each: KeptUse."""
        self._send(wire.RequestKind.KEEP, uses, fds)

    def fileno(self) -> int:
        """Give the socket's fd, which is readable when there is a reply."""
        return self._socket.fileno()

    def receive(self, steps: Sequence[Step]) -> wire.Reply:
        """Wait for the next reply to a run; raises ChildError if a step of `steps` failed."""
        return self._receive(steps)

    def look(self) -> None:
        """Kill it if it is stopped, and was so LOOK_S seconds ago, and raise.

        For whoever waits for it, at least so often. A stopped keeper holds no limit and never
        answers. Once is not enough: we may have been stopped with it, by a terminal, and be the
        first to go on.
        """
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        was_stopped, self._was_stopped, self._looked_at = self._was_stopped, False, now
        with contextlib.suppress(OSError):  # it has ended, or is not ours to wait for
            if os.waitid(os.P_PIDFD, self._pidfd, os.WSTOPPED | os.WNOHANG | os.WNOWAIT):
                if was_stopped:
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                    raise ProtocolError(_STOPPED)
                self._was_stopped = True

    def files(self, steps: Sequence[Step], fds: Sequence[int] = ()) -> int:
        """Do FILES steps, between runs; gives the fd that one has opened, or -1.

        Raises ChildError for a step that failed; those before it are done.
        """
        self._send(wire.RequestKind.FILES, wire.encode_plan(steps), fds)
        opened: list[int] = []
        try:
            self._receive(steps, opened)
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        return opened[0] if opened else -1

    def send_clean(self) -> None:
        """Let what a run has left be put back now, after a run with KEEP."""
        request = wire.encode_request(wire.RequestKind.CLEAN, self._run_id)
        with contextlib.suppress(OSError):  # a dead keeper has left nothing
            self._socket.send(request)

    def ping(self, timeout: float) -> None:
        """Ask whether it and init are alive; between runs.

        Raises ProtocolError, or ChildError where init does not answer.
        """
        self._send(wire.RequestKind.PING, b"", ())
        self._socket.settimeout(timeout)
        try:
            self._receive(())
        finally:
            self._socket.settimeout(None)

    def kill(self) -> None:
        """Kill the keeper at once, and so everything in the sandbox; `close` it then."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def send_kill(self, run_id: int, *, overflow: bool = False) -> None:
        """Cancel a run, or end it at its output limit; does nothing if it has ended.

        From any thread.
        """
        flags = wire.OVERFLOW if overflow else 0
        request = wire.encode_request(wire.RequestKind.KILL, run_id, flags=flags)
        # A dead keeper has killed everything already, and one that has not heard of hundreds
        # of kills needs no more of them.
        with contextlib.suppress(OSError):
            self._socket.send(request, socket.MSG_DONTWAIT)

    def send_answer(self, index: int, verdict: int) -> None:
        """Say what becomes of a call that was ASKED about: an errno, or wire.ANSWER_*."""
        answer = verdict << 32 | index
        kind = wire.RequestKind.ANSWER
        request = wire.encode_request(kind, self._run_id, clone_flags=answer)
        with contextlib.suppress(OSError):  # its end is told by `receive`
            self._socket.send(request)

    def send_sync(self, *, abort: bool) -> None:
        """Let the program that waits before its exec go on, or end it."""
        flags = wire.ABORT if abort else 0
        self._socket.send(wire.encode_request(wire.RequestKind.SYNC, self._run_id, flags=flags))

    def end(self) -> None:
        """Let the keeper end, and everything in the sandbox; `close` waits for that."""
        with contextlib.suppress(OSError):  # it has ended, and its end of the socket with it
            # A close alone would not do: a fork of the grader may hold a copy.
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the keeper and with it everything in the sandbox; waits until it has gone."""
        if self._pidfd < 0:
            return
        pidfd, self._pidfd = self._pidfd, -1
        try:
            self.end()
            self._socket.close()
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(_END_TIMEOUT_MS)
        finally:  # an interrupt too leaves nothing behind
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # the application has reaped it
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)

    def _send(
        self,
        kind: wire.RequestKind,
        encoded_plan: bytes,
        fds: Sequence[int],
        *,
        clone_flags: int = 0,
        flags: int = 0,
        watch: bytes = wire.NO_WATCH,
    ) -> None:
        self._run_id += 1
        self._was_stopped = False
        in_fd = len(encoded_plan) > wire.FRAME_MAX
        request = wire.encode_request(
            kind,
            self._run_id,
            flags=flags | wire.PLAN_IN_FD if in_fd else flags,
            plan_bytes=len(encoded_plan),
            clone_flags=clone_flags,
            watch=watch,
        )
        if in_fd:
            memfd = sealed_memfd("plan", encoded_plan)
            try:
                self._send_frame((request,), (memfd, *fds))
            finally:
                os.close(memfd)
        else:
            self._send_frame((request, encoded_plan), fds)

    def _send_frame(self, parts: tuple[bytes, ...], fds: Sequence[int]) -> None:
        rights = array.array("i", fds)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if fds else []
        try:
            self._socket.sendmsg(parts, ancillary)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ProtocolError(_GONE) from error

    def _receive(self, steps: Sequence[Step], opened: list[int] | None = None) -> wire.Reply:
        """Wait for the answer to our last request; `opened` gets the fds that come with it."""
        while True:
            try:
                if opened is None:
                    frame = self._socket.recv(wire.REPLY_MAX)
                else:
                    frame = self._receive_fd(opened)
            except BlockingIOError:  # nothing for a while: SO_RCVTIMEO
                self.look()
                continue
            except TimeoutError as error:
                message = f"the keeper has not answered for {self._socket.gettimeout():g} s"
                raise ProtocolError(message) from error
            except OSError as error:  # it was reset, or is closed as a set-up has failed
                raise ProtocolError(_GONE) from error
            if not frame:
                raise ProtocolError(_GONE)
            reply = wire.decode_reply(frame)
            if reply.run_id != self._run_id:
                raise ProtocolError(_OF_ANOTHER)
            _raise_failure(reply, steps)
            return reply

    def _receive_fd(self, opened: list[int]) -> bytes:
        rights = array.array("i")
        frame, ancillary, _, _ = self._socket.recvmsg(
            wire.REPLY_MAX, socket.CMSG_LEN(rights.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for _, _, fds in ancillary:
            rights.frombytes(fds)
        opened += rights
        return frame


@contextlib.contextmanager
def _sealed(program: str) -> Iterator[str]:
    """Give a path to a sealed copy of a program, which holds for us and for our children."""
    with open(program, "rb") as file:
        fd = sealed_memfd("keeper", file.read())
    try:
        # Out of the way of what posix_spawn puts at the numbers below.
        copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, CONTROL_FD + 1)
    finally:
        os.close(fd)
    try:
        yield f"/proc/self/fd/{copy}"
    finally:
        os.close(copy)


_STOPPED: Final = "the keeper was stopped, by a signal that is not ours, and has been killed"
_OF_ANOTHER: Final = "the keeper answered a request that was not ours"
_GONE: Final = "the keeper has ended: it was killed, or could not go on"


def _file_actions(control: int, stderr: int | None) -> list[tuple[int, ...]]:
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, control, CONTROL_FD)]
    if stderr is not None:
        actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
    null = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1)]
    actions += null  # type: ignore[arg-type]  # an OPEN holds a path
    if stderr is None:
        actions.append((os.POSIX_SPAWN_DUP2, 0, 2))
    return actions


def _raise_failure(reply: wire.Reply, steps: Sequence[Step]) -> None:
    if reply.kind == wire.ReplyKind.REFUSED:
        at = f"step {reply.step}" if reply.step >= 0 else "its header"
        message = f"the keeper refused a request: {at} of the plan is malformed"
        raise ProtocolError(message)
    if reply.kind == wire.ReplyKind.FAILED:
        subject = steps[reply.step].subject if 0 <= reply.step < len(steps) else ""
        raise ChildError(
            ErrorLocation(reply.location),
            reply.error,
            reply.item if reply.item >= 0 else None,
            subject=subject,
            status=reply.status or None,
            detail=Detail(reply.detail),
        )
