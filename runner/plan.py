"""From a `Runner` to ordered steps: what is done, by whom, and in which order.

This is the one place where the order is written. The helper executes steps and knows only how
each is done (native/steps.c). Pure: nothing here touches the kernel.
"""

from __future__ import annotations

import enum
import os
import posixpath
import signal
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from runner.config import Mount, MountKind, Namespace
from runner.errors import ErrorLocation as At

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runner.config import IdMap, Rlimit, Runner


class Op(enum.IntEnum):
    """The operations, numbered as OPS(X) of native/wire.h; a test compares the two."""

    OPEN_TREE = 0
    MOVE_MOUNT = 1
    MOUNT_SETATTR = 2
    MOUNT = 3
    UMOUNT = 4
    PIVOT_ROOT = 5
    CHDIR = 6
    MKDIR = 7
    MKNOD = 8
    RMDIR = 9
    SYMLINK = 10
    WRITE_FILE = 11
    KEEP_FRESH = 12
    ID_MAP = 13
    HOSTNAME = 14
    DOMAINNAME = 15
    UNSHARE = 16
    SETSID = 17
    PARENT_DEATH = 18
    UMASK = 19
    RLIMIT = 20
    ENTER_CGROUP = 21
    SECUREBITS = 22
    DROP_BOUNDING = 23
    CAPSET = 24
    SETGROUPS = 25
    SETGID = 26
    SETUID = 27
    NO_NEW_PRIVS = 28
    DUMPABLE = 29
    CLEAR_FDS = 30
    PLACE_FDS = 31
    CLOSE_RANGE = 32
    SIGNALS = 33
    SYNC = 34
    SECCOMP = 35
    ARGV = 36
    ENVP = 37
    EXEC = 38


class Phase(enum.IntEnum):
    """Who executes a step, and when; numbered as PHASES(X) of native/wire.h."""

    EARLY = 0
    MAPS = 1
    SETUP = 2
    JOINED = 3
    PROGRAM = 4
    CLEAN = 5


class Step(NamedTuple):
    """One operation, where it counts as failed, and what it works on.

    `strings` and `data` are the payload as native/wire.h gives it for each operation; `subject`
    is what an error message names, and stays on this side.
    """

    phase: Phase
    op: Op
    location: At
    args: tuple[int, ...] = ()
    strings: tuple[bytes, ...] = ()
    data: bytes = b""
    index: int = -1
    subject: str = ""


# <sys/mount.h>, mount(2)
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

# mount_setattr(2)
_ATTR_RDONLY: Final = 1
_ATTR_NOSUID: Final = 2
_ATTR_NODEV: Final = 4
_ATTR_NOEXEC: Final = 8

# capabilities(7): no privilege by uid 0, none kept or regained by a change of uid, and all of it
# locked.
_SECUREBITS: Final = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80

_OLD_ROOT: Final = "old_root"
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_DEV_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)

# Fds of a program that are no index into the frame's fds (native/wire.h).
FD_CLOSED: Final = -1
FD_STDOUT_PIPE: Final = -2
FD_STDERR_PIPE: Final = -3


def box(runner: Runner, *, privileged: bool) -> list[Step]:
    """Plan the sandbox of a `Runner`: its namespaces' inside, and what the keeper does once.

    `privileged`: the caller has CAP_SYS_ADMIN in its own namespaces, so the keeper opens what is
    bound before they are left; otherwise init does, inside, with the caller's own rights.
    """
    steps = [
        *_early(runner, privileged=privileged),
        *_maps(runner),
        *_setup(runner, privileged=privileged),
        *_joined(runner),
        *_clean(runner),
    ]
    # A plan has at least one step; this one changes nothing.
    return steps or [Step(Phase.JOINED, Op.UMASK, At.CHDIR, (0o022,))]


def clone_flags(runner: Runner) -> Namespace:
    """Give the namespaces to make with init.

    The cgroup namespace is made by the program itself after it has entered its cgroups, or its
    root would be the caller's (cgroup_namespaces(7)).
    """
    return runner.namespaces & ~Namespace.CGROUP


def program(
    runner: Runner,
    *,
    candidates: Sequence[bytes],
    files: Sequence[int],
    cgroups: Sequence[int] = (),
    fresh_ipc: bool = False,
) -> list[Step]:
    """Plan one program: from the fork to its exec.

    `candidates` are the paths to try, `files[i]` is the index in the frame of the program's fd i
    (or an FD_*), `cgroups` the indexes of what it writes "0" to.
    """
    return [
        *_process(files),
        *_places(runner, cgroups, fresh_ipc=fresh_ipc),
        *_rlimits(runner.rlimits),
        *_identity(runner),
        *_exec(runner, candidates, len(files)),
    ]


def _early(runner: Runner, *, privileged: bool) -> Iterator[Step]:
    if privileged and Namespace.USER in runner.namespaces:
        # Once inside, setgroups is denied, and the caller's groups would stay.
        yield Step(Phase.EARLY, Op.SETGROUPS, At.SETGROUPS)
    if privileged:
        yield from _sources(runner.mounts, Phase.EARLY)


def _maps(runner: Runner) -> Iterator[Step]:
    if Namespace.USER not in runner.namespaces:
        return
    setgroups = b"allow" if runner.gid_mappings_enable_setgroups else b"deny"
    uid_map, gid_map = runner.uid_mappings, runner.gid_mappings
    for name, text in (
        (b"uid_map", _map_text(uid_map)),
        (b"setgroups", setgroups),
        (b"gid_map", _map_text(gid_map)),
    ):
        yield Step(
            Phase.MAPS,
            Op.ID_MAP,
            At.UNSHARE_USER_READ,
            strings=(name, text),
            subject=f"{name.decode()} {text.decode().strip()}",
        )


def _map_text(maps: Sequence[IdMap]) -> bytes:
    return "".join(f"{m.inside} {m.outside} {m.count}\n" for m in maps).encode()


def _become_root(runner: Runner, phase: Phase) -> Iterator[Step]:
    """Take id 0 of the user namespace where it has one, so that what we make belongs to it."""
    if any(m.inside == 0 for m in runner.gid_mappings):
        yield Step(phase, Op.SETGID, At.SETGID, (0,))
    if any(m.inside == 0 for m in runner.uid_mappings):
        yield Step(phase, Op.SETUID, At.SETUID, (0,))


def _setup(runner: Runner, *, privileged: bool) -> Iterator[Step]:
    yield from _become_root(runner, Phase.SETUP)
    if Namespace.MOUNT in runner.namespaces:
        yield _mount(At.MOUNT_ROOT, "/", flags=_MS_REC | _MS_PRIVATE)
    if runner.pivot_root:
        if not privileged:
            yield from _sources(runner.mounts, Phase.SETUP)
        yield from _new_root(runner.pivot_root)
        made: set[str] = {"/"}
        slots = _slots(runner.mounts)
        for index, (mount, first_slot) in enumerate(zip(runner.mounts, slots, strict=True)):
            yield from _mkdirs(posixpath.dirname(mount.target), index, made)
            yield from _mount_steps(mount, index, first_slot, made)
        yield from _leave_old_root()
    if runner.host_name:
        yield _name(Op.HOSTNAME, runner.host_name)
    if runner.domain_name:
        yield _name(Op.DOMAINNAME, runner.domain_name)


def _name(op: Op, name: str) -> Step:
    return Step(Phase.SETUP, op, At.HOSTNAME, strings=(name.encode(),), subject=name)


def _mount(
    location: At,
    target: str,
    *,
    flags: int,
    fstype: str = "",
    data: str = "",
    index: int = -1,
) -> Step:
    return Step(
        Phase.SETUP,
        Op.MOUNT,
        location,
        (flags,),
        (fstype.encode(), os.fsencode(target), fstype.encode(), data.encode()),
        index=index,
        subject=target,
    )


def _new_root(path: str) -> Iterator[Step]:
    """Pivot into an empty tmpfs at once: no target made later can lead out of it.

    The old root stays until the mounts are done, for a new proc is refused to a user namespace
    that sees none (mount_too_revealing in fs/namespace.c).
    """
    flags = _MS_NOSUID | _MS_NODEV
    yield _mount(At.MOUNT_TMPFS, path, flags=flags, fstype="tmpfs", data="mode=0755")
    here, old = b".", _OLD_ROOT.encode()
    yield Step(
        Phase.SETUP, Op.CHDIR, At.MOUNT_CHDIR, strings=(os.fsencode(path),), subject=path
    )
    yield Step(Phase.SETUP, Op.MKDIR, At.PIVOT_ROOT, (0o700, 1), (old,))
    yield Step(Phase.SETUP, Op.PIVOT_ROOT, At.PIVOT_ROOT, strings=(here, old), subject=path)
    yield Step(Phase.SETUP, Op.CHDIR, At.MOUNT_CHDIR, strings=(b"/",), subject="/")


def _leave_old_root() -> Iterator[Step]:
    old = f"/{_OLD_ROOT}".encode()
    yield Step(Phase.SETUP, Op.UMOUNT, At.UMOUNT, (_MNT_DETACH,), (old,))
    yield Step(Phase.SETUP, Op.RMDIR, At.UNLINK, strings=(old,))
    yield _remount_readonly("/", _MS_NOSUID | _MS_NODEV, At.MOUNT_READONLY)


def _remount_readonly(target: str, flags: int, location: At, index: int = -1) -> Step:
    return _mount(
        location, target, flags=_MS_REMOUNT | _MS_BIND | _MS_RDONLY | flags, index=index
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


def _sources(mounts: Sequence[Mount], phase: Phase) -> Iterator[Step]:
    """Open what is bound, as detached trees with their attributes set."""
    slot = 0
    for index, mount in enumerate(mounts):
        for bind in _bound(mount):
            yield Step(
                phase,
                Op.OPEN_TREE,
                At.MOUNT_SOURCE,
                (slot, bind.recursive, bind.optional),
                (os.fsencode(bind.source),),
                index=index,
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
                index=index,
                subject=bind.source,
            )
            slot += 1


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
        index=index,
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
                index=index,
            )
        elif mount.kind is MountKind.PROC:
            flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
            yield _mount(At.MOUNT, mount.target, flags=flags, fstype="proc", index=index)


def _place_bind(mount: Mount, index: int, slot: int) -> Step:
    target = (os.fsencode(mount.target),)
    return Step(
        Phase.SETUP, Op.MOVE_MOUNT, At.MOUNT, (slot,), target, index=index, subject=mount.target
    )


def _symlink(text: str, path: str, index: int) -> Step:
    strings = (os.fsencode(text), os.fsencode(path))
    return Step(
        Phase.SETUP, Op.SYMLINK, At.SYMLINK, strings=strings, index=index, subject=path
    )


def _dev(mount: Mount, index: int, slot: int) -> Iterator[Step]:
    flags = _MS_NOSUID | _MS_NOEXEC
    yield _mkdir(mount.target, index)
    data = "mode=0755,size=64k"
    yield _mount(At.MOUNT, mount.target, flags=flags, fstype="tmpfs", data=data, index=index)
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


def _joined(runner: Runner) -> Iterator[Step]:
    """Do once in the keeper what every program inherits."""
    yield from _become_root(runner, Phase.JOINED)
    if runner.drop_caps:
        yield Step(Phase.JOINED, Op.SECUREBITS, At.DROP_CAPABILITY, (_SECUREBITS,))
        yield Step(Phase.JOINED, Op.DROP_BOUNDING, At.BOUNDING)
    if Namespace.PID in runner.namespaces:
        yield Step(Phase.JOINED, Op.DUMPABLE, At.INIT, (0,))


def _clean(runner: Runner) -> Iterator[Step]:
    for number, mount in enumerate(runner.mounts):
        if mount.kind is MountKind.TMPFS and mount.fresh:
            yield Step(
                Phase.CLEAN,
                Op.KEEP_FRESH,
                At.CLEAN,
                (_tmpfs_flags(mount), number),
                (os.fsencode(mount.target), _tmpfs_data(mount).encode()),
                index=number,
                subject=mount.target,
            )


def _process(files: Sequence[int]) -> Iterator[Step]:
    program = Phase.PROGRAM
    yield Step(program, Op.SIGNALS, At.SIGNALS)
    yield Step(program, Op.CLEAR_FDS, At.FCNTL, (len(files),))
    yield Step(program, Op.PLACE_FDS, At.DUP3, data=struct.pack(f"={len(files)}i", *files))
    yield Step(program, Op.SETSID, At.SETSID)


def _places(runner: Runner, cgroups: Sequence[int], *, fresh_ipc: bool) -> Iterator[Step]:
    """Enter the cgroups and directories, while we still have the rights to."""
    for index, fd in enumerate(cgroups):
        yield Step(Phase.PROGRAM, Op.ENTER_CGROUP, At.CGROUP, (fd,), index=index)
    unshare = runner.namespaces & Namespace.CGROUP
    if fresh_ipc:
        unshare |= Namespace.IPC
    if unshare:
        yield Step(Phase.PROGRAM, Op.UNSHARE, At.UNSHARE, (int(unshare),))
    if runner.work_dir:
        directory = (os.fsencode(runner.work_dir),)
        yield Step(
            Phase.PROGRAM, Op.CHDIR, At.CHDIR, strings=directory, subject=runner.work_dir
        )


def _rlimits(rlimits: Iterable[Rlimit]) -> Iterator[Step]:
    for index, limit in enumerate(rlimits):
        # RLIM_INFINITY is -1 here and all ones in the kernel: the same 64 bits.
        args = (limit.resource, limit.soft, limit.hard)
        yield Step(
            Phase.PROGRAM,
            Op.RLIMIT,
            At.SETRLIMIT,
            args,
            index=index,
            subject=limit.name,
        )


def _identity(runner: Runner) -> Iterator[Step]:
    """Change the ids, then give up what they allowed."""
    program = Phase.PROGRAM
    credential = runner.credential
    if credential is not None:
        denied = Namespace.USER in runner.namespaces and not runner.gid_mappings_enable_setgroups
        if credential.groups or not denied:
            groups = struct.pack(f"={len(credential.groups)}I", *credential.groups)
            yield Step(program, Op.SETGROUPS, At.SETGROUPS, data=groups)
        yield Step(program, Op.SETGID, At.SETGID, (credential.gid,))
        yield Step(program, Op.SETUID, At.SETUID, (credential.uid,))
    yield Step(program, Op.PARENT_DEATH, At.PARENT_DEATH, (int(signal.SIGKILL),))
    if runner.drop_caps:
        yield Step(program, Op.CAPSET, At.SET_CAP, (0,))
    if runner.no_new_privs or runner.seccomp:
        yield Step(program, Op.NO_NEW_PRIVS, At.SET_NO_NEW_PRIVS)


def _exec(runner: Runner, candidates: Sequence[bytes], fd_count: int) -> Iterator[Step]:
    program = Phase.PROGRAM
    argv = tuple(os.fsencode(word) for word in runner.args)
    envp = tuple(os.fsencode(f"{name}={value}") for name, value in runner.env.items())
    yield Step(program, Op.CLOSE_RANGE, At.CLOSE_RANGE, (fd_count,))
    yield Step(program, Op.ARGV, At.EXECVE, strings=argv)
    yield Step(program, Op.ENVP, At.EXECVE, strings=envp)
    if runner.sync_func is not None:
        yield Step(program, Op.SYNC, At.SYNC_READ)
    if runner.seccomp:
        # The last but one: it need allow nothing but what the program needs.
        yield Step(program, Op.SECCOMP, At.SECCOMP, (0,), data=runner.seccomp)
    yield Step(
        program,
        Op.EXEC,
        At.EXECVE,
        strings=tuple(candidates),
        subject=os.fsdecode(argv[0]),
    )
