"""The pool: submissions go in, threads judge them, messages come out.

Each worker is a thread with its own sandboxes and, where there are enough, its own core: while
a program runs, its thread waits in the kernel without the GIL. Between whoever submits and the
workers is a bounded queue: a full one makes the former wait. Messages go to one function, which
is called by one thread at a time; until it returns that worker waits too, so a slow reader
slows the whole, and nothing piles up.
"""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable
from typing import Final

from runner.errors import ConfigError
from runner.judge.box import JudgingCancelled
from runner.judge.jobs import Job
from runner.judge.judge import Judge, failure
from runner.judge.messages import Cancelled, Output

_CANCEL_AGAIN_S: Final = 0.05


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
        make_judge: Callable[[], Judge] = Judge,
    ) -> None:
        if workers < 1:
            raise ConfigError(f"workers: {workers!r}: a pool has at least one")
        if queue_size is not None and queue_size < 1:
            raise ConfigError(f"queue_size: {queue_size!r}: give at least 1")
        self._on_message: Final = on_message
        self._all_tests: Final = all_tests
        self._queue_size: Final = queue_size or 2 * workers
        self._make_judge: Final = make_judge
        self._emitting: Final = threading.Lock()
        self._changed: Final = threading.Condition()  # guards all below
        self._waiting: Final[collections.deque[Job]] = collections.deque()
        self._judges: Final[set[Judge]] = set()
        self._closed = False
        self._failure: Exception | None = None
        cores = sorted(os.sched_getaffinity(0))
        pinned = len(cores) >= workers
        self._threads: Final = [
            threading.Thread(target=self._work, args=(cores[i] if pinned else None,))
            for i in range(workers)
        ]
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
        for thread in self._threads:
            while thread.is_alive():
                with self._changed:
                    running = list(self._judges)
                for one in running:
                    one.cancel()  # again and again: it misses a run that is about to start
                thread.join(_CANCEL_AGAIN_S)

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

    def _work(self, core: int | None) -> None:
        try:
            if core is not None:
                os.sched_setaffinity(0, {core})  # of this thread; its sandboxes inherit it
            self._judge_all()
        except Exception as error:  # noqa: BLE001 (it is raised again by join)
            self._fail(error)

    def _judge_all(self) -> None:
        one: Judge | None = None
        while job := self._take():
            try:
                one = one or self._add_judge()
                self.emit(self._judge(one, job))
            except Exception as error:  # noqa: BLE001, PERF203 (all of them: ours, so IE)
                self.emit(failure(job.submission, job.problem, error))
                self._remove_judge(one)
                one = None
        self._remove_judge(one)

    def _judge(self, one: Judge, job: Job) -> Output:
        try:
            return one.judge(
                job.submission, job.problem, all_tests=self._all_tests, on_test=self.emit
            )
        except JudgingCancelled:
            return cancelled(job)

    def _add_judge(self) -> Judge:
        one = self._make_judge()
        with self._changed:
            self._judges.add(one)
        return one

    def _remove_judge(self, one: Judge | None) -> None:
        if one is None:
            return
        with self._changed:
            self._judges.discard(one)
        one.close()


def cancelled(job: Job) -> Cancelled:
    """Give the message for a submission that is not judged."""
    return Cancelled(id=job.submission.id, problem=job.submission.problem)
