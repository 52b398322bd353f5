"""Users and groups by name, as the passwd(5) and group(5) that the sandbox will have know them.

They are looked up before there is a sandbox, in what is to be its root. Somebody else may have
made that tree: a symlink in it means what it will mean in the sandbox, and leads to no other
file of the host.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING, Final

from runner.config import Credential, Mount, MountKind, User
from runner.config.checks import refuse
from runner.config.mount import in_order
from runner.units import MiB

if TYPE_CHECKING:
    from collections.abc import Sequence

_USERS: Final = "/etc/passwd"
_GROUPS: Final = "/etc/group"
# A directory is made only where there is none; the others restrict what is there.
_HIDE_NOTHING: Final = frozenset({MountKind.DIRECTORY, MountKind.READONLY, MountKind.REMOUNT})
_SIZE_MAX: Final = MiB
_LINKS_MAX: Final = 40  # as in the kernel, MAXSYMLINKS
_STEPS_MAX: Final = 255  # names on a way, those in links too: nobody's tree keeps us busy
_NO_ID: Final = 2**32 - 1  # (uid_t)-1, which is none
_RANGE: Final = f"an id is 0 to {_NO_ID - 1}"
_REMEDY: Final = "mount one (Mount.bind, Mount.file), or give ids as numbers"


def credential(user: User, *, root: str, mounts: Sequence[Mount]) -> Credential:
    """Find a user in the files of a sandbox that is to have this root and these mounts.

    Reads but the files that are needed, as `read_inside` does: none where all is numbers.
    Raises ConfigError for a file or a name that is not there.
    """
    passwd = group = b""
    if user.group is None or not _is_number(user.name):
        passwd = read_inside(_USERS, root=root, mounts=mounts)
    if user.group is None or not all(map(_is_number, (user.group, *user.groups))):
        group = read_inside(_GROUPS, root=root, mounts=mounts)
    return resolve(
        user,
        passwd=passwd.decode(errors="surrogateescape"),
        group=group.decode(errors="surrogateescape"),
    )


def resolve(user: User, *, passwd: str, group: str) -> Credential:
    """Find a user in the texts of passwd(5) and group(5); a name of digits alone is an id.

    Without a group: that of its entry, and all that list it. With one: that, and its `groups`.
    Raises ConfigError for a name that is not there. Where a name stands twice, the first holds.
    """
    users, groups = _File(_USERS, passwd), _File(_GROUPS, group)
    uid = users.id("User", user.name)
    if user.group is not None:
        gid = groups.id("User.group", user.group)
        return Credential(
            uid, gid, tuple(groups.id("User.groups", name) for name in user.groups)
        )
    if user.groups:
        refuse("User.groups", user.groups, "they need a group beside them: give one")
    entry = users.entry(user.name)
    if entry is None:
        why = f"the sandbox's {_USERS} has no such uid, so its group is not known: give a group"
        refuse("User", user.name, why)
    gid = users.number("User", entry, 3)
    listed = [
        groups.number("User", line, 2)
        for line in groups.lines
        if entry[0] in _column(line, 3).split(",")
    ]
    return Credential(uid, gid, tuple(other for other in dict.fromkeys(listed) if other != gid))


class _File:
    """The lines of passwd(5) or group(5), whose third column is the id."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        # No splitlines(), for which other characters end a line too: a comment may hold them.
        lines = (line.split(":") for line in text.split("\n") if not line.startswith("#"))
        self.lines = [line for line in lines if line[0]]

    def entry(self, name: str) -> list[str] | None:
        """Give the line of a name, or of an id in digits."""
        column = 2 if _is_number(name) else 0
        return next((line for line in self.lines if _column(line, column) == name), None)

    def id(self, field: str, name: str) -> int:
        if _is_number(name):
            if int(name) >= _NO_ID:
                refuse(field, name, _RANGE)
            return int(name)
        entry = self.entry(name)
        if entry is None:
            why = f"the sandbox's {self._path} has no such name: add it there, or give its id"
            refuse(field, name, why)
        return self.number(field, entry, 2)

    def number(self, field: str, entry: list[str], column: int) -> int:
        text = _column(entry, column)
        if not _is_number(text) or int(text) >= _NO_ID:
            refuse(
                field, entry[0], f"the sandbox's {self._path} has {text!r} as an id: {_RANGE}"
            )
        return int(text)


def _column(line: list[str], number: int) -> str:
    return line[number] if number < len(line) else ""


def _is_number(text: str) -> bool:
    # At most ten digits, for int() refuses thousands; and digits of other scripts are names.
    return text.isascii() and text.isdigit() and len(text) <= 10


def read_inside(path: str, *, root: str, mounts: Sequence[Mount]) -> bytes:
    """Read what a sandbox will show at `path`, a regular file of at most 1 MiB.

    `root` is the directory of the host that is to be its root, "" a tmpfs; `mounts` are put
    into it as `Runner.mounts` says. Symlinks are followed as in the sandbox.
    Raises ConfigError.
    """
    try:
        content = _Sandbox(root, mounts).read(path)
    except (FileNotFoundError, NotADirectoryError):
        refuse("User", path, f"the sandbox has no such file: {_REMEDY}")
    except OSError as error:
        why = f"the sandbox's file cannot be read: {error.strerror}: {_REMEDY}"
        refuse("User", path, why)
    if content is None:
        refuse("User", path, f"in the sandbox it is no regular file: {_REMEDY}")
    if len(content) > _SIZE_MAX:
        refuse("User", path, f"in the sandbox it is larger than 1 MiB: {_REMEDY}")
    return content


class _Sandbox:
    """The paths of a sandbox that is to be, and what of the host will be there."""

    def __init__(self, root: str, mounts: Sequence[Mount]) -> None:
        self._root = root
        self._mounts: list[tuple[str, Mount]] = []
        for _, mount in in_order(mounts):
            # The kernel follows links on the way to a target, and so it is where they lead.
            if not mount.optional or os.path.exists(mount.source):
                self._mounts.append((self._resolve(mount.target), mount))

    def read(self, path: str) -> bytes | None:
        """Give the content, of a long file too much of it; None: it is no regular file."""
        place = self._resolve(path)
        mount, rest = self._find(place)
        if mount is not None and mount.kind is MountKind.FILE and not rest:
            return mount.content
        fd = self._open(place)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            # Opened only now, when it is no device or FIFO, where an open acts or waits. Nor
            # does O_NONBLOCK wait for another's lease (fcntl(2)).
            readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
        finally:
            os.close(fd)
        with open(readable, "rb") as file:
            return file.read(_SIZE_MAX + 1)

    def _resolve(self, path: str) -> str:
        """Give a path in the sandbox without links; what is not there is taken as it stands."""
        place, todo, links = "/", path.split("/")[::-1], 0
        for _ in range(_STEPS_MAX):
            if not todo:
                return place
            name = todo.pop()
            if name == "..":
                place = posixpath.dirname(place)  # of "/" it is "/"
            elif name not in {"", "."}:
                place = posixpath.join(place, name)
                text = self._link(place)
                if text is not None:
                    links += 1
                    place = "/" if text.startswith("/") else posixpath.dirname(place)
                    todo += text.split("/")[::-1]
            if links > _LINKS_MAX:
                break
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def _link(self, place: str) -> str | None:
        """Give the text of the symlink that is there, or None."""
        mount, rest = self._find(place)
        if mount is not None and mount.kind is MountKind.SYMLINK and not rest:
            return mount.source
        try:
            fd = self._open(place)
        except OSError:
            return None  # if it matters, the file itself cannot be opened either
        try:
            is_link = stat.S_ISLNK(os.fstat(fd).st_mode)
            return os.readlink("", dir_fd=fd) if is_link else None
        finally:
            os.close(fd)

    def _find(self, place: str) -> tuple[Mount | None, str]:
        """Give the uppermost mount that has this place, and the way from there; None: root."""
        for target, mount in reversed(self._mounts):
            if mount.kind not in _HIDE_NOTHING:
                above = target.rstrip("/")
                if place == target or place.startswith(f"{above}/"):
                    return mount, place[len(above) :].strip("/")
        return None, place.strip("/")

    def _open(self, place: str) -> int:
        """Open, as O_PATH, what a directory of the host has for a place in the sandbox."""
        mount, rest = self._find(place)
        source = self._root
        if mount is not None:
            source = mount.source if mount.kind is MountKind.BIND else ""
        if not source:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
        fd = os.open(source, os.O_PATH)  # the caller's own word: links in it are followed
        for name in filter(None, rest.split("/")):
            try:
                # A link that appears meanwhile is opened itself, and has nothing below it.
                below = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd
