"""A pty console: what the program finds, and what the user's terminal keeps.

The programs here are plain ones. A second pty plays the user's terminal.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.console import Console
from runner.errors import ConfigError, HostError
from tests.unit.terminals import (
    NEVER,
    as_stdin,
    end_of,
    meanwhile,
    open_fds,
    opened,
    output_of,
    pipe,
    plain,
    program,
    python,
    read_until,
    set_size,
    terminal,
)

ROOT = Path(__file__).parents[2]
IUTF8 = 0x4000
LEGACY_TIOCSTI = Path("/proc/sys/dev/tty/legacy_tiocsti")  # since Linux 6.2


@pytest.fixture
def console() -> Iterator[Console]:
    with Console(size=(24, 80)) as made:
        yield made


# The terminal itself.


def test_console_mode_is_that_of_a_new_terminal_with_ignbrk_and_iutf8(console: Console) -> None:
    with terminal() as (_, slave):
        expected = termios.tcgetattr(slave)
    expected[tty.IFLAG] |= termios.IGNBRK | IUTF8
    assert termios.tcgetattr(console.files[0]) == expected
    assert expected[tty.LFLAG] & termios.ICANON
    assert expected[tty.OFLAG] & termios.OPOST


def test_console_path_names_the_slave(console: Console) -> None:
    assert console.path.startswith("/dev/pts/")
    assert os.path.samestat(os.stat(console.path), os.fstat(console.files[0]))


def test_console_fds_are_close_on_exec_and_closed_by_close() -> None:
    before = open_fds()
    console = Console()
    made = open_fds() - before
    assert len(made) == 2
    assert not any(os.get_inheritable(fd) for fd in made)
    console.close()
    console.close()
    assert open_fds() == before


def test_console_files_are_the_slave_thrice_and_refused_once_it_is_closed(
    console: Console,
) -> None:
    assert len(set(console.files)) == 1
    console.close_slave()
    console.close_slave()
    with pytest.raises(ConfigError) as caught:
        _ = console.files
    expected = "Console.files: closed: start the program before close_slave()"
    assert str(caught.value) == expected


def test_console_where_no_pty_is_left_raises_host_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "openpty", refuse)
    with pytest.raises(HostError) as caught:
        Console()
    assert caught.value.missing == "a pseudo-terminal: No space left on device"


# Its size.


@pytest.mark.parametrize("size", [(0, 80), (24, 2**16), (-1, 80)])
def test_console_size_that_no_terminal_has_is_refused(size: tuple[int, int]) -> None:
    rows, columns = size
    expected = f"Console.size: {rows} × {columns}: give 1 to 65535 of each"
    with pytest.raises(ConfigError) as caught:
        Console(size=size)
    assert str(caught.value) == expected


def test_console_size_given_is_what_the_program_sees() -> None:
    with Console(size=(40, 100)) as console:
        assert output_of(console, "stty", "size") == b"40 100\r\n"


@pytest.mark.parametrize(("rows", "columns", "seen"), [(31, 97, (31, 97)), (0, 0, (24, 80))])
def test_console_size_not_given_is_that_of_the_terminal_behind_stdin(
    rows: int, columns: int, seen: tuple[int, int]
) -> None:
    with terminal() as (_, slave), as_stdin(slave):
        set_size(slave, rows, columns)
        with Console() as console:
            assert os.get_terminal_size(console.files[0]) == (seen[1], seen[0])


def test_console_size_without_a_terminal_behind_stdin_is_24_by_80() -> None:
    with opened(b"") as stdin, as_stdin(stdin), Console() as console:
        assert output_of(console, "stty", "size") == b"24 80\r\n"


@pytest.mark.parametrize(("given", "seen"), [(None, (31, 97)), ((40, 100), (40, 100))])
def test_relay_takes_over_the_size_of_its_terminal_unless_one_was_given(
    given: tuple[int, int] | None, seen: tuple[int, int]
) -> None:
    with (
        Console(size=given) as console,
        terminal() as (_, slave),
        opened(b"") as stdout,
        program(console, "true") as process,
        end_of(process) as ended,
    ):
        set_size(slave, 31, 97)
        console.relay(stdin=slave, stdout=stdout, ended=ended)
        assert os.get_terminal_size(console.files[0]) == (seen[1], seen[0])


def test_follow_size_called_by_a_sigwinch_handler_reaches_the_program() -> None:
    # The shell handles the signal when the read is over, and then asks for the size.
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    with (
        Console() as console,
        terminal() as (screen, slave),
        program(console, "sh", "-c", script) as process,
        end_of(process) as ended,
    ):

        def change() -> bytes:
            read_until(screen, b"ready")
            set_size(slave, 31, 97)
            os.kill(os.getpid(), signal.SIGWINCH)
            return read_until(screen, b"97")

        before = signal.signal(signal.SIGWINCH, lambda *_: console.follow_size(slave))
        try:
            with meanwhile(change) as seen:
                console.relay(stdin=slave, stdout=slave, ended=ended)
        finally:
            signal.signal(signal.SIGWINCH, before)
        assert b"31 97" in seen.result()


def test_follow_size_of_what_is_no_terminal_changes_nothing() -> None:
    with opened(b"") as file, Console(size=(40, 100)) as console:
        console.follow_size(file)
        assert os.get_terminal_size(console.files[0]) == (100, 40)


# What the program finds.


def test_program_finds_its_own_terminal_as_fds_0_to_2(console: Console) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && tty <&2 && tty"
    expected = f"{console.path}\r\n".encode() * 2
    assert output_of(console, "sh", "-c", script) == expected


def test_tiocsti_by_the_program_never_reaches_the_users_terminal(console: Console) -> None:
    # It tries its stdin and its controlling terminal. From 6.2 on the kernel may refuse either.
    code = (
        "import fcntl, os, termios\n"
        "for fd in (0, os.open('/dev/tty', os.O_RDWR)):\n"
        "    try:\n"
        "        for c in b'evil\\n': fcntl.ioctl(fd, termios.TIOCSTI, bytes([c]))\n"
        "        print('put', os.read(0, 99))\n"
        "    except OSError as error:\n"
        "        print('refused', error.errno)\n"
    )
    allowed = not LEGACY_TIOCSTI.exists() or LEGACY_TIOCSTI.read_text() == "1\n"
    happened = "put b'evil\\n'" if allowed or os.geteuid() == 0 else f"refused {errno.EIO}"
    plain(console)
    with (
        terminal() as (_, slave),
        opened(b"") as stdout,
        program(console, *python(code)) as process,
        end_of(process) as ended,
    ):
        console.relay(stdin=slave, stdout=stdout, ended=ended)
        assert os.pread(stdout, 999, 0).decode() == f"{happened}\n" * 2
        tty.setraw(slave, termios.TCSANOW)  # so that parts of lines are seen, too
        assert select.select([slave], [], [], 0) == ([], [], [])


# The user's side.


def test_relay_has_the_users_terminal_raw_and_restores_it(console: Console) -> None:
    with (
        terminal() as (screen, slave),
        opened(b"") as stdout,
        program(console, "sh", "-c", f"read go; stty -a -F {os.ttyname(slave)}") as process,
        end_of(process) as ended,
    ):
        before = termios.tcgetattr(slave)
        os.write(screen, b"go\n")
        console.relay(stdin=slave, stdout=stdout, ended=ended)
        seen = os.pread(stdout, 9999, 0).decode().split()
        assert {"-icanon", "-echo", "-isig", "-opost"} <= set(seen)
        assert termios.tcgetattr(slave) == before


def test_relay_passes_on_what_was_typed_before_it_began(console: Console) -> None:
    plain(console)
    with (
        terminal() as (screen, slave),
        opened(b"") as stdout,
        program(console, "head", "-n", "1") as process,
        end_of(process) as ended,
    ):
        os.write(screen, b"early\n")
        console.relay(stdin=slave, stdout=stdout, ended=ended)
        assert os.pread(stdout, 99, 0) == b"early\n"


def test_relay_that_raises_restores_the_users_terminal(console: Console) -> None:
    with terminal() as (_, slave), pipe() as (reader, stdout), program(console, "yes"):
        before = termios.tcgetattr(slave)
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            console.relay(stdin=slave, stdout=stdout, ended=None)
        assert termios.tcgetattr(slave) == before


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt, though whoever started us may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_relay_that_is_interrupted_restores_the_users_terminal(
    console: Console, interruptible: None
) -> None:
    with (
        terminal() as (screen, slave),
        program(console, "sh", "-c", "echo ready; exec sleep 60"),
    ):
        before = termios.tcgetattr(slave)
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> list[object]:
            read_until(screen, b"ready")
            mode = termios.tcgetattr(slave)
            signal.pthread_kill(main, signal.SIGINT)
            return mode

        with meanwhile(interrupt) as mode, pytest.raises(KeyboardInterrupt):
            console.relay(stdin=slave, stdout=slave, ended=None)
        assert mode.result() != before
        assert termios.tcgetattr(slave) == before


def test_relay_whose_terminal_is_hung_up_goes_on_to_the_programs_end(console: Console) -> None:
    plain(console)
    master, slave = os.openpty()
    try:
        with opened(b"") as stdout, program(console, "cat") as process:
            with meanwhile(lambda: (time.sleep(0.2), os.close(master))):
                console.relay(stdin=slave, stdout=stdout, ended=None)
            assert process.wait(NEVER) == 0
    finally:
        os.close(slave)


def test_relay_leaves_the_callers_fds_blocking(console: Console) -> None:
    with (
        terminal() as (screen, slave),
        program(console, "sh", "-c", "echo ready; read line") as process,
        end_of(process) as ended,
    ):

        def look() -> int:
            read_until(screen, b"ready")
            flags = fcntl.fcntl(slave, fcntl.F_GETFL)
            os.write(screen, b"\r")
            return flags

        with meanwhile(look) as flags:
            console.relay(stdin=slave, stdout=slave, ended=ended)
        assert flags.result() & os.O_NONBLOCK == 0


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_relay_with_a_closed_fd_is_as_with_dev_null(console: Console, closed: str) -> None:
    plain(console)
    with opened(b"") as file, program(console, "sh", "-c", "echo hello; cat") as process:
        none = os.dup(file)
        os.close(none)
        console.relay(
            stdin=none if closed == "stdin" else file,
            stdout=none if closed == "stdout" else file,
            ended=None,
        )
        assert process.wait(NEVER) == 0
        assert os.pread(file, 99, 0) == (b"" if closed == "stdout" else b"hello\n")


def test_console_in_a_process_without_standard_fds_takes_none_of_their_numbers(
    tmp_path: Path,
) -> None:
    code = f"""
import os, subprocess, sys
from runner.console import Console, _Flow
with Console() as console:
    for fd in range(3):
        assert not os.path.lexists(f"/proc/self/fd/{{fd}}"), fd
    child = subprocess.Popen(["cat"], **dict(zip(("stdin", "stdout", "stderr"), console.files)))
    console.relay(ended=None)
    status = child.wait()
open({str(tmp_path / "report")!r}, "w").write(f"cat ended with {{status}}")
"""
    command = 'exec "$0" "$@" <&- >&- 2>&-'
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    subprocess.run(
        ["sh", "-c", command, sys.executable, "-c", code], env=environment, check=True
    )
    assert (tmp_path / "report").read_text() == "cat ended with 0"
