"""The steps that file systems are made by, each with its flags; what the other modules use."""

from __future__ import annotations

import os
from typing import Final

from runner.errors import ErrorLocation as At
from runner.plan.steps import Op, Phase, Step

# mount(2), <sys/mount.h>
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_NOATIME: Final = 1024
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2

# The attributes of mount_setattr(2)
ATTR_RDONLY: Final = 1
ATTR_NOSUID: Final = 2
ATTR_NODEV: Final = 4
ATTR_NOEXEC: Final = 8

# enum target of native/wire.h: what may be at the path of a step
MADE: Final = 0
NEW: Final = 1
EXISTS: Final = 2

# enum bind_flags
BIND_RECURSIVE: Final = 1
BIND_OPTIONAL: Final = 2
BIND_OLD: Final = 4


def mount(
    location: At,
    target: str,
    *,
    flags: int,
    fstype: str = "",
    data: str = "",
    item: int = -1,
    subject: str = "",
    ids: tuple[int, ...] = (),
) -> Step:
    """Call mount(2), as `ids` if given; a file system's source is its name."""
    return Step(
        Phase.SETUP,
        Op.MOUNT,
        location,
        (flags, *ids),
        (fstype.encode(), os.fsencode(target), fstype.encode(), os.fsencode(data)),
        item=item,
        subject=subject or target,
    )


def remount_readonly(target: str, flags: int, location: At, item: int = -1) -> Step:
    """Make one mount read-only; `flags` are those that it has."""
    return mount(location, target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | flags, item=item)


def mkdir(
    path: str, item: int, mode: int = 0o755, *, there: int = MADE, mounted: bool = False
) -> Step:
    """Make a directory, or see that it is there; `mounted`: something will be, on it."""
    return Step(
        Phase.SETUP,
        Op.MKDIR,
        At.MOUNT_MKDIR,
        (mode, there, int(mounted)),
        (os.fsencode(path),),
        item=item,
        subject=path,
    )


def symlink(text: str, path: str, item: int, *, there: int = NEW) -> Step:
    """Make a symbolic link, where nothing is yet; or see that this very one is there."""
    strings = (os.fsencode(text), os.fsencode(path))
    return Step(Phase.SETUP, Op.SYMLINK, At.SYMLINK, (there,), strings, item=item, subject=path)


def write_file(path: str, content: bytes, mode: int, item: int, subject: str = "") -> Step:
    """Make a file, where nothing is yet."""
    return Step(
        Phase.SETUP,
        Op.WRITE_FILE,
        At.FILE,
        (mode,),
        (os.fsencode(path),),
        content,
        item,
        subject or path,
    )


def bind(
    source: str, target: str, item: int, *, attributes: int, flags: int = 0, there: int = EXISTS
) -> Step:
    """Bind within the new root, or from the stage."""
    return Step(
        Phase.SETUP,
        Op.BIND,
        At.MOUNT,
        (-1, attributes, flags, there),
        (os.fsencode(source), os.fsencode(target)),
        item=item,
        subject=target,
    )


def move(source: str, target: str, item: int, *, optional: bool = False, there: int) -> Step:
    """Move a mount from the stage to its target."""
    return Step(
        Phase.SETUP,
        Op.MOVE_PATH,
        At.MOUNT,
        (int(optional), there),
        (os.fsencode(source), os.fsencode(target)),
        item=item,
        subject=target,
    )


def chdir(path: str) -> Step:
    """Change init's directory: where relative paths of the following steps begin."""
    strings = (os.fsencode(path),)
    return Step(Phase.SETUP, Op.CHDIR, At.MOUNT_CHDIR, strings=strings, subject=path)
