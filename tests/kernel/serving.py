"""A server in a process of its own, whose processes, groups and files can be found by its mark.

The mark is a word that is in the command lines of the server, of its sandboxes' helpers, by
their name, and of the programs that are to be found.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from runner import Sandbox

ROOT = Path(__file__).parents[2]
T = TypeVar("T")
PATIENCE = 30  # seconds for what takes one, where it may take its time


def until(condition: Callable[[], T]) -> T:
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


@contextlib.contextmanager
def ending(*pids: int) -> Iterator[None]:
    """See that these processes end, in the block or soon after; whoever has their pids then."""
    with contextlib.ExitStack() as stack:
        fds = {pid: os.pidfd_open(pid) for pid in pids}
        for fd in fds.values():
            stack.callback(os.close, fd)
        yield
        for pid, fd in fds.items():
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            assert poll.poll(PATIENCE * 1000), f"{pid} of {pids}"


def processes(mark: str) -> dict[int, str]:
    """Give the command lines of all processes that have the mark there, by their pid."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if mark in line and int(path.parent.name) != os.getpid():
                found[int(path.parent.name)] = line
    return found


def parent_of(pid: int) -> int:
    """Give the parent's pid; 0 where the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def groups_of(pids: set[int]) -> set[str]:
    """Give the cgroups that these processes made."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    roots = [words[1] for words in map(str.split, lines) if words[2].startswith("cgroup")]
    return {
        f"{directory}/{name}"
        for root in roots
        for directory, names, _ in os.walk(root)
        for name in names
        if (made := re.fullmatch(r"run-sandboxed\.\d+\.(\d+)\.\d+\.\d+", name))
        and int(made[1]) in pids
    }


class Running(NamedTuple):
    """The pids of a program, of its sandbox's helper, and of whose sandbox that is."""

    program: int
    keeper: int
    worker: int


class Server:
    """A Python program that serves: `python -m` with these words, in a directory of its own."""

    def __init__(
        self, words: Sequence[str], *, directory: Path, mark: str, fds: Sequence[int] = ()
    ) -> None:
        self.mark = mark
        self.seen: set[int] = set()
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=directory,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "PYTHONWARNINGS": "",
                    "TMPDIR": str(self.temporary),
                    "MARK": mark,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
            )

    def look(self) -> dict[int, str]:
        """Give its processes, those of its sandboxes too, and remember their pids."""
        found = processes(self.mark)
        self.seen |= found.keys()
        return found

    def running(self, text: str) -> Running:
        """Wait for a program that runs in one of its sandboxes."""

        def found() -> Running | None:
            lines = self.look()
            for pid, line in lines.items():
                if line.startswith("sh -c") and text in line:
                    keeper = parent_of(pid)
                    # Else it is a copy of the shell's, which has not executed anything yet.
                    if lines.get(keeper, "").startswith("keeper"):
                        return Running(pid, keeper, parent_of(keeper))
            return None

        running = until(found)
        assert running is not None
        return running

    def end(self) -> None:
        """Let it end in its own way, with success; all its processes and files are gone."""
        self.look()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        until(lambda: not self.look())
        assert list(self.temporary.iterdir()) == []

    def left_groups(self) -> set[str]:
        """Give the groups of all its processes that were seen."""
        return groups_of(self.seen)

    def left_groups_after_another_start(self) -> set[str]:
        """Give those that the next sandbox of anybody's does not remove."""
        with Sandbox() as sandbox:
            sandbox.start()
        return self.left_groups()

    def close(self) -> None:
        """Kill what is left of it, after a test that has failed."""
        self.process.kill()
        self.process.wait()
        for pid in self.look():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.look())
        self.left_groups_after_another_start()
