"""A pool with its input and the signals of a command, until all is judged or a signal ends it.

The first SIGINT or SIGTERM drops what waits, what runs may finish; the second ends that too. A
handler may interrupt any line of the main thread, so it only leaves a note; the main thread
waits for notes, and other threads submit, and wait for the workers.
"""

from __future__ import annotations

import functools
import queue
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Final

from runner.judge.jobs import Job
from runner.judge.messages import Output, Refused
from runner.judge.pool import Closed, Pool, cancelled

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Session:
    """Owns a pool for one `run`, which must be called from the main thread."""

    def __init__(
        self, workers: int, on_message: Callable[[Output], None], *, all_tests: bool = False
    ) -> None:
        self._notes: Final[queue.SimpleQueue[int | None]] = queue.SimpleQueue()
        self._errors: Final[list[Exception]] = []
        self._make_pool: Final = functools.partial(
            Pool, workers, on_message, all_tests=all_tests
        )
        self._pool: Pool

    def run(self, jobs: Iterable[Job | Refused]) -> int:
        """Judge them all; give the number of the signal that came before the end, or 0.

        Raises what reading the jobs, or `on_message`, raised: then the rest was dropped.
        """
        old = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            # Not before: its threads outlast an interrupt that nobody catches.
            self._pool = self._make_pool()
            # A daemon: it may be waiting for input that never comes when all else is done.
            threading.Thread(target=self._feed, args=(jobs,), daemon=True).start()
            threading.Thread(target=self._wait).start()
            caught = self._obey_signals()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        if self._errors:
            raise self._errors[0]
        return caught

    def _note(self, number: int, _: object) -> None:
        self._notes.put(number)

    def _obey_signals(self) -> int:
        first = 0
        while (caught := self._notes.get()) is not None:
            if first:
                self._pool.cancel()
            else:
                first = caught
                self._pool.drop()
        return first

    def _feed(self, jobs: Iterable[Job | Refused]) -> None:
        try:
            for job in jobs:
                if isinstance(job, Refused):
                    self._pool.emit(job)
                elif not self._submit(job):
                    return
        except Exception as error:  # noqa: BLE001 (it is raised again by run)
            self._errors.append(error)
        finally:
            self._pool.close()

    def _submit(self, job: Job) -> bool:
        try:
            self._pool.submit(job)
        except Closed:
            self._pool.emit(cancelled(job))
            return False
        return True

    def _wait(self) -> None:
        try:
            self._pool.join()
        except Exception as error:  # noqa: BLE001 (it is raised again by run)
            self._errors.append(error)
        finally:
            self._notes.put(None)
