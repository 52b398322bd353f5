"""Limits that cannot be meant are refused: with the field, the value, and what to do. X24."""

from __future__ import annotations

import math
import resource
from typing import Any

import pytest

from runner import ConfigError, GiB, HostError, Limits, MiB, Rlimit
from runner.guarantees import GUARANTEES, MEASURES, check_known, for_run, require
from runner.host import Host
from runner.rlimits import rlimits_of
from runner.units import MAX_BYTES

_TIME = "give a positive number of seconds, or None for no limit"
_NUMBER = "give seconds as a number, or None for no limit"
_WHOLE = "give a whole number, or None for no limit"
_SIZE = f"give 1 to {MAX_BYTES}, or None for no limit"
_COUNT = f"give 1 to {2**22}, or None for no limit"


@pytest.mark.parametrize("name", ["cpu_time", "wall_time", "idle_time"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (0, _TIME),
        (-1, _TIME),
        (-0.5, _TIME),
        (math.nan, _NUMBER),
        (math.inf, _NUMBER),
        (True, _NUMBER),
        ("1", _NUMBER),
        (1e10, "the longest time is 315360000 seconds"),
        (1e-10, "the shortest time is a nanosecond"),
    ],
)
def test_time_that_is_none_is_refused(name: str, value: object, why: str) -> None:
    refused({name: value}, f"Limits.{name}: {value!r}: {why}")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, _SIZE) for name in ("memory", "stack", "address_space", "output")),
        *((name, _SIZE) for name in ("file_size", "disk")),
        *((name, _COUNT) for name in ("processes", "open_files")),
        ("inodes", f"give 1 to {2**31 - 2}, or None for no limit"),
        ("cpu_weight", "give 1 to 10000, or None for no limit"),
    ],
)
@pytest.mark.parametrize("value", [0, -1, MAX_BYTES + 1, 2**64])
def test_number_out_of_range_is_refused(name: str, value: int, why: str) -> None:
    refused({name: value}, f"Limits.{name}: {value}: {why}")


@pytest.mark.parametrize("name", ["memory", "disk", "inodes", "processes"])
@pytest.mark.parametrize("value", [1.5, "64M", True, math.inf])
def test_number_that_is_not_whole_is_refused(name: str, value: object) -> None:
    refused({name: value}, f"Limits.{name}: {value!r}: {_WHOLE}")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"cpu_time": 2, "wall_time": 1},
            "Limits.wall_time: 1: it is below cpu_time=2, which could then never be reached",
        ),
        ({"extra_time": 1}, "Limits.extra_time: 1: it needs a cpu_time to go beyond"),
        ({"extra_time": -1, "cpu_time": 1}, f"Limits.extra_time: -1: {_TIME}"),
        ({"swap": -1}, f"Limits.swap: -1: give 0 to {MAX_BYTES}, or None to leave it alone"),
        (
            {"cpu_quota": 0},
            "Limits.cpu_quota: 0: give how many CPUs' time, 0.01 to 8192, or None for no limit",
        ),
        (
            {"cpus": ()},
            "Limits.cpus: (): give the numbers of one or more CPUs, 0 to 8191",
        ),
    ],
)
def test_limits_that_contradict_are_refused(limits: dict[str, Any], message: str) -> None:
    refused(limits, message)


def refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Limits(**limits)
    assert str(caught.value) == message


def test_limits_at_the_edge_are_taken() -> None:
    Limits(cpu_time=1, wall_time=1)
    Limits(cpu_time=1e-9, memory=1, disk=1, inodes=1, processes=1, output=1, swap=0)
    Limits(memory=MAX_BYTES, disk=MAX_BYTES, processes=2**22, inodes=2**31 - 2)


# What stands in where there is no group


@pytest.mark.parametrize(
    ("memory", "data"), [(MiB, 4 * GiB + MiB), (GiB, 5 * GiB), (2 * GiB, 8 * GiB)]
)
def test_data_without_a_group_is_far_above_the_memory_limit(memory: int, data: int) -> None:
    limits = Limits(memory=memory)
    wanted = Rlimit(resource.RLIMIT_DATA, data, data)
    assert wanted in rlimits_of(limits, cgroup_memory=False, cgroup_processes=True)
    held = rlimits_of(limits, cgroup_memory=True, cgroup_processes=True)
    assert [rlimit.resource for rlimit in held] == [resource.RLIMIT_CORE]


# Guarantees


@pytest.mark.parametrize("name", GUARANTEES)
def test_guarantee_that_nothing_holds_is_refused_by_its_name(name: str) -> None:
    held = {**dict.fromkeys(GUARANTEES, "by"), name: None}
    host = Host(kernel=(6, 1))
    with pytest.raises(HostError) as caught:
        require((name,), held, host)
    assert f"the guarantee {name!r} cannot be given" in str(caught.value)
    others = [other for other in GUARANTEES if other != name]
    require(others, {**held, **dict.fromkeys(others, "cgroup")}, host)


@pytest.mark.parametrize("name", ["cpu_time", "memory", "processes"])
@pytest.mark.parametrize("by", ["proc", "rlimit"])
def test_guarantee_that_can_be_evaded_is_refused_with_a_remedy(name: str, by: str) -> None:
    held: dict[str, str | None] = {**dict.fromkeys(GUARANTEES, "by"), name: by}
    with pytest.raises(HostError) as caught:
        require((name,), held, Host(kernel=(6, 1)))
    assert str(caught.value) == (
        f"the guarantee {name!r} cannot be given here: "
        "no cgroup to run programs in: no cgroup file system that has it is mounted"
    )
    assert caught.value.hint == "mount -t cgroup2 cgroup2 /sys/fs/cgroup"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("network", "do not share the network"),
        ("syscalls", "give a seccomp policy"),
        (
            "user",
            "start as root with CAP_SETUID and CAP_SETGID: others have but one id to give",
        ),
        (
            "disk",
            "show no directory of yours writable: give a tmpfs, which is new for each run",
        ),
    ],
)
def test_guarantee_of_our_own_is_refused_with_its_remedy(name: str, remedy: str) -> None:
    held: dict[str, str | None] = {**dict.fromkeys(GUARANTEES, "by"), name: None}
    with pytest.raises(HostError) as caught:
        require((name,), held, Host(kernel=(6, 1)))
    assert str(caught.value) == f"the guarantee {name!r} cannot be given here"
    assert caught.value.hint == remedy


def test_output_that_a_run_cannot_hold_is_refused_with_its_remedy() -> None:
    held: dict[str, str | None] = dict.fromkeys(GUARANTEES, "keeper")
    with pytest.raises(HostError) as caught:
        for_run(held, ("output",), None)
    assert str(caught.value) == (
        "the guarantee 'output' cannot be given for a pipe or a terminal"
    )
    assert caught.value.hint == "capture the output, or send it to a file"
    assert for_run(held, (), None)["output"] is None


def test_guarantee_that_there_is_none_of_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        check_known(["memory", "teleport", "beam"])
    known = ", ".join((*GUARANTEES, *sorted(MEASURES)))
    assert str(caught.value) == f"require: 'beam, teleport': known are {known}"
