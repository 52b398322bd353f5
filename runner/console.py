"""A terminal of the program's own (pty(7)), and what copies between it and the user's.

The program never holds the user's terminal: bytes that it puts into its terminal's input
(TIOCSTI), modes and sizes that it sets, are its own. A program, once started with `files` as
its fds 0 to 2 and the first as its controlling terminal, is served so:

    with Console() as console:
        ...  # start it with files=console.files
        signal.signal(signal.SIGWINCH, lambda *_: console.follow_size())
        console.relay(ended=pidfd)
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import fcntl
import os
import select
import stat
import struct
import termios
import tty
from typing import TYPE_CHECKING, Final

from runner.errors import ConfigError, HostError
from runner.units import KiB

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIZE: Final = (24, 80)  # rows and columns where no terminal has any
_IUTF8: Final = 0x4000  # <asm-generic/termbits.h>; the termios module lacks it
_DISABLED: Final = b"\0"  # a control character that nobody can type; termios(3)

_MOST: Final = 64 * KiB  # held of either direction
# After POLLOUT a pipe takes as much without blocking; a terminal gives no more at a time.
_CHUNK: Final = select.PIPE_BUF
_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR
_WRITABLE: Final = select.POLLOUT | select.POLLHUP | select.POLLERR


class Console:
    """A pty: the program has its slave, we have its master. A context manager that closes both.

    The terminal is cooked, as every new one, but ignores breaks and knows UTF-8.
    `size` is in rows and columns; None: that of the terminal behind fd 0, or else 24 × 80.
    Raises ConfigError for a size that no terminal has, HostError if there are no ptys.
    """

    def __init__(self, *, size: tuple[int, int] | None = None) -> None:
        self._follows = size is None
        self._master = self._slave = -1
        winsize = _packed(*(size or _size_of(0) or _SIZE))
        try:
            self._master, self._slave = map(_moved, os.openpty())
            self.path: Final = os.ttyname(self._slave)
            os.set_blocking(self._master, False)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, winsize)
            mode = termios.tcgetattr(self._slave)
            mode[tty.IFLAG] |= termios.IGNBRK | _IUTF8
            termios.tcsetattr(self._slave, termios.TCSANOW, mode)
        except OSError as error:
            self.close()
            missing = f"a pseudo-terminal: {error.strerror}"
            remedy = "have /dev/ptmx and a devpts at /dev/pts, or raise kernel.pty.max"
            raise HostError(missing, remedy) from error

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both ends, which hangs the terminal up; idempotent."""
        self.close_slave()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def close_slave(self) -> None:
        """Leave the slave to the program alone; idempotent.

        Then `relay` also ends when nobody has the terminal open any more, be it for a moment.
        """
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1

    @property
    def files(self) -> tuple[int, int, int]:
        """The slave thrice: the program's fds 0 to 2; borrowed."""
        if self._slave < 0:
            message = "Console.files: closed: start the program before close_slave()"
            raise ConfigError(message)
        return (self._slave, self._slave, self._slave)

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal a size; its foreground processes get SIGWINCH if that is new."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, _packed(rows, columns))

    def follow_size(self, terminal: int = 0) -> None:
        """Take over the size of another terminal, if it has one.

        Made to be called by a handler of SIGWINCH, which is the application's to install.
        """
        if size := _size_of(terminal):
            self.resize(*size)

    def relay(self, *, stdin: int = 0, stdout: int = 1, ended: int | None) -> None:
        """Copy both ways until the program has ended and its output is written.

        `ended` is an fd that is readable from the program's end on, such as a pidfd. What other
        processes write to the terminal later is lost. None: until nobody has the terminal
        open; our own slave is closed for that.

        A terminal behind `stdin` is in raw mode meanwhile, and as before when this returns or
        raises; a handler of a signal that is to end the process must therefore raise, too.

        A terminal's input has no end but the one that is typed. So at the end of stdin the
        end-of-file character is typed, twice, as the first may only end an unfinished line;
        but not to a program that reads characters instead of lines, which would take it for
        input. A closed fd is as /dev/null. Raises BrokenPipeError if nobody can read stdout.
        """
        if ended is None:
            self.close_slave()
        with contextlib.ExitStack() as undo:
            source = _own(undo, stdin, os.O_RDONLY)
            sink = _own_output(undo, stdout)
            if self._follows:
                self.follow_size(source)
            undo.enter_context(_raw(source))
            self._copy(_Flow(source, self._master), _Flow(self._master, sink), ended)

    def _copy(self, typed: _Flow, shown: _Flow, ended: int | None) -> None:
        while shown.open or shown.pending:
            ready = _wait(typed, shown, ended)
            if ended is not None and ended in ready:
                typed.stop()
                shown.drain()
                ended = None
            if shown.has_room and ready.get(shown.source, 0) & _READABLE:
                shown.fill(_MOST)
            if typed.has_room and ready.get(typed.source, 0) & _READABLE:
                typed.fill(_MOST)
                if not typed.open:
                    typed.pending += self._end_of_file()
            if shown.pending and ready.get(shown.sink, 0) & _WRITABLE:
                shown.flush()
            if ready.get(typed.sink, 0) & select.POLLHUP:
                typed.stop()  # nobody has the terminal open, though it would take more
            if typed.pending and ready.get(typed.sink, 0) & _WRITABLE:
                typed.flush()

    def _end_of_file(self) -> bytes:
        # The master tells the modes of the slave, which may be closed.
        mode = termios.tcgetattr(self._master)
        character: bytes = mode[tty.CC][termios.VEOF]
        if not mode[tty.LFLAG] & termios.ICANON or character == _DISABLED:
            return b""
        return 2 * character


@dataclasses.dataclass(slots=True)
class _Flow:
    """One direction: what was read from `source` and is not yet written to `sink`."""

    source: int
    sink: int
    open: bool = True
    pending: bytearray = dataclasses.field(default_factory=bytearray)

    @property
    def has_room(self) -> bool:
        return self.open and len(self.pending) < _MOST

    def fill(self, limit: int) -> bool:
        """Read what is there, with `pending` within the limit; say if it was anything."""
        try:
            data = os.read(self.source, limit - len(self.pending))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""  # how a terminal ends: hung up, or all slaves of a master are closed
        self.pending += data
        self.open = bool(data)
        return self.open

    def flush(self) -> None:
        # EAGAIN: there is room, but less than this needs, or another writer was faster.
        with contextlib.suppress(BlockingIOError):
            del self.pending[: os.write(self.sink, self.pending[:_CHUNK])]

    def drain(self) -> None:
        """Take over what a program that has ended has left in its terminal, and end.

        The kernel holds less than 32 KiB (8 KiB and a little for a pty, 4 KiB in the line
        discipline), so this has all of it, and has an end even where others go on writing.
        """
        limit = len(self.pending) + _MOST
        while self.open and len(self.pending) < limit and self.fill(limit):
            pass
        self.open = False

    def stop(self) -> None:
        """Drop what nobody will read, and end."""
        self.pending.clear()
        self.open = False


def _wait(typed: _Flow, shown: _Flow, ended: int | None) -> dict[int, int]:
    """Wait for what either can do next, or the end; give the events by fd."""
    wanted: collections.defaultdict[int, int] = collections.defaultdict(int)
    for flow in (typed, shown):
        if flow.has_room:
            wanted[flow.source] |= select.POLLIN
        if flow.pending:
            wanted[flow.sink] |= select.POLLOUT
    if ended is not None:
        wanted[ended] |= select.POLLIN
    poller = select.poll()
    for fd, events in wanted.items():
        poller.register(fd, events)
    return dict(poller.poll())


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Have a terminal in raw mode for a while; anything else is left alone."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        # At once: TCSADRAIN could wait for ever, and TCSAFLUSH drops what was typed ahead.
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):  # it was hung up, and has no modes any more
            termios.tcsetattr(fd, termios.TCSANOW, before)


def _size_of(fd: int) -> tuple[int, int] | None:
    """Give the rows and columns of a terminal; None for anything else."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return None
    return (rows, columns) if rows and columns else None  # a serial line has 0 × 0


def _packed(rows: int, columns: int) -> bytes:
    """Give a struct winsize."""
    if not (0 < rows < 2**16 and 0 < columns < 2**16):
        message = f"Console.size: {rows} × {columns}: give 1 to 65535 of each"
        raise ConfigError(message)
    return struct.pack("HHHH", rows, columns, 0, 0)


def _own(stack: contextlib.ExitStack, fd: int, flags: int) -> int:
    """Give an fd of ours for what is behind the caller's; a closed one is as /dev/null."""
    try:
        own = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        own = _moved(os.open(os.devnull, flags | os.O_CLOEXEC))
    stack.callback(os.close, own)
    return own


def _own_output(stack: contextlib.ExitStack, fd: int) -> int:
    """Do so for an output, and where writing could block, have it not block.

    O_NONBLOCK belongs to the open file, which the caller shares with others, such as its
    shell: so we open the pipe or terminal anew. Others take _CHUNK after a POLLOUT.
    """
    own = _own(stack, fd, os.O_WRONLY)
    if not os.isatty(own) and not stat.S_ISFIFO(os.fstat(own).st_mode):
        return own
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        anew = _moved(os.open(f"/proc/self/fd/{own}", flags))
    except OSError:  # another user's terminal, a pipe that nobody reads, no /proc
        return own
    stack.callback(os.close, anew)
    return anew


def _moved(fd: int) -> int:
    """Move an fd of ours above 2: where fd 0 is closed, the next to be opened is 0."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
