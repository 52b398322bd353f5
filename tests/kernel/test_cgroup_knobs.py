"""What a run may ask of its groups besides the usual: M84–M87, FG8–FG12, U66–U70, X15, X19."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from runner import Sandbox
from runner.cgroup import Groups, Parent, Resource
from runner.cgroup.blockio import disk_of
from runner.config import DeviceAccess, IoLimit, Limits
from runner.errors import HostError
from runner.units import MiB
from tests.kernel.grouping import burn, groups_of, run, start, touch

pytestmark = pytest.mark.cgroup

ALLOWED = sorted(os.sched_getaffinity(0))


def prepared(groups: Groups, limits: Limits) -> None:
    """Prepare groups, or skip where this user or kernel has not got the controller."""
    try:
        groups.prepare(limits)
    except HostError as error:
        if " need" not in error.missing:
            raise
        pytest.skip(f"needs a controller: {error.missing}")


def timed(groups: Groups, limits: Limits, seconds: float) -> tuple[float, float]:
    """Burn this much CPU time in the groups; give wall time and CPU time in seconds."""
    prepared(groups, limits)
    begin = time.monotonic()
    assert os.waitpid(start(groups, lambda: burn(seconds)), 0)[1] == 0
    wall = time.monotonic() - begin
    cpu_ns = groups.usage().cpu_ns
    assert cpu_ns is not None
    return wall, cpu_ns / 1e9


def test_cpu_quota_of_a_fifth_stretches_the_run_and_counts_the_throttling(
    groups: Groups,
) -> None:
    wall, cpu = timed(groups, Limits(cpu_quota=0.2), 0.15)
    usage = groups.usage()
    # It gets 20 ms in each 100 and pays for what it took beyond, so it needs eight periods, of
    # which the first and the last need not be whole.
    assert wall >= 0.5
    assert cpu <= 0.2 * wall + 0.06
    assert usage.throttled_periods is not None
    assert usage.throttled_periods >= 3
    assert usage.throttled_ns is not None
    assert usage.throttled_ns >= 100_000_000
    assert usage.enforced["cpu_quota"] == "cgroup"


def test_cpu_quota_is_gone_in_the_next_run_that_asks_for_none(groups: Groups) -> None:
    before = groups.placement
    timed(groups, Limits(cpu_quota=0.1), 0.02)
    timed(groups, Limits(), 0.1)
    assert len(groups.placement) == len(before)
    usage = groups.usage()
    assert (usage.throttled_periods or 0, usage.throttled_ns or 0) == (0, 0)
    assert "cpu_quota" not in usage.enforced
    # Its file too, where a later run joins the group for another reason.
    prepared(groups, Limits(cpu_weight=100))
    timed(groups, Limits(cpu_weight=100), 0.1)
    assert groups.usage().throttled_ns is None


def test_cpu_quota_of_a_new_group_is_that_of_the_run(groups: Groups) -> None:
    timed(groups, Limits(cpu_quota=0.2), 0.01)
    run(groups, lambda: touch(8 * MiB), Limits(cpu_quota=0.2))
    for member in list(groups._members):
        groups._renew(member)
    wall, cpu = timed(groups, Limits(cpu_quota=0.2), 0.1)
    assert cpu <= 0.2 * wall + 0.06


def test_cpu_weight_shares_a_contended_cpu(parent: Parent) -> None:
    only = {ALLOWED[0]}
    with contextlib.ExitStack() as stack:
        light = stack.enter_context(parent.create())
        heavy = stack.enter_context(parent.create())
        prepared(light, Limits(cpu_weight=100))
        prepared(heavy, Limits(cpu_weight=900))

        def busy() -> None:
            os.sched_setaffinity(0, only)
            burn(60)

        pids = [start(light, busy), start(heavy, busy)]
        time.sleep(1.0)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        slow, fast = light.usage().cpu_ns, heavy.usage().cpu_ns
    assert slow is not None
    assert fast is not None
    # Nine to one, but for the start; four to one is far from equal.
    assert fast >= 4 * slow


def test_cpus_are_those_asked_for_and_cannot_be_widened(groups: Groups) -> None:
    last = ALLOWED[-1]

    def look() -> None:
        seen = os.sched_getaffinity(0)
        with contextlib.suppress(OSError):  # EINVAL where nothing of it is in the cpuset
            os.sched_setaffinity(0, ALLOWED)
        os._exit(0 if seen == os.sched_getaffinity(0) == {last} else 1)

    prepared(groups, Limits(cpus={last}))
    assert run(groups, look, Limits(cpus={last})) == 0
    assert groups.usage().enforced["cpus"] == "cgroup"
    every = ALLOWED
    status = run(groups, lambda: os._exit(os.sched_getaffinity(0) != set(every)))
    assert status == 0


def test_cpus_that_do_not_exist_are_a_host_error(groups: Groups) -> None:
    prepared(groups, Limits(cpus={ALLOWED[0]}))
    with pytest.raises(HostError) as caught:
        groups.prepare(Limits(cpus={ALLOWED[0], 8191}))
    assert caught.value.hint == (
        "name CPUs that are online and in the cpuset of the groups above"
    )
    groups.prepare(Limits(cpus={ALLOWED[0]}))  # and it is not taken for set


def open_status(path: str) -> int:
    """Try to open a file: its errno, or 0."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return error.errno or 255
    return 0


@pytest.mark.root
def test_devices_are_those_of_the_list_and_no_other(groups: Groups) -> None:
    limits = Limits(devices=(DeviceAccess("/dev/null"), DeviceAccess("c 1:7", "w")))
    prepared(groups, limits)

    def look(devices: dict[str, int]) -> None:
        found = {device: open_status(device) for device in devices}
        os._exit(found != devices)

    refused = {"/dev/null": 0, "/dev/zero": errno.EPERM, "/dev/full": errno.EPERM}
    assert run(groups, lambda: look(refused), limits) == 0
    assert groups.usage().enforced["devices"] == "cgroup"
    others = Limits(devices=(DeviceAccess("c 1:*", "rwm"),))
    assert run(groups, lambda: look({"/dev/null": 0, "/dev/zero": 0}), others) == 0
    nothing = Limits(devices=())
    assert run(groups, lambda: look({"/dev/null": errno.EPERM}), nothing) == 0
    assert run(groups, lambda: look({"/dev/null": 0, "/dev/zero": 0})) == 0


@pytest.mark.root
def test_device_that_is_none_is_a_host_error(groups: Groups) -> None:
    prepared(groups, Limits(devices=()))
    with pytest.raises(HostError) as caught:
        groups.prepare(Limits(devices=(DeviceAccess("/etc/passwd"),)))
    assert caught.value.missing == "devices: /etc/passwd is no device"


def on_a_disk() -> str:
    """Find what can be read from a disk: a file of more than a MiB, or the disk; or skip."""
    for path in (os.path.realpath(sys.executable), "/dev/ram0"):
        with contextlib.suppress(HostError):
            disk_of(path)
            return path
    return pytest.skip("needs a disk")


def read_directly(path: str, size: int) -> None:
    """Read from a disk past the page cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, size) as buffer:
        os.preadv(fd, [buffer], 0)
    os.close(fd)


@pytest.mark.root
def test_io_limit_slows_reads_down_and_is_lifted(groups: Groups) -> None:
    path = on_a_disk()
    limits = Limits(io=(IoLimit(device=path, read_bytes=2 * MiB),))
    prepared(groups, limits)
    begin = time.monotonic()
    assert run(groups, lambda: read_directly(path, MiB), limits) == 0
    slow = time.monotonic() - begin
    assert groups.usage().enforced["io"] == "cgroup"
    begin = time.monotonic()
    assert run(groups, lambda: read_directly(path, MiB)) == 0
    fast = time.monotonic() - begin
    assert slow >= 0.25  # 1 MiB at 2 MiB/s is half a second, but for what a slice lets pass
    assert fast < slow / 2


def test_io_limit_of_a_file_that_is_on_no_disk_is_a_host_error(groups: Groups) -> None:
    prepared(groups, Limits(io=(IoLimit(device=on_a_disk(), read_ops=2),)))
    with pytest.raises(HostError) as caught:
        groups.prepare(Limits(io=(IoLimit(device="/proc", read_ops=2),)))
    assert caught.value.missing == "io: /proc is on no disk"


def test_pressure_tells_that_two_waited_for_one_cpu(groups: Groups) -> None:
    def crowd() -> None:
        os.sched_setaffinity(0, {ALLOWED[0]})
        if os.fork() == 0:
            burn(0.2)
            os._exit(0)
        burn(0.2)
        os.wait()

    groups.prepare(Limits(pressure=True))
    assert run(groups, crowd, Limits(pressure=True)) == 0
    waited_ns = groups.usage().cpu_pressure_some_ns
    if waited_ns is None:
        pytest.skip("needs PSI")
    # Each wants the CPU for 0.2 s while the other has it; a tenth is enough to tell.
    assert waited_ns >= 40_000_000
    assert run(groups, lambda: None, Limits(pressure=True)) == 0
    assert (groups.usage().cpu_pressure_some_ns or 0) < waited_ns
    assert run(groups, lambda: None) == 0
    assert groups.usage().cpu_pressure_some_ns is None


def has_swap() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1


def test_swap_is_off_and_a_hog_dies_at_its_limit(groups: Groups) -> None:
    if not has_swap():
        pytest.skip("needs swap")
    limits = Limits(memory=16 * MiB)
    for _ in range(3):  # X15: the verdict is the same each time
        assert run(groups, lambda: touch(24 * MiB), limits) == signal.SIGKILL
        usage = groups.usage()
        assert (usage.oom_kills or 0) >= 1
        assert usage.swap_bytes in {None, 0}


def test_swap_that_is_allowed_lets_a_hog_live_and_is_measured(groups: Groups) -> None:
    if not has_swap():
        pytest.skip("needs swap")
    limits = Limits(memory=16 * MiB, swap=32 * MiB)
    assert run(groups, lambda: touch(24 * MiB), limits) == 0
    swapped = groups.usage().swap_bytes
    assert swapped is None or swapped >= 4 * MiB
    assert run(groups, lambda: touch(24 * MiB), Limits(memory=16 * MiB)) == signal.SIGKILL


def test_swap_is_said_to_be_held_only_where_it_is(groups: Groups) -> None:
    run(groups, lambda: None, Limits(memory=64 * MiB))
    assert "swap" not in groups.usage().enforced  # as Groups.enforces says
    run(groups, lambda: None, Limits(memory=64 * MiB, swap=None))
    assert groups.usage().enforced["swap"] is None


def test_groups_made_for_what_was_asked_are_removed_with_the_others(parent: Parent) -> None:
    asked = Limits(cpu_quota=1, cpus={ALLOWED[0]}, pressure=True)
    with parent.create() as groups:
        prepared(groups, asked)
        with_all = len(groups.placement)
        groups.prepare(Limits())
        assert len(groups.placement) == len(parent.places)
        groups.prepare(asked)
        assert len(groups.placement) == with_all
        places = [member.place for member in groups._members]
        made = {f"{place.path}/{groups._members[i]._name}" for i, place in enumerate(places)}
        assert all(os.path.isdir(path) for path in made)
    assert not any(os.path.isdir(path) for path in made)
    assert groups_of(parent, os.getpid()) == set()


def test_controller_that_is_missing_is_named_and_nothing_is_joined(groups: Groups) -> None:
    groups._host = type(groups._host)(kernel=(6, 1))  # a host without any cgroup
    if any(member.place.version == 2 for member in groups._members):
        # The group in use would serve it; so it is one that may not pass controllers on.
        pytest.skip("needs groups in v1 alone")
    with pytest.raises(HostError) as caught:
        groups.prepare(Limits(cpu_quota=0.5))
    assert caught.value.missing == (
        "cpu_quota and cpu_weight need the cgroup controller cpu: "
        "no cgroup file system that has it is mounted"
    )
    assert Resource.CPU_SHARE not in groups._serving


@pytest.mark.userns
def test_sandbox_whose_runs_ask_for_different_things_gives_each_its_own() -> None:
    only = {ALLOWED[-1]}
    program = ["sh", "-c", "grep Cpus_allowed_list /proc/self/status"]
    with Sandbox() as sandbox:
        sandbox.start()
        plain = sandbox.run(program)
        try:
            bound = sandbox.run(program, limits=Limits(cpus=only, cpu_quota=1))
        except HostError as error:
            pytest.skip(f"needs a controller: {error.missing}")
        again = sandbox.run(program)
        assert bound.stdout.split()[-1] == str(*only).encode()
        assert plain.stdout == again.stdout
        assert "cpus" not in again.enforced
        assert (bound.enforced["cpus"], bound.enforced["cpu_quota"]) == ("cgroup", "cgroup")
        assert bound.throttled_periods is not None
        assert again.throttled_periods is None
        assert bound.cpu_ns is not None
        assert bound.cpu_ns > 0
