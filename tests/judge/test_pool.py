"""The pool: back-pressure, order, crashes, giving up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from runner.errors import ConfigError
from runner.judge.jobs import Job
from runner.judge.messages import Cancelled, CaseResult, Output, Submission, SubmissionResult
from runner.judge.pool import Busy, Closed, Pool
from runner.judge.problem import Problem
from runner.judge.sandboxes import JudgingCancelled
from runner.judge.verdict import Verdict

WAIT = 10.0  # seconds; only a failing test waits that long
MakeJob = Callable[[str, str], Job]


class FakeJudge:
    """Judges by the source: "hold" waits for `release`, "crash" raises."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.started = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self.made_for: list[int] = []
        self.closed = 0

    def __call__(self, workers: int) -> FakeJudge:
        self.made_for.append(workers)
        return self

    def judge(
        self, submission: Submission, problem: Problem, **options: object
    ) -> SubmissionResult:
        self.started.release()
        on_test = options["on_test"]
        assert callable(on_test)
        if submission.source == "crash":
            raise RuntimeError("a bug")
        if submission.source == "hold":
            while not self.release.wait(0.01):
                if self.cancelled.is_set():
                    raise JudgingCancelled
        on_test(CaseResult(id=submission.id, test="01", verdict=Verdict.AC, status="ok"))
        return SubmissionResult(
            id=submission.id, problem=problem.name, language="fake", verdict=Verdict.AC
        )

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def judge() -> FakeJudge:
    return FakeJudge()


@pytest.fixture
def job(
    make_problem: Callable[..., Problem], submission: Callable[..., Submission]
) -> Callable[[str, str], Job]:
    problem = make_problem({"01": ("", "")})
    return lambda name, source: Job(submission(source, name=name), problem)


@contextmanager
def pool_of(
    judge: FakeJudge, workers: int, got: list[Output], **options: int
) -> Iterator[Pool]:
    pool = Pool(workers, got.append, make_judge=judge, **options)  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        judge.release.set()
        pool.cancel()


def names(got: list[Output], kind: type) -> list[str | None]:
    return [message.id for message in got if isinstance(message, kind)]


def test_pool_judges_all_and_tests_come_before_their_result(
    judge: FakeJudge, job: MakeJob
) -> None:
    got: list[Output] = []
    with pool_of(judge, 1, got) as pool:
        for name in "abc":
            pool.submit(job(name, ""))
        pool.close()
        pool.join()
    assert [(type(m).__name__, m.id) for m in got] == [
        (kind, name) for name in "abc" for kind in ("CaseResult", "SubmissionResult")
    ]
    assert (judge.made_for, judge.closed) == ([1], 1)


def test_submit_to_a_full_queue_is_busy_and_has_room_again_later(
    judge: FakeJudge, job: MakeJob
) -> None:
    got: list[Output] = []
    with pool_of(judge, 1, got, queue_size=2) as pool:
        pool.submit(job("running", "hold"))
        assert judge.started.acquire(timeout=WAIT)
        pool.submit(job("a", ""))
        pool.submit(job("b", ""))
        with pytest.raises(Busy):
            pool.submit(job("c", ""), timeout=0.05)
        waiter = threading.Thread(target=pool.submit, args=(job("c", ""),))
        waiter.start()
        waiter.join(0.05)
        assert waiter.is_alive()  # it waits, without a timeout
        judge.release.set()
        waiter.join(WAIT)
        pool.close()
        pool.join()
    assert names(got, SubmissionResult) == ["running", "a", "b", "c"]


def test_submit_waiting_for_room_ends_when_the_pool_closes(
    judge: FakeJudge, job: MakeJob
) -> None:
    raised: list[Exception] = []

    def submit() -> None:
        try:
            pool.submit(job("b", ""))
        except Closed as error:
            raised.append(error)

    with pool_of(judge, 1, [], queue_size=1) as pool:
        pool.submit(job("running", "hold"))
        assert judge.started.acquire(timeout=WAIT)
        pool.submit(job("a", ""))
        waiter = threading.Thread(target=submit)
        waiter.start()
        pool.close()
        waiter.join(WAIT)
    assert len(raised) == 1


def test_results_come_in_order_of_completion(judge: FakeJudge, job: MakeJob) -> None:
    got: list[Output] = []
    with pool_of(judge, 2, got) as pool:
        pool.submit(job("slow", "hold"))
        assert judge.started.acquire(timeout=WAIT)
        pool.submit(job("fast", ""))
        assert judge.started.acquire(timeout=WAIT)
        while not names(got, SubmissionResult):
            threading.Event().wait(0.01)
        judge.release.set()
        pool.close()
        pool.join()
    assert names(got, SubmissionResult) == ["fast", "slow"]


def test_crash_of_a_judging_is_ie_and_the_next_is_judged(
    judge: FakeJudge, job: MakeJob
) -> None:
    got: list[Output] = []
    with pool_of(judge, 1, got) as pool:
        pool.submit(job("bad", "crash"))
        pool.submit(job("good", ""))
        pool.close()
        pool.join()
    bad, *_, good = got
    assert isinstance(bad, SubmissionResult)
    assert bad.verdict is Verdict.IE
    assert bad.error == {"step": "judge", "type": "RuntimeError", "message": "a bug"}
    assert isinstance(good, SubmissionResult)
    assert good.verdict is Verdict.AC
    assert (judge.made_for, judge.closed) == ([1], 1)


def test_judge_that_cannot_be_made_leaves_no_thread() -> None:
    def fail(workers: int) -> FakeJudge:
        raise ConfigError(f"no languages for {workers}")

    before = threading.active_count()
    with pytest.raises(ConfigError, match="no languages for 3"):
        Pool(3, print, make_judge=fail)  # type: ignore[arg-type,return-value]
    assert threading.active_count() == before


def test_drop_cancels_what_waits_and_finishes_what_runs(judge: FakeJudge, job: MakeJob) -> None:
    got: list[Output] = []
    with pool_of(judge, 1, got, queue_size=2) as pool:
        pool.submit(job("running", "hold"))
        assert judge.started.acquire(timeout=WAIT)
        pool.submit(job("a", ""))
        pool.submit(job("b", ""))
        pool.drop()
        assert got == [Cancelled(id="a", problem="sum"), Cancelled(id="b", problem="sum")]
        with pytest.raises(Closed):
            pool.submit(job("c", ""))
        judge.release.set()
        pool.join()
    assert names(got, SubmissionResult) == ["running"]


def test_cancel_ends_what_runs_too(judge: FakeJudge, job: MakeJob) -> None:
    got: list[Output] = []
    with pool_of(judge, 2, got) as pool:
        pool.submit(job("running", "hold"))
        assert judge.started.acquire(timeout=WAIT)
        pool.cancel()
        pool.join()
    assert got == [Cancelled(id="running", problem="sum")]
    assert (judge.made_for, judge.closed) == ([2], 1)


def test_failing_on_message_ends_the_pool_and_is_raised_by_join(
    judge: FakeJudge, job: MakeJob
) -> None:
    def fail(_: Output) -> None:
        raise BrokenPipeError("gone")

    pool = Pool(1, fail, make_judge=judge, queue_size=5)  # type: ignore[arg-type]
    for name in "abc":
        pool.submit(job(name, ""))
    with pytest.raises(BrokenPipeError, match="gone"):
        pool.join()
    with pytest.raises(Closed):
        pool.submit(job("d", ""))


@pytest.mark.parametrize(
    ("workers", "size", "error"),
    [
        (0, None, "workers: 0: a pool has at least one"),
        (1, 0, "queue_size: 0: give at least 1"),
    ],
)
def test_pool_of_no_size_is_refused(workers: int, size: int | None, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pool(workers, print, queue_size=size)
    assert str(caught.value) == error
