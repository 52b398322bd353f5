"""The plan of a root, over all kinds of mounts: what is made where, when, and with which calls.

test_plan.py has the rules of a root that is a tmpfs; here are those of a directory as the root,
of directories of the caller's, of what needs a stage, and of kernels with mount(2) alone.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import plan, rootfs, wire
from runner.config import (
    ALL_NAMESPACES,
    RESTRICTING,
    IdMap,
    Mount,
    MountKind,
    Namespace,
    Runner,
    in_order,
    is_within,
)
from runner.errors import ConfigError, ErrorLocation
from runner.plan import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

At = ErrorLocation
EXISTS = 2  # native/wire.h: enum target
STAGE = b"/.run-sandboxed-stage"
NEW_CALLS = {Op.OPEN_TREE, Op.MOUNT_SETATTR, Op.MOVE_MOUNT, Op.MOUNT_IDMAP}

paths = st.lists(st.sampled_from(["a", "b", "tmp"]), min_size=1, max_size=3).map(
    lambda words: "/" + "/".join(words)
)
mounts = st.one_of(
    st.builds(Mount.bind, paths, paths, readonly=st.booleans(), optional=st.booleans()),
    st.builds(Mount.tmpfs, paths),
    st.builds(Mount.proc, st.just("/proc"), readonly=st.booleans(), masked=st.booleans()),
    st.builds(Mount.sysfs, st.just("/sys")),
    st.builds(Mount.mqueue, paths),
    st.builds(Mount.dev, paths, readonly=st.booleans(), pts=st.booleans()),
    st.builds(Mount.device, st.just("/dev/fuse"), paths),
    st.builds(Mount.overlay, paths, lower=st.just(["/l1", "/l2"]), ephemeral=st.booleans()),
    st.builds(
        Mount.overlay,
        paths,
        lower=st.just(["/l"]),
        upper=st.just("/c/u"),
        work=st.just("/c/w"),
    ),
    st.builds(Mount.symlink, paths, paths),
    st.builds(Mount.directory, paths),
    st.builds(Mount.file, paths, st.just(b"x")),
    st.builds(Mount.mask, paths),
    st.builds(Mount.read_only, paths),
    st.builds(Mount.remount, paths, readonly=st.booleans()),
)
roots = st.lists(mounts, max_size=8)


def runner_of(found: Sequence[Mount], **fields: object) -> Runner:
    config: dict[str, Any] = {
        "args": ("x",),
        "namespaces": ALL_NAMESPACES,
        "mounts": tuple(found),
        "pivot_root": "/mnt",
        "uid_mappings": (IdMap(0, 5),),
        "gid_mappings": (IdMap(0, 5),),
    }
    return Runner(**(config | fields))


def setup_of(runner: Runner, **options: Any) -> list[Step]:  # noqa: ANN401
    steps = plan.box(runner, **({"privileged": True} | options))
    return [step for step in steps if step.phase is Phase.SETUP]


def ops(steps: Sequence[Step]) -> list[Op]:
    return [step.op for step in steps]


def caller_owns(runner: Runner, path: str) -> bool:
    """Whether a path is in a directory of the caller's, said in another way than the plan's."""
    above = posixpath.dirname(path)
    kinds = {mount.target: mount.kind for mount in runner.mounts if mount.kind in COVERS}
    while above != "/" and above not in kinds:
        above = posixpath.dirname(above)
    if above == "/":
        return bool(runner.root)
    return kinds[above] not in {MountKind.TMPFS, MountKind.DEV}


COVERS = set(MountKind) - RESTRICTING
COVERS -= {MountKind.SYMLINK, MountKind.DIRECTORY, MountKind.FILE}


@given(found=roots, root=st.sampled_from(["", "/image"]), old=st.booleans())
def test_nothing_is_made_in_a_directory_of_the_callers(
    found: list[Mount], root: str, old: bool
) -> None:  # T27
    runner = runner_of(rootfs.combine(found, ()), root=root)
    there = {
        Op.MKDIR: 1,
        Op.SYMLINK: 0,
        Op.MOVE_MOUNT: 1,
        Op.MOVE_PATH: 1,
        Op.BIND: 3,
    }
    for step in setup_of(runner, old_mounts=old):
        path = (step.strings or (b"",))[-1].decode()
        if step.op in {Op.WRITE_FILE, Op.MKNOD}:
            assert not path.startswith("/") or not caller_owns(runner, path)
        elif step.op in there and path.startswith("/") and not path.startswith(STAGE.decode()):
            wanted = (step.args + (0,) * 4)[there[step.op]]
            assert wanted == EXISTS or not caller_owns(runner, path)


@given(found=roots, readonly=st.booleans(), old=st.booleans())
def test_directory_as_the_root_is_chrooted_into_and_pivoted_to_at_last(
    found: list[Mount], readonly: bool, old: bool
) -> None:
    runner = runner_of(found, root="/image", root_readonly=readonly)
    steps = setup_of(runner, old_mounts=old)
    names = [step for step in steps if step.op in {Op.CHROOT, Op.PIVOT_ROOT}]
    assert [(step.op, step.strings) for step in names] == [
        (Op.PIVOT_ROOT, (b".", b".run-sandboxed-old-root")),
        (Op.CHROOT, (b"root",)),
        (Op.CHROOT, (b"..",)),
        (Op.PIVOT_ROOT, (b"root", b"root")),
    ]
    # And then the tmpfs is left, which is on top of it.
    last = steps[steps.index(names[-1]) + 1 :]
    assert [(step.op, step.strings) for step in last] == [
        (Op.CHDIR, (b"/",)),
        (Op.UMOUNT, (b".",)),
    ]
    # Between the two, and only there, paths are looked up in what the caller gave.
    first, second = (steps.index(step) for step in names[1:3])
    for place, step in enumerate(steps):
        if step.item >= 0 and step.op is not Op.OPEN_PATH and not first < place < second:
            assert step.strings[-1].startswith((STAGE, STAGE[1:])) or step.op is Op.MOUNT
            assert step.op is not Op.MOUNT or step.strings[1].startswith(STAGE)


@given(found=roots, root=st.sampled_from(["", "/image"]), old=st.booleans())
def test_what_is_staged_is_put_into_place_last_and_restricted_then(
    found: list[Mount], root: str, old: bool
) -> None:
    """Links in proc lead to what init has open, so that no other path is looked up after it."""
    runner = runner_of(found, root=root)
    steps = setup_of(runner, old_mounts=old)
    moved = [place for place, s in enumerate(steps) if s.strings[:1] and s.op is Op.MOVE_PATH]
    late = [p for p in moved if steps[p].strings[0].startswith(b"m")]
    for place in late:
        for step in steps[place:]:
            kind = runner.mounts[step.item].kind if step.item >= 0 else None
            if kind is None or kind in RESTRICTING or kind is MountKind.DEV:
                continue
            target = runner.mounts[step.item].target
            assert kind in {MountKind.PROC, MountKind.SYSFS} or is_within(target, "/proc")
    restricting = [
        p
        for p, s in enumerate(steps)
        if s.item >= 0 and runner.mounts[s.item].kind in RESTRICTING
    ]
    puts = [p for p, s in enumerate(steps) if s.op in {Op.MOVE_MOUNT, Op.MOVE_PATH}]
    assert not restricting or not puts or max(puts) < min(restricting)


@given(found=roots, root=st.sampled_from(["", "/image"]), privileged=st.booleans())
def test_old_way_uses_none_of_the_newer_calls_and_opens_nothing_early(
    found: list[Mount], root: str, privileged: bool
) -> None:
    runner = runner_of(found, root=root)
    steps = plan.box(runner, privileged=privileged, old_mounts=True)
    assert not NEW_CALLS & set(ops(steps))
    assert not [s for s in steps if s.phase is Phase.EARLY and s.op is not Op.SETGROUPS]
    new = plan.box(runner, privileged=privileged)
    opened = [(s.args[0], s.item, s.subject) for s in new if s.op is Op.OPEN_TREE]
    assert opened == [(s.args[0], s.item, s.subject) for s in steps if s.op is Op.OPEN_PATH]
    bound = [s for s in steps if s.op is Op.BIND and s.args[0] >= 0]
    attributes = [s.args[:2] for s in new if s.op is Op.MOUNT_SETATTR]
    assert [s.args[:2] for s in bound] == attributes


@given(found=roots, root=st.sampled_from(["", "/image"]), old=st.booleans())
def test_steps_have_the_index_in_the_list_that_was_given(
    found: list[Mount], root: str, old: bool
) -> None:  # M57
    runner = runner_of(found, root=root)
    steps = plan.box(runner, privileged=True, old_mounts=old)
    held = {index for index, _ in in_order(found)}
    assert {step.item for step in steps} - {-1} == held
    for step in steps:
        if step.op in {Op.MASK, Op.REMOUNT, Op.WRITE_FILE, Op.MKNOD} and step.item >= 0:
            assert is_within(step.subject, found[step.item].target)


@given(found=roots, root=st.sampled_from(["", "/image"]), old=st.booleans())
def test_plan_of_any_root_fits_the_wire(found: list[Mount], root: str, old: bool) -> None:
    steps = plan.box(runner_of(found, root=root), privileged=True, old_mounts=old)
    assert len(wire.encode_plan(steps)) <= wire.PLAN_MAX


def test_stage_is_there_only_for_who_needs_it() -> None:
    """The default root is started more often than any: it is made without."""
    plain = setup_of(runner_of(rootfs.default_root(())))
    assert not [step for step in plain if STAGE[1:] in b"".join(step.strings)]
    for mount in (Mount.mask("/x"), Mount.overlay("/x", lower=["/l"])):
        steps = setup_of(runner_of([mount]))
        left = [(s.op, s.strings) for s in steps if s.op in {Op.UMOUNT, Op.RMDIR}]
        assert left[-2:] == [(Op.UMOUNT, (STAGE,)), (Op.RMDIR, (STAGE,))]


@pytest.mark.parametrize("readonly", [True, False])
def test_directory_as_the_root_is_read_only_before_anything_is_put_into_it(
    readonly: bool,
) -> None:  # M56
    steps = plan.box(runner_of([], root="/image", root_readonly=readonly), privileged=True)
    (opened,) = (step for step in steps if step.op is Op.OPEN_TREE)
    (attributes,) = (step for step in steps if step.op is Op.MOUNT_SETATTR)
    assert (opened.phase, opened.args, opened.subject) == (
        Phase.EARLY,
        (0, True, False, True),
        "/image",
    )
    assert attributes.args == (0, 2 | 4 | int(readonly), 0)  # nosuid, nodev


def test_tmpfs_as_the_root_is_read_only_at_the_end_unless_asked() -> None:  # M56
    for readonly in (True, False):
        steps = setup_of(runner_of([], root_readonly=readonly))
        assert (steps[-1].location is At.MOUNT_READONLY) is readonly


@pytest.mark.parametrize(
    ("namespaces", "outside", "masked"),
    [
        (ALL_NAMESPACES & ~Namespace.USER, None, True),
        (ALL_NAMESPACES, 0, True),
        (ALL_NAMESPACES, 1000, False),
    ],
)
def test_proc_is_masked_for_the_hosts_uid_0(
    namespaces: Namespace, outside: int | None, masked: bool
) -> None:  # M52
    maps = () if outside is None else (IdMap(0, outside),)
    config = {"namespaces": namespaces, "uid_mappings": maps, "gid_mappings": maps}
    for mount, wanted in (
        (Mount.proc(), masked),
        (Mount.proc(masked=True), True),
        (Mount.proc(masked=False), False),
    ):
        masks = [s.subject for s in setup_of(runner_of([mount], **config)) if s.op is Op.MASK]
        assert bool(masks) is wanted
        assert all(posixpath.dirname(path) == "/proc" for path in masks)


@pytest.mark.parametrize(
    ("namespaces", "gids", "privileged", "group"),
    [
        (ALL_NAMESPACES, (IdMap(0, 9),), True, False),
        (ALL_NAMESPACES, (IdMap(0, 9, 6),), True, True),
        (ALL_NAMESPACES & ~Namespace.USER, (), True, True),
        (ALL_NAMESPACES & ~Namespace.USER, (), False, False),
    ],
)
def test_pts_belong_to_the_group_of_terminals_where_there_is_one(
    namespaces: Namespace, gids: tuple[IdMap, ...], privileged: bool, group: bool
) -> None:
    uids = (IdMap(0, 9),) if gids else ()
    runner = runner_of(
        [Mount.dev(pts=True)], namespaces=namespaces, uid_mappings=uids, gid_mappings=gids
    )
    steps = setup_of(runner, privileged=privileged)
    (data,) = (step.strings[3] for step in steps if step.strings[:1] == (b"devpts",))
    wanted = b"newinstance,ptmxmode=0666,mode=0620"
    assert data == wanted + (b",gid=5" if group else b"")


def test_dev_is_read_only_when_all_below_it_is_there() -> None:
    steps = setup_of(runner_of([Mount.dev(), Mount.mqueue(), Mount.node("/dev/n", "b", 1, 2)]))
    (readonly,) = (p for p, s in enumerate(steps) if s.subject == "/dev" and _remounts(s))
    assert max(p for p, s in enumerate(steps) if s.subject.startswith("/dev/")) < readonly
    (node,) = (step for step in steps if step.op is Op.MKNOD)
    assert (node.location, node.args) == (At.MKNOD, (0o060666, 1 << 8 | 2))


def _remounts(step: Step) -> bool:
    return step.op is Op.MOUNT and bool(step.args[0] & 32)


def test_overlays_options_name_nothing_of_the_hosts() -> None:  # H70
    owner = (b"0 1901 1", b"0 1903 1")
    maps = {"uid_mappings": (IdMap(0, 1900), IdMap(1000, 1901))}
    maps |= {"gid_mappings": (IdMap(0, 1902), IdMap(1001, 1903))}
    mount = Mount.overlay("/o", lower=["/x/a", "/x/b"], upper="/x/c/up", work="/x/c/more/work")
    steps = setup_of(runner_of([mount], **maps), owner=owner)
    (overlay,) = (step for step in steps if step.strings[:1] == (b"overlay",))
    assert overlay.strings[3] == (b"lowerdir=0:1,upperdir=2/up,workdir=2/more/work,userxattr")
    assert overlay.args[1:] == (1000, 1001)  # as who owns upper and work, inside
    early = plan.box(runner_of([mount], **maps), privileged=True, owner=owner)
    assert [s.subject for s in early if s.op is Op.OPEN_TREE] == ["/x/a", "/x/b", "/x/c"]
    assert [s.subject for s in early if s.op is Op.MOUNT_IDMAP] == ["/x/c"]


# What is refused when a Mount is made.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mount.tmpfs("/"), "Mount.target: '/': the root itself: give a path below it"),
        (lambda: Mount.bind("/x", "//"), "Mount.target: '//': the root itself"),
        (
            lambda: Mount.bind("/x", "/a/../b"),
            "Mount.target: '/a/../b': give a path without ..",
        ),
        (lambda: Mount.mask("x"), "Mount.target: 'x': give an absolute path"),
        (lambda: Mount.device("x", "/x"), "Mount.source: 'x': give an absolute path"),
        (lambda: Mount.dev(console="pts/1"), "Mount.console: 'pts/1': give an absolute path"),
        (lambda: Mount.node("/dev/x", "p", 1, 1), "Mount.node: 'p': a device is"),
        (lambda: Mount.node("/dev/x", "c", 4096, 1), "Mount.node: (4096, 1): a major is"),
        (lambda: Mount.node("/dev/x", "c", 1, 1, mode=0o200000), "Mount.mode: '0o2"),
        (lambda: Mount.tmpfs("/t", mode=0o20666), "Mount.mode: '0o20666': a mode is 0 to"),
        (lambda: Mount.overlay("/o", lower=[]), "Mount.lower: (): an overlay has at least"),
        (lambda: Mount.overlay("/o", lower=["l"]), "Mount.lower: 'l': give an absolute"),
        (lambda: overlay(work=""), "Mount.work: '': upper and work go together"),
        (lambda: overlay(upper=""), "Mount.work: '/c/w': upper and work go together"),
        (lambda: overlay(upper="/c:d/u"), "Mount.upper: '/c:d/u': the kernel reads"),
        (lambda: overlay(ephemeral=True), "Mount.upper: '/c/u': an ephemeral overlay has"),
        (lambda: overlay(work="/c/u/w"), "Mount.work: '/c/u/w': upper and work lie beside"),
        (lambda: overlay(upper="/l/u"), "Mount.upper: '/l/u': it lies in lower '/l'"),
        (lambda: overlay(work="/l/./w"), "Mount.work: '/l/./w': it lies in lower '/l'"),
    ],
)
def test_mount_that_cannot_be_meant_is_refused(make: Callable[[], Mount], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(message)


def overlay(**fields: Any) -> Mount:  # noqa: ANN401
    return Mount.overlay("/o", **({"lower": ["/l"], "upper": "/c/u", "work": "/c/w"} | fields))


def test_order_is_by_depth_the_later_holds_and_restrictions_are_last() -> None:  # M57
    found = [
        Mount.mask("/a/b"),
        Mount.tmpfs("/a/b/c"),
        Mount.tmpfs("/a/b", size=1),
        Mount.read_only("/"),
        Mount.directory("/a"),
        Mount.tmpfs("//a/./b/", size=2),
        Mount.remount("/a/b"),
    ]
    assert [index for index, _ in in_order(found)] == [4, 5, 1, 3, 0, 6]
    assert rootfs.combine(found[:2], found[2:]) == [mount for _, mount in in_order(found)]


@pytest.mark.parametrize(
    ("path", "directory", "within"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a", True),
        ("/ab", "/a", False),
        ("/a", "/", True),
        ("//a/./b/", "/a/b", True),
        ("/", "/a", False),
    ],
)
def test_is_within_looks_at_whole_words(path: str, directory: str, within: bool) -> None:
    assert is_within(path, directory) is within


def test_sandbox_is_built_anew_where_a_run_could_leave_something() -> None:
    kept = rootfs.default_root(())

    def can_be_put_back(mounts: list[Mount], *, keep_files: bool = False) -> bool:
        return rootfs.can_be_put_back(mounts, keep_files=keep_files)

    assert can_be_put_back(kept)
    assert can_be_put_back([*kept, Mount.overlay("/o", lower=["/l"])])
    for mount in (
        Mount.overlay("/o", lower=["/l"], ephemeral=True),
        Mount.mqueue(),
        Mount.sysfs(),
        Mount.dev(readonly=False),
    ):
        assert not can_be_put_back([*kept, mount])
    upper = overlay()
    assert can_be_put_back([*kept, upper])
    assert not can_be_put_back([*kept, upper, Mount.tmpfs("/o/t")])
    for devices in (False, True):
        writable = Mount.bind("/w", readonly=False, devices=devices)
        assert not can_be_put_back([*kept, writable, Mount.tmpfs("/w/a/t")])
        assert can_be_put_back([*kept, writable, Mount.tmpfs("/w/a/t")], keep_files=True)
        for keep_files in (False, True):
            proc = [*kept, writable, Mount.proc("/w/a/proc")]
            assert not can_be_put_back(proc, keep_files=keep_files)
