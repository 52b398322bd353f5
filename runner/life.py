"""The life of a sandbox: when it is started, thrown away and replaced, and what is tried again.

Written once for all faces. `Life.run` waits for nothing itself: it is a generator that gives
what there is to wait for, and whoever drives it waits as its kind of program does: `drive`
blocks, `runner.aio` lets other tasks run.
"""

from __future__ import annotations

import os
import warnings
from _thread import allocate_lock  # threading's Lock without the rest
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from runner import scarcity, sources
from runner.blueprint import Blueprint, Uses, keep, lend
from runner.box import Box, Program
from runner.config.checks import refuse
from runner.errors import ChildError, ConfigError, SandboxError
from runner.helper import signals_held
from runner.quick import NamedTuple

if TYPE_CHECKING:
    from threading import Lock

    from runner.blueprint import BoxConfig
    from runner.helper import Keeper
    from runner.result import Result
    from runner.streams import Wanted

_T = TypeVar("_T")

MAX_REPEAT: Final = 10_000

# Of the process that has forked us. Kept, so that nothing is closed: it is all in use there.
_INHERITED: Final[list[Box]] = []
# By pid, since one that is inherited may be held for ever.
_SETTLING: Final[dict[int, Lock]] = {}

# An fd: until it is readable; False is sent where it was not for LOOK_S seconds. A function:
# call it, which may take long.
Wait: TypeAlias = int | Callable[[], object]
Work: TypeAlias = Generator[Wait, bool | None, _T]


class Life:
    """Owns the `Box`, made of `config`. One run at a time; `cancel` from any thread.

    Where each box is for one run, that of the next is begun while a program runs, by asking
    another keeper and not waiting for its answer; and so are those of earlier runs ended.
    """

    def __init__(self, config: BoxConfig) -> None:
        self.config = config
        self._once = config.uses is not Uses.MANY
        self._served = False
        self._blueprint: Blueprint | None = None
        self._spare: Box | None = None
        self._ended: list[Box] = []
        self._lock = allocate_lock()
        self._box: Box | None = None
        self._holds_files = False  # that are to stay
        self._running: _Running | None = None
        self._cancelled = False
        self.cancelled_by: Callable[[], bool] | None = None  # asked when a run has started
        self._pid = os.getpid()

    def __del__(self) -> None:
        """End what nobody has closed, as its boxes would, and warn."""
        boxes = (getattr(self, "_box", None), getattr(self, "_spare", None))
        if any(box and box.is_open for box in boxes) and self._pid == os.getpid():
            self.discard()
            message = "a sandbox was not closed: use it in a with statement"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    @property
    def lock(self) -> Lock:
        """What to hold while `start`, `discard` or `run` is at work."""
        self._settle()
        return self._lock

    @property
    def box(self) -> Box | None:
        """What is started, if anything is."""
        self._settle()
        return self._box

    def start(self) -> None:
        """Start it, if it is not."""
        if self._box is None:
            with signals_held(), scarcity.named():
                self._box = self._take_spare() or sources.with_mount_calls(self._make)

    def _make(self, old_mounts: bool) -> Box:  # noqa: FBT001 - called by with_mount_calls
        blueprint = self._blueprint
        if blueprint is None or not blueprint.serves(old_mounts=old_mounts):
            make = lend if self.config.uses is Uses.ONE else Blueprint
            blueprint = make(self.config, old_mounts=old_mounts)
            self._replace_blueprint(blueprint)
        return _started(Box(blueprint, once=self._once))

    def _replace_blueprint(self, blueprint: Blueprint) -> None:
        if self._blueprint is not None:
            self._blueprint.close()
        self._blueprint = blueprint

    def _take_spare(self) -> Box | None:
        spare, self._spare = self._spare, None
        try:
            return None if spare is None else _started(spare)
        except SandboxError:
            return None  # it is made anew, which says what is wrong if anything still is

    def _look_ahead(self) -> None:
        """Begin to make the box of the next run, and wait for the end of earlier ones."""
        with signals_held():
            self._close_ended()
            if self._spare is None and self._blueprint is not None:
                if not self._blueprint.is_current:
                    self._replace_blueprint(self._blueprint.renewed())
                try:
                    self._spare = Box(self._blueprint, once=True)
                except (SandboxError, OSError):
                    self._spare = None  # the next start says why

    def _close_ended(self) -> None:
        while self._ended:
            self._ended.pop().close()

    def discard(self) -> None:
        """End it and all that runs in it; the next run starts it anew."""
        with signals_held():
            spare, self._spare = self._spare, None
            for box in (self._box, spare):
                if box is not None:
                    self._ended.append(box)
            self._box = None
            self._close_ended()
            blueprint = self._blueprint
            if blueprint is not None:
                blueprint.close()
                if self._served:
                    self._blueprint = None
                    keep(blueprint)

    def reset(self) -> None:
        """Leave no file of earlier runs; the sandbox is ended only if it cannot be emptied."""
        box = self._box
        try:
            emptied = box is not None and not self._once and box.reset()
        except BaseException:
            self.discard()
            raise
        if not emptied:
            self.discard()
        self._holds_files = False

    def _retire(self) -> None:
        """End it after its only run, without waiting for that."""
        box, self._box = self._box, None
        if box is not None:
            self._ended.append(box)
            box.end()

    def run(self, program: Program, wanted: Wanted, repeat: int = 1) -> Work[Result]:
        """Run a program to its end, `repeat` times, or until one of the runs is not ok."""
        self._cancelled = False
        if repeat == 1:
            return (yield from self._run_once(program, wanted))
        if type(repeat) is not int or not 0 < repeat <= MAX_REPEAT:
            refuse("repeat", repeat, f"give how often to run it, 1 to {MAX_REPEAT}")
        from runner import repeated  # few repeat

        start = wanted.stdin_start()
        results = [(yield from self._run_once(program, wanted))]
        while results[-1].ok and len(results) < repeat:
            if start is not None:
                os.lseek(start.fd, start.offset, os.SEEK_SET)
            results.append((yield from self._run_once(program, wanted)))
        return repeated.together(results)

    def _run_once(self, program: Program, wanted: Wanted) -> Work[Result]:
        """Run it one time.

        A sandbox that was used before may turn out to be damaged, by what the last run did or
        by somebody who killed its init: it is thrown away, and the program started in another,
        once, if it cannot have started. Not where it held files that were to stay, which the
        program would miss. All else that fails is raised.
        """
        used = self._box is not None or self._spare is not None
        again = used and not self._holds_files
        while True:
            if (box := self._box) is None:
                yield self.start
                continue
            try:
                result = yield from self._run_in(box, program, wanted)
            except GeneratorExit:  # nobody drives us any more
                self.discard()
                raise
            except _NotStarted as failed:
                yield self.discard
                if not again:
                    raise failed.cause from failed.cause.__cause__
                again = False
                continue
            except BaseException as error:
                if not _leaves_all_well(error):
                    # Ours or an interrupt: whatever state it is in, it is not used again.
                    yield self.discard
                raise
            if self._once:
                self._retire()
                self._served = self.config.uses is Uses.ONE
            elif not box.reusable:
                yield self.discard
            return result

    def ping(self, timeout: float) -> Work[bool]:
        """Ask it whether it is alive; one that does not answer in time is thrown away."""
        if (box := self._box) is None:
            return True
        try:
            yield lambda: box.ping(timeout)
        except SandboxError:
            box.keeper.kill()  # it may hang, and would not hear that it is to end
            yield self.discard
            return False
        except BaseException:
            yield self.discard
            raise
        return True

    def cancel(self) -> None:
        """End the run in progress."""
        self._settle()
        self._cancelled = True
        running = self._running
        if running is not None:
            running.keeper.send_kill(running.run_id)

    def _settle(self) -> None:
        """Forget, in a fork of the process that made it, what is that process's.

        Its sandbox is not ours to use or to end, and its lock may have been copied while a
        thread held it that does not exist here. Of several threads the first does it.
        """
        pid = os.getpid()
        if self._pid == pid:
            return
        with _SETTLING.setdefault(pid, allocate_lock()):
            if self._pid == pid:
                return
            self._lock = allocate_lock()
            if self._box is not None:
                _INHERITED.append(self._box)
            if self._spare is not None:
                _INHERITED.append(self._spare)
            _INHERITED.extend(self._ended)
            self._box = self._spare = self._running = self._blueprint = None
            self._ended = []
            self._pid = pid

    def _run_in(self, box: Box, program: Program, wanted: Wanted) -> Work[Result]:
        self._holds_files = self.config.keep_files
        try:
            pending = box.begin(program, wanted)
        except Exception as error:
            if _leaves_all_well(error):
                raise
            raise _NotStarted(scarcity.of(error) or error) from error
        self._running = _Running(box.keeper, pending.run_id)
        try:
            # Before there was anything to cancel.
            if self._cancelled or (self.cancelled_by is not None and self.cancelled_by()):
                box.keeper.send_kill(pending.run_id)
            if self.config.uses is Uses.ONE_EACH:
                yield self._look_ahead
            reply = None
            while reply is None:
                yield from box.output(pending)
                reply = box.hear(pending)
            return box.finish(pending, reply)
        except ChildError as error:
            if error.before_exec and not error.of_the_program:
                raise _NotStarted(error) from error
            raise
        except BaseException:
            # At once; what ends the sandbox may have to wait for its turn.
            box.keeper.send_kill(pending.run_id)
            raise
        finally:
            self._running = None
            if pending.relay is not None:
                pending.relay.close()


def _started(box: Box) -> Box:
    try:
        box.await_start()
    except BaseException:
        box.close()
        raise
    return box


class _Running(NamedTuple):
    keeper: Keeper
    run_id: int


class _NotStarted(Exception):  # noqa: N818 (it never leaves this module)
    """The program has not started: `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


def _leaves_all_well(error: BaseException) -> bool:
    """Tell whether the sandbox is as it was: nothing was sent, or the program could not be."""
    return isinstance(error, ConfigError) or (
        isinstance(error, ChildError) and error.of_the_program
    )


def drive(work: Work[_T]) -> _T:
    """Do the work, blocking."""
    try:
        wait = next(work)
        while True:
            wait = _step(work, wait)
    except StopIteration as done:
        result: _T = done.value
        return result


def _step(work: Work[_T], wait: Wait) -> Wait:
    try:
        if not isinstance(wait, int):
            wait()
    except BaseException as error:  # noqa: BLE001 - the work decides what becomes of it
        return work.throw(error)
    return next(work)  # where it gave an fd, it reads that now, and blocks
