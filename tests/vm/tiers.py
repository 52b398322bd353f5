"""What is enforced for each kind of caller on a machine with cgroup v2: TIER names the kind.

Run by .ci/v2 in each of its tiers, and by name only: elsewhere there is nothing to compare.
"""

from __future__ import annotations

import os

import pytest

from runner import Sandbox
from runner.cgroup import Parent, Resource
from runner.config import Limits
from runner.errors import HostError
from runner.host import detect

TIER = os.environ["TIER"]

# The group below which ours go, and what is enforced there.
PLACES = {
    "root": "/sys/fs/cgroup",
    "root-delegated": "/sys/fs/cgroup/service",
    "user-delegated": "/sys/fs/cgroup/user",
}
BY_GROUPS = ("cpu_time", "memory", "swap", "processes")


def test_groups_go_to_the_place_that_is_ours() -> None:
    parent = Parent.find(detect())
    if TIER == "user":
        assert parent is None
        return
    assert parent is not None
    assert [(place.path, place.version) for place in parent.places] == [(PLACES[TIER], 2)]
    assert parent.why_not == {}


def test_enforced_is_by_groups_where_there_are_some() -> None:
    with Sandbox() as sandbox:
        sandbox.start()
        held = {name: sandbox.enforced[name] for name in BY_GROUPS}
    if TIER == "user":
        expected = {"cpu_time": "proc", "memory": "proc", "swap": None, "processes": "rlimit"}
    else:
        expected = dict.fromkeys(BY_GROUPS, "cgroup")
    assert held == expected


@pytest.mark.parametrize(
    "limits",
    [Limits(cpu_quota=0.5), Limits(cpu_weight=7), Limits(cpus={0})],
    ids=["quota", "weight", "cpus"],
)
def test_limit_that_needs_a_controller_is_held_or_refused(limits: Limits) -> None:
    with Sandbox() as sandbox:
        if TIER != "user":
            result = sandbox.run(["true"], limits=limits)
            assert result.ok
            assert result.enforced.items() >= {"memory": "cgroup"}.items()
            assert "cgroup" in {
                result.enforced.get(name) for name in ("cpu_quota", "cpu_weight", "cpus")
            }
            return
        with pytest.raises(HostError) as caught:
            sandbox.run(["true"], limits=limits)
    assert caught.value.missing.startswith("no cgroup to run programs in: ")


def test_required_memory_is_given_or_refused_with_a_remedy_for_this_user() -> None:
    with Sandbox(require=["memory", "swap"]) as sandbox:
        if TIER != "user":
            sandbox.start()
            return
        with pytest.raises(HostError) as caught:
            sandbox.start()
    assert caught.value.missing == (
        "no cgroup to run programs in: /sys/fs/cgroup is not writable for uid 65534"
    )
    assert caught.value.hint is not None
    assert "systemd-run --user --scope -p Delegate=yes" in caught.value.hint


def test_devices_by_a_program_of_the_kernel_are_for_root_only() -> None:
    parent = Parent.find(detect())
    if parent is None:
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


def test_resources_have_no_reason_where_they_are_served() -> None:
    parent = Parent.find(detect())
    if parent is not None:
        assert parent.places[0].resources == {
            *(Resource.CPU, Resource.PROCESSES, Resource.MEMORY)
        }
