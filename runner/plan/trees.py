"""What is shown of the host's: opened as detached trees, each in a numbered slot.

Where the kernel has no such trees (`old`), init opens paths, and binds them to a place of ours
that has the slot's number as its name: native/binds.c.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Final

from runner.config import Mount, MountKind
from runner.errors import ConfigError
from runner.errors import ErrorLocation as At
from runner.plan import mounting
from runner.plan.steps import Op, Phase, Step
from runner.quick import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.config import Runner

_SLOTS_MAX: Final = 256  # WIRE_SLOTS_MAX of native/wire.h
DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")


class Tree(NamedTuple):
    """Something of the host's, and how it is to appear."""

    source: str
    attributes: int
    item: int
    recursive: bool = False
    optional: bool = False
    owned: bool = False
    follow: bool = True


def of_mount(mount: Mount, item: int) -> tuple[Tree, ...]:
    """Give what a mount shows of the host's, in the order of its slots."""
    kept = mounting.ATTR_NOSUID
    plain = kept | mounting.ATTR_NODEV
    if mount.kind in {MountKind.BIND, MountKind.DEVICE}:
        kept |= mounting.ATTR_RDONLY if mount.readonly else 0
        kept |= 0 if mount.devices else mounting.ATTR_NODEV
        kept |= 0 if mount.executable else mounting.ATTR_NOEXEC
        tree = Tree(mount.source, kept, item, mount.recursive, mount.optional, mount.owned)
        return (tree._replace(follow=mount.follow),)
    if mount.kind is MountKind.DEV:
        # A user namespace may not mknod a device, but may bind the host's.
        paths = [f"/dev/{name}" for name in DEVICES] + [mount.console] * bool(mount.console)
        return tuple(Tree(path, kept, item) for path in paths)
    if mount.kind is MountKind.OVERLAY:
        # Alone: the kernel refuses layers in which it would have to hide what is mounted.
        kept = plain | mounting.ATTR_RDONLY
        layers = [Tree(path, kept, item, owned=mount.owned) for path in mount.lower]
        if mount.upper:
            layers.append(Tree(upper_parent(mount), plain, item, owned=True))
        return tuple(layers)
    return ()


def upper_parent(mount: Mount) -> str:
    """Give the directory of an overlay's upper and work: the kernel wants both in one mount."""
    return posixpath.commonpath((mount.upper, mount.work))


def of_root(runner: Runner) -> tuple[Tree, ...]:
    """Give the directory that becomes the root, if one does.

    Read-only from the start, so that the kernel itself refuses to make anything in it.
    """
    if not runner.root:
        return ()
    attributes = mounting.ATTR_NOSUID | mounting.ATTR_NODEV
    attributes |= mounting.ATTR_RDONLY if runner.root_readonly else 0
    return (Tree(runner.root, attributes, -1, recursive=True),)


def numbered(
    runner: Runner, mounts: Sequence[tuple[int, Mount]]
) -> tuple[list[Tree], dict[int, int]]:
    """Give the trees by their slots, the root's as the last, and each mount's first slot."""
    trees: list[Tree] = []
    first = {}
    for index, mount in mounts:
        first[index] = len(trees)
        trees.extend(of_mount(mount, index))
    trees.extend(of_root(runner))
    if len(trees) > _SLOTS_MAX:
        message = f"Runner.mounts: {len(trees)} sources of the host's: at most {_SLOTS_MAX}"
        raise ConfigError(message)
    return trees, first


def opened(
    trees: Sequence[Tree],
    phase: Phase,
    *,
    owner: tuple[bytes, bytes] | None = None,
    old: bool = False,
) -> Iterator[Step]:
    """Open them, with their attributes set, but for the old way, which does this later.

    `owner`: the uid_map and gid_map of those that are to be `owned`.
    """
    for slot, tree in enumerate(trees):
        if old:
            yield _step(
                phase, Op.OPEN_PATH, tree, (slot, tree.optional, tree.follow), tree.source
            )
            continue
        how = (slot, tree.recursive, tree.optional, tree.follow)
        yield _step(phase, Op.OPEN_TREE, tree, how, tree.source)
        yield _step(phase, Op.MOUNT_SETATTR, tree, (slot, tree.attributes, 0))
        if tree.owned and owner is not None:
            yield _step(phase, Op.MOUNT_IDMAP, tree, (slot,), *owner)


def bound(trees: Sequence[Tree], stage: str) -> Iterator[Step]:
    """Bind what was opened the old way to places in the stage."""
    for slot, tree in enumerate(trees):
        flags = mounting.BIND_OLD | (mounting.BIND_RECURSIVE if tree.recursive else 0)
        yield _step(
            Phase.SETUP,
            Op.BIND,
            tree,
            (slot, tree.attributes, flags, mounting.MADE),
            "",
            f"{stage}/{slot}",
        )


def put(slot: int, target: str, item: int, *, there: int) -> Step:
    """Put a detached tree at its target; an empty slot's was optional."""
    return Step(
        Phase.SETUP,
        Op.MOVE_MOUNT,
        At.MOUNT,
        (slot, there),
        (os.fsencode(target),),
        item=item,
        subject=target,
    )


def _step(
    phase: Phase, op: Op, tree: Tree, args: tuple[int, ...], *strings: str | bytes
) -> Step:
    at = At.MOUNT_ATTRIBUTES if op in {Op.MOUNT_SETATTR, Op.MOUNT_IDMAP} else At.MOUNT_SOURCE
    encoded = tuple(map(os.fsencode, strings))
    return Step(phase, op, at, args, encoded, item=tree.item, subject=tree.source)
