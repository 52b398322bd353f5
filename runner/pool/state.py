"""What a pool does next: who gets which sandbox, who waits, who is refused. Pure.

`PoolState` decides and waits for nothing: it starts no sandbox, holds no lock and reads no
clock. The faces, for threads and for event loops, hold one lock around each call, keep the
sandboxes themselves by the number of their *seat*, and do what they are told.

A sandbox is lent with a `Grant` and comes back by `release`. Between the two the face reports
each run by `ran`. Whoever asked first is served first; while anybody waits, no seat is free.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from runner.config.checks import check_time, refuse
from runner.errors import ChildError, PoolClosed, PoolFull, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Hashable

LATENCIES_KEPT: Final = 1000


class Grant(NamedTuple):
    """A seat that is lent, and what to do with its sandbox before it is used.

    renew   close it: it is due, or was damaged; the next run starts it anew
    check   ask it whether it is alive, and close it if not: it has been idle for long
    """

    seat: int
    renew: bool = False
    check: bool = False


class PoolStats(NamedTuple):
    """Counts since the pool was made; what is now; seconds of the last runs.

    runs        that ended, with whatever status; `failures` are not among them
    failures    runs that the sandbox failed, those that were then tried again too
    recycled    sandboxes closed for their count, age, damage or a failed health check
    refused     requests that found the queue full
    expired     requests that waited for too long
    waited_s    what all requests that were served have waited together
    run_p50_s, run_p99_s, run_max_s   of the last 1000 runs, our own part included
    """

    size: int
    busy: int
    idle: int
    waiting: int
    runs: int
    failures: int
    recycled: int
    refused: int
    expired: int
    waited_s: float
    run_p50_s: float | None
    run_p99_s: float | None
    run_max_s: float | None


@dataclasses.dataclass(slots=True)
class _Seat:
    holder: Hashable | None = None
    lent: bool = False
    runs: int = 0  # of its present sandbox
    started: float | None = None  # when that had its first run; None: it has had none
    idle_since: float = 0.0
    damaged: bool = False


class _Waiter(NamedTuple):
    since: float
    deadline: float | None


class PoolState:
    """The seats of a pool and the queue before them; times are seconds of any one clock.

    queue_limit   how many may wait; 0: nobody
    max_runs      a sandbox is closed after so many; None: never for that reason
    max_age       … after so many seconds
    check_after   … is asked whether it is alive where it was idle for so many seconds
    """

    def __init__(
        self,
        size: int,
        *,
        queue_limit: int,
        max_runs: int | None = None,
        max_age: float | None = None,
        check_after: float | None = None,
    ) -> None:
        _check_number("size", size, 1)
        _check_number("queue_limit", queue_limit, 0)
        if max_runs is not None:
            _check_number("max_runs", max_runs, 1)
        check_time("max_age", max_age, zero=True)
        check_time("check_after", check_after, zero=True)
        self._queue_limit = queue_limit
        self._max_runs = math.inf if max_runs is None else max_runs
        self._max_age = math.inf if max_age is None else max_age
        self._check_after = math.inf if check_after is None else check_after
        self._seats = [_Seat() for _ in range(size)]
        # The last is lent next: it is warm, and those that nobody needs are not even started.
        self._free = list(reversed(range(size)))
        self._waiting: dict[Hashable, _Waiter] = {}  # in order of arrival
        self._closed = False
        self._latencies: collections.deque[float] = collections.deque(maxlen=LATENCIES_KEPT)
        self._counts: collections.Counter[str] = collections.Counter()
        self._waited = 0.0

    @property
    def closed(self) -> bool:
        """Whether requests are refused."""
        return self._closed

    @property
    def drained(self) -> bool:
        """Whether nothing is lent and nobody waits."""
        return not self._waiting and len(self._free) == len(self._seats)

    @property
    def next_deadline(self) -> float | None:
        """When `expire` has something to do next; None: nobody waits with a deadline."""
        deadlines = [w.deadline for w in self._waiting.values() if w.deadline is not None]
        return min(deadlines, default=None)

    def request(
        self, ticket: Hashable, now: float, deadline: float | None = None
    ) -> Grant | None:
        """Ask for a sandbox; None: it waits, and a later call's grant is for this ticket.

        Raises PoolClosed, PoolFull, and ConfigError for a ticket that is in use.
        """
        if self._closed:
            raise PoolClosed
        if ticket in self._waiting or self.seat_of(ticket) is not None:
            refuse("id", ticket, "a run with this id waits or runs already: give another")
        if self._free:
            return self._lend(ticket, now, now)
        if len(self._waiting) >= self._queue_limit:
            self._counts["refused"] += 1
            raise PoolFull(len(self._waiting))
        self._waiting[ticket] = _Waiter(now, deadline)
        return None

    def release(self, seat: int, now: float) -> tuple[Hashable, Grant] | None:
        """Take a sandbox back; gives who gets it next."""
        one = self._seats[seat]
        one.lent, one.holder, one.idle_since = False, None, now
        self._free.append(seat)
        if not self._waiting:
            return None
        ticket = next(iter(self._waiting))
        waiter = self._waiting.pop(ticket)
        return ticket, self._lend(ticket, now, waiter.since)

    def withdraw(self, ticket: Hashable) -> bool:
        """Stop waiting; False if it did not wait."""
        return self._waiting.pop(ticket, None) is not None

    def expire(self, now: float) -> list[Hashable]:
        """Give those who have waited until their deadline; they wait no more."""
        late = [
            ticket
            for ticket, waiter in self._waiting.items()
            if waiter.deadline is not None and waiter.deadline <= now
        ]
        for ticket in late:
            del self._waiting[ticket]
        self._counts["expired"] += len(late)
        return late

    def seat_of(self, ticket: Hashable) -> int | None:
        """Give the seat that is lent to a ticket."""
        for number, seat in enumerate(self._seats):
            if seat.lent and seat.holder == ticket:
                return number
        return None

    def ran(self, seat: int, now: float, *, seconds: float) -> bool:
        """Note a run; True: close the sandbox now, it is due, and tell so by `renewed`."""
        one = self._seats[seat]
        one.runs += 1
        if one.started is None:
            one.started = now - seconds
        self._counts["runs"] += 1
        self._latencies.append(seconds)
        return self._is_due(one, now)

    def failed(self, seat: int) -> None:
        """Note a run that the sandbox failed: it is lent to nobody else as it is."""
        self._seats[seat].damaged = True
        self._counts["failures"] += 1

    def renewed(self, seat: int) -> None:
        """Note that the seat's sandbox has been closed; its next run starts another."""
        one = self._seats[seat]
        one.runs, one.started, one.damaged = 0, None, False
        self._counts["recycled"] += 1

    def close(self, *, wait: bool) -> list[Hashable]:
        """Refuse all further requests; without `wait`, those that wait too: they are given."""
        self._closed = True
        if wait:
            return []
        refused = list(self._waiting)
        self._waiting.clear()
        return refused

    def stats(self) -> PoolStats:
        """Count."""
        times = sorted(self._latencies)
        size, idle = len(self._seats), len(self._free)
        return PoolStats(
            size=size,
            busy=size - idle,
            idle=idle,
            waiting=len(self._waiting),
            runs=self._counts["runs"],
            failures=self._counts["failures"],
            recycled=self._counts["recycled"],
            refused=self._counts["refused"],
            expired=self._counts["expired"],
            waited_s=self._waited,
            run_p50_s=_quantile(times, 0.5),
            run_p99_s=_quantile(times, 0.99),
            run_max_s=_quantile(times, 1.0),
        )

    def _lend(self, ticket: Hashable, now: float, since: float) -> Grant:
        number = self._free.pop()
        seat = self._seats[number]
        seat.lent, seat.holder = True, ticket
        self._waited += now - since
        renew = seat.damaged or self._is_due(seat, now)
        idle = seat.started is not None and now - seat.idle_since >= self._check_after
        return Grant(number, renew, check=idle and not renew)

    def _is_due(self, seat: _Seat, now: float) -> bool:
        if seat.started is None:
            return False
        return seat.runs >= self._max_runs or now - seat.started >= self._max_age


def is_ours(error: BaseException) -> bool:
    """Tell whether a run failed for what a new sandbox may not do again.

    What the host lacks and what cannot be meant is so the next time too; so is what is wrong
    with the program, such as that it is not there.
    """
    if isinstance(error, ChildError):
        return not error.of_the_program
    return isinstance(error, ProtocolError)


def _quantile(ordered: list[float], part: float) -> float | None:
    """Give the least value that `part` of all do not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else None


def _check_number(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        refuse(name, value, f"give {least} or more")
