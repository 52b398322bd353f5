"""The default file system of a sandbox, as mounts. Pure: what the host has is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.config import Mount, MountKind, in_order
from runner.quick import dataclass, replace
from runner.units import KiB, MiB

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


# What holds programs and libraries, with a merged or a split /usr, on 32 and 64 bits.
SYSTEM_DIRECTORIES: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")

TMP_SIZE: Final = 64 * MiB
TMP_INODES: Final = 16 * 1024

# What programs of a distribution look for in /etc, without any secret or name of the host.
_ETC: Final = (
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "ssl/certs",
    "ssl/openssl.cnf",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "java-25-openjdk",
)

_ETC_FILES: Final = {
    "passwd": (
        b"root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
        b"program:x:1000:1000:program:/tmp:/bin/sh\n"
        b"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "group": b"root:x:0:\nprogram:x:1000:\nnogroup:x:65534:\n",
    "hosts": b"127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\n",
}


@dataclass(frozen=True)
class RootEntry:
    """A system directory in the host's root; `link` is its text if it is a symlink."""

    name: str
    link: str | None = None


def default_root(entries: Iterable[RootEntry]) -> list[Mount]:
    """Give the default root: system directories read-only, a small /etc, /proc, /dev, /tmp."""
    return [*system_directories(entries), *etc(), *kernel_file_systems(), *writable_places()]


def system_directories(entries: Iterable[RootEntry]) -> list[Mount]:
    """Show the host's programs and libraries; on a merged /usr most of these are symlinks."""
    return [
        Mount.symlink(entry.link, f"/{entry.name}")
        if entry.link is not None
        else Mount.bind(f"/{entry.name}")
        for entry in entries
    ]


def etc() -> list[Mount]:
    """Make an /etc of our own users and of what the host's programs need to run."""
    binds = [Mount.bind(f"/etc/{name}", optional=True) for name in _ETC]
    files = [Mount.file(f"/etc/{name}", content) for name, content in _ETC_FILES.items()]
    return binds + files


def resolver() -> list[Mount]:
    """Show what the host finds names on its network by; of use to who has one."""
    return [Mount.bind("/etc/resolv.conf", optional=True)]


def kernel_file_systems() -> list[Mount]:
    """Give /proc and /dev. Of pid 1, the accounts would tell what it has reaped in all runs."""
    init = Mount.tmpfs("/proc/1", size=KiB * 4, inodes=1, mode=0o555, fresh=False)
    return [Mount.proc(), replace(init, readonly=True), Mount.dev()]


def writable_places() -> list[Mount]:
    """Give /tmp and /dev/shm, each limited, and fresh for each run."""
    return [
        Mount.tmpfs("/tmp", size=TMP_SIZE, inodes=TMP_INODES),
        Mount.tmpfs("/dev/shm", size=TMP_SIZE, inodes=TMP_INODES),
    ]


def can_be_put_back(mounts: Sequence[Mount], *, keep_files: bool) -> bool:
    """Tell whether fresh places can be emptied after a run, or all has to be built anew.

    Emptying one takes away what is mounted below it; and one below a directory that a program
    may write to may be somewhere else when the run has ended, and a symlink in its place: a
    proc too, which is remounted. `keep_files`: they are not emptied.
    """
    fresh = tuple(f"{mount.target}/" for mount in mounts if mount.fresh)
    writable = tuple(
        f"{mount.target}/"
        for mount in mounts
        if mount.kind in {MountKind.BIND, MountKind.OVERLAY} and not mount.readonly
    )
    if any(m.kind is MountKind.PROC and m.target.startswith(writable) for m in mounts):
        return False
    return keep_files or not any(
        mount.target.startswith(fresh)
        or (mount.fresh and mount.target.startswith(writable))
        # What is written there is not found and replaced; nor what was looked at in sysfs,
        # whose files have the time of that, and which no user namespace may remount.
        or mount.ephemeral
        or mount.kind in {MountKind.MQUEUE, MountKind.SYSFS}
        or (mount.kind is MountKind.DEV and not mount.readonly)
        for mount in mounts
    )


def can_be_reset(mounts: Sequence[Mount]) -> bool:
    """Tell whether emptying the fresh places leaves nothing that a new sandbox would not have.

    A tmpfs that is not fresh would keep what is in it.
    """
    return can_be_put_back(mounts, keep_files=False) and not any(
        mount.kind is MountKind.TMPFS and not mount.fresh and not mount.readonly
        for mount in mounts
    )


def beyond_disk_limit(mounts: Sequence[Mount]) -> str | None:
    """Name a place that a program may write to and that is no tmpfs, new for each run."""
    for mount in mounts:
        if mount.kind in {MountKind.BIND, MountKind.OVERLAY} and not mount.readonly:
            return mount.target
        if mount.kind is MountKind.TMPFS and not mount.fresh and not mount.readonly:
            return mount.target
    return None


def written_outside(mounts: Sequence[Mount]) -> list[str]:
    """Give the host's directories that a program may write to."""
    writable = [m for m in mounts if not m.readonly]
    binds = [mount.source for mount in writable if mount.kind is MountKind.BIND]
    return binds + [mount.upper for mount in writable if mount.upper]


def combine(root: Sequence[Mount], added: Sequence[Mount]) -> list[Mount]:
    """Put mounts in order; of two for a target the caller's holds, which was added."""
    return [mount for _, mount in in_order((*root, *added))]
