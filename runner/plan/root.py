"""The sandbox's root: a new one entered, mounts put into it, the old one left.

No target leads to the host, not even through a symlink planted in a directory that is shown:
targets are made when the old root is gone. In directories of the caller's none is made at all.

What is bound, masked or laid over may have to be somewhere before: in the stage, a tmpfs that
is init's directory meanwhile. A root that is a directory is there too. It is only chrooted into
until all is done: had the root been pivoted to it, the stage would lie on top of it, which is
where ".." of a root leads.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.config import RESTRICTING, Mount, MountKind, in_order, is_within
from runner.errors import ConfigError
from runner.errors import ErrorLocation as At
from runner.plan import mounting, places, restrict, trees
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.config import Runner

# Unlike any name that is mounted.
_OLD_ROOT: Final = ".run-sandboxed-old-root"
_STAGE: Final = ".run-sandboxed-stage"
_TREE: Final = "root"  # in the stage

# A user namespace may mount these only while it can see another, in the old root
# (mount_too_revealing in fs/namespace.c).
_REVEALING: Final = frozenset({MountKind.PROC, MountKind.SYSFS})


def private_mounts() -> Step:
    """Keep our mounts and the host's apart, in both directions."""
    return mounting.mount(At.MOUNT_ROOT, "/", flags=mounting.MS_REC | mounting.MS_PRIVATE)


def sources(
    runner: Runner,
    phase: Phase,
    owner: tuple[bytes, bytes] | None = None,
    *,
    old: bool = False,
) -> Iterator[Step]:
    """Open what is shown of the host's; see `trees.opened`."""
    opened, _ = trees.numbered(runner, in_order(runner.mounts))
    yield from trees.opened(opened, phase, owner=owner, old=old)


def new_root(
    runner: Runner,
    *,
    hooks: Sequence[Step] = (),
    privileged: bool = True,
    owner: tuple[bytes, bytes] | None = None,
    old: bool = False,
) -> Iterator[Step]:
    """Make the root of a `Runner` at its `pivot_root`, enter it, and put the mounts into it.

    `hooks` run in it while it is below the old root, which they see. `privileged`: all ids are
    ours to give where there is no user namespace. `owner`: see `sources`. `old`: with mount(2)
    alone.
    """
    mounts = in_order(runner.mounts)
    opened, slots = trees.numbered(runner, mounts)
    site = places.Site(runner, mounts, slots, privileged=privileged, owner=owner, old=old)
    staged = site.staged = _needs_stage(site, opened)
    early = [(i, m) for i, m in mounts if m.kind in _REVEALING]
    if old:
        # mountinfo, when the root has no proc, or one that is not for us.
        yield Step(Phase.SETUP, Op.HOST_PROC, At.INIT, subject="/proc")
    yield from _enter(runner, opened, staged=staged, old=old, hooks=hooks)
    for index, mount in early:
        if not runner.root:
            _refuse_hidden(mount, mounts)
        if staged:
            name = f"/{_STAGE}/{places.staged(index)}"
            yield mounting.mkdir(name, index)
            yield places.kernel_mount(mount, index, name)
        else:
            yield from site.parents(mount, index)
            yield from places.put(site, mount, index)
    yield from _leave_old_root()
    if staged:
        yield mounting.chdir(f"/{_STAGE}")
    if runner.root:
        yield _chroot(_TREE, runner.root)
    for index, mount in _late(mounts, early):
        if staged or mount.kind not in _REVEALING:
            yield from site.parents(mount, index)
            yield from places.put(site, mount, index)
    yield from restrict.all_of(site)
    yield from _finish(runner, staged=staged)


def _late(
    mounts: Sequence[tuple[int, Mount]], early: Sequence[tuple[int, Mount]]
) -> list[tuple[int, Mount]]:
    """Give what is put into place when the old root is gone, in this order.

    Proc as late as can be: by its links to what init has open a planted symlink could lead
    into the stage.
    """
    return sorted(
        ((index, mount) for index, mount in mounts if mount.kind not in RESTRICTING),
        key=lambda numbered: any(is_within(numbered[1].target, m.target) for _, m in early),
    )


def fresh_places(mounts: Sequence[Mount], phase: Phase = Phase.CLEAN) -> Iterator[Step]:
    """Give the next run empty ones of those that are to be fresh; the first time, only look."""
    for number, mount in in_order(mounts):
        if mount.kind is MountKind.TMPFS and mount.fresh:
            yield Step(
                phase,
                Op.KEEP_FRESH,
                At.CLEAN,
                (places.tmpfs_flags(mount), number),
                (os.fsencode(mount.target), places.tmpfs_data(mount).encode()),
                item=number,
                subject=mount.target,
            )


def ready_places(
    mounts: Sequence[Mount], *, disk: int | None, inodes: int | None
) -> Iterator[Step]:
    """Hold the fresh places to the limits of the next run, or to their own again."""
    for number, mount in in_order(mounts):
        if mount.kind is MountKind.TMPFS and mount.fresh:
            yield mounting.mount(
                At.MOUNT_LIMIT,
                mount.target,
                flags=mounting.MS_REMOUNT | places.tmpfs_flags(mount),
                fstype="tmpfs",
                data=places.tmpfs_limits(mount, disk, inodes),
                item=number,
            )._replace(phase=Phase.READY)


def _needs_stage(site: places.Site, opened: Sequence[trees.Tree]) -> bool:
    return bool(
        site.runner.root
        or (site.old and opened)
        or any(
            mount.kind is MountKind.OVERLAY
            or (mount.kind is MountKind.FILE and not site.is_ours(mount.target))
            for _, mount in site.mounts
        )
        or restrict.has_masks(site)
    )


def _enter(
    runner: Runner,
    opened: Sequence[trees.Tree],
    *,
    staged: bool,
    old: bool,
    hooks: Sequence[Step],
) -> Iterator[Step]:
    """Pivot into an empty tmpfs at once; the old root stays below it until it is left."""
    path = runner.pivot_root
    flags = mounting.MS_NOSUID | mounting.MS_NODEV
    yield mounting.mount(At.MOUNT_TMPFS, path, flags=flags, fstype="tmpfs", data="mode=0755")
    yield mounting.chdir(path)
    if staged:
        yield mounting.mkdir(_STAGE, -1, 0o700, there=mounting.NEW)
        data = "mode=0700"
        yield mounting.mount(At.MOUNT_TMPFS, _STAGE, flags=flags, fstype="tmpfs", data=data)
    if old:
        yield from trees.bound(opened, _STAGE)
    if runner.root:
        tree = f"{_STAGE}/{_TREE}"
        yield mounting.mkdir(tree, -1)
        slot = len(opened) - 1
        if old:
            yield mounting.move(f"{_STAGE}/{slot}", tree, -1, there=mounting.EXISTS)
        else:
            yield trees.put(slot, tree, -1, there=mounting.EXISTS)
        if hooks:
            yield mounting.chdir(tree)
    yield from hooks
    if runner.root and hooks:
        yield mounting.chdir(path)
    old_root = _OLD_ROOT.encode()
    yield Step(Phase.SETUP, Op.MKDIR, At.PIVOT_ROOT, (0o700, mounting.NEW), (old_root,))
    yield _pivot(".", _OLD_ROOT, path)
    yield mounting.chdir("/")


def _pivot(new: str, put_old: str, subject: str) -> Step:
    strings = (os.fsencode(new), os.fsencode(put_old))
    return Step(Phase.SETUP, Op.PIVOT_ROOT, At.PIVOT_ROOT, strings=strings, subject=subject)


def _chroot(path: str, subject: str) -> Step:
    strings = (os.fsencode(path),)
    return Step(Phase.SETUP, Op.CHROOT, At.PIVOT_ROOT, strings=strings, subject=subject)


def _leave_old_root() -> Iterator[Step]:
    old = f"/{_OLD_ROOT}".encode()
    yield Step(Phase.SETUP, Op.UMOUNT, At.UMOUNT, (mounting.MNT_DETACH,), (old,))
    yield Step(Phase.SETUP, Op.RMDIR, At.UNLINK, strings=(old,))


def _finish(runner: Runner, *, staged: bool) -> Iterator[Step]:
    for index, mount in in_order(runner.mounts):
        if mount.kind is MountKind.DEV and mount.readonly:
            yield mounting.remount_readonly(mount.target, places.DEV_FLAGS, At.MOUNT, index)
    if runner.root:
        # From the stage up to the tmpfs, whose place is taken; which then lies on the new root.
        yield _chroot("..", runner.root)
        yield _pivot(_TREE, _TREE, runner.root)
        yield mounting.chdir("/")
        yield Step(Phase.SETUP, Op.UMOUNT, At.UMOUNT, (mounting.MNT_DETACH,), (b".",))
    elif staged:
        yield mounting.chdir("/")
        stage = f"/{_STAGE}".encode()
        yield Step(Phase.SETUP, Op.UMOUNT, At.UMOUNT, (mounting.MNT_DETACH,), (stage,))
        yield Step(Phase.SETUP, Op.RMDIR, At.UNLINK, strings=(stage,))
    if not runner.root and runner.root_readonly:
        flags = mounting.MS_NOSUID | mounting.MS_NODEV
        yield mounting.remount_readonly("/", flags, At.MOUNT_READONLY)


def _refuse_hidden(early: Mount, mounts: Sequence[tuple[int, Mount]]) -> None:
    """Refuse what would be mounted first, and then be hidden."""
    for _, mount in mounts:
        if mount is early or mount.kind in RESTRICTING:
            continue
        if (early.target + "/").startswith(mount.target.rstrip("/") + "/"):
            message = (
                f"Mount.{early.kind.value}: {early.target!r} lies below the mount at "
                f"{mount.target!r}, which would hide it: mount {early.kind.value} beside it"
            )
            raise ConfigError(message)
