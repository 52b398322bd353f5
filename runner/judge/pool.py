"""The pool: submissions go in, threads judge them, messages come out.

Each worker is a thread: while a program runs, it waits in the kernel without the GIL. All share
one judge, and its sandboxes. Between whoever submits and the workers is a bounded queue: a full
one makes the former wait. Messages go to one function, which is called by one thread at a time;
until it returns that worker waits too, so a slow reader slows the whole, and nothing piles up.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Final

from runner.errors import ConfigError
from runner.judge.jobs import Job
from runner.judge.judge import Judge, failure
from runner.judge.messages import Cancelled, Output
from runner.judge.sandboxes import JudgingCancelled


class Busy(Exception):  # noqa: N818 (a state, no error)
    """The queue stayed full for as long as the caller wanted to wait."""


class Closed(Exception):  # noqa: N818 (a state, no error)
    """The pool takes no more submissions."""


class Pool:
    """Owns the worker threads. Every method may be called from any thread but a worker's.

    on_message   gets each CaseResult, SubmissionResult and Cancelled, in order of completion
    queue_size   how many submissions may wait, besides those being judged
    """

    def __init__(
        self,
        workers: int,
        on_message: Callable[[Output], None],
        *,
        all_tests: bool = False,
        queue_size: int | None = None,
        make_judge: Callable[[int], Judge] = Judge,
    ) -> None:
        if workers < 1:
            raise ConfigError(f"workers: {workers!r}: a pool has at least one")
        if queue_size is not None and queue_size < 1:
            raise ConfigError(f"queue_size: {queue_size!r}: give at least 1")
        self._on_message: Final = on_message
        self._all_tests: Final = all_tests
        self._queue_size: Final = queue_size or 2 * workers
        self._emitting: Final = threading.Lock()
        self._changed: Final = threading.Condition()  # guards all below
        self._waiting: Final[collections.deque[Job]] = collections.deque()
        self._closed = False
        self._failure: Exception | None = None
        self._working = workers
        self._judge: Final = make_judge(workers)
        self._threads: Final = [threading.Thread(target=self._work) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job, *, timeout: float | None = None) -> None:
        """Queue a submission, waiting while the queue is full.

        Raises Busy after `timeout` seconds, and Closed once no more are taken.
        """
        with self._changed:
            if not self._changed.wait_for(self._has_room, timeout):
                raise Busy
            if self._closed:
                raise Closed
            self._waiting.append(job)
            self._changed.notify_all()

    def emit(self, message: Output) -> None:
        """Pass a message to `on_message`, in turn with those of the workers.

        What `on_message` raises ends the pool, and is raised again by `join`.
        """
        with self._emitting:
            if self._failure is not None:
                return
            try:
                self._on_message(message)
            except Exception as error:  # noqa: BLE001 (it is the caller's function)
                self._fail(error)

    def close(self) -> None:
        """Take no more submissions; those already queued are judged."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drop(self) -> None:
        """Close, and give up all that waits: each gets a Cancelled. What runs goes on."""
        self.close()
        with self._changed:
            dropped = list(self._waiting)
            self._waiting.clear()
        for job in dropped:
            self.emit(cancelled(job))

    def cancel(self) -> None:
        """Drop, end what runs, and wait for the workers to be gone."""
        self.drop()
        self._judge.cancel()
        for thread in self._threads:
            thread.join()

    def join(self) -> None:
        """Wait until the pool is closed and its workers are gone; raises what broke it."""
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _has_room(self) -> bool:
        return self._closed or len(self._waiting) < self._queue_size

    def _take(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            job = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return job

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._waiting.clear()
        self.close()

    def _work(self) -> None:
        try:
            while job := self._take():
                self.emit(self._judged(job))
        finally:
            with self._changed:
                self._working -= 1
                is_last = self._working == 0
            if is_last:
                self._judge.close()

    def _judged(self, job: Job) -> Output:
        try:
            return self._judge.judge(
                job.submission, job.problem, all_tests=self._all_tests, on_test=self.emit
            )
        except JudgingCancelled:
            return cancelled(job)
        except Exception as error:  # noqa: BLE001 (all of them: ours, so IE)
            return failure(job.submission, job.problem, error)


def cancelled(job: Job) -> Cancelled:
    """Give the message for a submission that is not judged."""
    return Cancelled(id=job.submission.id, problem=job.submission.problem)
