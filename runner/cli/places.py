"""What the sandbox shows of the host's files: the current directory, and what options say."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Final

from runner import rootfs
from runner.config import Mount, MountKind
from runner.errors import ConfigError
from runner.quick import NamedTuple

START_ELSEWHERE: Final = "/tmp"

# Shown whole, these would undo what the sandbox puts in their place, or show every home.
_SYSTEM: Final = frozenset(("/", "/home", "/root", "/etc", "/dev", "/proc", "/sys", "/run"))
_KERNEL: Final = ("/proc/", "/sys/", "/dev/")
# The directories that the sandbox has its own of.
_PRIVATE: Final = ("/tmp", "/dev/shm")


class Places(NamedTuple):
    """Mounts, where the program starts, and what to tell the user about it."""

    mounts: list[Mount]
    root: list[Mount] | None
    work_dir: str
    note: str | None


def arrange(options: SimpleNamespace) -> Places:
    """Work out the mounts from the options and the current directory."""
    mounts: list[Mount] = [
        *(*options.binds, *options.tmpfs, *options.overlays, *options.files),
        *(*options.directories, *options.symlinks, *options.device_files),
        *([Mount.sysfs()] if options.sysfs else ()),
        *([Mount.mqueue()] if options.mqueue else ()),
        *(*options.masks, *options.read_only),
    ]
    root = _other_root(options)
    if root is not None:
        start, note = "/", None
    else:
        start, note = _current_directory(mounts, writable=options.writable)
    work_dir = start if options.work_dir is None else os.path.join(start, options.work_dir)
    return Places(mounts, root, work_dir, note)


def _other_root(options: SimpleNamespace) -> list[Mount] | None:
    """Give what takes the place of the default root, where an option asks for that."""
    if options.root is not None:
        return root_of(options.root)
    if options.staged:
        from runner.staging import stage

        return [
            *stage(options.staged),
            *rootfs.kernel_file_systems(),
            *rootfs.writable_places(),
        ]
    if options.host_root:
        from runner.tree import host_root

        own = [*rootfs.etc(), *rootfs.kernel_file_systems(), *rootfs.writable_places()]
        return [*host_root(), *own]
    return None


def root_of(path: str) -> list[Mount]:
    """Show the content of the host's directory `path` as the root, with /proc, /dev, /tmp."""
    own = {"proc", "dev", "tmp", "sys"}
    mounts: list[Mount] = []
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        message = f"--root: {path!r}: {error.strerror}"
        raise ConfigError(message) from None
    for entry in entries:
        target = f"/{entry.name}"
        if entry.is_symlink():
            mounts.append(Mount.symlink(os.readlink(entry.path), target))
        elif entry.name not in own:
            mounts.append(Mount.bind(entry.path, target, follow=False))
    return [*mounts, Mount.proc(), Mount.dev(), Mount.tmpfs("/tmp"), Mount.tmpfs("/dev/shm")]


def _current_directory(mounts: list[Mount], *, writable: bool) -> tuple[str, str | None]:
    """Add the current directory to the mounts; give where to start, and a note."""
    try:
        path = os.getcwd()
    except FileNotFoundError:
        return START_ELSEWHERE, "the current directory was removed; starting in /tmp"
    if any(_shows(mount, path) for mount in mounts):
        return path, None
    reason = _why_not(path)
    if reason is not None:
        if writable:
            message = f"--writable: {path!r}: it {reason} and is not shown; go to another"
            raise ConfigError(message)
        note = f"{path} {reason}: it is not shown in the sandbox; starting in /tmp"
        return START_ELSEWHERE, note
    mounts.append(Mount.bind(path, readonly=not writable, owned=writable))
    if path in _PRIVATE:
        access = "writable" if writable else "read-only"
        return path, f"{path} is the current directory: the sandbox has this host's, {access}"
    return path, None


def _shows(mount: Mount, path: str) -> bool:
    """Tell whether a mount that the user asked for decides already what is at `path`."""
    same = mount.kind is MountKind.BIND and mount.source == mount.target
    return mount.target == path or (same and path.startswith(mount.target + "/"))


def _why_not(path: str) -> str | None:
    if path in _SYSTEM or (path.startswith(_KERNEL) and not path.startswith("/dev/shm")):
        return "belongs to the system"
    if os.path.dirname(path) == "/home" or _is_one_of(path, _homes()):
        return "is a home directory"
    return None


def _homes() -> Iterable[str]:
    """Give the caller's home by $HOME, then the one by the user database."""
    yield os.environ.get("HOME", "")
    import pwd

    try:
        yield pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return  # this uid has no entry


def _is_one_of(path: str, directories: Iterable[str]) -> bool:
    # By device and inode: a home is often reached over a symbolic link.
    return any(os.path.isdir(home) and os.path.samefile(path, home) for home in directories)
