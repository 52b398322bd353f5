"""What becomes of a sandbox: with boxes that fail as they are told to, and start nothing."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from runner import ChildError, ConfigError, ErrorLocation, HostError, ProtocolError
from runner import life as lives
from runner.blueprint import Uses
from runner.life import Life, Work, drive

GONE = ProtocolError("gone")
CLEAN = ChildError(ErrorLocation.CLEAN, errno.EINVAL)
NO_PROGRAM = ChildError(ErrorLocation.EXECVE, errno.ENOENT)
INIT_DIED = ChildError(ErrorLocation.INIT, errno.ECHILD)
BAD = ConfigError("stdin: no such file")
UNABLE = HostError("no controller")


class FakeBox:
    """Takes from `script`, for each run, what begin and finish do: an exception or a value."""

    made: list[FakeBox]
    script: list[tuple[object, object]]
    reusable = True

    def __init__(self, blueprint: FakeBlueprint, *, once: bool) -> None:
        del once
        assert isinstance(blueprint, FakeBlueprint)
        self.made.append(self)
        self.told_to_end = False
        self.closed = False
        self.kills: list[int] = []
        self.keeper = self
        self.sent = 0

    def fileno(self) -> int:
        return 7

    def send_kill(self, run_id: int) -> None:
        self.kills.append(run_id)

    def begin(self, *_: object) -> FakeBox:
        self.sent += 1
        self.begun, self.ended = self.script.pop(0)
        result_of(self.begun)
        return self

    @property
    def run_id(self) -> int:
        return self.sent

    def hear(self, pending: object) -> object:
        assert pending is self
        return self

    def finish(self, pending: object, reply: object) -> object:
        assert pending is reply is self
        return result_of(self.ended)

    relay = None

    def output(self, pending: object) -> Iterator[int]:
        assert pending is self
        yield self.fileno()

    def await_start(self) -> None:
        """It is there at once."""

    def end(self) -> None:
        self.told_to_end = True

    def close(self) -> None:
        self.closed = True

    @property
    def is_open(self) -> bool:
        return not self.closed


class FakeBlueprint:
    is_current = True

    def __init__(self, _config: object, *, old_mounts: bool) -> None:
        assert not old_mounts

    def serves(self, *, old_mounts: bool) -> bool:
        return not old_mounts

    def close(self) -> None:
        """It keeps nothing."""


def result_of(given: object) -> object:
    if isinstance(given, BaseException):
        raise given
    return given


def config(*, keep_files: bool = False, uses: Uses = Uses.MANY) -> Any:  # noqa: ANN401 - what of it is looked at
    return SimpleNamespace(keep_files=keep_files, uses=uses)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBox.made, FakeBox.script, FakeBox.reusable = [], [], True
    monkeypatch.setattr(lives, "Box", FakeBox)
    monkeypatch.setattr(lives, "Blueprint", FakeBlueprint)


@pytest.fixture
def life(fakes: None) -> Iterator[Life]:
    del fakes
    made = Life(config())
    yield made
    made.discard()


def work(life: Life) -> Work[Any]:
    return life.run(None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("used", "outcomes", "result", "boxes"),
    [
        # Fails before the program is started: another, once, if it is not the sandbox's first.
        (True, [(GONE, None), (None, 2)], 2, "closed open"),
        (True, [(None, CLEAN), (None, 2)], 2, "closed open"),
        (True, [(OSError(errno.ENODEV, "cgroup"), None), (None, 2)], 2, "closed open"),
        (True, [(GONE, None), (GONE, None)], GONE, "closed closed"),
        (True, [(GONE, None), (None, CLEAN)], CLEAN, "closed closed"),
        (False, [(GONE, None)], GONE, "closed"),
        (False, [(None, CLEAN)], CLEAN, "closed"),
        # May have started: ours, and never started twice.
        (True, [(None, GONE)], GONE, "closed"),
        (True, [(None, INIT_DIED)], INIT_DIED, "closed"),
        (True, [(None, KeyboardInterrupt())], KeyboardInterrupt, "closed"),
        # The caller's or the program's fault: the sandbox is as it was.
        (True, [(BAD, None)], BAD, "open"),
        (True, [(None, NO_PROGRAM)], NO_PROGRAM, "open"),
        (True, [(None, 2)], 2, "open"),
    ],
)
def test_run_is_tried_again_only_where_nothing_can_have_started(
    life: Life, used: bool, outcomes: list[tuple[object, object]], result: object, boxes: str
) -> None:
    FakeBox.script = [(None, 1), *outcomes] if used else [*outcomes]
    if used:
        assert drive(work(life)) == 1
    if isinstance(result, int):
        assert drive(work(life)) == result
    else:
        kind = result if isinstance(result, type) else type(result)
        with pytest.raises(kind) as caught:
            drive(work(life))
        assert result in (kind, caught.value)
    assert FakeBox.script == []
    assert " ".join("closed" if box.closed else "open" for box in FakeBox.made) == boxes


def test_run_that_would_miss_files_that_were_to_stay_is_not_tried_again(life: Life) -> None:
    life.config = config(keep_files=True)
    FakeBox.script = [(None, 1), (GONE, None), (None, 3)]
    assert drive(work(life)) == 1
    with pytest.raises(type(GONE)):
        drive(work(life))
    assert drive(work(life)) == 3
    assert [box.closed for box in FakeBox.made] == [True, False]


def test_work_gives_what_to_wait_for_in_turn(life: Life) -> None:
    FakeBox.script = [(None, 1), (None, 2)]
    first = work(life)
    start = next(first)
    assert not isinstance(start, int)
    assert FakeBox.made == []
    start()
    assert next(first) == 7
    with pytest.raises(StopIteration) as done:
        next(first)
    assert done.value.value == 1
    assert next(work(life)) == 7


def test_sandbox_that_cannot_be_put_back_is_ended_after_its_run(life: Life) -> None:
    FakeBox.reusable = False
    FakeBox.script = [(None, 1), (None, 2)]
    assert (drive(work(life)), drive(work(life))) == (1, 2)
    assert [box.closed for box in FakeBox.made] == [True, True]


def test_interrupt_while_the_program_runs_kills_it_before_the_sandbox_is_ended(
    life: Life,
) -> None:
    FakeBox.script = [(None, 1)]
    run = work(life)
    start = next(run)
    assert not isinstance(start, int)
    start()
    next(run)
    end = run.throw(TimeoutError())
    assert not isinstance(end, int)
    (box,) = FakeBox.made
    assert (box.kills, box.closed) == ([1], False)
    end()
    with pytest.raises(TimeoutError):
        next(run)
    assert box.closed


def test_work_that_nobody_goes_on_with_ends_the_sandbox(life: Life) -> None:
    FakeBox.script = [(None, 1)]
    run = work(life)
    start = next(run)
    assert not isinstance(start, int)
    start()
    next(run)
    run.close()
    assert FakeBox.made[0].closed


def test_cancel_before_the_program_is_sent_is_not_lost(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(self: FakeBox, *_: object) -> FakeBox:
        life.cancel()
        return self

    FakeBox.script = [(None, 1)]
    drive(work(life))
    monkeypatch.setattr(FakeBox, "begin", begin)
    drive(work(life))
    assert FakeBox.made[0].kills == [1]


def in_fork(check: Callable[[], bool]) -> int:
    """Give the exit code of a fork: 0 where the check holds."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_fork_makes_a_sandbox_of_its_own_even_while_a_thread_holds_the_lock(
    life: Life,
) -> None:
    FakeBox.script = [(None, 1), (None, 2)]
    drive(work(life))
    parents = FakeBox.made[0]

    def check() -> bool:
        with life.lock:
            ours = drive(work(life))
        life.discard()
        return ours == 2 and not parents.closed and FakeBox.made[1].closed

    with life.lock:
        assert in_fork(check) == 0
    assert life.box is parents


def test_fork_makes_one_lock_whichever_threads_ask_for_it_first(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a server that was forked, whose first requests come at once."""
    make = lives.allocate_lock

    def make_slowly() -> object:
        time.sleep(0.05)
        return make()

    def check() -> bool:
        monkeypatch.setattr(lives, "allocate_lock", make_slowly)
        found: list[object] = []
        threads = [threading.Thread(target=lambda: found.append(life.lock)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(found) == 4 and len(set(map(id, found))) == 1

    assert in_fork(check) == 0


def test_sandbox_that_is_dropped_warns_but_not_in_a_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeBox.made, FakeBox.script = [], [(None, 1)]
    monkeypatch.setattr(lives, "Box", FakeBox)
    monkeypatch.setattr(lives, "Blueprint", FakeBlueprint)
    dropped = Life(config())
    drive(work(dropped))

    def check() -> bool:
        nonlocal dropped
        with pytest.MonkeyPatch.context() as patch:
            warned: list[object] = []
            patch.setattr("warnings.warn", lambda *given, **_: warned.append(given))
            del dropped
            gc.collect()
        return warned == []

    assert in_fork(check) == 0
    dropping = [dropped]
    del dropped
    with pytest.warns(ResourceWarning, match="a sandbox was not closed"):
        dropping.clear()


@pytest.fixture
def once(fakes: None) -> Iterator[Life]:
    """One that gives each run a box of its own."""
    del fakes
    made = Life(config(uses=Uses.ONE_EACH))
    yield made
    made.discard()


def test_box_for_one_run_is_begun_while_the_run_before_goes_on(once: Life) -> None:
    FakeBox.script = [(None, 1), (None, 2)]
    runs = work(once)
    assert next(runs) == once.start
    once.start()
    look_ahead = next(runs)
    assert callable(look_ahead)
    look_ahead()
    assert [box.sent for box in FakeBox.made] == [1, 0]
    assert next(runs) == 7  # only then is the program waited for
    with pytest.raises(StopIteration) as ended:
        next(runs)
    assert ended.value.value == 1
    assert once.box is None
    first = FakeBox.made[0]
    assert (first.told_to_end, first.closed) == (True, False)  # nobody waits for its end
    assert drive(work(once)) == 2
    assert first.closed
    assert [box.sent for box in FakeBox.made] == [1, 1, 0]
    once.discard()
    assert all(box.closed for box in FakeBox.made)


def test_box_that_was_begun_and_does_not_start_is_made_anew(
    once: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeBox.script = [(None, 1), (None, 2)]
    assert drive(work(once)) == 1
    spare = FakeBox.made[1]
    monkeypatch.setattr(spare, "await_start", lambda: result_of(GONE))
    assert drive(work(once)) == 2
    assert (spare.closed, spare.sent) == (True, 0)
    assert len(FakeBox.made) == 4


def test_box_that_cannot_be_begun_is_the_next_runs_failure_and_not_this_ones(
    once: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeBox.script = [(None, 1), (None, 2)]
    runs = work(once)
    next(runs)
    once.start()
    look_ahead = next(runs)
    assert callable(look_ahead)

    def unable(*_: object, **_options: object) -> None:
        raise UNABLE

    with monkeypatch.context() as context:
        context.setattr(FakeBox, "__init__", unable)
        look_ahead()
        next(runs)
        with pytest.raises(StopIteration) as ended:
            next(runs)
        assert ended.value.value == 1
        with pytest.raises(HostError):
            drive(work(once))
    assert drive(work(once)) == 2


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The blueprints that were given back."""
    given: list[object] = []
    monkeypatch.setattr(lives, "keep", given.append)
    monkeypatch.setattr(lives, "lend", FakeBlueprint)
    return given


@pytest.mark.usefixtures("fakes")
def test_box_of_a_sandbox_for_one_run_has_no_next_and_its_blueprint_is_kept(
    kept: list[object],
) -> None:
    only = Life(config(uses=Uses.ONE))
    FakeBox.script = [(None, 1)]
    assert drive(work(only)) == 1
    assert [box.told_to_end for box in FakeBox.made] == [True]
    assert kept == []  # its groups are not back yet
    only.discard()
    assert [type(blueprint) for blueprint in kept] == [FakeBlueprint]
    only.discard()
    assert len(kept) == 1


@pytest.mark.usefixtures("fakes")
def test_blueprint_of_a_run_that_failed_is_not_kept(kept: list[object]) -> None:
    """It may be what is wrong: what was seen of the host, for instance."""
    only = Life(config(uses=Uses.ONE))
    FakeBox.script = [(None, ProtocolError("gone"))]
    with pytest.raises(ProtocolError):
        drive(work(only))
    only.discard()
    assert kept == []


def test_spare_box_of_a_parent_is_left_alone_in_its_fork(once: Life) -> None:
    FakeBox.script = [(None, 1)]
    assert drive(work(once)) == 1
    pid = os.fork()
    if pid == 0:
        with once.lock:
            once.discard()
        os._exit(any(box.closed for box in FakeBox.made))
    assert os.waitpid(pid, 0)[1] == 0
    once.discard()
    assert [box.closed for box in FakeBox.made] == [True, True]
