"""What mounts need of the host: sources that are there, and the kernel's calls to show them.

Looked at before any process exists, with the caller's rights, which are all that is needed.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from runner.config import Mount, MountKind, Namespace, is_within
from runner.errors import ChildError, ConfigError, ErrorLocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.config import Runner

_T = TypeVar("_T")

# A file system of the kernel's shows the namespace of whoever mounts it.
_OF_NAMESPACES: Final = {
    MountKind.PROC: Namespace.PID,
    MountKind.SYSFS: Namespace.NETWORK,
    MountKind.MQUEUE: Namespace.IPC,
}

_NEW_CALLS: Final = frozenset(
    {
        (ErrorLocation.MOUNT_SOURCE, errno.ENOSYS),
        (ErrorLocation.MOUNT_ATTRIBUTES, errno.ENOSYS),
        (ErrorLocation.MOUNT, errno.ENOSYS),
        # Filters of containers that are older than these calls.
        (ErrorLocation.MOUNT_SOURCE, errno.EPERM),
        (ErrorLocation.MOUNT_ATTRIBUTES, errno.EPERM),
    }
)


def check(runner: Runner) -> None:
    """Raise ConfigError, which names the mount, for a source that is not there or not fit."""
    if runner.root and not stat.S_ISDIR(_mode("Runner.root", runner.root)):
        _refuse("Runner.root", runner.root, "not a directory")
    own = runner.namespaces
    for join in runner.join:
        own |= join.namespace
    for index, mount in enumerate(runner.mounts):
        field = f"Runner.mounts[{index}]"
        needed = _OF_NAMESPACES.get(mount.kind)
        if needed is not None and needed not in own:
            why = f"Mount.{mount.kind.value} needs Namespace.{needed.name} in Runner.namespaces"
            _refuse(field, mount.target, why)
        _check_mount(field, mount)


def with_mount_calls(start: Callable[[bool], _T]) -> _T:
    """Call `start(False)`; where the kernel lacks the calls for that, `start(True)`.

    open_tree and move_mount are Linux 5.2's, mount_setattr is 5.12's; True does with mount(2)
    alone. What is learned is remembered for this process; the hooks of the start that taught
    it may have run, and are run again.
    """
    if not _Kernel.has_new_calls:
        return start(True)  # noqa: FBT003 - its only parameter
    try:
        return start(False)  # noqa: FBT003
    except ChildError as error:
        if (error.location, error.errno) not in _NEW_CALLS:
            raise
    result = start(True)  # noqa: FBT003
    _Kernel.has_new_calls = False
    return result


class _Kernel:
    has_new_calls = True


def _check_mount(field: str, mount: Mount) -> None:
    if mount.kind is MountKind.BIND:
        if not mount.optional:
            _mode(f"{field}.source", mount.source)
    elif mount.kind is MountKind.DEVICE:
        _check_device(f"{field}.source", mount.source)
    elif mount.kind is MountKind.DEV and mount.console:
        _check_device(f"{field}.console", mount.console)
    elif mount.kind is MountKind.OVERLAY:
        _check_overlay(field, mount)


def _check_device(field: str, path: str) -> None:
    mode = _mode(field, path)
    if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        _refuse(field, path, "not a device")


def _check_overlay(field: str, mount: Mount) -> None:
    writable = ("upper", "work") if mount.upper else ()
    named = [(f"{field}.lower", path) for path in mount.lower]
    named += [(f"{field}.{name}", getattr(mount, name)) for name in writable]
    for name, path in named:
        if not stat.S_ISDIR(_mode(name, path)):
            _refuse(name, path, "not a directory")
    if not mount.upper:
        return
    upper, work = os.path.realpath(mount.upper), os.path.realpath(mount.work)
    if is_within(upper, work) or is_within(work, upper):
        _refuse(f"{field}.work", mount.work, "upper and work lie beside each other")
    for name, path, real in (("upper", mount.upper, upper), ("work", mount.work, work)):
        for lower in mount.lower:
            if is_within(real, os.path.realpath(lower)):
                _refuse(f"{field}.{name}", path, f"it lies in lower {lower!r}")
    parent = os.path.commonpath((mount.upper, mount.work))
    if len({os.stat(path).st_dev for path in (upper, work, parent)}) > 1:
        _refuse(f"{field}.work", mount.work, "not on the file system of upper, beside it")


def _mode(field: str, path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        # What may not be searched cannot be shown either: open_tree(2) asks for the same.
        _refuse(field, path, f"cannot be shown: {error.strerror}")


def _refuse(field: str, value: object, why: str) -> NoReturn:
    message = f"{field}: {value!r}: {why}"
    raise ConfigError(message)
