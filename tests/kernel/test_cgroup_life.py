"""Groups from their making to their end: who joins, who kills, and what a crash leaves."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import signal
import time

import pytest

from runner.cgroup import Groups, Parent
from runner.cgroup.owner import MARK
from runner.config import Limits
from runner.errors import HostError
from runner.host import Host
from runner.units import MiB
from tests.kernel.grouping import groups_of, start

pytestmark = pytest.mark.cgroup

CLONE_NEWUSER = 0x1000_0000
NOBODY = 65534


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


def test_find_after_owners_were_killed_in_the_middle_leaves_nothing(
    parent: Parent, host: Host
) -> None:
    everything = Limits(memory=64 * MiB, cpu_quota=1, cpu_weight=50, pressure=True)
    owners = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            while True:  # making, joining, measuring and removing, until it is killed
                with parent.create() as groups:
                    groups.prepare(everything)
                    os.waitpid(start(groups, lambda: None), 0)
                    groups.usage()
        time.sleep(0.02 + 0.003 * number)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        owners.append(pid)
    Parent.find(host)
    with parent.create() as groups:  # whoever next asks for the same finds what they left
        groups.prepare(everything)
        places = [member.place.path for member in groups._members]
    left = {name for place in places for name in os.listdir(place) if name.startswith(MARK)}
    assert not {name for name in left for pid in owners if f".{pid}." in name}


def test_close_ends_a_fork_bomb_at_once(parent: Parent) -> None:  # X16
    tasks = 100

    def bomb() -> None:
        while True:
            with contextlib.suppress(OSError):  # at the limit: try again, as bombs do
                os.fork()
            time.sleep(0.001)

    groups = parent.create()
    groups.prepare(Limits(processes=tasks))
    pid = start(groups, bomb)
    current = groups.pids_current
    assert current is not None
    while int(os.pread(current, 64, 0)) < tasks:
        time.sleep(0.01)
    begin = time.monotonic()
    groups.close()
    seconds = time.monotonic() - begin
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert groups_of(parent, os.getpid()) == set()
    # 0.08 s on a machine that does nothing else; emulated and busy ones take their time.
    assert seconds < 30
