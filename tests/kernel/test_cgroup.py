"""Groups on this kernel: what they limit, what they count, and that none is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import mmap
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from runner.cgroup import CpuFormat, Groups, Parent, Resource, v2
from runner.cgroup.owner import MARK
from runner.config import Limits
from runner.errors import HostError
from runner.host import Host, detect
from runner.units import MiB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.cgroup

CLONE_NEWUSER = 0x1000_0000
NOBODY = 65534
# The kernel charges 64 pages at a time for each CPU.
BATCHES = 64 * mmap.PAGESIZE * (os.cpu_count() or 1)


def groups_of(parent: Parent, pid: int) -> set[str]:
    """List the groups that this process made; others may have theirs in the same places."""
    prefix = f"{MARK}.{os.stat('/proc/self/ns/pid').st_ino}.{pid}."
    return {
        f"{place.path}/{name}"
        for place in parent.places
        for name in os.listdir(place.path)
        if name.startswith(prefix)
    }


@pytest.fixture(scope="module")
def host() -> Host:
    return detect()


@pytest.fixture
def parent(host: Host) -> Parent:
    found = Parent.find(host)
    if found is None or found.why_not:
        pytest.skip("needs a cgroup tree that we may write to")
    return found


@pytest.fixture
def v2_groups(host: Host) -> Iterator[Groups]:
    """Groups in the v2 tree alone, which on a hybrid host has no controllers."""
    place, why_not = v2.find(host, [Resource.CPU])
    if place is None:
        pytest.skip(f"needs cgroup v2: {why_not.missing}")
    with Parent((place,), {}, 0, host).create() as made:
        yield made


@pytest.fixture
def groups(parent: Parent) -> Iterator[Groups]:
    with parent.create() as made:
        yield made


def start(groups: Groups, program: Callable[[], object]) -> int:
    """Fork a child that joins the groups and calls `program`; an OSError is its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            for fd in groups.placement:
                os.write(fd, b"0")
            program()
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    return pid


def run(groups: Groups, program: Callable[[], object], limits: Limits | None = None) -> int:
    """Prepare the groups, run a program in them, and give its wait status."""
    groups.prepare(limits or Limits())
    return os.waitpid(start(groups, program), 0)[1]


def touch(size: int) -> None:
    """Use this much memory, then give it back."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1


def burn(seconds: float) -> None:
    start_ns = time.thread_time_ns()
    while time.thread_time_ns() - start_ns < seconds * 1e9:
        pass


def hold(count: int) -> None:
    """Fork `count` children that live together, and reap them."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_memory_hog_above_the_limit_is_killed_and_counted(groups: Groups) -> None:
    status = run(groups, lambda: touch(128 * MiB), Limits(memory=32 * MiB))
    usage = groups.usage()
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert usage.oom_kills is not None
    assert usage.oom_kills >= 1
    assert usage.memory_limit_hits is not None
    assert usage.memory_limit_hits >= 1
    assert usage.memory_bytes in {None, 32 * MiB}


def test_memory_counts_after_an_oom_kill_are_those_of_the_next_run(groups: Groups) -> None:
    run(groups, lambda: touch(64 * MiB), Limits(memory=16 * MiB))
    run(groups, lambda: touch(MiB), Limits(memory=16 * MiB))
    usage = groups.usage()
    assert usage.oom_kills == 0
    assert usage.memory_limit_hits == 0


def test_memory_below_the_limit_is_measured_to_a_few_batches(groups: Groups) -> None:
    status = run(groups, lambda: touch(64 * MiB), Limits(memory=128 * MiB))
    usage = groups.usage()
    assert status == 0
    assert usage.oom_kills == 0
    assert usage.memory_limit_hits == 0
    if usage.memory_bytes is None:
        pytest.skip("needs memory.peak (Linux 5.19)")
    # Page tables are 1/512 of the memory; the fork of this process adds its own and its stack.
    assert 64 * MiB <= usage.memory_bytes <= 64 * MiB + BATCHES + 4 * MiB


def test_memory_peak_of_a_run_does_not_hold_the_last_runs(groups: Groups) -> None:
    run(groups, lambda: touch(64 * MiB))
    first = groups.usage()
    run(groups, lambda: touch(MiB))
    second = groups.usage()
    if first.memory_bytes is None or second.memory_bytes is None:
        pytest.skip("needs memory.peak (Linux 5.19)")
    assert first.memory_bytes >= 64 * MiB
    assert second.memory_bytes <= MiB + 2 * BATCHES + 4 * MiB


def test_memory_of_files_that_a_run_left_in_the_cache_is_not_the_next_runs(
    groups: Groups, tmp_path: object
) -> None:
    def write_file() -> None:
        with open(f"{tmp_path}/large", "wb") as file:
            file.write(bytes(24 * MiB))

    run(groups, write_file, Limits(memory=64 * MiB))
    before = groups.placement
    run(groups, lambda: touch(MiB), Limits(memory=64 * MiB))
    usage = groups.usage()
    assert groups.placement != before
    if usage.memory_bytes is None:
        pytest.skip("needs memory.peak (Linux 5.19)")
    assert usage.memory_bytes <= MiB + BATCHES + 4 * MiB


def test_memory_limit_when_lowered_raised_and_lifted_is_the_one_that_holds(
    groups: Groups,
) -> None:
    for limit, status in (
        (64 * MiB, 0),
        (16 * MiB, signal.SIGKILL),
        (96 * MiB, 0),
        (None, 0),
        (16 * MiB, signal.SIGKILL),
    ):
        assert run(groups, lambda: touch(32 * MiB), Limits(memory=limit)) == status


def test_memory_limit_below_what_is_in_use_is_refused_by_v1_and_kills_in_v2(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, tell = os.pipe()

    def occupy() -> None:
        memory = bytearray(32 * MiB)
        os.write(tell, b"1")
        signal.pause()
        del memory

    groups.prepare(Limits())
    pid = start(groups, occupy)
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    for member in groups._members:  # else prepare would take a new group
        monkeypatch.setattr(member, "is_stale", lambda: False)
    if groups.clone_into is None:
        with pytest.raises(HostError) as caught:
            groups.prepare(Limits(memory=MiB))
        assert caught.value.missing == "cannot prepare a cgroup: Device or resource busy"
        assert caught.value.hint == (
            "the limit is below what the kernel still charges to the group: raise it"
        )
        os.kill(pid, signal.SIGKILL)
    else:
        groups.prepare(Limits(memory=MiB))
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_fork_beyond_the_limit_is_refused_and_counted(groups: Groups) -> None:
    status = run(groups, lambda: hold(5), Limits(processes=3))
    usage = groups.usage()
    assert os.waitstatus_to_exitcode(status) == errno.EAGAIN
    assert usage.process_limit_hits == 1
    assert usage.processes_peak in {None, 3}
    groups.close()  # the two children that the program left


def test_processes_peak_is_that_of_the_last_run_alone(groups: Groups) -> None:
    peaks = []
    for count in (4, 1, 0):
        run(groups, lambda count=count: hold(count))  # type: ignore[misc]
        peaks.append(groups.usage().processes_peak)
    if None in peaks:
        pytest.skip("needs pids.peak (Linux 6.1)")
    assert peaks == [5, 2, 1]


def test_cpu_time_counts_the_whole_tree_and_this_run_only(groups: Groups) -> None:
    def tree() -> None:
        pid = os.fork()
        if pid == 0:
            burn(0.05)
            os._exit(0)
        os.waitpid(pid, 0)
        burn(0.1)

    for _ in range(2):
        before = os.times()
        run(groups, tree)
        after = os.times()
        # All that was used by our children since, in ticks of 10 ms, bounds it from above.
        ticks = after.children_user - before.children_user
        ticks += after.children_system - before.children_system
        cpu_ns = groups.usage().cpu_ns
        assert cpu_ns is not None
        assert 0.150 <= cpu_ns / 1e9 <= ticks + 0.030


def test_cpu_file_tells_the_time_of_a_running_program(groups: Groups) -> None:
    assert groups.cpu is not None
    groups.prepare(Limits())
    fd, form = groups.cpu

    def read_ns() -> int:
        text = os.pread(fd, 4096, 0)
        if form is CpuFormat.V1_CPUACCT_USAGE:
            return int(text) - groups.cpu_start_ns
        return int(text.split()[1]) * 1000 - groups.cpu_start_ns

    assert read_ns() == 0
    pid = start(groups, lambda: burn(60))
    deadline = time.monotonic() + 30
    while read_ns() < 100_000_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert read_ns() >= 100_000_000
    assert groups.usage().cpu_ns == read_ns()


def test_pids_current_is_zero_only_when_all_are_reaped(groups: Groups) -> None:
    assert groups.pids_current is not None
    groups.prepare(Limits())
    seen = [os.pread(groups.pids_current, 64, 0)]
    pid = start(groups, lambda: None)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    seen.append(os.pread(groups.pids_current, 64, 0))
    os.waitpid(pid, 0)
    seen.append(os.pread(groups.pids_current, 64, 0))
    assert seen == [b"0\n", b"1\n", b"0\n"]


@pytest.mark.root
@pytest.mark.userns
def test_join_by_another_user_in_a_user_namespace_works_with_our_fds(
    groups: Groups, host: Host
) -> None:
    if not any(0 <= NOBODY - ids.inside < ids.count for ids in host.uid_map):
        pytest.skip("needs uid 65534 in this user namespace")
    libc = ctypes.CDLL(None, use_errno=True)

    def confine_and_join() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        if libc.unshare(CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        for fd in groups.placement:
            os.write(fd, b"0")
        with open("/proc/self/cgroup", encoding="ascii") as file:
            joined = file.read().count(f"/{MARK}.")
        os._exit(100 + joined)

    groups.prepare(Limits())
    pid = os.fork()
    if pid == 0:
        status = 255
        with contextlib.suppress(OSError):
            confine_and_join()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 100 + len(groups.placement)
    assert groups.usage().processes_peak in {None, 1}


def test_clone_into_the_v2_group_starts_a_process_there(v2_groups: Groups) -> None:
    assert v2_groups.clone_into is not None
    # struct clone_args of clone3(2): flags first, the exit signal fifth, the cgroup last.
    into_cgroup, clone3 = 0x2_0000_0000, 435
    words = [into_cgroup, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, v2_groups.clone_into]
    args = (ctypes.c_uint64 * len(words))(*words)
    pid = ctypes.CDLL(None).syscall(clone3, args, ctypes.sizeof(args))
    if pid == 0:
        with open("/proc/self/cgroup", encoding="ascii") as file:
            os._exit(f"/{MARK}." in file.read())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_kill_file_of_a_v2_group_ends_all_in_it(v2_groups: Groups) -> None:
    if v2_groups.kill is None:
        pytest.skip("needs cgroup.kill (Linux 5.14)")
    v2_groups.prepare(Limits())
    pid = start(v2_groups, signal.pause)
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        while f"/{MARK}." not in file.read():
            file.seek(0)
    os.write(v2_groups.kill, b"1")
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_cpu_stat_of_a_v2_group_splits_user_and_system(v2_groups: Groups) -> None:
    assert v2_groups.enforces["cpu_time"] == "cgroup"
    run(v2_groups, lambda: burn(0.1))
    usage = v2_groups.usage()
    assert usage.cpu_ns is not None
    assert usage.user_ns is not None
    assert usage.system_ns is not None
    assert usage.cpu_ns >= 100_000_000
    # Each is rounded down to a microsecond by itself.
    assert abs(usage.user_ns + usage.system_ns - usage.cpu_ns) <= 2000
    assert usage.oom_kills is None


def test_placement_is_by_the_file_that_needs_the_least_locking(groups: Groups) -> None:
    files = [os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2] for fd in groups.placement]
    assert files == [
        "tasks" if m.place.version == 1 else "cgroup.procs" for m in groups._members
    ]


def test_enforces_names_cgroup_for_each_resource(groups: Groups) -> None:
    names = ("cpu_time", "memory", "swap", "processes")
    assert groups.enforces == dict.fromkeys(names, "cgroup")


def test_prepare_when_somebody_removed_a_group_is_a_host_error(
    parent: Parent, groups: Groups
) -> None:
    for path in groups_of(parent, os.getpid()):
        os.rmdir(path)
    with pytest.raises(HostError) as caught:
        groups.prepare(Limits(memory=MiB))
    assert caught.value.missing == "cannot prepare a cgroup: No such device"
    assert caught.value.hint == (
        "something removed our group: keep others off the run-sandboxed groups"
    )


def test_close_with_processes_left_kills_them_and_removes_the_groups(parent: Parent) -> None:
    groups = parent.create()
    groups.prepare(Limits())
    pids = [start(groups, signal.pause) for _ in range(3)]
    members = groups.pids_current
    assert members is not None
    while os.pread(members, 64, 0) != b"3\n":
        time.sleep(0.001)
    groups.close()
    groups.close()
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    assert ends == [signal.SIGKILL] * 3
    assert groups_of(parent, os.getpid()) == set()


def test_create_when_a_place_is_gone_leaves_nothing_behind(parent: Parent) -> None:
    before = set(os.listdir("/proc/self/fd"))
    gone = parent.places[-1].__class__("/nowhere", 1, parent.places[-1].resources)
    broken = dataclasses.replace(parent, places=(*parent.places[:-1], gone))
    with pytest.raises(HostError) as caught:
        broken.create()
    assert caught.value.missing == "cannot make a cgroup /nowhere: No such file or directory"
    assert groups_of(parent, os.getpid()) == set()
    assert set(os.listdir("/proc/self/fd")) == before


class Owner:
    """A process that has made groups, and ends without removing them."""

    def __init__(self, parent: Parent) -> None:
        made, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            parent.create()
            os.write(tell, b"1")
            signal.pause()
        os.read(made, 1)
        os.close(made)
        os.close(tell)

    def crash(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def test_find_after_a_crash_kills_and_removes_what_it_left(parent: Parent, host: Host) -> None:
    owner = Owner(parent)
    sleeper = os.fork()
    if sleeper == 0:
        signal.pause()
        os._exit(0)
    for path in groups_of(parent, owner.pid):
        with open(f"{path}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(sleeper))
    owner.crash()
    Parent.find(host)
    assert os.waitpid(sleeper, 0)[1] == signal.SIGKILL
    assert groups_of(parent, owner.pid) == set()


def test_find_while_another_owner_lives_keeps_its_groups(parent: Parent, host: Host) -> None:
    owner = Owner(parent)
    Parent.find(host)
    kept = groups_of(parent, owner.pid)
    owner.crash()
    Parent.find(host)
    assert len(kept) == len(parent.places)
    assert groups_of(parent, owner.pid) == set()
