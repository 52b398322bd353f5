"""What a `Runner` names on the host, found and opened before any process exists.

Fds that travel with the request that makes a sandbox: namespaces to join, the output of hooks.
And what is looked up: programs of hooks, ids by name, who may write the id maps.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Final

from runner import idmap, sources
from runner.config import Credential, Namespace
from runner.config.checks import refuse
from runner.plan import HookFiles
from runner.quick import NamedTuple, replace

if TYPE_CHECKING:
    from runner.config import Hook, Join, Landlock, Runner, Supervision
    from runner.host import Host
    from runner.landlock import Ruleset
    from runner.supervision import Rules

_NS_GET_NSTYPE: Final = 0xB703  # ioctl_ns(2), Linux 4.11

NS_FILES: Final = {
    Namespace.MOUNT: "mnt",
    Namespace.CGROUP: "cgroup",
    Namespace.UTS: "uts",
    Namespace.IPC: "ipc",
    Namespace.USER: "user",
    Namespace.PID: "pid",
    Namespace.NETWORK: "net",
    Namespace.TIME: "time",
}


class Sent(NamedTuple):
    """Fds of the frame, and which of them is what: `join` and `hooks` hold indexes."""

    fds: tuple[int, ...]
    join: tuple[int, ...]
    hooks: tuple[HookFiles, ...]


def gather(runner: Runner, opened: contextlib.ExitStack) -> Sent:
    """Open what goes with the request; `opened` closes it. Raises ConfigError."""
    sources.check(runner)
    for number, fd in enumerate(runner.files):
        if fd >= 0:
            _check_open(f"Runner.files[{number}]", fd)
    if runner.exec_file is not None:
        _check_executable("Runner.exec_file", runner.exec_file)
    fds: list[int] = []
    for number, join in enumerate(runner.join):
        fds.append(_open_namespace(f"Runner.join[{number}]", join))
        opened.callback(os.close, fds[-1])
    join_indexes = tuple(range(len(fds)))
    hooks = []
    for number, hook in enumerate(runner.hooks):
        field = f"Runner.hooks[{number}]"
        outputs = []
        for output in (hook.stdout, hook.stderr):
            outputs.append(-1 if output is None else len(fds))
            if output is not None:
                _check_open(field, output)
                fds.append(output)
        hooks.append(HookFiles(_find_program(field, hook), *outputs))
    return Sent(tuple(fds), join_indexes, tuple(hooks))


def with_ids(runner: Runner, host: Host) -> tuple[Runner, dict[str, list[str]]]:
    """Give the runner with its maps and ids as numbers, and the commands that write the maps.

    Those stand for "uid_map" and "gid_map" where we may not write them. Raises ConfigError for
    ids that are nobody's to give, HostError where the helpers are missing.
    """
    if not isinstance(runner.credential, Credential | None):
        from runner import accounts

        root = runner.root or ("" if runner.pivot_root else "/")
        credential = accounts.credential(runner.credential, root=root, mounts=runner.mounts)
        runner = replace(runner, credential=credential)
    if Namespace.USER not in runner.namespaces:
        return runner, {}
    from runner import subid

    runner = idmap.with_default_maps(runner, euid=host.euid, egid=os.getegid())
    commands = {}
    for kind, maps, namespace in (
        (subid.Kind.UID, runner.uid_mappings, host.uid_map),
        (subid.Kind.GID, runner.gid_mappings, host.gid_map),
    ):
        own = host.euid if kind is subid.Kind.UID else os.getegid()
        if [(m.outside, m.count) for m in maps] == [(own, 1)]:
            continue  # everybody's right, and checked sooner than looked up
        if host.maps_ids:
            grant = subid.Grant(kind=kind, own=own, namespace=namespace)
        else:
            grant = subid.read_grant(kind, namespace)
        field = f"Runner.{kind.value}_mappings"
        subid.check_maps(maps, grant, field=field, privileged=host.maps_ids)
        if subid.needs_helper(maps, grant.own, privileged=host.maps_ids):
            helper = subid.find_helper(kind)
            commands[f"{kind.value}_map"] = subid.helper_command(helper, maps, grant.own)
    _check_credential(runner)
    return runner, commands


def ruleset(wanted: Landlock | None) -> Ruleset | None:
    """Give what a Landlock is on this kernel. Raises HostError for what the kernel lacks."""
    if wanted is None:
        return None
    from runner import landlock
    from runner.doctor import probes

    return landlock.ruleset(wanted, probes.landlock()[0])


def rules(wanted: Supervision | None) -> Rules | None:
    """Give what a supervision is for this machine's calls.

    Raises ConfigError for a call that there is not, HostError without the tables of calls.
    """
    if wanted is None:
        return None
    from runner import seccomp, supervision
    from runner.seccomp import syscalls

    arch = seccomp.native(None)
    return supervision.rules(wanted, syscalls.numbers(arch), syscalls.AUDIT_ARCHS[arch])


def _check_credential(runner: Runner) -> None:
    """Refuse ids that the program's user namespace will not have."""
    credential = runner.credential
    if not isinstance(credential, Credential):
        return
    for name, ids, maps in (
        ("uid", (credential.uid,), runner.uid_mappings),
        ("gid", (credential.gid,), runner.gid_mappings),
        ("groups", credential.groups, runner.gid_mappings),
    ):
        for number in ids:
            if not any(0 <= number - m.inside < m.count for m in maps):
                field = f"Runner.credential.{name}"
                refuse(field, number, "no map of the user namespace has it: add it to one")


def _check_open(field: str, fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError:
        refuse(field, fd, "not an open file descriptor")


def _check_executable(field: str, fd: int) -> None:
    _check_open(field, fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        refuse(field, fd, "not a regular file")


def check_program(field: str, program: object) -> None:
    """Refuse what is no file that can be executed by its fd alone; for `Sandbox.run`."""
    from runner.config.files import HasFileno  # few give one

    if isinstance(program, bool) or not isinstance(program, int | HasFileno):
        refuse(field, program, "give an fd or an Artefact")
    fd = program if isinstance(program, int) else program.fileno()
    _check_executable(field, fd)
    with contextlib.suppress(OSError):  # of O_PATH: the exec tells
        if os.pread(fd, 2, 0) == b"#!":
            why = "a script, which its interpreter could not open: put it in by files_in"
            refuse(field, program, why)


def _open_namespace(field: str, join: Join) -> int:
    """Open a namespace and see that it is of the type that is asked for."""
    name = NS_FILES[join.namespace]
    path = join.path or f"/proc/{join.pid}/ns/{name}"
    try:
        # O_NONBLOCK: the path may be anything, a FIFO too.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        refuse(field, path, f"cannot be opened: {error.strerror}")
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        kind = None
    if kind != join.namespace:
        os.close(fd)
        refuse(field, path, f"not a {name} namespace")
    return fd


def _find_program(field: str, hook: Hook) -> bytes:
    import shutil  # costs milliseconds: it imports what unpacks archives

    name = hook.args[0]
    path = shutil.which(name, path=hook.env.get("PATH", os.defpath))
    if path is None:
        refuse(f"{field}.args", name, "there is no such program on the host")
    return os.fsencode(os.path.abspath(path))
