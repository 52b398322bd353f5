"""The worker pool's command: submissions → `runner.judge` → messages.

    worker.py examples/voucher            judge a problem's submissions
    worker.py --problems examples < in    judge submissions as they come, one JSON line each

`judge` and `Pool` are the same for a program that imports this module.
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until there is something to drop, Ctrl-C simply ends it, and prints no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from runner.errors import ConfigError
from runner.judge import jobs as sources
from runner.judge import languages, messages
from runner.judge.arguments import EXIT_FAILURE, Parser, worker_count
from runner.judge.jobs import Job
from runner.judge.judge import Judge, OnTest, ignore_test
from runner.judge.messages import Output, Refused, Submission, SubmissionResult
from runner.judge.pool import Busy, Closed, Pool
from runner.judge.session import Session
from runner.judge.verdict import Verdict
from runner.units import KiB

__all__ = ["Busy", "Closed", "Pool", "judge", "main"]

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


class _Writer:
    """Writes messages to an fd, and remembers whether one of them told of our own failure."""

    def __init__(self, fd: int, form: messages.Format) -> None:
        self._fd: Final = fd
        self._encode: Final = messages.encoder(form)
        self.failed = False

    def __call__(self, message: Output) -> None:
        if isinstance(message, Refused) or (
            isinstance(message, SubmissionResult) and message.verdict is Verdict.IE
        ):
            self.failed = True
        left = memoryview(self._encode(message))
        while left:
            left = left[os.write(self._fd, left) :]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, give its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--demo" in arguments:
        from runner.judge import demo

        arguments.remove("--demo")
        return demo.main(arguments)
    options = _parse(arguments)
    write = _Writer(sys.stdout.fileno(), options.format)
    try:
        jobs = _find_jobs(options)
        caught = Session(options.jobs, write, all_tests=options.all_tests).run(jobs)
    except (ConfigError, OSError) as error:
        print(f"worker.py: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:  # before the session took the signal over
        return 128 + signal.SIGINT
    if caught:
        return 128 + caught
    return EXIT_FAILURE if write.failed else 0


def _find_jobs(options: argparse.Namespace) -> Iterable[Job | Refused]:
    known = languages.load()
    if options.folders:
        return [job for path in options.folders for job in sources.of_path(path, known)]
    blocks = _read_blocks(_open(options.input))
    directory = sources.ProblemDirectory(options.problems)
    return sources.of_stream(blocks, options.format, directory=directory, languages=known)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
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
        type=worker_count,
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


def _open(name: str | None) -> int:
    return sys.stdin.fileno() if name in {None, "-"} else os.open(name or "", os.O_RDONLY)


def _read_blocks(fd: int) -> Iterator[bytes]:
    """Read as data comes; without Python's buffer, whose lock a daemon thread must not hold."""
    while block := os.read(fd, _BLOCK_BYTES):
        yield block


if __name__ == "__main__":
    sys.exit(main())
