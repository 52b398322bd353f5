"""How each kind of mount is put at its target, below the new root."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Final, NoReturn

from runner.config import Mount, MountKind, Namespace, is_within, normal
from runner.errors import ConfigError
from runner.errors import ErrorLocation as At
from runner.plan import mounting, trees
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.config import IdMap, Runner

DEV_FLAGS: Final = mounting.MS_NOSUID | mounting.MS_NOEXEC
_PLAIN: Final = mounting.MS_NOSUID | mounting.MS_NODEV

_DEV_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
)
_TTY: Final = 5  # the group that owns terminals, on every distribution

_MOST_INODES: Final = 2**31 - 1

# Below these, names are looked up in what is neither a link nor another directory.
_COVERING: Final = frozenset(MountKind) - {
    *(MountKind.SYMLINK, MountKind.DIRECTORY, MountKind.FILE),
    *(MountKind.MASK, MountKind.READONLY, MountKind.REMOUNT),
}
_OURS: Final = frozenset({MountKind.TMPFS, MountKind.DEV})


class Site:
    """One root in the making: what the steps of its mounts have to know of each other."""

    def __init__(
        self,
        runner: Runner,
        mounts: Sequence[tuple[int, Mount]],
        slots: dict[int, int],
        *,
        privileged: bool,
        owner: tuple[bytes, bytes] | None,
        old: bool,
    ) -> None:
        self.runner: Final = runner
        self.mounts: Final = mounts
        self.slots: Final = slots
        self.privileged: Final = privileged
        self.owner: Final = owner
        self.old: Final = old
        self.staged = False  # is there a stage?
        self._made = {"/"}
        self._covered = {normal(m.target): m.kind for _, m in mounts if m.kind in _COVERING}

    def is_ours(self, path: str) -> bool:
        """Tell whether this lies in a file system that we have made, or in the caller's."""
        above = normal(path)
        while above != "/":
            above = posixpath.dirname(above)
            if above in self._covered:
                return self._covered[above] in _OURS
        return not self.runner.root

    def there(self, path: str) -> int:
        """Say what may be at a path: in directories of the caller's nothing is made."""
        return mounting.MADE if self.is_ours(path) else mounting.EXISTS

    def parents(self, mount: Mount, index: int) -> Iterator[Step]:
        """Make the directories above a mount, each once in a plan."""
        yield from self._mkdirs(posixpath.dirname(normal(mount.target)), index)

    def mounted(self, target: str) -> None:
        """Note that something is mounted here, so that it need not be made."""
        self._made.add(normal(target))

    def _mkdirs(self, path: str, index: int) -> Iterator[Step]:
        if path in self._made:
            return
        yield from self._mkdirs(posixpath.dirname(path), index)
        self._made.add(path)
        yield mounting.mkdir(path, index, there=self.there(path))


def put(site: Site, mount: Mount, index: int) -> Iterator[Step]:
    """Put one mount at its target, whose parent exists."""
    there = site.there(mount.target)
    if mount.kind in {MountKind.BIND, MountKind.DEVICE}:
        if there == mounting.EXISTS and not mount.optional:
            yield mounting.mkdir(mount.target, index, there=there, mounted=True)
        yield _tree(site, mount, index, there=there)
    elif mount.kind is MountKind.SYMLINK:
        yield mounting.symlink(mount.source, mount.target, index, there=there)
    elif mount.kind is MountKind.FILE:
        yield from _file(site, mount, index, there)
    elif mount.kind is MountKind.NODE:
        yield _node(site, mount, index)
    else:
        site.mounted(mount.target)
        is_mount = mount.kind is not MountKind.DIRECTORY
        yield mounting.mkdir(mount.target, index, mount.mode, there=there, mounted=is_mount)
        if is_mount:
            yield from _on_directory(site, mount, index)


def kernel_mount(mount: Mount, index: int, target: str) -> Step:
    """Mount a file system of the kernel's, which has no source."""
    flags = _PLAIN | mounting.MS_NOEXEC | (mounting.MS_RDONLY if mount.readonly else 0)
    # What is to stay writable in parts, is so at first: restrict.py takes the rest away.
    return mounting.mount(
        At.MOUNT, target, flags=flags, fstype=mount.kind.value, item=index, subject=mount.target
    )


def tmpfs_flags(mount: Mount) -> int:
    """Give the flags; noatime: looking into it must not change it (op keep_fresh compares)."""
    flags = _PLAIN | mounting.MS_NOATIME | (0 if mount.executable else mounting.MS_NOEXEC)
    return flags | (mounting.MS_RDONLY if mount.readonly else 0)


def tmpfs_data(mount: Mount) -> str:
    """Give the options of a tmpfs, as mount(2) takes them."""
    options = [f"mode={mount.mode:04o}"]
    if mount.size is not None:
        options.append(f"size={mount.size}")
    if mount.inodes is not None:
        options.append(f"nr_inodes={mount.inodes}")
    return ",".join(options)


def tmpfs_limits(mount: Mount, disk: int | None, inodes: int | None) -> str:
    """Give the options that limit a tmpfs that is mounted; None is what the mount says."""
    # Without either: the kernel's own default of all memory; and more files than there can be,
    # for it cannot be told its default. The root directory is an inode too.
    size = disk or mount.size or "50%"
    return f"size={size},nr_inodes={inodes + 1 if inodes else mount.inodes or _MOST_INODES}"


def _on_directory(site: Site, mount: Mount, index: int) -> Iterator[Step]:
    if mount.kind is MountKind.DEV:
        yield from _dev(site, mount, index)
    elif mount.kind is MountKind.OVERLAY:
        yield from _overlay(site, mount, index)
    elif mount.kind is MountKind.TMPFS:
        flags, data = tmpfs_flags(mount), tmpfs_data(mount)
        yield mounting.mount(
            At.MOUNT, mount.target, flags=flags, fstype="tmpfs", data=data, item=index
        )
    elif mount.kind is MountKind.MQUEUE or not site.staged:
        yield kernel_mount(mount, index, mount.target)
    else:
        yield mounting.move(staged(index), mount.target, index, there=mounting.EXISTS)


def staged(index: int) -> str:
    """Give the place in the stage of what had to be mounted early."""
    return f"m{index}"


def _tree(site: Site, mount: Mount, index: int, offset: int = 0, *, there: int) -> Step:
    """Put one of the trees of a mount at its target, or below it."""
    slot = site.slots[index] + offset
    target = mount.target
    if mount.kind is MountKind.DEV:
        target += f"/{[*trees.DEVICES, 'console'][offset]}"
    if site.old:
        return mounting.move(str(slot), target, index, optional=mount.optional, there=there)
    return trees.put(slot, target, index, there=there)


def _file(site: Site, mount: Mount, index: int, there: int) -> Iterator[Step]:
    if there != mounting.EXISTS:
        yield mounting.write_file(mount.target, mount.content, mount.mode, index)
        return
    yield mounting.mkdir(mount.target, index, there=there, mounted=True)
    name = f"f{index}"
    yield mounting.write_file(name, mount.content, mount.mode, index, mount.target)
    attributes = mounting.ATTR_RDONLY | mounting.ATTR_NOSUID | mounting.ATTR_NODEV
    flags = mounting.BIND_OLD if site.old else 0
    yield mounting.bind(name, mount.target, index, attributes=attributes, flags=flags)


def _node(site: Site, mount: Mount, index: int) -> Step:
    above = [m for _, m in site.mounts if m.kind is MountKind.DEV]
    if not any(is_within(mount.target, dev.target) for dev in above) or not site.is_ours(
        mount.target
    ):
        _refuse(index, mount, "only in a Mount.dev can a device be opened: put it below one")
    return Step(
        Phase.SETUP,
        Op.MKNOD,
        At.MKNOD,
        (mount.mode, mount.number),
        (os.fsencode(mount.target),),
        item=index,
        subject=mount.target,
    )


def _dev(site: Site, mount: Mount, index: int) -> Iterator[Step]:
    target = mount.target
    data = "mode=0755,size=64k"
    yield mounting.mount(
        At.MOUNT, target, flags=DEV_FLAGS, fstype="tmpfs", data=data, item=index
    )
    for offset in range(len(trees.of_mount(mount, index))):
        yield _tree(site, mount, index, offset, there=mounting.MADE)
    for name, text in _DEV_LINKS:
        yield mounting.symlink(text, f"{target}/{name}", index)
    yield mounting.mkdir(f"{target}/shm", index)
    if mount.pts:
        yield from _pts(site, f"{target}/pts", index)
        yield mounting.symlink("pts/ptmx", f"{target}/ptmx", index)


def _pts(site: Site, target: str, index: int) -> Iterator[Step]:
    runner = site.runner
    if Namespace.USER in runner.namespaces and not (
        _has(runner.uid_mappings, 0) and _has(runner.gid_mappings, 0)
    ):
        message = (
            f"Runner.mounts[{index}].pts: True: the kernel mounts devpts only where the ids 0 "
            "are mapped: map them, or do without"
        )
        raise ConfigError(message)
    data = "newinstance,ptmxmode=0666,mode=0620"
    if Namespace.USER in runner.namespaces:
        has_tty = _has(runner.gid_mappings, _TTY)
    else:
        has_tty = site.privileged
    if has_tty:
        data += f",gid={_TTY}"
    yield mounting.mkdir(target, index)
    yield mounting.mount(
        At.MOUNT, target, flags=DEV_FLAGS, fstype="devpts", data=data, item=index
    )


def _has(maps: Sequence[IdMap], number: int) -> bool:
    return any(m.inside <= number < m.inside + m.count for m in maps)


def _overlay(site: Site, mount: Mount, index: int) -> Iterator[Step]:
    """Have the layers at hidden places, which the mounted overlay needs no more."""
    first = site.slots[index]
    layers = [str(first + offset) for offset in range(len(trees.of_mount(mount, index)))]
    if not site.old:
        for name in layers:
            yield trees.put(int(name), name, index, there=mounting.MADE)
    lower = layers[: len(mount.lower)]
    if mount.readonly and len(lower) == 1:
        # The kernel wants two where there is no upper one.
        lower.append(f"l{index}")
        yield mounting.mkdir(lower[1], index)
    options = [f"lowerdir={':'.join(lower)}"]
    writable = ""
    if mount.upper:
        parent = trees.upper_parent(mount)
        upper, work = (posixpath.relpath(path, parent) for path in (mount.upper, mount.work))
        writable = layers[-1]
    elif mount.ephemeral:
        writable, upper, work = f"e{index}", "upper", "work"
        yield mounting.mkdir(writable, index, 0o700)
        data = "mode=0700" + ("" if mount.size is None else f",size={mount.size}")
        yield mounting.mount(
            At.MOUNT, writable, flags=_PLAIN, fstype="tmpfs", data=data, item=index
        )
        yield mounting.mkdir(f"{writable}/{upper}", index, mount.mode)
        yield mounting.mkdir(f"{writable}/{work}", index, 0o700)
    if writable:
        options += [f"upperdir={writable}/{upper}", f"workdir={writable}/{work}"]
    # Attributes that a user namespace may set (Linux 5.11), everywhere: a directory that was
    # written to by one kind of sandbox is then the same in another.
    options.append("userxattr")
    yield mounting.mount(
        At.MOUNT,
        mount.target,
        flags=_PLAIN | (mounting.MS_RDONLY if mount.readonly else 0),
        fstype="overlay",
        data=",".join(options),
        item=index,
        ids=_owners(site) if mount.upper else (),
    )


def _owners(site: Site) -> tuple[int, ...]:
    """Give the ids inside that the caller's files have where they are to be `owned`."""
    if site.owner is None or site.old:
        return ()
    maps = (site.runner.uid_mappings, site.runner.gid_mappings)
    outside = (int(text.split()[1]) for text in site.owner)
    return tuple(
        next(m.inside for m in mappings if m.outside == number)
        for mappings, number in zip(maps, outside, strict=True)
    )


def _refuse(index: int, mount: Mount, why: str) -> NoReturn:
    message = f"Runner.mounts[{index}].target: {mount.target!r}: {why}"
    raise ConfigError(message)
