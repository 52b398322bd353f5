"""How a run ended, from what was recorded: each cause alone, and which of two wins. X5, X14."""

from __future__ import annotations

import dataclasses
import itertools
import signal
from typing import Any, Final

import pytest

from runner import HostError, Limits, MiB, Rlimit, Status, wire
from runner.cgroup import GroupUsage
from runner.errors import Detail
from runner.measure import Ending, ending_of, figures_of
from runner.wire import Cause

S: Final = 1_000_000_000
FAILED: Final = 3 << 8  # as wait4 gives it: exit code 3

# Every limit there is: none is met unless something says so.
LIMITS: Final = Limits(
    cpu_time=1.0,
    wall_time=2.0,
    idle_time=1.0,
    memory=64 * MiB,
    address_space=512 * MiB,
    output=MiB,
    file_size=2 * MiB,
    processes=8,
    disk=4 * MiB,
    inodes=9,
)
REPLY: Final = wire.Reply(*(0,) * len(wire.Reply._fields))._replace(
    status=FAILED, memory_bytes=-1, stdout_bytes=-1, stderr_bytes=-1
)
USAGE: Final = GroupUsage(
    cpu_ns=1000, memory_bytes=MiB, oom_kills=0, memory_limit_hits=0, process_limit_hits=0
)


@dataclasses.dataclass(frozen=True)
class Case:
    """What one cause leaves behind, and the ending that it alone is."""

    name: str
    ending: Ending
    reply: dict[str, int] = dataclasses.field(default_factory=dict)
    usage: dict[str, int] | None = dataclasses.field(default_factory=dict)
    options: dict[str, bool] = dataclasses.field(default_factory=dict)


def caused(cause: Cause, status: Status, limit: str | None) -> Case:
    return Case(f"keeper:{limit}", Ending(status, limit), {"cause": cause})


# In the order in which they win, docs/verdicts.md. Of those with one number only one can be.
CASES: Final = (
    Case("cancelled", Ending(Status.CANCELLED), {"cause": Cause.CANCELLED}),
    Case(
        "oom",
        Ending(Status.MEMORY_LIMIT, "memory"),
        usage={"oom_kills": 1, "memory_limit_hits": 2},
    ),
    caused(Cause.CPU_TIME, Status.CPU_TIME_LIMIT, "cpu_time"),
    caused(Cause.WALL_TIME, Status.WALL_TIME_LIMIT, "wall_time"),
    caused(Cause.IDLE_TIME, Status.IDLE_TIME_LIMIT, "idle_time"),
    caused(Cause.MEMORY, Status.MEMORY_LIMIT, "memory"),
    caused(Cause.OUTPUT, Status.OUTPUT_LIMIT, "output"),
    Case("syscall", Ending(Status.DISALLOWED_SYSCALL), {"cause": Cause.SYSCALL}),
    Case("cpu", Ending(Status.CPU_TIME_LIMIT, "cpu_time"), usage={"cpu_ns": S + 1}),
    Case("wall", Ending(Status.WALL_TIME_LIMIT, "wall_time"), {"wall_ns": 2 * S + 1}),
    Case(
        "seen",
        Ending(Status.MEMORY_LIMIT, "memory"),
        {"memory_bytes": 64 * MiB + 1},
        usage=None,
    ),
    Case(
        "address-space",
        Ending(Status.MEMORY_LIMIT, "address_space"),
        {"detail": Detail.BEYOND_ADDRESS_SPACE, "status": signal.SIGSEGV},
    ),
    Case(
        "data",
        Ending(Status.MEMORY_LIMIT, "memory"),
        {"detail": Detail.BEYOND_DATA, "status": signal.SIGSEGV},
    ),
    Case("xfsz", Ending(Status.OUTPUT_LIMIT, "output"), {"status": signal.SIGXFSZ}),
    Case(
        "sys",
        Ending(Status.DISALLOWED_SYSCALL),
        {"status": signal.SIGSYS},
        options={"filtered": True},
    ),
    Case("fork", Ending(Status.PROCESS_LIMIT, "processes"), usage={"process_limit_hits": 1}),
    Case("file", Ending(Status.OUTPUT_LIMIT, "output"), options={"output_full": True}),
    Case("disk", Ending(Status.DISK_LIMIT, "disk"), {"full": wire.FULL_BYTES}),
    Case("inodes", Ending(Status.DISK_LIMIT, "inodes"), {"full": wire.FULL_INODES}),
    Case("signal", Ending(Status.SIGNALLED), {"status": signal.SIGSEGV}),
    Case("exit", Ending(Status.NONZERO_EXIT)),
)
PAIRS: Final = tuple(itertools.combinations(CASES, 2))


def ended(*cases: Case, limits: Limits = LIMITS, **reply: int) -> Ending:
    """Give the ending of a run that has met all of these."""
    fields: dict[str, Any] = {}
    usage: GroupUsage | None = USAGE
    options: dict[str, bool] = {}
    for case in reversed(cases):
        fields |= case.reply
        options |= case.options
        if case.usage is None:
            usage = None
        elif usage is not None:
            usage = usage._replace(**case.usage)
    answer = REPLY._replace(**fields | reply)
    return ending_of(answer, usage, limits, figures_of(answer, usage), **options)


def compatible(one: Case, other: Case) -> bool:
    """Tell whether one run can meet both: a number of the reply is one or the other."""
    shared = one.reply.keys() & other.reply.keys()
    if any(one.reply[name] != other.reply[name] for name in shared):
        return False
    groups = (one.usage, other.usage)
    return None not in groups or not any(groups)  # "seen" is without a group


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_cause_alone_is_its_status_and_limit(case: Case) -> None:
    assert ended(case) == case.ending


@pytest.mark.parametrize(
    ("first", "second"),
    [pair for pair in PAIRS if compatible(*pair)],
    ids=lambda case: case.name,
)
def test_of_two_causes_the_earlier_of_the_table_wins(first: Case, second: Case) -> None:
    assert ended(first, second) == first.ending


def test_pairs_that_cannot_be_are_few() -> None:
    """What is left out is one recorded cause or one wait status against another."""
    left_out = {(a.name, b.name) for a, b in PAIRS if not compatible(a, b)}
    assert len(PAIRS) - len(left_out) > 140
    assert ("oom", "keeper:cpu_time") not in left_out
    assert ("cancelled", "oom") not in left_out


@pytest.mark.parametrize("name", ["fork", "file", "disk", "inodes"])
def test_what_was_refused_to_a_program_that_succeeds_is_no_verdict(name: str) -> None:
    (case,) = (case for case in CASES if case.name == name)
    assert ended(case, status=0) == Ending(Status.OK)


@pytest.mark.parametrize("name", ["fork", "disk", "inodes", "oom", "xfsz", "data"])
def test_without_the_limit_nothing_of_it_is_a_verdict(name: str) -> None:
    (case,) = (case for case in CASES if case.name == name)
    own = Status.SIGNALLED if "status" in case.reply else Status.NONZERO_EXIT
    assert ended(case, limits=Limits()) == Ending(own)


def test_both_of_the_disk_limits_met_are_named_by_the_bytes() -> None:
    full = wire.FULL_BYTES | wire.FULL_INODES
    assert ended(full=full) == Ending(Status.DISK_LIMIT, "disk")
    assert ended(full=full, limits=Limits(inodes=9)) == Ending(Status.DISK_LIMIT, "inodes")


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(output=1), "output"),
        (Limits(file_size=1), "file_size"),
        (Limits(output=1, file_size=2), "output"),
        (Limits(output=2, file_size=1), "file_size"),
        (Limits(output=1, file_size=1), "output"),
    ],
)
def test_file_that_is_too_large_is_named_by_the_smaller_limit(
    limits: Limits, name: str
) -> None:
    of_signal = ended(status=signal.SIGXFSZ, limits=limits)
    assert of_signal == Ending(Status.OUTPUT_LIMIT, name)


@pytest.mark.parametrize(
    ("detail", "limits", "ending"),
    [
        (
            Detail.BEYOND_ADDRESS_SPACE,
            Limits(address_space=1, rlimits=(Rlimit.named("AS", 1),)),
            Ending(Status.MEMORY_LIMIT, "rlimits"),
        ),
        (
            Detail.BEYOND_DATA,
            Limits(memory=1, rlimits=(Rlimit.named("DATA", 1),)),
            Ending(Status.MEMORY_LIMIT, "rlimits"),
        ),
        # Limits of a `Runner`, of which we only know that they were met.
        (Detail.BEYOND_ADDRESS_SPACE, Limits(memory=MiB), Ending(Status.SIGNALLED)),
        (Detail.BEYOND_DATA, Limits(address_space=MiB), Ending(Status.SIGNALLED)),
    ],
)
def test_program_that_is_too_large_to_load_is_named_by_the_limit_that_was_given(
    detail: Detail, limits: Limits, ending: Ending
) -> None:
    assert ended(detail=detail, status=signal.SIGSEGV, limits=limits) == ending


def test_figure_of_exactly_the_limit_does_not_exceed_it() -> None:
    at = Case("at", Ending(Status.NONZERO_EXIT), {"wall_ns": 2 * S}, {"cpu_ns": S})
    assert ended(at) == at.ending


def test_cpu_time_of_our_own_is_not_the_programs() -> None:
    at = Case("at", Ending(Status.NONZERO_EXIT), {"setup_cpu_ns": 5}, {"cpu_ns": S + 5})
    assert ended(at) == at.ending


def test_max_rss_above_the_limit_of_a_group_is_no_verdict() -> None:
    """It counts pages of files that are charged to nobody, or to others."""
    reply = REPLY._replace(status=0, max_rss_bytes=65 * MiB)
    usage = USAGE._replace(memory_bytes=None)  # cgroup v2 before Linux 5.19
    figures = figures_of(reply, usage)
    assert figures.memory_bytes == 65 * MiB
    assert ending_of(reply, usage, LIMITS, figures) == Ending(Status.OK)
    assert ending_of(reply, None, LIMITS, figures) == Ending(Status.MEMORY_LIMIT, "memory")


@pytest.mark.parametrize("cause", [c for c in Cause if c is not Cause.CANCELLED])
def test_oom_kill_below_its_own_limit_is_never_the_programs_verdict(cause: Cause) -> None:
    with pytest.raises(HostError) as caught:
        ended(Case("host", Ending(Status.OK), {"cause": cause}, {"oom_kills": 1}))
    assert str(caught.value) == (
        "memory ran out above the program's own limit, in a group above ours or on the whole "
        "host, and a process of it was killed"
    )
    assert caught.value.hint == (
        "raise the limit of the group that we are in, or run fewer at a time"
    )


def test_oom_kill_of_a_cancelled_run_is_cancelled() -> None:
    killed = Case("host", Ending(Status.CANCELLED), {"cause": Cause.CANCELLED})
    assert ended(killed, Case("oom", Ending(Status.OK), usage={"oom_kills": 1})) == Ending(
        Status.CANCELLED
    )


def test_oom_kill_where_the_kernel_counts_no_hits_is_the_limits() -> None:
    usage = USAGE._replace(oom_kills=1, memory_limit_hits=None)
    assert ending_of(REPLY, usage, LIMITS, figures_of(REPLY, usage)) == Ending(
        Status.MEMORY_LIMIT, "memory"
    )
