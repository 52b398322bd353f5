"""What is enforced for each kind of caller on a machine with cgroup v2: TIER names the kind.

Run by .ci/v2 in each of its tiers, and by name only: elsewhere there is nothing to compare.
"""

from __future__ import annotations

import os

import pytest

from runner import Sandbox, Status
from runner.cgroup import Parent, Resource
from runner.config import Limits
from runner.errors import HostError
from runner.host import detect
from runner.units import MiB

TIER = os.environ["TIER"]
ROOT = "/sys/fs/cgroup"

# The group below which ours go; or what is in the way, with a part of the remedy.
PLACES = {
    "root": ROOT,
    "root-delegated": f"{ROOT}/service",
    "user-delegated": f"{ROOT}/user",
    # A process that is below the root of its cgroup namespace still sees its container's.
    "container-nested": ROOT,
}
OBSTACLES = {
    "user": (
        f"{ROOT} is not writable for uid 65534",
        "systemd-run --user --scope -p Delegate=yes",
    ),
    "container-read-only": (
        f"{ROOT} is mounted read-only",
        "give the container a writable cgroup file system",
    ),
    "container": (
        f"{ROOT} has processes of its own, so it cannot pass on memory, pids",
        "let it call runner.cgroup.nest first",
    ),
}
PLACE = PLACES.get(TIER)
OBSTACLE, REMEDY = OBSTACLES.get(TIER, ("", ""))
BY_GROUPS = ("cpu_time", "memory", "swap", "processes")
ALL = frozenset({Resource.CPU, Resource.PROCESSES, Resource.MEMORY})


def assert_explained(error: HostError) -> None:
    assert error.missing.endswith(f": {OBSTACLE}")
    assert error.hint is not None
    assert REMEDY in error.hint


def test_groups_go_to_the_place_that_is_ours_or_it_is_said_why_not() -> None:
    parent = Parent.find(detect())
    if PLACE is not None:
        assert parent is not None
        assert [(place.path, place.version) for place in parent.places] == [(PLACE, 2)]
        assert parent.places[0].resources == ALL
        assert parent.why_not == {}
    elif parent is not None:
        assert TIER == "container"  # where CPU time can be measured, and nothing limited
        assert parent.places[0].resources == {Resource.CPU}
        assert {why.missing for why in parent.why_not.values()} == {OBSTACLE}


def test_enforced_is_by_groups_where_there_are_some() -> None:
    with Sandbox() as sandbox:
        sandbox.start()
        held = {name: sandbox.enforced[name] for name in BY_GROUPS}
    if PLACE is None:
        expected = {"cpu_time": "proc", "memory": "proc", "swap": None, "processes": "rlimit"}
    else:
        expected = dict.fromkeys(BY_GROUPS, "cgroup")
    assert held == expected


def test_memory_limit_ends_a_hog_everywhere() -> None:
    program = ["python3", "-Sc", "b = bytearray(64 << 20); import time; time.sleep(9)"]
    with Sandbox() as sandbox:
        result = sandbox.run(program, limits=Limits(memory=32 * MiB, wall_time=60))
    assert result.status is Status.MEMORY_LIMIT


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("cpu_quota", Limits(cpu_quota=0.5)),
        ("cpu_weight", Limits(cpu_weight=7)),
        ("cpus", Limits(cpus={0})),
    ],
)
def test_limit_that_needs_a_controller_is_held_or_refused(name: str, limits: Limits) -> None:
    with Sandbox() as sandbox:
        if PLACE is not None:
            result = sandbox.run(["true"], limits=limits)
            assert result.ok
            assert result.enforced[name] == "cgroup"
            return
        with pytest.raises(HostError) as caught:
            sandbox.run(["true"], limits=limits)
    assert_explained(caught.value)


def test_required_memory_is_given_or_refused_with_a_remedy_for_this_caller() -> None:
    with Sandbox(require=["memory", "swap"]) as sandbox:
        if PLACE is not None:
            sandbox.start()
            return
        with pytest.raises(HostError) as caught:
            sandbox.start()
    assert_explained(caught.value)


def test_devices_by_a_program_of_the_kernel_are_for_root_only() -> None:
    parent = Parent.find(detect())
    if PLACE is None or parent is None:
        return
    with parent.create() as groups:
        if os.geteuid() == 0:
            groups.prepare(Limits(devices=()))
            return
        with pytest.raises(HostError) as caught:
            groups.prepare(Limits(devices=()))
    assert caught.value.missing == (
        "devices: cannot load a BPF program for a cgroup: Operation not permitted"
    )
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("run as root with CAP_BPF")
