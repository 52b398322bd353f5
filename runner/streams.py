"""A program's stdin, stdout and stderr: which fds they are, and what was captured.

The keeper carries captured output from a pipe into a memfd of ours, so that neither a full pipe
nor Python's interpreter lock stands in a program's way.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, Final, TypeAlias

from runner import plan
from runner.errors import ConfigError, HostError
from runner.measure import Captured
from runner.memfd import sealed_memfd
from runner.quick import NamedTuple
from runner.units import MiB
from runner.wire import Hearing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.config import Limits
    from runner.config.files import HasFileno, Transfers


class Stream(enum.Enum):
    """What else than an fd a program's stdout or stderr can be."""

    CAPTURE = "capture"
    STDOUT = "stdout"


CAPTURE: Final = Stream.CAPTURE
STDOUT: Final = Stream.STDOUT
CAPTURE_LIMIT: Final = 64 * MiB

_PIPES: Final = (plan.FD_STDOUT_PIPE, plan.FD_STDERR_PIPE)
# Where a frame has them: stdin, stdout, stderr, and what captures the last two.
_FIRST_OUTPUT, _FIRST_SINK = 1, 3
COUNT: Final = 5


_KINDS: Final = {
    "stdin": (bytes, int, os.PathLike, type(None)),
    "stdout": (int, Stream, type(None)),
    "stderr": (int, Stream, type(None)),
}
_WANTED: Final = {
    "stdin": "bytes, an fd, a path, or None",
    "stdout": "CAPTURE, an fd, a function, or None",
    "stderr": "CAPTURE, STDOUT, an fd, a function, or None",
}


Taker: TypeAlias = Callable[[bytes], object]
Output: TypeAlias = int | Stream | Taker | None


class Start(NamedTuple):
    """Where an fd stood."""

    fd: int
    offset: int


class Wanted(NamedTuple):
    """What a caller gives to a run and asks of it; see `Sandbox.run`."""

    stdin: bytes | int | os.PathLike[str] | None
    stdout: Output
    stderr: Output
    capture_limit: int
    hearing: Hearing = Hearing.KILLS
    transfers: Transfers | None = None
    exec_file: int | HasFileno | None = None

    def check(self) -> None:
        """Raise ConfigError for what cannot be meant, and for an fd that is not open."""
        if self.stdout is STDOUT:
            message = "stdout: it cannot be joined to itself"
            raise ConfigError(message)
        if self.capture_limit < 0:
            message = f"capture_limit: {self.capture_limit}: give 0 bytes or more"
            raise ConfigError(message)
        for name in ("stdin", "stdout", "stderr"):
            given = getattr(self, name)
            taken = name != "stdin" and callable(given)
            if isinstance(given, bool) or not (taken or isinstance(given, _KINDS[name])):
                message = f"{name}: {given!r}: give {_WANTED[name]}"
                raise ConfigError(message)
            if isinstance(given, int):
                _check_open(name, given)
        if self.exec_file is not None:
            from runner import resolve  # few give one

            resolve.check_program("exec_file", self.exec_file)

    def stdin_start(self) -> Start | None:
        """Say where stdin stands, to start there again; None where it starts anew by itself.

        Raises ConfigError for a pipe or a terminal: what was read is gone.
        """
        if not isinstance(self.stdin, int):
            return None
        try:
            return Start(self.stdin, os.lseek(self.stdin, 0, os.SEEK_CUR))
        except OSError as error:
            message = f"stdin: {self.stdin}: it cannot be read again: give bytes or a file"
            raise ConfigError(message) from error

    @property
    def fd_count(self) -> int:
        """How many fds a frame has: the streams', and those that few runs have."""
        return COUNT + (self.calls_at >= 0) + (self.exec_file is not None)

    @property
    def calls_at(self) -> int:
        """Where in the frame the calls go that are heard of, or -1."""
        return COUNT if self.hearing > Hearing.KILLS else -1

    @property
    def exec_at(self) -> int | None:
        """Where in the frame the file is that is executed instead of a path."""
        return None if self.exec_file is None else self.fd_count - 1

    @property
    def output_held_by(self) -> str | None:
        """Say what holds the output limit; None where an output is neither ours nor a file.

        We count what we carry, and the kernel limits the size of files (RLIMIT_FSIZE).
        """
        fds = [fd for fd in (self.stdout, self.stderr) if isinstance(fd, int)]
        if not fds:
            return "keeper"
        return "rlimit" if all(stat.S_ISREG(os.fstat(fd).st_mode) for fd in fds) else None

    def is_full(self, limits: Limits) -> bool:
        """Tell whether a file that is an output is just as large as the limits let it be."""
        largest = min(
            (size for size in (limits.output, limits.file_size) if size is not None), default=-1
        )
        if largest < 0:
            return False
        with contextlib.suppress(OSError):  # the caller may have closed them by now
            for fd in (self.stdout, self.stderr):
                if isinstance(fd, int):
                    status = os.fstat(fd)
                    if stat.S_ISREG(status.st_mode) and status.st_size == largest:
                        return True
        return False

    def check_room(self, directories: Sequence[str]) -> None:
        """Raise HostError if there is no room left for an output, or in one of these.

        A program that fails there may have failed for that, which is no fault of its own.
        """
        outputs = {"stdout": self.stdout, "stderr": self.stderr}
        places: dict[str, int | str] = {path: path for path in directories}
        places |= {name: fd for name, fd in outputs.items() if isinstance(fd, int)}
        for name, place in places.items():
            with contextlib.suppress(OSError):  # it is closed, or gone: then it is not full
                found = os.statvfs(place)
                if found.f_blocks and not found.f_bavail:
                    missing = f"the file system of {name} is full"
                    raise HostError(missing, "make room there, or send it elsewhere")

    @property
    def takers(self) -> tuple[Taker | None, Taker | None]:
        """Give who gets what is written to each output while the program runs, by a `Relay`.

        If anybody does, what is captured of the other goes that way too: they are counted
        together.
        """
        if not (callable(self.stdout) or callable(self.stderr)):
            return (None, None)
        return (self._taker(self.stdout), self._taker(self.stderr))

    def _taker(self, output: Output) -> Taker | None:
        if output is CAPTURE:
            from runner.relay import Collector

            return Collector(self.capture_limit)
        return output if callable(output) else None

    @property
    def _captured(self) -> tuple[bool, bool]:
        """Whether the keeper captures each output."""
        if callable(self.stdout) or callable(self.stderr):
            return (False, False)
        return (self.stdout is CAPTURE, self.stderr is CAPTURE)

    @property
    def sinks(self) -> tuple[int, int]:
        """Where in the frame is what captures each output, or -1."""
        return (
            _FIRST_SINK if self._captured[0] else -1,
            _FIRST_SINK + 1 if self._captured[1] else -1,
        )

    @property
    def files(self) -> tuple[int, int, int]:
        """Where in the frame each of the program's fds is, or which pipe."""
        captured = self._captured
        stdout = _PIPES[0] if captured[0] else _FIRST_OUTPUT
        if self.stderr is STDOUT:
            return (0, stdout, stdout)
        return (0, stdout, _PIPES[1] if captured[1] else _FIRST_OUTPUT + 1)


class Streams:
    """The fds that a sandbox keeps for its programs' streams; used by one run at a time."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as undo:
            # What a frame has where nothing is given to a program.
            self._unused = _owned(undo, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            self._sinks = [
                _owned(undo, os.memfd_create(name, os.MFD_CLOEXEC))
                for name in ("stdout", "stderr")
            ]
            self._ledger = -1
            self._opened: list[int] = []  # for one run
            undo.callback(_close_all, self._opened)
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Close them; idempotent."""
        self._undo.close()

    @contextlib.contextmanager
    def fds(
        self, wanted: Wanted, ends: Sequence[int | None] = (None, None)
    ) -> Iterator[list[int]]:
        """Give the fds of a frame, as many as are wanted; the caller's are borrowed.

        `ends` are those of a `Relay`. What is not the caller's is opened anew: what a program
        does to an open file (flags, owner, locks) stays for as long as anybody has it open.
        """
        given = (wanted.stdout, wanted.stderr)
        opened = self._opened
        try:
            null = self._unused
            if None in (wanted.stdin, *given):
                null = _open_noted(opened, os.devnull, os.O_RDWR)
            outputs = [
                end if end is not None else fd if isinstance(fd, int) else null
                for fd, end in zip(given, ends, strict=True)
            ]
            stdin = null if wanted.stdin is None else wanted.stdin
            if not isinstance(stdin, int):
                stdin = _open_stdin(stdin)
                opened.append(stdin)
            yield [stdin, *outputs, *self._sinks, *self._more(wanted)]
        finally:
            _close_all(opened)

    def _more(self, wanted: Wanted) -> list[int]:
        fds = []
        if wanted.calls_at >= 0:
            if self._ledger < 0:
                self._ledger = _owned(self._undo, os.memfd_create("calls", os.MFD_CLOEXEC))
            fds.append(self._ledger)
        program = wanted.exec_file
        if program is not None:
            fds.append(program if isinstance(program, int) else program.fileno())
        return fds

    def take_ledger(self) -> bytes:
        """Give what was written of the calls that were heard of, and empty it."""
        content = _read_all(self._ledger, os.fstat(self._ledger).st_size)
        os.ftruncate(self._ledger, 0)
        return content

    def take(self, number: int, total: int, limit: int) -> Captured:
        """Give what was captured of an output, and empty its sink; `total` -1: none was."""
        if total < 0:
            return Captured(b"", None)
        if total == 0:
            return Captured(b"", 0)
        sink = self._sinks[number]
        kept = _read_all(sink, min(total, limit))
        os.ftruncate(sink, 0)
        os.lseek(sink, 0, os.SEEK_SET)  # the keeper writes at the offset that we share
        return Captured(kept, total)


def _open_stdin(source: bytes | os.PathLike[str]) -> int:
    if isinstance(source, bytes):
        return sealed_memfd("stdin", source)
    try:
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        message = f"stdin: {os.fspath(source)!r}: {error.strerror}"
        raise ConfigError(message) from error


def _read_all(fd: int, size: int) -> bytes:
    """Read from the start; one pread gives at most 2 GiB."""
    whole = os.pread(fd, size, 0)
    while len(whole) < size and (part := os.pread(fd, size - len(whole), len(whole))):
        whole += part
    return whole


def _open_noted(fds: list[int], path: str, flags: int) -> int:
    """Open a file, and note its fd before any handler of a signal can run.

    They run between bytecodes, of which there is none here between the one and the other.
    """
    fds.extend(map(os.open, (path,), (flags | os.O_CLOEXEC,)))
    return fds[-1]


def _close_all(fds: list[int]) -> None:
    """Close what was noted, each before a handler can run."""
    deque(map(os.close, map(fds.pop, repeat(-1, len(fds)))), maxlen=0)


def _owned(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _check_open(name: str, fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError as error:
        message = f"{name}: {fd}: not an open file descriptor"
        raise ConfigError(message) from error
