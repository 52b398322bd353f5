"""What a console's relay carries either way, when it ends, and what it holds meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.console import Console, _Flow
from tests.unit.terminals import (
    NEVER,
    MiB,
    cpu_seconds_while_waiting,
    end_of,
    meanwhile,
    opened,
    output_of,
    pipe,
    plain,
    program,
    python,
    read_exactly,
    read_until,
    socket_pair,
    terminal,
    write_all,
)

# What a relay may take that nobody reads: 64 KiB of its own, and what Linux holds in a pty: 8
# KiB, a line discipline's 4 KiB, and some more as it counts whole buffers only.
HELD = (64 + 32) * 1024
# CPU seconds of 0.3: to spin would take all of them, or a third where three share a CPU.
SPINNING = 0.05
Pair = contextlib.AbstractContextManager[tuple[int, int]]


@pytest.fixture
def console() -> Iterator[Console]:
    with Console(size=(24, 80)) as made:
        yield made


# What comes through.


def test_relay_of_lines_through_cat_gives_all_in_order(console: Console) -> None:
    plain(console)
    lines = b"".join(b"%015d\n" % number for number in range(MiB // 16))
    assert output_of(console, "cat", given=lines) == lines


def test_relay_of_a_line_is_echoed_as_on_any_terminal(console: Console) -> None:
    with opened(b"") as empty, program(console, "cat") as process, end_of(process) as ended:
        with opened(b"hello\n") as stdin:
            console.relay(stdin=stdin, stdout=empty, ended=ended)
        assert os.pread(empty, 99, 0) == b"hello\r\nhello\r\n"


@pytest.mark.parametrize("given", [b"", b"line\n", b"line\nand no end"])
def test_relay_at_the_end_of_stdin_gives_the_program_an_end_of_file(
    console: Console, given: bytes
) -> None:
    plain(console)
    assert output_of(console, "cat", given=given) == given


def test_relay_at_the_end_of_stdin_types_nothing_into_a_raw_terminal(console: Console) -> None:
    code = "import os, select; os.read(0, 3); print(select.select([0], [], [], 0.3)[0])"
    plain(console)
    tty.setraw(console.files[0])
    assert output_of(console, *python(code), given=b"abc") == b"[]\n"


def test_relay_at_the_end_of_stdin_types_no_disabled_character(console: Console) -> None:
    plain(console)
    mode = termios.tcgetattr(console.files[0])
    mode[tty.CC][termios.VEOF] = b"\0"
    termios.tcsetattr(console.files[0], termios.TCSANOW, mode)
    code = (
        "import select, sys, tty; input(); tty.setraw(0, 0)\n"
        "print(select.select([0], [], [], 0.3)[0])"
    )
    assert output_of(console, *python(code), given=b"line\n") == b"[]\n"


def test_relay_of_output_changes_no_byte(console: Console) -> None:
    code = "import os; os.write(1, bytes(range(256)) * 4096)"
    plain(console)
    assert output_of(console, *python(code)) == bytes(range(256)) * 4096


def test_relay_through_the_users_terminal_both_ways_at_once_loses_nothing(
    console: Console,
) -> None:
    tty.setraw(console.files[0])
    sent = os.urandom(MiB)
    with (
        terminal() as (screen, slave),
        program(console, "sh", "-c", f"echo ready; exec head -c {MiB}") as process,
        end_of(process) as ended,
    ):

        def talk() -> bytes:
            read_until(screen, b"ready\n")
            with meanwhile(lambda: write_all(screen, sent)):
                return read_exactly(screen, MiB)

        with meanwhile(talk) as seen:
            console.relay(stdin=slave, stdout=slave, ended=ended)
        assert seen.result() == sent


# Its end.


def test_relay_without_an_end_given_ends_when_nobody_has_the_terminal(console: Console) -> None:
    plain(console)
    with opened(b"") as stdin, opened(b"") as stdout, program(console, "seq", "9999"):
        console.relay(stdin=stdin, stdout=stdout, ended=None)
        expected = b"".join(b"%d\n" % number for number in range(1, 10000))
        assert os.pread(stdout, MiB, 0) == expected


def test_relay_whose_program_leaves_input_unread_ends(console: Console) -> None:
    plain(console)
    with opened(b"line\n" * MiB) as stdin, opened(b"") as stdout:
        with program(console, "head", "-n", "1"):
            console.relay(stdin=stdin, stdout=stdout, ended=None)
        assert os.pread(stdout, 99, 0) == b"line\n"


@pytest.mark.parametrize("child", ["sleep 60", "yes"])
def test_relay_ends_with_the_program_though_a_child_holds_the_terminal(
    console: Console, tmp_path: Path, child: str
) -> None:
    # In a session of its own: a child in the program's would get SIGHUP at its end.
    script = f"echo before; setsid {child} & echo $! >$0; exec head -c 3 /dev/zero"
    pid_file = tmp_path / "pid"
    plain(console)
    try:
        output = output_of(console, "sh", "-c", script, str(pid_file))
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert output.startswith(b"before\n")
    assert b"\0\0\0" in output


def test_relay_of_an_input_that_the_program_never_reads_holds_64_kib(console: Console) -> None:
    plain(console)
    with (
        opened(b"line\n" * MiB) as stdin,
        opened(b"") as stdout,
        program(console, "sh", "-c", "sleep 0.5; echo done") as process,
        end_of(process) as ended,
    ):
        console.relay(stdin=stdin, stdout=stdout, ended=ended)
        assert os.pread(stdout, 99, 0) == b"done\n"
        assert 64 * 1024 <= os.lseek(stdin, 0, os.SEEK_CUR) <= HELD


def wait_until_full(fd: int) -> None:
    """Wait for that, or as long as a writer of a terminal may be asleep although there is room.

    A pty wakes its writer when its reader reads, and moves what makes the room only then.
    """
    end = time.monotonic() + 5
    while select.select([], [fd], [], 0.1)[1] and time.monotonic() < end:
        time.sleep(0.01)


def refuse_to_open(path: str, _flags: int) -> int:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


@pytest.mark.parametrize(
    ("reader", "capacity", "opens_anew"),
    [
        (pipe, 64 * 1024, True),
        (pipe, 64 * 1024, False),
        # The kernel's own bound for what a terminal has not yet passed on: tty_buffer.c.
        (terminal, 640 * 1024, True),
        (socket_pair, 208 * 1024, False),
    ],
)
def test_relay_to_a_reader_that_does_not_read_still_gives_the_program_its_input(
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    reader: Callable[[], Pair],
    capacity: int,
    opens_anew: bool,
) -> None:
    plain(console)
    if not opens_anew:
        monkeypatch.setattr(os, "open", refuse_to_open)
    over = threading.Event()
    with (
        reader() as (screen, stdout),
        pipe() as (stdin, typing),
        program(console, "sh", "-c", "yes & read line && kill $!") as process,
        end_of(process) as ended,
    ):

        def type_when_all_is_full() -> bytes:
            wait_until_full(stdout)
            seen = os.read(screen, 8192)  # there is room for some of what the relay holds
            wait_until_full(stdout)
            os.write(typing, b"stop\n")
            assert process.wait(NEVER) == 0  # only now does anybody read
            os.write(typing, b"for the next one\n")
            while select.select([screen], [], [], 0)[0] or not over.wait(0.01):
                if select.select([screen], [], [], 0)[0]:
                    seen += os.read(screen, MiB)
            return seen

        with meanwhile(type_when_all_is_full) as seen:
            console.relay(stdin=stdin, stdout=stdout, ended=ended)
            over.set()
        output = seen.result().replace(b"\r\n", b"\n")  # as the user's terminal makes them
        assert len(output) <= capacity + HELD
        assert os.read(stdin, 99) == b"for the next one\n"


def test_relay_to_a_pipe_that_nobody_reads_raises_broken_pipe(console: Console) -> None:
    with pipe() as (reader, stdout), opened(b"") as stdin, program(console, "yes"):
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            console.relay(stdin=stdin, stdout=stdout, ended=None)


def test_relay_to_a_full_pipe_sleeps_and_raises_broken_pipe_when_its_reader_goes(
    console: Console,
) -> None:
    with pipe() as (reader, stdout), opened(b"") as stdin, program(console, "yes"):

        def go_when_it_is_full() -> float:
            wait_until_full(stdout)
            used = cpu_seconds_while_waiting()
            os.close(reader)
            return used

        with meanwhile(go_when_it_is_full) as used, pytest.raises(BrokenPipeError):
            console.relay(stdin=stdin, stdout=stdout, ended=None)
        assert used.result() < SPINNING


def test_relay_that_waits_for_a_reader_after_the_programs_end_sleeps(console: Console) -> None:
    # More than a pipe holds and less than with the relay. Input is left over, too.
    size = 100_000
    with (
        pipe() as (from_relay, stdout),
        opened(b"line\n" * MiB) as stdin,
        program(console, "head", "-c", f"{size}", "/dev/zero") as process,
    ):

        def read_late() -> float:
            assert process.wait(NEVER) == 0
            used = cpu_seconds_while_waiting()
            read_exactly(from_relay, size)
            return used

        plain(console)
        with meanwhile(read_late) as used:
            console.relay(stdin=stdin, stdout=stdout, ended=None)
        assert used.result() < SPINNING


def test_flow_whose_sink_is_full_keeps_what_it_has() -> None:
    with pipe() as (source, sink):
        os.set_blocking(sink, False)
        os.write(sink, bytes(64 * 1024))
        flow = _Flow(source, sink, pending=bytearray(b"kept"))
        flow.flush()
        assert flow.pending == b"kept"


def test_flow_that_is_drained_of_what_never_ends_takes_64_kib() -> None:
    with open("/dev/zero", "rb") as endless:
        flow = _Flow(endless.fileno(), -1, pending=bytearray(b"x"))
        flow.drain()
    assert (len(flow.pending), flow.open) == (1 + 64 * 1024, False)
