"""`run-sandboxed inject`: a command inside a sandbox that lives, found by a pid or its name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from runner.cli import subcommand
from runner.config import Credential, IdMap, Join, Namespace, Runner
from runner.errors import HostError
from runner.host import parse_id_map
from runner.quick import NamedTuple
from runner.resolve import NS_FILES
from runner.seccomp.terminal import no_typing

_NS_GET_OWNER_UID: Final = 0xB704  # ioctl_ns(2), Linux 4.11


class Place(NamedTuple):
    """What to enter, as fields of a `Runner`."""

    join: tuple[Join, ...]
    credential: Credential | None
    gid_mappings_enable_setgroups: bool


class _Seen(NamedTuple):
    """A process, as /proc/PID/status shows it to everybody.

    pids   its pid in each pid namespace that it is in, the outermost first
    """

    pid: int
    parent: int
    uid: int
    pids: tuple[int, ...]

    @property
    def is_init(self) -> bool:
        return self.pids[-1] == 1


_Table = Mapping[int, _Seen]


def run(_values: subcommand.Values, words: list[str]) -> int:
    """Run the command in the sandbox; its streams and environment are ours."""
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
        missing = "inject has another user's or group's rights, and would give these to anybody"
        raise HostError(missing, "do not install it set-user-ID or set-group-ID")
    with contextlib.ExitStack() as opened:
        config = Runner(
            args=subcommand.command_or_shell(words[1:]),
            env=dict(os.environ),
            work_dir="/",
            retain_session=True,
            ignored_signals=subcommand.ignored_signals(),
            seccomp=no_typing(),  # in our session, on our terminal, run by who owns the sandbox
            **_find(words[0], opened)._asdict(),
        )
        return subcommand.run(config, path=subcommand.search_path(), sealed=True)


def _find(word: str, opened: contextlib.ExitStack) -> Place:
    """Find where to enter, by a pid or a name, and open it; `opened` closes it."""
    table = {seen.pid: seen for seen in _look_around()}
    if word.isascii() and word.isdigit():
        # No pid is so long, and of thousands of digits int() makes none.
        target = table.get(int(word)) if len(word) <= 10 else None
        if target is None:
            raise subcommand.refuse(word, "there is no such process")
        found = _inside(word, target, table)
    else:
        found = _by_name(word, table)
    for seen in found:
        place = _open(seen, opened)
        if place is not None:
            return place
    missing = f"sandbox {word} has no process by which you may enter it"
    raise HostError(missing, "enter while a program of yours runs in it, or as root")


def _look_around() -> Iterator[_Seen]:
    try:
        ours = os.readlink("/proc/self")
    except OSError:
        ours = "none"
    if ours != str(os.getpid()):
        missing = "a /proc that has the processes of this pid namespace"
        raise HostError(missing, "mount -t proc proc /proc")
    for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]:
        # It may have ended.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield _read_status(pid, _read(None, f"/proc/{pid}/status"))


def _read_status(pid: int, text: bytes) -> _Seen:
    # No splitlines(): a process may have \r in its name, of which the kernel escapes \n alone.
    fields = dict(line.split(b":", 1) for line in text.split(b"\n") if line)
    pids = tuple(map(int, fields[b"NSpid"].split()))
    return _Seen(pid, int(fields[b"PPid"]), int(fields[b"Uid"].split()[1]), pids)


def _by_name(name: str, table: _Table) -> list[_Seen]:
    """Find the keeper with a name, whose parent has our uid; give what is in its sandbox.

    In a sandbox nobody can take a name: a process has two pids at least there, the one outside
    and the one inside. Outside, whom we have logged in can, for login(1) is his shell's parent;
    but not make a user namespace that is ours.
    """
    depth, uid = len(table[os.getpid()].pids), os.geteuid()
    found = [
        seen
        for seen in table.values()
        if len(seen.pids) == depth
        and seen.parent in table
        and table[seen.parent].uid == uid
        and _name_of(seen.pid) == name
        and _may_be_ours(seen, table)
    ]
    if not found:
        raise subcommand.refuse(name, "no sandbox of yours has this name")
    if len(found) > 1:
        pids = ", ".join(str(seen.pid) for seen in sorted(found))
        raise subcommand.refuse(name, f"several have this name: give one of the pids {pids}")
    return _inside(name, found[0], table)


def _may_be_ours(keeper: _Seen, table: _Table) -> bool:
    """Tell whether we made the user namespace of its sandbox, as far as we may look.

    Who may not is an ordinary user, and nobody else's process is a child of his.
    """
    for seen in table.values():
        if seen.parent == keeper.pid and seen.is_init:
            owner = _owner_of_namespace(seen)
            return owner is None or owner == os.geteuid()
    return False


def _owner_of_namespace(seen: _Seen) -> int | None:
    try:
        fd = os.open(f"/proc/{seen.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it has ended, or is not for us to look at
        return None
    try:
        if os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/user")):
            return seen.uid
        (uid,) = struct.unpack("=I", fcntl.ioctl(fd, _NS_GET_OWNER_UID, bytes(4)))
        return int(uid)
    finally:
        os.close(fd)


def _name_of(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return None
    if len(words) > 2 and words[1] == b"--retain-session":
        del words[1]
    return os.fsdecode(words[1]) if len(words) == 2 and words[0] == b"keeper" else None


def _inside(word: str, target: _Seen, table: _Table) -> list[_Seen]:
    """Give the processes by which to enter, best first: programs, for init has less of its own.

    `target` itself where it is a program inside, else its sandbox's: those below it, or below
    init's parent, that are in a pid namespace of their own.
    """
    depth = len(table[os.getpid()].pids)
    if len(target.pids) > depth and not target.is_init:
        return [target]
    top = target if len(target.pids) == depth else table.get(target.parent, target)
    keepers = set()
    found = [target] if top is target and target.is_init else []
    for seen in _below(top, table):
        if len(seen.pids) > depth:
            found.append(seen)
            if len(table[seen.parent].pids) == depth:
                keepers.add(seen.parent)
    if not found:
        raise subcommand.refuse(word, "it has no sandbox, nor is it in one")
    if len(keepers) > 1:
        pids = ", ".join(map(str, sorted(keepers)))
        raise subcommand.refuse(word, f"it has several sandboxes: give one of the pids {pids}")
    return sorted(found, key=lambda seen: (seen.is_init, len(seen.pids)))


def _below(top: _Seen, table: _Table) -> Iterator[_Seen]:
    """Give the children of a process, then theirs, and so on."""
    generation = [top.pid]
    while generation:
        children = [seen for seen in table.values() if seen.parent in generation]
        yield from children
        generation = [seen.pid for seen in children]


def _open(seen: _Seen, opened: contextlib.ExitStack) -> Place | None:
    """Open the namespaces of a process that are not ours.

    None if it has ended, or is not to be entered: keeper and init are not dumpable, and another
    user's are root's alone (ptrace(2)).
    """
    with contextlib.ExitStack() as undo:
        try:
            place = _open_all(seen, undo)
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            return None
        opened.enter_context(undo.pop_all())
    return place


def _open_all(seen: _Seen, opened: contextlib.ExitStack) -> Place:
    # Held open, so that all of it is that one process's, even if its pid is given anew.
    process = os.open(f"/proc/{seen.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, process)
    now = _read_status(seen.pid, _read(process, "status"))
    if (now.parent, now.pids) != (seen.parent, seen.pids):
        raise ProcessLookupError  # it was given anew before that
    joins = []
    for namespace, name in NS_FILES.items():
        fd = _open_other(process, name)
        if fd is not None:
            opened.callback(os.close, fd)
            joins.append(Join(namespace, path=f"/proc/self/fd/{fd}"))
    uids, gids = (_map_of(process, name) for name in ("uid_map", "gid_map"))
    credential = None
    if any(join.namespace is Namespace.USER for join in joins) and uids and gids:
        credential = Credential(_first(uids), _first(gids))
    return Place(tuple(joins), credential, _read(process, "setgroups") == b"allow\n")


def _open_other(process: int, name: str) -> int | None:
    """Open a namespace; None if it is our own, or this kernel has none of its kind."""
    try:
        own = os.stat(f"/proc/self/ns/{name}")
    except FileNotFoundError:
        return None
    fd = os.open(f"ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    if os.path.samestat(os.fstat(fd), own):
        os.close(fd)
        return None
    return fd


def _map_of(process: int, name: str) -> tuple[IdMap, ...]:
    return parse_id_map(_read(process, name).decode())


def _first(maps: tuple[IdMap, ...]) -> int:
    """Give 0 where it is mapped, or else what is: an ordinary user's own."""
    return min(m.inside for m in maps)


def _read(process: int | None, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process), "rb") as file:
        return file.read()


SUBCOMMAND: Final = subcommand.Subcommand(
    synopsis="inject PID|NAME [COMMAND [ARG...]]",
    about=(
        """Run COMMAND, by default $SHELL or else /bin/sh, inside a sandbox that lives, as its \
root if it has one. COMMAND is looked up in PATH inside, and starts in /; streams and \
environment are the caller's. PID is any process of the sandbox, or the one that started it; \
NAME is what --name gave it.""",
        """The sandbox's limits and its filter do not hold for COMMAND. An ordinary user can \
enter while a program runs in the sandbox.""",
    ),
    options=(),
    letters="",
    long=(),
    least=1,
    run=run,
)
