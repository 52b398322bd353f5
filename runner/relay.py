"""Output that the caller gets while the program runs: pipes of ours, read as it comes.

What the caller does not take the program has to wait for, in write(2): nothing piles up here.
The output limit is counted here then, of both streams together, and held by the keeper, which
is told to end the program. Written for every face: `fileno` is readable when there is something
to do, and `step` does it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from typing import TYPE_CHECKING, Final

from runner.helper import LOOK_S
from runner.measure import Captured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CHUNK: Final = 64 * 1024


class Relay:
    """The pipes of one run. `takers` get what is written to stdout and stderr; None: no pipe.

    ends    the write ends, for the program; `started` closes ours
    over    whether the limit was passed
    """

    def __init__(
        self,
        takers: Sequence[Callable[[bytes], object] | None],
        *,
        limit: int | None,
    ) -> None:
        self._takers = takers
        self._limit = limit
        self.over = False
        self.ends: list[int | None] = [None, None]
        self._totals: list[int | None] = [None, None]
        self._sources: dict[int, int] = {}
        self._keeper = -1
        with contextlib.ExitStack() as undo:
            self._epoll = undo.enter_context(contextlib.closing(select.epoll()))
            for number, taker in enumerate(takers):
                if taker is None:
                    continue
                source, end = os.pipe2(os.O_CLOEXEC)
                undo.callback(os.close, source)
                self.ends[number] = end
                undo.callback(self.started)
                os.set_blocking(source, False)  # ours alone: the program's is as any pipe
                os.fchmod(end, 0o622)  # /dev/stdout opens it anew, as the program's user
                self._totals[number] = 0
                self._sources[source] = number
                self._epoll.register(source, select.EPOLLIN)
            self._undo = undo.pop_all()

    def started(self) -> None:
        """Close our copies of the write ends; idempotent."""
        for number, end in enumerate(self.ends):
            if end is not None:
                os.close(end)
                self.ends[number] = None

    def watch(self, keeper: int) -> None:
        """Look at the keeper's fd too."""
        self._keeper = keeper
        self._epoll.register(keeper, select.EPOLLIN)

    def fileno(self) -> int:
        """Give an fd that is readable when there is something for `step`."""
        return self._epoll.fileno()

    def step(self) -> bool:
        """Give what there is; waits for it, for LOOK_S seconds. Raises what a taker raises.

        True: the keeper has something to say.
        """
        ready = [fd for fd, _ in self._epoll.poll(LOOK_S)]
        for fd in ready:
            if fd != self._keeper:
                self._give(fd)
        return self._keeper in ready

    def drain(self) -> None:
        """Give what is left when the run's processes are dead: no more than a pipe holds.

        Some other process may have been given its end, and write on.
        """
        for fd, number in list(self._sources.items()):
            most = (self._totals[number] or 0) + fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
            while (self._totals[number] or 0) < most and self._give(fd):
                pass

    def captured(self, number: int) -> Captured:
        """Give what was captured of a stream, and how much there was."""
        taker = self._takers[number]
        return Captured(
            taker.content() if isinstance(taker, Collector) else b"", self._totals[number]
        )

    def truncated(self, number: int) -> bool:
        """Tell whether some of a stream was given to nobody."""
        if isinstance(self._takers[number], Collector):
            return self.captured(number).truncated
        return self.over and self._takers[number] is not None

    def close(self) -> None:
        """Close all; idempotent."""
        self._undo.close()

    def _give(self, source: int) -> bool:
        """Give a chunk; False if there is none."""
        number = self._sources.get(source)
        if number is None:
            return False
        try:
            chunk = os.read(source, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            del self._sources[source]
            self._epoll.unregister(source)
            return False
        before = sum(total or 0 for total in self._totals)
        self._totals[number] = (self._totals[number] or 0) + len(chunk)
        if self._limit is not None and before + len(chunk) > self._limit:
            chunk = chunk[: max(self._limit - before, 0)]
            self.over = True
        taker = self._takers[number]
        if chunk and taker is not None:
            taker(chunk)
        return True


class Collector:
    """A taker that keeps the first `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._parts: list[bytes] = []

    def __call__(self, chunk: bytes) -> None:
        self._parts.append(chunk[: self._room])
        self._room -= len(self._parts[-1])

    def content(self) -> bytes:
        """Give what was kept."""
        return b"".join(self._parts)
