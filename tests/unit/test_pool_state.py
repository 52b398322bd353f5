"""What a pool decides, against a model of it that is as simple as can be."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from runner.errors import (
    ChildError,
    ConfigError,
    ErrorLocation,
    HostError,
    PoolClosed,
    PoolFull,
    ProtocolError,
)
from runner.pool.state import Grant, PoolState, is_ours

# One request and its end.


def test_request_of_a_free_pool_is_granted_at_once() -> None:
    assert PoolState(2, queue_limit=0).request("a", 0.0) == Grant(seat=0)


def test_request_of_a_busy_pool_waits_and_is_served_in_order() -> None:
    state = PoolState(1, queue_limit=2)
    state.request("a", 0.0)
    assert state.request("b", 1.0) is None
    assert state.request("c", 2.0) is None
    assert state.release(0, 5.0) == ("b", Grant(seat=0))
    assert state.release(0, 6.0) == ("c", Grant(seat=0))
    assert state.release(0, 7.0) is None
    assert state.stats().waited_s == 4.0 + 4.0


def test_request_beyond_the_queue_limit_is_refused_with_how_many_wait() -> None:
    state = PoolState(1, queue_limit=1)
    state.request("a", 0.0)
    state.request("b", 0.0)
    with pytest.raises(PoolFull, match="1 wait already") as caught:
        state.request("c", 0.0)
    assert caught.value.waiting == 1
    assert state.stats().refused == 1


@pytest.mark.parametrize("ticket", ["runs", "waits"])
def test_request_with_an_id_in_use_is_refused(ticket: str) -> None:
    state = PoolState(1, queue_limit=2)
    state.request("runs", 0.0)
    state.request("waits", 0.0)
    with pytest.raises(ConfigError, match=f"id: '{ticket}': "):
        state.request(ticket, 0.0)


def test_request_of_a_closed_pool_is_refused() -> None:
    state = PoolState(1, queue_limit=1)
    state.close(wait=True)
    with pytest.raises(PoolClosed):
        state.request("a", 0.0)


def test_expired_requests_wait_no_more() -> None:
    state = PoolState(1, queue_limit=3)
    state.request("a", 0.0)
    state.request("b", 0.0, deadline=2.0)
    state.request("c", 0.0, deadline=1.0)
    state.request("d", 0.0)
    assert state.next_deadline == 1.0
    assert state.expire(0.5) == []
    assert state.expire(1.0) == ["c"]
    assert state.next_deadline == 2.0
    assert state.stats().expired == 1
    assert state.release(0, 1.5) == ("b", Grant(seat=0))


def test_withdrawn_request_waits_no_more() -> None:
    state = PoolState(1, queue_limit=1)
    state.request("a", 0.0)
    state.request("b", 0.0)
    assert not state.withdraw("a"), "it runs"
    assert state.withdraw("b")
    assert state.release(0, 1.0) is None
    assert state.seat_of("a") is None


def test_release_lends_the_warm_sandbox_first() -> None:
    state = PoolState(3, queue_limit=0)
    assert [state.request(i, 0.0) for i in range(3)] == [Grant(0), Grant(1), Grant(2)]
    for seat in (2, 0, 1):
        state.release(seat, 1.0)
    assert state.request("a", 2.0) == Grant(1)


# When a sandbox is closed, or asked.


def test_sandbox_with_max_runs_is_due_after_so_many() -> None:
    state = PoolState(1, queue_limit=0, max_runs=2)
    state.request("a", 0.0)
    assert not state.ran(0, 1.0, seconds=1.0)
    assert state.ran(0, 2.0, seconds=1.0)
    state.renewed(0)
    assert not state.ran(0, 3.0, seconds=1.0), "counted anew"
    assert state.stats().recycled == 1


def test_sandbox_with_max_age_is_due_when_it_has_passed_since_its_start() -> None:
    state = PoolState(1, queue_limit=0, max_age=10.0, check_after=0.0)
    state.request("a", 100.0)
    assert not state.ran(0, 105.0, seconds=5.0), "its age is that of the first run's start"
    state.release(0, 109.0)
    assert state.request("b", 109.9) == Grant(0, check=True)
    state.release(0, 109.9)
    assert state.request("c", 110.0) == Grant(0, renew=True), "and what is closed is not asked"


def test_sandbox_that_failed_is_renewed_before_it_is_lent_again() -> None:
    state = PoolState(1, queue_limit=1)
    state.request("a", 0.0)
    state.request("b", 0.0)
    state.failed(0)
    assert state.release(0, 1.0) == ("b", Grant(0, renew=True))
    state.renewed(0)
    state.release(0, 1.0)
    assert state.request("c", 1.0) == Grant(0)
    assert state.stats().failures == 1


def test_sandbox_that_was_idle_is_checked_if_it_was_ever_started() -> None:
    state = PoolState(1, queue_limit=0, check_after=5.0)
    assert state.request("a", 100.0) == Grant(0), "nothing is there to be checked"
    state.ran(0, 101.0, seconds=1.0)
    state.release(0, 101.0)
    assert state.request("b", 105.9) == Grant(0)
    state.release(0, 106.0)
    assert state.request("c", 111.0) == Grant(0, check=True)


# What the pool says of itself.


def test_stats_give_quantiles_of_the_runs() -> None:
    state = PoolState(1, queue_limit=0)
    assert state.stats().run_p50_s is None
    state.request("a", 0.0)
    for hundredths in range(1, 101):
        state.ran(0, 1.0, seconds=hundredths / 100)
    stats = state.stats()
    assert (stats.run_p50_s, stats.run_p99_s, stats.run_max_s) == (0.5, 0.99, 1.0)
    assert (stats.runs, stats.size, stats.busy, stats.idle) == (100, 1, 1, 0)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": 0}, "size"),
        ({"size": True}, "size"),
        ({"queue_limit": -1}, "queue_limit"),
        ({"max_runs": 0}, "max_runs"),
        ({"max_age": -1.0}, "max_age"),
        ({"check_after": float("nan")}, "check_after"),
    ],
)
def test_pool_with_an_impossible_value_is_refused(
    options: dict[str, float], field: str
) -> None:
    arguments: dict[str, float] = {"size": 1, "queue_limit": 0} | options
    with pytest.raises(ConfigError, match=f"^{field}: "):
        PoolState(arguments.pop("size"), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (ProtocolError("gone"), True),
        (ChildError(ErrorLocation.CLEAN, 16), True),
        (ChildError(ErrorLocation.EXECVE, 2), False),
        (HostError("namespaces"), False),
        (ConfigError("args: []"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_error_is_ours_where_a_new_sandbox_may_not_have_it(
    error: BaseException, ours: bool
) -> None:
    assert is_ours(error) is ours


# Any sequence of events.


class Pool(RuleBasedStateMachine):
    """The state against a model: a list of who waits, and who has which seat."""

    lent = Bundle("lent")

    @initialize(size=st.integers(1, 3), limit=st.integers(0, 3))
    def make(self, size: int, limit: int) -> None:
        self.size, self.limit = size, limit
        self.state = PoolState(size, queue_limit=limit, max_runs=3, max_age=20, check_after=5)
        self.now = 0.0
        self.tickets = 0
        self.waiting: list[tuple[int, float]] = []
        self.holders: dict[int, int] = {}
        self.closed = False

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=lent, patience=st.floats(0, 20))
    def ask(self, patience: float) -> int:
        self.tickets += 1
        ticket, deadline = self.tickets, self.now + patience
        try:
            grant = self.state.request(ticket, self.now, deadline)
        except PoolClosed:
            assert self.closed
        except PoolFull as full:
            said = full.waiting
            assert [said, len(self.holders)] == [self.limit, self.size]
            assert len(self.waiting) == self.limit
        else:
            assert not self.closed
            if grant is None:
                self.waiting.append((ticket, deadline))
            else:
                self.lend(ticket, grant)
        return ticket

    def lend(self, ticket: int, grant: Grant) -> None:
        assert grant.seat not in self.holders, "a seat is lent to one at a time"
        self.holders[grant.seat] = ticket
        if grant.renew:
            self.state.renewed(grant.seat)

    @rule(ticket=lent, seconds=st.floats(0, 1), fails=st.booleans())
    def run(self, ticket: int, seconds: float, fails: bool) -> None:
        seat = self.state.seat_of(ticket)
        assert seat == next((s for s, t in self.holders.items() if t == ticket), None)
        if seat is None:
            return
        self.now += seconds
        if fails:
            self.state.failed(seat)
        elif self.state.ran(seat, self.now, seconds=seconds):
            self.state.renewed(seat)

    @rule(ticket=consumes(lent))
    def give_back(self, ticket: int) -> None:
        seat = self.state.seat_of(ticket)
        if seat is None:
            was = [one for one in self.waiting if one[0] == ticket]
            assert self.state.withdraw(ticket) is bool(was)
            self.waiting = [one for one in self.waiting if one[0] != ticket]
            return
        del self.holders[seat]
        served = self.state.release(seat, self.now)
        if self.waiting:
            assert served is not None
            assert served[0] == self.waiting.pop(0)[0], "first come, first served"
            self.lend(self.waiting_ticket(served[0]), served[1])
        else:
            assert served is None

    @staticmethod
    def waiting_ticket(ticket: object) -> int:
        assert isinstance(ticket, int)
        return ticket

    @rule()
    def expire(self) -> None:
        late = [ticket for ticket, deadline in self.waiting if deadline <= self.now]
        assert self.state.expire(self.now) == late
        self.waiting = [one for one in self.waiting if one[0] not in late]

    @precondition(lambda self: self.tickets > 5)
    @rule(wait=st.booleans())
    def close(self, wait: bool) -> None:
        refused = self.state.close(wait=wait)
        assert refused == ([] if wait else [ticket for ticket, _ in self.waiting])
        self.waiting = self.waiting if wait else []
        self.closed = True

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "state"):
            return
        stats = self.state.stats()
        assert (stats.busy, stats.waiting) == (len(self.holders), len(self.waiting))
        assert stats.busy + stats.idle == self.size
        assert not (stats.idle and stats.waiting), "nobody waits while a seat is free"
        assert self.state.drained is (not self.holders and not self.waiting)
        deadlines = [deadline for _, deadline in self.waiting]
        assert self.state.next_deadline == min(deadlines, default=None)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
