"""The sandbox's file system: sources opened, a new root entered, mounts put into place.

Sources are opened as detached mounts; targets are made when the old root is gone, so that none
of them, not even a symlink planted in a bound directory, leads to the host.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Final

from runner.config import Mount, MountKind
from runner.errors import ConfigError
from runner.errors import ErrorLocation as At
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# mount(2), <sys/mount.h>
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MS_REMOUNT: Final = 32
_MS_NOATIME: Final = 1024
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2

# The attributes of mount_setattr(2)
_ATTR_RDONLY: Final = 1
_ATTR_NOSUID: Final = 2
_ATTR_NODEV: Final = 4
_ATTR_NOEXEC: Final = 8

_OLD_ROOT: Final = ".run-sandboxed-old-root"  # unlike any name that is mounted
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_DEV_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


def private_mounts() -> Step:
    """Keep our mounts and the host's apart, in both directions."""
    return _mount(At.MOUNT_ROOT, "/", flags=_MS_REC | _MS_PRIVATE)


def sources(
    mounts: Sequence[Mount], phase: Phase, owner: tuple[bytes, bytes] | None = None
) -> Iterator[Step]:
    """Open what is bound, as detached trees with their attributes set.

    `owner`: the uid_map and gid_map of mounts that are to be `owned`.
    """
    slot = 0
    for index, mount in enumerate(mounts):
        for bind in _bound(mount):
            yield Step(
                phase,
                Op.OPEN_TREE,
                At.MOUNT_SOURCE,
                (slot, bind.recursive, bind.optional),
                (os.fsencode(bind.source),),
                item=index,
                subject=bind.source,
            )
            attributes = _ATTR_NOSUID
            attributes |= _ATTR_RDONLY if bind.readonly else 0
            attributes |= 0 if bind.devices else _ATTR_NODEV
            attributes |= 0 if bind.executable else _ATTR_NOEXEC
            yield Step(
                phase,
                Op.MOUNT_SETATTR,
                At.MOUNT_ATTRIBUTES,
                (slot, attributes, 0),
                item=index,
                subject=bind.source,
            )
            if bind.owned and owner is not None:
                yield Step(
                    phase,
                    Op.MOUNT_IDMAP,
                    At.MOUNT_ATTRIBUTES,
                    (slot,),
                    owner,
                    item=index,
                    subject=bind.source,
                )
            slot += 1


def new_root(
    path: str, mounts: Sequence[Mount], *, hooks: Sequence[Step] = ()
) -> Iterator[Step]:
    """Make a tmpfs at `path` the root, and put the mounts into it.

    `hooks` run in it while it is below the old root, which they see.

    Every proc comes first: the kernel lets a user namespace mount one only while it can see
    another, in the old root (mount_too_revealing in fs/namespace.c). Then the old root is left;
    the other mounts follow in their order, when no path leads to the host any more.
    """
    made: set[str] = {"/"}
    slots = _slots(mounts)
    numbered = list(enumerate(zip(mounts, slots, strict=True)))
    yield from _enter(path, hooks)
    for index, (mount, slot) in numbered:
        if mount.kind is MountKind.PROC:
            _refuse_hidden(mount, mounts)
            yield from _put(mount, index, slot, made)
    yield from _leave_old_root()
    for index, (mount, slot) in numbered:
        if mount.kind is not MountKind.PROC:
            yield from _put(mount, index, slot, made)
    yield _remount_readonly("/", _MS_NOSUID | _MS_NODEV, At.MOUNT_READONLY)


def _put(mount: Mount, index: int, slot: int, made: set[str]) -> Iterator[Step]:
    yield from _mkdirs(posixpath.dirname(mount.target), index, made)
    yield from _mount_steps(mount, index, slot, made)


def _refuse_hidden(proc: Mount, mounts: Sequence[Mount]) -> None:
    for mount in mounts:
        if mount is not proc and (proc.target + "/").startswith(mount.target.rstrip("/") + "/"):
            message = (
                f"Mount.proc: {proc.target!r} lies below the mount at {mount.target!r}, which "
                "would hide it: mount proc beside it"
            )
            raise ConfigError(message)


def fresh_places(mounts: Sequence[Mount]) -> Iterator[Step]:
    """Give the next run empty ones of those that are to be fresh."""
    for number, mount in enumerate(mounts):
        if mount.kind is MountKind.TMPFS and mount.fresh:
            yield Step(
                Phase.CLEAN,
                Op.KEEP_FRESH,
                At.CLEAN,
                (_tmpfs_flags(mount), number),
                (os.fsencode(mount.target), _tmpfs_data(mount).encode()),
                item=number,
                subject=mount.target,
            )


def _mount(
    location: At,
    target: str,
    *,
    flags: int,
    fstype: str = "",
    data: str = "",
    item: int = -1,
) -> Step:
    return Step(
        Phase.SETUP,
        Op.MOUNT,
        location,
        (flags,),
        (fstype.encode(), os.fsencode(target), fstype.encode(), data.encode()),
        item=item,
        subject=target,
    )


def _enter(path: str, hooks: Sequence[Step]) -> Iterator[Step]:
    """Pivot into an empty tmpfs at once; the old root stays below it until it is left."""
    flags = _MS_NOSUID | _MS_NODEV
    yield _mount(At.MOUNT_TMPFS, path, flags=flags, fstype="tmpfs", data="mode=0755")
    here, old = b".", _OLD_ROOT.encode()
    yield Step(
        Phase.SETUP, Op.CHDIR, At.MOUNT_CHDIR, strings=(os.fsencode(path),), subject=path
    )
    yield from hooks
    yield Step(Phase.SETUP, Op.MKDIR, At.PIVOT_ROOT, (0o700, 1), (old,))
    yield Step(Phase.SETUP, Op.PIVOT_ROOT, At.PIVOT_ROOT, strings=(here, old), subject=path)
    yield Step(Phase.SETUP, Op.CHDIR, At.MOUNT_CHDIR, strings=(b"/",), subject="/")


def _leave_old_root() -> Iterator[Step]:
    old = f"/{_OLD_ROOT}".encode()
    yield Step(Phase.SETUP, Op.UMOUNT, At.UMOUNT, (_MNT_DETACH,), (old,))
    yield Step(Phase.SETUP, Op.RMDIR, At.UNLINK, strings=(old,))


def _remount_readonly(target: str, flags: int, location: At, item: int = -1) -> Step:
    return _mount(
        location, target, flags=_MS_REMOUNT | _MS_BIND | _MS_RDONLY | flags, item=item
    )


def _bound(mount: Mount) -> tuple[Mount, ...]:
    """Give the binds that a mount is made of."""
    if mount.kind is MountKind.BIND:
        return (mount,)
    if mount.kind is MountKind.DEV:
        # A user namespace may not mknod a device, but may bind the host's.
        return tuple(
            Mount.bind(f"/dev/{name}", f"{mount.target}/{name}", readonly=False, devices=True)
            for name in _DEVICES
        )
    return ()


def _slots(mounts: Sequence[Mount]) -> list[int]:
    """Give each mount's first slot of detached trees."""
    slots, free = [], 0
    for mount in mounts:
        slots.append(free)
        free += len(_bound(mount))
    return slots


def _mkdirs(path: str, index: int, made: set[str]) -> Iterator[Step]:
    """Make a directory and those above it, each once in a plan."""
    if path in made:
        return
    yield from _mkdirs(posixpath.dirname(path), index, made)
    made.add(path)
    yield _mkdir(path, index)


def _mkdir(path: str, index: int, mode: int = 0o755) -> Step:
    return Step(
        Phase.SETUP,
        Op.MKDIR,
        At.MOUNT_MKDIR,
        (mode,),
        (os.fsencode(path),),
        item=index,
        subject=path,
    )


def _mount_steps(mount: Mount, index: int, slot: int, made: set[str]) -> Iterator[Step]:
    """Put one mount at its target, whose parent exists."""
    target = os.fsencode(mount.target)
    if mount.kind is MountKind.BIND:
        yield _place_bind(mount, index, slot)
    elif mount.kind is MountKind.DEV:
        yield from _dev(mount, index, slot)
    elif mount.kind is MountKind.SYMLINK:
        yield _symlink(mount.source, mount.target, index)
    elif mount.kind is MountKind.FILE:
        yield Step(
            Phase.SETUP,
            Op.WRITE_FILE,
            At.FILE,
            (mount.mode,),
            (target,),
            mount.content,
            index,
            mount.target,
        )
    else:
        made.add(mount.target)
        yield _mkdir(mount.target, index, mount.mode)
        if mount.kind is MountKind.TMPFS:
            yield _mount(
                At.MOUNT,
                mount.target,
                flags=_tmpfs_flags(mount),
                fstype="tmpfs",
                data=_tmpfs_data(mount),
                item=index,
            )
        elif mount.kind is MountKind.PROC:
            flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
            flags |= _MS_RDONLY if mount.readonly else 0
            yield _mount(At.MOUNT, mount.target, flags=flags, fstype="proc", item=index)


def _place_bind(mount: Mount, index: int, slot: int) -> Step:
    target = (os.fsencode(mount.target),)
    return Step(
        Phase.SETUP, Op.MOVE_MOUNT, At.MOUNT, (slot,), target, item=index, subject=mount.target
    )


def _symlink(text: str, path: str, index: int) -> Step:
    strings = (os.fsencode(text), os.fsencode(path))
    return Step(Phase.SETUP, Op.SYMLINK, At.SYMLINK, strings=strings, item=index, subject=path)


def _dev(mount: Mount, index: int, slot: int) -> Iterator[Step]:
    flags = _MS_NOSUID | _MS_NOEXEC
    yield _mkdir(mount.target, index)
    data = "mode=0755,size=64k"
    yield _mount(At.MOUNT, mount.target, flags=flags, fstype="tmpfs", data=data, item=index)
    for offset, bind in enumerate(_bound(mount)):
        yield _place_bind(bind, index, slot + offset)
    for name, text in _DEV_LINKS:
        yield _symlink(text, f"{mount.target}/{name}", index)
    yield _mkdir(f"{mount.target}/shm", index)
    yield _remount_readonly(mount.target, flags, At.MOUNT, index)


def _tmpfs_flags(mount: Mount) -> int:
    # noatime: looking into it must not change it (op keep_fresh compares).
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOATIME
    return flags | (0 if mount.executable else _MS_NOEXEC)


def _tmpfs_data(mount: Mount) -> str:
    options = [f"mode={mount.mode:04o}"]
    if mount.size is not None:
        options.append(f"size={mount.size}")
    if mount.inodes is not None:
        options.append(f"nr_inodes={mount.inodes}")
    return ",".join(options)
