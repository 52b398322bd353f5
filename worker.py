"""The worker pool's command: submissions → `runner.judge` → messages.

    worker.py examples/voucher            judge a problem's submissions
    worker.py --problems examples < in    judge submissions as they come, one JSON line each

`judge` and `Pool` are the same for a program that imports this module.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NoReturn

from runner.errors import ConfigError
from runner.judge import jobs as sources
from runner.judge import languages, messages
from runner.judge.jobs import Job
from runner.judge.judge import Judge, OnTest, ignore_test
from runner.judge.messages import Output, Refused, Submission, SubmissionResult
from runner.judge.pool import Busy, Closed, Pool, cancelled
from runner.judge.verdict import Verdict
from runner.units import KiB

__all__ = ["Busy", "Closed", "Pool", "judge", "main"]

EXIT_FAILURE: Final = 125
_BLOCK_BYTES: Final = 64 * KiB


def judge(
    submission: Submission,
    *,
    problems: str | os.PathLike[str] = ".",
    all_tests: bool = False,
    on_test: OnTest = ignore_test,
) -> SubmissionResult:
    """Judge one submission here and now, in sandboxes made for it alone.

    `problems` is the directory in which its problem's folder lies. Raises ConfigError.
    """
    problem = sources.ProblemDirectory(Path(problems)).find(submission.problem)
    with closing(Judge()) as one:
        return one.judge(submission, problem, all_tests=all_tests, on_test=on_test)


class Command:
    """The command: input → pool → output, until all is judged or a signal says otherwise.

    The first SIGINT or SIGTERM drops what waits and lets what runs finish; the second ends that
    too. A handler may interrupt any line of the main thread, so it only leaves a note; the main
    thread waits for notes, and others read the input and wait for the workers.
    """

    def __init__(self, workers: int, form: messages.Format, *, all_tests: bool) -> None:
        self._encode: Final = messages.encoder(form)
        self._notes: Final[queue.SimpleQueue[int | None]] = queue.SimpleQueue()
        self._failed = False
        self._pool: Final = Pool(workers, self._write, all_tests=all_tests)

    def run(self, jobs: Iterable[Job | Refused]) -> int:
        """Judge them all, give the exit status."""
        old = {
            number: signal.signal(number, lambda caught, _: self._notes.put(caught))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            # A daemon: it may be waiting for input that never comes when all else is done.
            threading.Thread(target=self._feed, args=(jobs,), daemon=True).start()
            threading.Thread(target=self._wait).start()
            caught = self._obey_signals()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        if caught:
            return 128 + caught
        return EXIT_FAILURE if self._failed else 0

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
                else:
                    self._submit(job)
        except Closed:
            pass  # by a signal: what was read but not queued has had its message
        except (ConfigError, OSError) as error:
            self._complain(error)
        finally:
            self._pool.close()

    def _submit(self, job: Job) -> None:
        try:
            self._pool.submit(job)
        except Closed:
            self._pool.emit(cancelled(job))
            raise

    def _wait(self) -> None:
        try:
            self._pool.join()
        except Exception as error:  # noqa: BLE001 (whatever it is, no traceback for the user)
            self._complain(error)
        finally:
            self._notes.put(None)

    def _write(self, message: Output) -> None:
        if isinstance(message, Refused) or getattr(message, "verdict", None) is Verdict.IE:
            self._failed = True
        left = memoryview(self._encode(message))
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]

    def _complain(self, error: Exception) -> None:
        self._failed = True
        print(f"worker.py: {error}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_FAILURE, f"{self.format_usage()}{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, give its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--demo" in arguments:
        from runner.judge import demo

        arguments.remove("--demo")
        return demo.main(arguments)
    options = _parse(arguments)
    try:
        known = languages.load()
        jobs: Iterable[Job | Refused]
        if options.folders:
            jobs = [job for path in options.folders for job in sources.of_path(path, known)]
        else:
            directory = sources.ProblemDirectory(options.problems)
            blocks = _read_blocks(_open(options.input))
            jobs = sources.of_stream(
                blocks, options.format, directory=directory, languages=known
            )
        return Command(options.jobs, options.format, all_tests=options.all_tests).run(jobs)
    except (ConfigError, OSError) as error:
        print(f"worker.py: {error}", file=sys.stderr)
        return EXIT_FAILURE


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="worker.py",
        description="Judge submissions; writes a message for each test and each submission.",
        epilog="Exit status: 0 all judged; 125 we failed, at least for one; 128+N on signal N.",
    )
    add = parser.add_argument
    add(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="problem folder, or a submission",
    )
    add(
        "-j",
        "--jobs",
        type=_count,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="workers; default: one for each core",
    )
    add("--all-tests", action="store_true", help="go on after the first test that fails")
    add("--input", metavar="FILE", help="read submission messages; default: -, stdin")
    add(
        "--format", choices=("jsonl", "msgpack"), default="jsonl", help="of messages, both ways"
    )
    add(
        "--problems",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where the problems lie that messages name; default: here",
    )
    add("--demo", action="store_true", help="judge the examples; more: --demo --help")
    options = parser.parse_args(arguments)
    if options.folders and options.input is not None:
        parser.error(f"--input {options.input}: not together with a FOLDER")
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 1 to 1024")
    return int(text)


def _open(name: str | None) -> int:
    return sys.stdin.fileno() if name in {None, "-"} else os.open(name or "", os.O_RDONLY)


def _read_blocks(fd: int) -> Iterator[bytes]:
    """Read as data comes; without Python's buffer, whose lock a daemon thread must not hold."""
    while block := os.read(fd, _BLOCK_BYTES):
        yield block


if __name__ == "__main__":
    sys.exit(main())
