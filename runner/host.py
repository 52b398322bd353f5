"""What this kernel and host can do, as one frozen value that is passed as an argument.

Only cheap looks at /proc, /sys and the root directory: no forks, nothing at import, so that a
caller pays for it when it asks and a test can describe another host.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING, Final

from runner.config import IdMap
from runner.errors import HostError
from runner.quick import dataclass, field
from runner.rootfs import SYSTEM_DIRECTORIES, RootEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

_CAP_SETGID, _CAP_SETUID, _CAP_SYS_ADMIN = 6, 7, 21  # <linux/capability.h>
_MAPS_IDS: Final = frozenset({_CAP_SETGID, _CAP_SETUID})
_CONTROLLERS: Final = frozenset(
    {"cpuacct", "memory", "pids", "cpu", "cpuset", "blkio", "devices"}
)


@dataclass(frozen=True, kw_only=True)
class CgroupMount:
    """One mounted cgroup hierarchy.

    `root` is the cgroup that appears at `path`: not "/" below a bind mount or in a container.
    `controllers` holds those that this v1 hierarchy has, of the ones that we use; on v2 it is
    empty, because there each cgroup has its own list.
    """

    version: int
    path: str
    root: str = "/"
    controllers: frozenset[str] = frozenset()
    readonly: bool = False


@dataclass(frozen=True, kw_only=True)
class Host:
    """What this process can use on this host.

    kernel          major and minor version
    maps_ids        we may give any id of our user namespace to one below it
    privileged      that, and mount in our own namespaces
    cgroup_mounts   in the order of mountinfo
    cgroup_paths    our own cgroup by v1 controller, and by "" in the v2 tree
    no_user_namespaces   why this user cannot make any; None when it can
    uid_map, gid_map     of our own user namespace
    cpus            in our affinity mask
    root_entries    those of SYSTEM_DIRECTORIES that exist
    """

    kernel: tuple[int, int]
    euid: int = 0
    privileged: bool = False
    maps_ids: bool = False
    cgroup_mounts: tuple[CgroupMount, ...] = ()
    cgroup_paths: Mapping[str, str] = field(default_factory=dict)
    no_user_namespaces: str | None = None
    uid_map: tuple[IdMap, ...] = ()
    gid_map: tuple[IdMap, ...] = ()
    cpus: int = 1
    root_entries: tuple[RootEntry, ...] = ()

    @property
    def user_namespaces(self) -> bool:
        """Tell whether this user may make user namespaces, as far as sysctls tell."""
        return self.no_user_namespaces is None


def detect(*, proc: str = "/proc", root: str = "/") -> Host:
    """Look at the host that this process runs on; takes less than a millisecond.

    Raises HostError when /proc is not mounted.
    """
    try:
        capabilities = parse_capabilities(_read(f"{proc}/self/status"))
        # Where setgroups is denied, root has but the ids that a user gave it (`unshare -Ur`).
        setgroups = _read(f"{proc}/self/setgroups", missing="allow").strip()
        maps_ids = capabilities >= _MAPS_IDS and setgroups == "allow"
        return Host(
            kernel=parse_kernel(os.uname().release),
            euid=os.geteuid(),
            privileged=maps_ids and _CAP_SYS_ADMIN in capabilities,
            maps_ids=maps_ids,
            cgroup_mounts=parse_mountinfo(_read(f"{proc}/self/mountinfo")),
            cgroup_paths=parse_cgroup(_read(f"{proc}/self/cgroup", missing="")),
            no_user_namespaces=_no_user_namespaces(proc, capabilities),
            uid_map=parse_id_map(_read(f"{proc}/self/uid_map", missing="0 0 4294967295")),
            gid_map=parse_id_map(_read(f"{proc}/self/gid_map", missing="0 0 4294967295")),
            cpus=len(os.sched_getaffinity(0)),
            root_entries=_root_entries(root),
        )
    except FileNotFoundError as error:
        message = f"no proc file system: {error.filename} is missing"
        raise HostError(message, "mount it: mount -t proc proc /proc") from error


def parse_kernel(release: str) -> tuple[int, int]:
    """Read the major and minor version from uname(2)'s release, such as `6.1.0-18-amd64`."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        message = f"the kernel's release {release!r} does not begin with a version"
        raise HostError(message)
    return int(match[1]), int(match[2])


def parse_capabilities(status: str) -> frozenset[int]:
    """Find the effective capabilities, by number, in /proc/PID/status."""
    sets = (line[7:] for line in status.splitlines() if line.startswith("CapEff:"))
    mask = int(next(sets, "0"), 16)
    return frozenset(number for number in range(mask.bit_length()) if mask >> number & 1)


def parse_mountinfo(text: str) -> tuple[CgroupMount, ...]:
    """Find the cgroup mounts in /proc/PID/mountinfo; see proc_pid_mountinfo(5)."""
    return tuple(
        CgroupMount(
            version=1 if kind == "cgroup" else 2,
            path=_unescape(path),
            root=_unescape(root),
            controllers=_CONTROLLERS & super_options if kind == "cgroup" else frozenset(),
            readonly="ro" in mount_options | super_options,
        )
        for kind, root, path, mount_options, super_options in map(
            _mount_fields, filter(_is_cgroup, text.splitlines())
        )
    )


def parse_cgroup(text: str) -> dict[str, str]:
    """Read /proc/PID/cgroup as controller → path; the v2 tree is at "", see cgroups(7)."""
    paths = {}
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            # A named hierarchy (name=systemd) is a key nobody asks for; v2 is always number 0.
            if controller or number == "0":
                paths[controller] = path
    return paths


def parse_id_map(text: str) -> tuple[IdMap, ...]:
    """Read /proc/PID/uid_map or gid_map; see user_namespaces(7)."""
    return tuple(IdMap(*map(int, line.split())) for line in text.splitlines())


def _is_cgroup(line: str) -> bool:
    return " - cgroup " in line or " - cgroup2 " in line


def _mount_fields(line: str) -> tuple[str, str, str, frozenset[str], frozenset[str]]:
    """Give kind, root, path, mount options and super options of a line of mountinfo."""
    left, _, right = line.partition(" - ")
    _, _, _, root, path, mount_options, *_ = left.split(" ")
    kind, _, super_options = right.split(" ", 2)
    return (
        kind,
        root,
        path,
        frozenset(mount_options.split(",")),
        frozenset(super_options.split(",")),
    )


def _unescape(text: str) -> str:
    r"""Undo the \040 that mountinfo writes for space, tab, newline and backslash."""
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _no_user_namespaces(proc: str, capabilities: frozenset[int]) -> str | None:
    sysctl = f"{proc}/sys"
    if not os.path.lexists(f"{proc}/self/ns/user"):
        return "this kernel has no user namespaces (CONFIG_USER_NS)"
    if _read(f"{sysctl}/user/max_user_namespaces", missing="1").strip() == "0":
        return "user.max_user_namespaces is 0: as root set it above 0"
    if _CAP_SYS_ADMIN in capabilities:
        return None
    # Debian's own switch, which binds only those without it. Ubuntu's
    # (apparmor_restrict_unprivileged_userns) depends on the profile that a program has, which
    # shows when it is tried: the first mount is refused then.
    if _read(f"{sysctl}/kernel/unprivileged_userns_clone", missing="1").strip() == "0":
        return "kernel.unprivileged_userns_clone is 0: as root set it to 1"
    return None


def _root_entries(root: str) -> tuple[RootEntry, ...]:
    entries = []
    for name in SYSTEM_DIRECTORIES:
        path = os.path.join(root, name)
        with contextlib.suppress(FileNotFoundError):  # not every host has every one
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                entries.append(RootEntry(name, os.readlink(path)))
            elif stat.S_ISDIR(mode):
                entries.append(RootEntry(name))
    return tuple(entries)


def _read(path: str, *, missing: str | None = None) -> str:
    """Read a small file; one that is not there reads as `missing` if that is given."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        if missing is None:
            raise
        return missing
