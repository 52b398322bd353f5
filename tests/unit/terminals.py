"""Terminals, programs on consoles and peers, for the tests of `runner.console`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from runner.console import Console

MiB = 2**20
NEVER = 60  # seconds: more than any of these takes, less than a test may


@contextlib.contextmanager
def program(console: Console, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program on the console, which is its controlling terminal; kill it in the end."""
    stdin, stdout, stderr = console.files
    started = subprocess.Popen(
        ["setsid", "--ctty", *command], stdin=stdin, stdout=stdout, stderr=stderr
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-Sc", code)


@contextlib.contextmanager
def end_of(process: subprocess.Popen[bytes]) -> Iterator[int]:
    ended = os.pidfd_open(process.pid)
    try:
        yield ended
    finally:
        os.close(ended)


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[int]:
    """Give a file to read, or to write to."""
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):  # the test closed it
                os.close(end)


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Give what the user sees and types on, and what programs have of it."""
    master, slave = os.openpty()
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


@contextlib.contextmanager
def socket_pair() -> Iterator[tuple[int, int]]:
    reader, writer = socket.socketpair()
    with reader, writer:
        yield reader.fileno(), writer.fileno()


@contextlib.contextmanager
def meanwhile(function: Callable[[], object]) -> Iterator[Future[object]]:
    """Do something in a thread; what it raises is raised at the end."""
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(function)
        yield future
        future.result(NEVER)


def output_of(console: Console, *command: str, given: bytes = b"") -> bytes:
    """Give what a program writes to its console; stdin is a file."""
    with (
        opened(given) as stdin,
        opened(b"") as stdout,
        program(console, *command) as process,
        end_of(process) as ended,
    ):
        console.relay(stdin=stdin, stdout=stdout, ended=ended)
        return os.pread(stdout, 2**30, 0)


def read_until(fd: int, wanted: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + NEVER
    while wanted not in seen:
        ready, _, _ = select.select([fd], [], [], deadline - time.monotonic())
        assert ready, f"{wanted!r} did not come after {seen!r}"
        seen += os.read(fd, 4096)
    return seen


def read_exactly(fd: int, size: int) -> bytes:
    seen = bytearray()
    while len(seen) < size:
        seen += os.read(fd, size - len(seen))
    return bytes(seen)


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def open_fds() -> set[int]:
    with os.scandir("/proc/self/fd") as entries:
        fds = {int(entry.name) for entry in entries}
    return {fd for fd in fds if os.path.lexists(f"/proc/self/fd/{fd}")}


def cpu_seconds_while_waiting() -> float:
    before = time.process_time()
    time.sleep(0.3)
    return time.process_time() - before


def plain(console: Console) -> None:
    """Have no echo, and lines end as the program ends them."""
    mode = termios.tcgetattr(console.files[0])
    mode[tty.LFLAG] &= ~termios.ECHO
    mode[tty.OFLAG] &= ~termios.OPOST
    termios.tcsetattr(console.files[0], termios.TCSANOW, mode)


def set_size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextlib.contextmanager
def as_stdin(fd: int) -> Iterator[None]:
    saved = os.dup(0)
    os.dup2(fd, 0)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)
