"""The order of a plan's steps, which is written in runner/plan, over all kinds of runners.

Each test states one rule that another order would break, and why it matters where the name
does not say it.
"""

from __future__ import annotations

import dataclasses
import posixpath
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import plan, rootfs, wire
from runner.config import (
    ALL_NAMESPACES,
    NO_NAMESPACES,
    Credential,
    Hook,
    IdMap,
    Join,
    Mount,
    MountKind,
    Namespace,
    Rlimit,
    Runner,
)
from runner.errors import ConfigError, ErrorLocation
from runner.plan import FD_CLOSED, FD_STDERR_PIPE, FD_STDOUT_PIPE, Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_NOATIME = 1024
MS_REC_PRIVATE = 1 << 14 | 1 << 18
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
MNT_DETACH = 2
SIGKILL = 9
DEVICES = 6  # /dev is six binds
CGROUPS, FILTER = (3, 4), bytes(16)
OLD_ROOT = b".run-sandboxed-old-root"

paths = st.lists(st.sampled_from(["a", "b", "usr", "tmp"]), min_size=1, max_size=3).map(
    lambda words: "/" + "/".join(words)
)
mounts = st.one_of(
    st.builds(
        Mount.bind,
        paths,
        paths,
        readonly=st.booleans(),
        optional=st.booleans(),
        devices=st.booleans(),
        recursive=st.booleans(),
    ),
    st.builds(Mount.tmpfs, paths, size=st.none() | st.just(4096), fresh=st.booleans()),
    st.builds(Mount.proc, st.sampled_from(["/proc", "/own/proc"]), masked=st.just(False)),
    st.builds(Mount.dev, paths),
    st.builds(Mount.symlink, paths, paths),
    st.builds(Mount.directory, paths, mode=st.sampled_from([0o700, 0o1777])),
    # Beside what is bound: where nothing is made, more is needed (test_plan_root.py).
    st.builds(Mount.file, paths.map("/files{}".format), st.binary(max_size=9)),
)
id_maps = st.sampled_from([(), (IdMap(0, 5), IdMap(1000, 6)), (IdMap(1000, 65534),)])


@st.composite
def boxes(draw: st.DrawFn) -> Runner:
    """Draw any sandbox."""
    namespaces = draw(st.sampled_from(_subsets()))
    has_root = Namespace.MOUNT in namespaces and draw(st.booleans())
    named = Namespace.UTS in namespaces
    maps = draw(id_maps) if Namespace.USER in namespaces else ()
    return Runner(
        args=("sandbox",),
        namespaces=namespaces,
        mounts=rootfs.combine(draw(st.lists(mounts, max_size=8)), ()) if has_root else (),
        pivot_root="/mnt" if has_root else "",
        host_name=draw(st.sampled_from(["", "host"])) if named else "",
        domain_name=draw(st.sampled_from(["", "domain"])) if named else "",
        uid_mappings=maps,
        gid_mappings=maps,
        gid_mappings_enable_setgroups=draw(st.booleans()),
        drop_caps=draw(st.booleans()),
    )


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Draw the plan of any program."""
    credential = st.builds(
        Credential,
        st.integers(0, 9),
        st.integers(0, 9),
        st.lists(st.integers(0, 9), max_size=3).map(tuple),
    )
    rlimits = st.sampled_from([(), (Rlimit(7, 1, 2),), (Rlimit(0, 1, 1), Rlimit(4, 0, 0))])
    runner = Runner(
        args=("true",),
        env=draw(st.sampled_from([{}, {"A": "b"}])),
        namespaces=draw(st.sampled_from(_subsets())),
        rlimits=draw(rlimits),
        work_dir=draw(st.sampled_from(["", "/tmp"])),
        gid_mappings_enable_setgroups=draw(st.booleans()),
        credential=draw(st.none() | credential),
        seccomp=draw(st.sampled_from([b"", FILTER])),
        no_new_privs=draw(st.booleans()),
        drop_caps=draw(st.booleans()),
        sync_func=draw(st.sampled_from([None, print])),
    )
    return program(
        runner,
        files=draw(st.lists(st.sampled_from([0, 1, 2, FD_CLOSED, FD_STDOUT_PIPE]), max_size=5)),
        cgroups=CGROUPS[: draw(st.integers(0, len(CGROUPS)))],
    )


def _subsets() -> list[Namespace]:
    return [
        Namespace(sum(flag for bit, flag in enumerate(Namespace) if number >> bit & 1))
        for number in range(1 << len(Namespace))
    ]


def program(
    runner: Runner,
    *,
    files: Sequence[int] = (0, 1, 2),
    cgroups: Sequence[int] = (),
) -> list[Step]:
    return plan.program(
        runner,
        candidates=(b"/bin/true",),
        files=files,
        cgroups=cgroups,
    )


def places(steps: Sequence[Step], *ops: Op) -> list[int]:
    """Give where in a plan these operations are, in the plan's order."""
    return [place for place, step in enumerate(steps) if step.op in ops]


def in_phase(steps: Sequence[Step], phase: Phase) -> list[Step]:
    return [step for step in steps if step.phase is phase]


def assert_order(steps: Sequence[Step], before: Op, *after: Op) -> None:
    """Every `before` comes before every one of `after`, where the plan has both."""
    first, second = places(steps, before), places(steps, *after)
    assert not first or not second or max(first) < min(second), [step.op.name for step in steps]


FULL = Runner(
    args=("cat", "x"),
    env={"A": "1"},
    namespaces=ALL_NAMESPACES,
    rlimits=(Rlimit.named("NOFILE", 64), Rlimit.named("CORE", 0)),
    work_dir="/tmp",
    umask=0o027,
    ctty=True,
    nice=5,
    cpus=(0, 65),
    personality=0x0040000,
    oom_score_adj=7,
    ignored_signals=(1, 64),
    blocked_signals=(2,),
    credential=Credential(1000, 1001, (5, 6)),
    seccomp=FILTER,
    drop_caps=True,
    sync_func=print,
)


def test_program_with_everything_has_this_order() -> None:
    steps = program(FULL, cgroups=CGROUPS)
    assert [step.op for step in steps] == [
        *(Op.SIGNALS, Op.GETPID, Op.OOM_SCORE_ADJ),
        *(Op.CLOSE_SYNC, Op.CLEAR_FDS, Op.PLACE_FDS, Op.SETSID),
        *(Op.CTTY, Op.SESSION_KEYRING, Op.ENTER_CGROUP, Op.ENTER_CGROUP, Op.UNSHARE),
        *(Op.CHDIR, Op.UMASK, Op.NICE, Op.AFFINITY, Op.PERSONALITY),
        *(Op.RLIMIT, Op.RLIMIT),
        *(
            Op.SETGROUPS,
            Op.SETGID,
            Op.SETUID,
            Op.DUMPABLE,
            Op.PARENT_DEATH,
            Op.CAPSET,
            Op.NO_NEW_PRIVS,
        ),
        *(Op.CLOSE_RANGE, Op.ARGV, Op.ENVP, Op.SYNC_WRITE, Op.SYNC_READ, Op.SECCOMP, Op.EXEC),
    ]


def test_program_with_nothing_has_no_step_that_was_not_asked_for() -> None:
    assert [step.op for step in program(Runner(args=("true",)))] == [
        *(Op.SIGNALS, Op.GETPID, Op.CLEAR_FDS, Op.PLACE_FDS, Op.SETSID, Op.SESSION_KEYRING),
        *(Op.PARENT_DEATH, Op.CLOSE_RANGE, Op.ARGV, Op.ENVP, Op.EXEC),
    ]


@given(steps=programs())
def test_program_ends_with_its_only_exec(steps: list[Step]) -> None:
    assert places(steps, Op.EXEC) == [len(steps) - 1]


@given(steps=programs())
def test_seccomp_is_last_but_exec(steps: list[Step]) -> None:
    assert places(steps, Op.SECCOMP) in ([], [len(steps) - 2])


@given(steps=programs())
def test_seccomp_never_comes_without_no_new_privs(steps: list[Step]) -> None:
    assert_order(steps, Op.NO_NEW_PRIVS, Op.SECCOMP)
    if places(steps, Op.SECCOMP):
        assert len(places(steps, Op.NO_NEW_PRIVS)) == 1


@given(steps=programs())
def test_sync_waits_when_all_but_the_filter_is_set_up(steps: list[Step]) -> None:
    written, read = places(steps, Op.SYNC_WRITE), places(steps, Op.SYNC_READ)
    assert read == [place + 1 for place in written]
    after = [step.op for step in steps[read[0] + 1 :]] if read else []
    assert after in ([], [Op.EXEC], [Op.SECCOMP, Op.EXEC])


@given(steps=programs())
def test_ids_change_from_groups_to_uid(steps: list[Step]) -> None:
    assert_order(steps, Op.SETGROUPS, Op.SETGID, Op.SETUID)
    assert_order(steps, Op.SETGID, Op.SETUID)


@given(steps=programs())
def test_what_setuid_would_undo_or_forbid_is_on_its_right_side(steps: list[Step]) -> None:
    # setuid clears the parent-death signal (prctl(2)) and, from 0, the capabilities
    # (capabilities(7)): both follow it. Groups, limits and places need what it gives up.
    assert_order(steps, Op.SETUID, Op.PARENT_DEATH, Op.CAPSET)
    for op in (Op.ENTER_CGROUP, Op.UNSHARE, Op.RLIMIT):
        assert_order(steps, op, Op.SETGROUPS, Op.SETGID, Op.SETUID, Op.CAPSET)


@given(steps=programs())
def test_parent_death_is_always_set_and_kills(steps: list[Step]) -> None:
    (place,) = places(steps, Op.PARENT_DEATH)
    assert steps[place].args == (SIGKILL,)


@given(steps=programs())
def test_cgroups_are_entered_before_their_namespace_is_unshared(steps: list[Step]) -> None:
    assert_order(steps, Op.ENTER_CGROUP, Op.UNSHARE)


@given(steps=programs())
def test_fds_are_cleared_placed_and_the_rest_closed_by_the_same_count(
    steps: list[Step],
) -> None:
    (clear,), (place,) = places(steps, Op.CLEAR_FDS), places(steps, Op.PLACE_FDS)
    (close,) = places(steps, Op.CLOSE_RANGE)
    assert clear < place < close
    count = len(steps[place].data) // 4
    assert steps[clear].args == steps[close].args == (count,)


@given(steps=programs())
def test_program_steps_are_all_the_programs(steps: list[Step]) -> None:
    assert {step.phase for step in steps} == {Phase.PROGRAM}


@given(steps=programs())
def test_arguments_and_environment_are_there_before_exec(steps: list[Step]) -> None:
    assert len(places(steps, Op.ARGV)) == len(places(steps, Op.ENVP)) == 1
    assert_order(steps, Op.ARGV, Op.EXEC)
    assert_order(steps, Op.ENVP, Op.EXEC)


@given(steps=programs())
def test_list_items_have_their_index_from_zero(steps: list[Step]) -> None:
    for op in (Op.ENTER_CGROUP, Op.RLIMIT):
        items = [steps[place].item for place in places(steps, op)]
        assert items == list(range(len(items)))
    others = [step for step in steps if step.op not in {Op.ENTER_CGROUP, Op.RLIMIT}]
    assert {step.item for step in others} == {-1}


def test_program_steps_carry_what_the_runner_says() -> None:
    steps = program(FULL, files=(1, FD_STDOUT_PIPE, FD_STDERR_PIPE, FD_CLOSED), cgroups=CGROUPS)
    by_op = {step.op: step for step in steps}
    assert by_op[Op.PLACE_FDS].data == struct.pack("=4i", 1, -2, -3, -1)
    assert by_op[Op.ARGV].strings == (b"cat", b"x")
    assert by_op[Op.ENVP].strings == (b"A=1",)
    assert by_op[Op.EXEC].strings == (b"/bin/true",)
    assert by_op[Op.CHDIR].strings == (b"/tmp",)
    assert by_op[Op.SETUID].args == (1000,)
    assert by_op[Op.SETGID].args == (1001,)
    assert by_op[Op.SECCOMP].data == FILTER
    assert by_op[Op.CAPSET].args == ()  # all zeros
    assert by_op[Op.SIGNALS].args == (1 - 2**63, 2)  # bit 63 in a signed word
    assert by_op[Op.AFFINITY].data == struct.pack("=2Q", 1, 2)
    assert by_op[Op.OOM_SCORE_ADJ].strings == (b"7",)
    assert [steps[place].args for place in places(steps, Op.ENTER_CGROUP)] == [(3,), (4,)]
    assert [steps[place].args for place in places(steps, Op.RLIMIT)] == [(7, 64, 64), (4, 0, 0)]


@pytest.mark.parametrize(
    ("groups", "namespaces", "allowed", "expected"),
    [
        ((5, 6), NO_NAMESPACES, False, struct.pack("=2I", 5, 6)),
        ((), NO_NAMESPACES, False, b""),
        ((), Namespace.USER, True, b""),
        ((5,), Namespace.USER, True, struct.pack("=I", 5)),
        # The namespace denies setgroups: asked for all the same, the program fails to start.
        ((5,), Namespace.USER, False, struct.pack("=I", 5)),
        ((), Namespace.USER, False, None),
    ],
)
def test_groups_are_set_unless_there_are_none_and_none_can_be(
    groups: tuple[int, ...], namespaces: Namespace, allowed: bool, expected: bytes | None
) -> None:
    runner = Runner(
        args=("true",),
        namespaces=namespaces,
        credential=Credential(1, 1, groups),
        gid_mappings_enable_setgroups=allowed,
    )
    steps = program(runner)
    found = [steps[place].data for place in places(steps, Op.SETGROUPS)]
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("namespaces", "expected"),
    [
        (NO_NAMESPACES, []),
        (ALL_NAMESPACES & ~Namespace.CGROUP, []),
        (Namespace.CGROUP, [(Namespace.CGROUP,)]),
        (ALL_NAMESPACES, [(Namespace.CGROUP,)]),
    ],
)
def test_program_unshares_only_the_cgroup_namespace(
    namespaces: Namespace, expected: list[tuple[int, ...]]
) -> None:
    steps = program(Runner(args=("true",), namespaces=namespaces))
    assert [steps[place].args for place in places(steps, Op.UNSHARE)] == expected


@given(runner=boxes())
def test_clone_makes_all_namespaces_but_cgroup_and_time(runner: Runner) -> None:
    # T21: clone(2) reads the bit of CLONE_NEWTIME as part of the exit signal.
    later = Namespace.CGROUP | Namespace.TIME
    assert plan.clone_flags(runner) == runner.namespaces & ~later


@given(runner=boxes(), privileged=st.booleans())
def test_box_mounts_are_private_before_anything_is_mounted(
    runner: Runner, privileged: bool
) -> None:
    setup = in_phase(plan.box(runner, privileged=privileged), Phase.SETUP)
    mounting = [step for step in setup if step.op not in {Op.SETUID, Op.SETGID}]
    if Namespace.MOUNT not in runner.namespaces:
        assert not places(mounting, Op.MOUNT, Op.OPEN_TREE, Op.MOVE_MOUNT)
        return
    first = mounting[0]
    assert (first.op, first.location) == (Op.MOUNT, ErrorLocation.MOUNT_ROOT)
    assert (first.args, first.strings) == ((MS_REC_PRIVATE,), (b"", b"/", b"", b""))


@given(runner=boxes(), privileged=st.booleans())
def test_box_takes_its_ids_before_it_makes_files(runner: Runner, privileged: bool) -> None:
    setup = in_phase(plan.box(runner, privileged=privileged), Phase.SETUP)
    ids = places(setup, Op.SETGID, Op.SETUID)
    assert ids == list(range(len(ids)))
    has_root = any(m.inside == 0 for m in runner.uid_mappings)
    wanted = [(Op.SETGID, (0,)), (Op.SETUID, (0,))] if has_root else []
    assert [(setup[place].op, setup[place].args) for place in ids] == wanted


@given(runner=boxes(), privileged=st.booleans())
def test_box_opens_what_it_binds_before_the_root_changes(
    runner: Runner, privileged: bool
) -> None:
    steps = plan.box(runner, privileged=privileged)
    opened = {steps[place].phase for place in places(steps, Op.OPEN_TREE)}
    assert opened <= {Phase.EARLY if privileged else Phase.SETUP}
    assert_order(steps, Op.OPEN_TREE, Op.PIVOT_ROOT)
    assert_order(steps, Op.MOUNT_SETATTR, Op.PIVOT_ROOT)
    assert_order(steps, Op.PIVOT_ROOT, Op.MOVE_MOUNT)


@given(runner=boxes(), privileged=st.booleans())
def test_box_puts_each_opened_tree_into_place_once(runner: Runner, privileged: bool) -> None:
    steps = plan.box(runner, privileged=privileged)
    opened, changed, moved = (
        [(steps[place].args[0], steps[place].item) for place in places(steps, op)]
        for op in (Op.OPEN_TREE, Op.MOUNT_SETATTR, Op.MOVE_MOUNT)
    )
    binds = sum({"bind": 1, "dev": DEVICES}.get(mount.kind.value, 0) for mount in runner.mounts)
    assert [slot for slot, _ in opened] == list(range(binds))
    assert opened == changed == moved
    for place in places(steps, Op.OPEN_TREE):
        assert steps[place + 1].op is Op.MOUNT_SETATTR


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        (Mount.bind("/a"), ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV),
        (Mount.bind("/a", readonly=False), ATTR_NOSUID | ATTR_NODEV),
        (Mount.bind("/a", devices=True), ATTR_RDONLY | ATTR_NOSUID),
        (Mount.dev(), ATTR_NOSUID),
    ],
)
def test_bind_has_no_more_than_it_was_given(mount: Mount, expected: int) -> None:
    runner = Runner(args=("x",), namespaces=Namespace.MOUNT, mounts=(mount,), pivot_root="/mnt")
    steps = plan.box(runner, privileged=True)
    attributes = {steps[place].args[1:] for place in places(steps, Op.MOUNT_SETATTR)}
    assert attributes == {(expected, 0)}


def files_of(runner: Runner, *, privileged: bool) -> list[Step]:
    """Give the steps that work on files, in their order."""
    setup = in_phase(plan.box(runner, privileged=privileged), Phase.SETUP)
    return [step for step in setup if step.op not in {Op.HOSTNAME, Op.DOMAINNAME}]


@given(runner=boxes(), privileged=st.booleans())
def test_box_root_is_read_only_at_the_very_end(runner: Runner, privileged: bool) -> None:
    files = files_of(runner, privileged=privileged)
    readonly = [step for step in files if step.location is ErrorLocation.MOUNT_READONLY]
    assert readonly == (files[-1:] if runner.pivot_root else [])
    for step in readonly:
        assert step.op is Op.MOUNT
        assert step.args == (MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV,)
        assert step.strings[1] == b"/"


@given(runner=boxes(), privileged=st.booleans())
def test_box_leaves_the_old_root_once(runner: Runner, privileged: bool) -> None:
    files = files_of(runner, privileged=privileged)
    left = [files[place : place + 2] for place in places(files, Op.UMOUNT)]
    assert len(left) == len(places(files, Op.PIVOT_ROOT)) == bool(runner.pivot_root)
    for umount, rmdir in left:
        assert (umount.args, umount.strings) == ((MNT_DETACH,), (b"/" + OLD_ROOT,))
        assert (rmdir.op, rmdir.strings) == (Op.RMDIR, (b"/" + OLD_ROOT,))


@given(runner=boxes(), privileged=st.booleans())
def test_box_mounts_proc_before_and_all_else_after_the_old_root_is_left(
    runner: Runner, privileged: bool
) -> None:
    # A user namespace may mount proc only while it sees another (fs/namespace.c); a target
    # made while the host's files are there could lead to them.
    files = files_of(runner, privileged=privileged)
    for pivot, umount in zip(
        places(files, Op.PIVOT_ROOT), places(files, Op.UMOUNT), strict=True
    ):
        is_proc = [mount.kind is MountKind.PROC for mount in runner.mounts]
        assert all(is_proc[step.item] for step in files[pivot + 2 : umount])
        assert not any(is_proc[step.item] for step in files[umount + 2 : -1])


@pytest.mark.parametrize("target", ["/own"])
def test_box_refuses_a_proc_that_another_mount_would_hide(target: str) -> None:
    runner = Runner(
        args=("x",),
        namespaces=Namespace.MOUNT,
        mounts=(Mount.proc("/own/proc"), Mount.tmpfs(target)),
        pivot_root="/mnt",
    )
    with pytest.raises(ConfigError) as caught:
        plan.box(runner, privileged=True)
    assert str(caught.value) == (
        f"Mount.proc: '/own/proc' lies below the mount at {target!r}, which would hide it: "
        "mount proc beside it"
    )


@given(runner=boxes(), privileged=st.booleans())
def test_box_changes_into_the_new_root_at_once(runner: Runner, privileged: bool) -> None:
    steps = plan.box(runner, privileged=privileged)
    for place in places(steps, Op.PIVOT_ROOT):
        mount, chdir, mkdir, pivot, back = steps[place - 3 : place + 2]
        assert mount.location is ErrorLocation.MOUNT_TMPFS
        assert mount.args == (MS_NOSUID | MS_NODEV,)
        assert (chdir.op, chdir.strings) == (Op.CHDIR, (b"/mnt",))
        # args[1]: the directory must be new, or what is bound over could be a trap.
        assert (mkdir.op, mkdir.args, mkdir.strings) == (Op.MKDIR, (0o700, 1), (OLD_ROOT,))
        assert pivot.strings == (b".", OLD_ROOT)
        assert (back.op, back.strings) == (Op.CHDIR, (b"/",))


@given(runner=boxes(), privileged=st.booleans())
def test_box_makes_each_directory_below_one_that_is_there(
    runner: Runner, privileged: bool
) -> None:
    setup = in_phase(plan.box(runner, privileged=privileged), Phase.SETUP)
    there = {b"/"} | {
        target.encode()
        for mount in runner.mounts
        for target in (mount.target, posixpath.join(mount.target, "shm"))
    }
    for step in setup:
        if step.location is ErrorLocation.MOUNT_MKDIR:
            assert posixpath.dirname(step.strings[0]) in there
            there.add(step.strings[0])


@given(runner=boxes(), privileged=st.booleans())
def test_box_steps_of_a_mount_carry_its_index(runner: Runner, privileged: bool) -> None:
    steps = plan.box(runner, privileged=privileged)
    assert {step.item for step in steps} - {-1} == set(range(len(runner.mounts)))
    for place in places(steps, Op.MOVE_MOUNT, Op.SYMLINK, Op.WRITE_FILE, Op.KEEP_FRESH):
        step = steps[place]
        assert step.subject.startswith(runner.mounts[step.item].target)


def test_box_keeps_the_order_of_mounts() -> None:
    runner = Runner(
        args=("x",),
        namespaces=Namespace.MOUNT,
        mounts=[Mount.directory(f"/{name}") for name in "cab"],
        pivot_root="/mnt",
    )
    steps = plan.box(runner, privileged=True)
    made = [(step.item, step.subject) for step in steps if step.item >= 0]
    assert made == [(0, "/c"), (1, "/a"), (2, "/b")]


@given(runner=boxes(), privileged=st.booleans())
def test_box_writes_setgroups_before_the_gid_map(runner: Runner, privileged: bool) -> None:
    # An unprivileged process may write a gid_map only after "deny" (user_namespaces(7)).
    maps = in_phase(plan.box(runner, privileged=privileged), Phase.MAPS)
    if Namespace.USER not in runner.namespaces:
        assert maps == []
        return
    assert [step.strings[0] for step in maps] == [b"uid_map", b"setgroups", b"gid_map"]
    assert maps[1].strings[1] == (b"allow" if runner.gid_mappings_enable_setgroups else b"deny")


def test_box_writes_each_map_as_lines() -> None:
    maps = (IdMap(0, 100), IdMap(1000, 101, 2))
    runner = Runner(args=("x",), namespaces=Namespace.USER, uid_mappings=maps)
    written = in_phase(plan.box(runner, privileged=False), Phase.MAPS)
    assert [step.strings[1] for step in written] == [b"0 100 1\n1000 101 2\n", b"deny", b""]


@given(runner=boxes())
def test_box_with_privileges_drops_the_callers_groups_first(runner: Runner) -> None:
    # Inside, setgroups is denied, and they would stay.
    steps = plan.box(runner, privileged=True)
    dropped = places(steps, Op.SETGROUPS)
    assert dropped == ([0] if Namespace.USER in runner.namespaces else [])
    assert all(steps[place].data == b"" for place in dropped)
    assert not places(plan.box(runner, privileged=False), Op.SETGROUPS)


@given(runner=boxes(), privileged=st.booleans())
def test_keeper_takes_its_ids_gives_up_privileges_then_hides(
    runner: Runner, privileged: bool
) -> None:
    joined = in_phase(plan.box(runner, privileged=privileged), Phase.JOINED)
    wanted = [Op.UNSHARE, Op.TIME_OFFSETS] if Namespace.TIME in runner.namespaces else []
    if any(m.inside == 0 for m in runner.uid_mappings):
        wanted += [Op.SETGID, Op.SETUID]
    wanted += [Op.SECUREBITS, Op.DROP_BOUNDING] if runner.drop_caps else []
    # A change of ids makes a process dumpable again, so this is the last.
    assert [step.op for step in joined] == [*wanted, Op.DUMPABLE]
    assert joined[-1].args == (0,)


def test_fresh_places_are_emptied_each_under_its_index() -> None:
    runner = Runner(
        args=("x",),
        namespaces=Namespace.MOUNT,
        mounts=(
            Mount.tmpfs("/tmp", size=4096, inodes=7),
            Mount.tmpfs("/kept", fresh=False),
            Mount.tmpfs("/a/b", mode=0o700),
        ),
        pivot_root="/mnt",
    )
    clean = in_phase(plan.box(runner, privileged=True), Phase.CLEAN)
    flags = MS_NOSUID | MS_NODEV | MS_NOATIME
    assert [(step.item, step.args, step.strings) for step in clean] == [
        (0, (flags, 0), (b"/tmp", b"mode=1777,size=4096,nr_inodes=7")),
        (2, (flags, 2), (b"/a/b", b"mode=0700")),
    ]


@pytest.mark.parametrize(
    ("disk", "inodes", "data"),
    [
        (None, None, [b"size=4096,nr_inodes=7", b"size=50%,nr_inodes=2147483647"]),
        (1 << 20, None, [b"size=1048576,nr_inodes=7", b"size=1048576,nr_inodes=2147483647"]),
        # The root directory is an inode too.
        (None, 3, [b"size=4096,nr_inodes=4", b"size=50%,nr_inodes=4"]),
    ],
)
def test_fresh_places_are_held_to_the_limits_of_a_run_or_to_their_own(
    disk: int | None, inodes: int | None, data: list[bytes]
) -> None:
    mounts = (
        Mount.tmpfs("/tmp", size=4096, inodes=7),
        Mount.tmpfs("/kept", fresh=False),
        Mount.tmpfs("/a/b"),
    )
    steps = list(plan.ready_places(mounts, disk=disk, inodes=inodes))
    flags = MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOATIME
    assert [(step.phase, step.op, step.item) for step in steps] == [
        (Phase.READY, Op.MOUNT, 0),
        (Phase.READY, Op.MOUNT, 2),
    ]
    assert [step.args for step in steps] == [(flags,)] * 2
    assert [step.strings[1] for step in steps] == [b"/tmp", b"/a/b"]
    assert [step.strings[3] for step in steps] == data


def test_box_makes_a_directory_that_two_mounts_share_once() -> None:
    runner = Runner(
        args=("x",),
        namespaces=Namespace.MOUNT,
        mounts=(Mount.symlink("x", "/a/b/c"), Mount.symlink("x", "/a/b/d")),
        pivot_root="/mnt",
    )
    steps = plan.box(runner, privileged=True)
    made = [step.subject for step in steps if step.location is ErrorLocation.MOUNT_MKDIR]
    assert made == ["/a", "/a/b"]


@given(runner=boxes(), privileged=st.booleans())
def test_fresh_places_are_mounted_again_just_as_at_first(
    runner: Runner, privileged: bool
) -> None:
    steps = plan.box(runner, privileged=privileged)
    clean = [step for step in in_phase(steps, Phase.CLEAN) if step.op is Op.KEEP_FRESH]
    fresh = [item for item, mount in enumerate(runner.mounts) if mount.fresh]
    assert [(step.item, step.args[1]) for step in clean] == [(item, item) for item in fresh]
    for step in clean:
        (first,) = (
            other
            for other in steps
            if (other.op, other.item, other.subject) == (Op.MOUNT, step.item, step.subject)
        )
        assert step.args[0] == first.args[0]
        assert step.strings == (first.strings[1], first.strings[3])


@given(runner=boxes(), privileged=st.booleans())
def test_clean_empties_the_ipc_namespace_only_where_it_is_ours(
    runner: Runner, privileged: bool
) -> None:
    steps = plan.box(runner, privileged=privileged)
    clean = [step.op for step in in_phase(steps, Phase.CLEAN) if step.op is not Op.KEEP_FRESH]
    assert clean == ([Op.FRESH_IPC] if Namespace.IPC in runner.namespaces else [])
    assert clean == [steps[place].op for place in places(steps, Op.FRESH_IPC)]


@given(runner=boxes(), privileged=st.booleans())
def test_box_steps_come_in_the_order_of_their_phases(runner: Runner, privileged: bool) -> None:
    phases = [step.phase for step in plan.box(runner, privileged=privileged)]
    assert phases == sorted(phases)
    assert Phase.PROGRAM not in phases


@given(runner=boxes(), privileged=st.booleans())
def test_box_fits_the_wire_and_has_a_step(runner: Runner, privileged: bool) -> None:
    steps = plan.box(runner, privileged=privileged)
    assert steps
    assert all(isinstance(step.location, ErrorLocation) for step in steps)
    assert len(wire.encode_plan(steps)) <= wire.PLAN_MAX


@given(steps=programs())
def test_program_fits_the_wire(steps: list[Step]) -> None:
    assert all(isinstance(step.location, ErrorLocation) for step in steps)
    assert len(wire.encode_plan(steps)) <= wire.PLAN_MAX


def test_box_of_nothing_only_hides_the_keeper() -> None:
    (step,) = plan.box(Runner(args=("x",)), privileged=True)
    assert (step.phase, step.op, step.args) == (Phase.JOINED, Op.DUMPABLE, (0,))


def test_proc_and_dev_have_their_flags() -> None:
    runner = Runner(
        args=("x",),
        namespaces=Namespace.MOUNT | Namespace.USER,
        mounts=rootfs.kernel_file_systems(),
        pivot_root="/mnt",
    )
    steps = plan.box(runner, privileged=True)
    flags = {
        (step.subject, step.args[0])
        for step in steps
        if step.op is Op.MOUNT and step.location is ErrorLocation.MOUNT
    }
    hidden = MS_NOSUID | MS_NOEXEC
    assert flags == {
        ("/proc", hidden | MS_NODEV | MS_RDONLY),
        ("/proc/1", MS_NOSUID | MS_NODEV | MS_NOATIME | MS_RDONLY),
        ("/dev", hidden),
        ("/dev", hidden | MS_REMOUNT | MS_BIND | MS_RDONLY),
    }


@pytest.mark.parametrize("made", [Namespace.CGROUP, Namespace.TIME])
def test_hooks_without_a_set_up_in_which_they_could_run_are_refused(made: Namespace) -> None:
    runner = Runner(args=("true",), namespaces=made, hooks=(Hook(args=("/bin/true",)),))
    files = (plan.HookFiles(b"/bin/true", -1, -1),)
    with pytest.raises(ConfigError, match=r"Runner\.hooks: .*: without a namespace but CGROUP"):
        plan.box(runner, privileged=False, hooks=files)
    more = dataclasses.replace(runner, namespaces=made | Namespace.UTS)
    steps = plan.box(more, privileged=False, hooks=files)
    assert [step.phase for step in steps if step.op is Op.HOOK] == [Phase.MAPS]


def test_joining_a_user_namespace_hides_the_keeper_before_it_is_there() -> None:
    joins = (Join(Namespace.MOUNT, pid=1), Join(Namespace.USER, pid=1))
    steps = plan.box(Runner(args=("true",), join=joins), privileged=True, join=(0, 1))
    early = [(step.op, *step.args[:1]) for step in steps if step.phase is Phase.EARLY]
    assert early == [(Op.SETGROUPS,), (Op.DUMPABLE, 0), (Op.SETNS, 1), (Op.SETNS, 0)]
    steps = plan.box(Runner(args=("true",), join=joins[:1]), privileged=True, join=(0,))
    assert [step.op for step in steps if step.phase is Phase.EARLY] == [Op.SETNS]
