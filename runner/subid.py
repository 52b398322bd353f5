"""Which ids a caller may give to a user namespace: its own, and those delegated to it.

Delegated ids stand in subuid(5) and subgid(5), and newuidmap(1) and newgidmap(1) write maps of
them. They and the kernel are the guard; here is found out, before any process exists, what they
are going to refuse, and why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import itertools
import os
import pwd
import re
import stat
from typing import TYPE_CHECKING, Final

from runner.config import IdMap
from runner.config.checks import refuse
from runner.errors import ConfigError, HostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

NOBODY: Final = 65534

_ID_END: Final = 2**32 - 1  # (uid_t)-1 is no id
_LINES_MAX: Final = 340  # UID_GID_MAP_MAX_EXTENTS, Linux 4.15
_LINE: Final = re.compile(r"([^:]+):([0-9]{1,10}):([0-9]{1,10})", re.ASCII)
_MAP: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})", re.ASCII)

# Not PATH, which is the caller's; the last is NixOS's for programs with privileges.
_DIRECTORIES: Final = ("/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin")


class Kind(enum.Enum):
    """The two kinds of ids, with the file and the helper of each."""

    UID = "uid"
    GID = "gid"

    @property
    def file(self) -> str:
        return f"/etc/sub{self.value}"

    @property
    def helper(self) -> str:
        return f"new{self.value}map"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The ids of one kind that a caller may map.

    own        its own effective id
    namespace  the map of the user namespace that it is in: what exists there
    user       its name, None if it has none
    ranges     what is delegated to it, as the file says
    """

    kind: Kind
    own: int
    namespace: tuple[IdMap, ...]
    user: str | None = None
    ranges: tuple[range, ...] = ()


def read_grant(kind: Kind, namespace: Iterable[IdMap], *, path: str | None = None) -> Grant:
    """Look up what is granted to this process; `namespace` is Host.uid_map or gid_map.

    Raises HostError when the file (default: of that kind, in /etc) cannot be read or parsed.
    """
    uid = os.getuid()
    try:
        login = os.getlogin()
    except OSError:
        login = ""  # there is no terminal, or nobody has logged in
    user = user_name(uid, os.environ, login=login)
    return Grant(
        kind=kind,
        own=os.geteuid() if kind is Kind.UID else os.getegid(),
        namespace=tuple(namespace),
        user=user,
        ranges=delegated(path or kind.file, user=user, uid=uid),
    )


def user_name(uid: int, environ: Mapping[str, str], *, login: str = "") -> str | None:
    """Choose among the names of `uid` the one of USER, else LOGNAME, else `login`.

    A name that is not that uid's is not believed, and then it is the first in passwd(5).
    """
    name = environ.get("USER") or environ.get("LOGNAME") or login
    with contextlib.suppress(KeyError):  # nobody has it
        if name and pwd.getpwnam(name).pw_uid == uid:
            return name
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def delegated(path: str, *, user: str | None, uid: int) -> tuple[range, ...]:
    """Read what a file like subuid(5) delegates to a user: none if there is no file."""
    if user is None:
        return ()  # newuidmap(1) serves nobody without a name
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return parse_ranges(file.read(), user=user, uid=uid, path=path)
    except FileNotFoundError:
        return ()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise HostError(message, f"let everybody read it: chmod a+r {path}") from error


def parse_ranges(text: str, *, user: str, uid: int, path: str) -> tuple[range, ...]:
    """Find the ranges of a user, by name or by number, in a text like subuid(5).

    Raises HostError for a line that should be one and is not; what others have is theirs.
    """
    ranges = []
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        # A comment is to shadow a line that it cannot read; + and - are of NIS.
        if not line or line[0] in "#+-":
            continue
        if ":" in line and line.partition(":")[0] not in {user, str(uid)}:
            continue
        match = _LINE.fullmatch(line)
        start, count = (int(match[2]), int(match[3])) if match else (0, 0)
        if not 0 < count <= _ID_END - start:
            message = f"{path}, line {number}: {line!r} is not NAME:START:COUNT"
            raise HostError(message, "correct this line, such as alice:100000:65536")
        ranges.append(range(start, start + count))
    return tuple(ranges)


def parse_maps(text: str) -> tuple[IdMap, ...]:
    """Read START:LOWER:COUNT, inside, outside and how many; more after `,` or `;` each."""
    maps = []
    for part in re.split("[,;]", text):
        match = _MAP.fullmatch(part)
        if match is None:
            refuse("Invalid ID map", part, "write START:LOWER:COUNT, more of them after , or ;")
        try:
            maps.append(IdMap(*map(int, match.groups())))
        except ConfigError as error:
            message = f"Invalid ID map: {part!r}: {error}"
            raise ConfigError(message) from error
    return tuple(maps)


def check_maps(
    maps: Sequence[IdMap], grant: Grant, *, field: str, privileged: bool = False
) -> None:
    """Refuse a map that the kernel or the helper would refuse; ConfigError names the part.

    `privileged`: the caller may give any id of its namespace, delegated or not.
    """
    lines = list(maps) if privileged else list(_own_apart(maps, grant.own))
    _check_shape(lines, field)
    for line in lines:
        wanted = _outside(line)
        if not privileged:
            mine = [range(grant.own, grant.own + 1), *grant.ranges]
            for part in _without(wanted, mine):
                why = f"{_span(part)} not delegated to you: {_remedy(part, grant)}"
                refuse(field, _show(line), why)
        for part in _without(wanted, map(_inside, grant.namespace)):
            has = ", ".join(_numbers(_inside(own)) for own in grant.namespace) or "no ids"
            why = f"{_span(part)} not in your user namespace, which has {has}"
            refuse(field, _show(line), why)


def needs_helper(maps: Sequence[IdMap], own: int, *, privileged: bool) -> bool:
    """Tell whether newuidmap or newgidmap has to write a map, and not the caller itself.

    Of gids, the namespace may then keep setgroups(2), which the kernel asks a caller to deny
    before it maps its own gid itself.
    """
    return not privileged and [(m.outside, m.count) for m in maps] != [(own, 1)]


def find_helper(
    kind: Kind, *, directories: Iterable[str] = _DIRECTORIES, status: str = "/proc/self/status"
) -> str:
    """Find newuidmap or newgidmap where it can do its work; HostError if there is none."""
    paths = (os.path.join(directory, kind.helper) for directory in directories)
    path = next((path for path in paths if os.access(path, os.X_OK)), None)
    if path is None:
        raise HostError(kind.helper, "install the package uidmap")
    if not _has_rights(path):
        raise HostError(kind.helper, f"as root: chmod u+s {path}, it has no privileges")
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        raise HostError(kind.helper, f"mount without nosuid what {path} is on")
    with open(status, encoding="utf-8", errors="surrogateescape") as file:
        if "NoNewPrivs:\t1" in file.read():
            raise HostError(
                kind.helper,
                "start this program without no_new_privs (NoNewPrivileges= of systemd, "
                "allowPrivilegeEscalation of Kubernetes), with which nothing is set-user-ID",
            )
    return path


def _has_rights(path: str) -> bool:
    """Tell whether a program is set-user-ID root, or has capabilities, as on Fedora."""
    status = os.stat(path)
    if status.st_mode & stat.S_ISUID and status.st_uid == 0:
        return True
    try:
        return "security.capability" in os.listxattr(path)
    except OSError:
        return False  # not on this file system


def helper_command(helper: str, maps: Sequence[IdMap], own: int) -> list[str]:
    """Give the helper's arguments; the second is "{pid}", for which the pid has to be put."""
    numbers = (n for m in _own_apart(maps, own) for n in (m.inside, m.outside, m.count))
    return [helper, "{pid}", *map(str, numbers)]


def root_default(namespace: Iterable[IdMap]) -> tuple[IdMap, ...]:
    """Map 0 to the highest id of our namespace, every other id but these two to itself.

    So root inside is nobody in particular outside. Raises HostError if there is no such id.
    """
    ranges = sorted(map(_inside, namespace), key=lambda ids: ids.start)
    top = max((ids.stop - 1 for ids in ranges), default=0)
    if top == 0:
        raise HostError(
            "a second id in this user namespace", "give a map, or run where uid_map has more"
        )
    others = _common(ranges, [range(1, top)])
    return (IdMap(0, top), *(IdMap(ids.start, ids.start, _count(ids)) for ids in others))


def user_default(grant: Grant, *, helper: bool) -> tuple[IdMap, ...]:
    """Map 0 to our own id, and if there is a helper, 1 and up to what is delegated to us."""
    maps = [IdMap(0, grant.own)]
    if not helper:
        return tuple(maps)
    free = 1
    for ids in _common(grant.ranges, map(_inside, grant.namespace)):
        # Two lines of the file may overlap, or have our own id: the kernel wants each but once.
        for part in _without(ids, map(_outside, maps)):
            maps.append(IdMap(free, part.start, _count(part)))
            free += _count(part)
    return tuple(maps)


def nobody_default(outside: int = NOBODY) -> tuple[IdMap, ...]:
    """Map 0, and it alone, to an id without rights, or to that of one user."""
    return (IdMap(0, outside),)


def _own_apart(maps: Iterable[IdMap], own: int) -> Iterator[IdMap]:
    """Give our own id a line of its own: within a longer one the helper does not accept it."""
    for m in maps:
        before = own - m.outside
        if not 0 <= before < m.count:
            yield m
            continue
        for first, count in ((0, before), (before, 1), (before + 1, m.count - before - 1)):
            if count:
                yield IdMap(m.inside + first, m.outside + first, count)


def _check_shape(maps: Sequence[IdMap], field: str) -> None:
    """Refuse what the kernel does (user_namespaces(7), "Defining … mappings")."""
    if len(maps) > _LINES_MAX:
        refuse(field, len(maps), f"the kernel takes at most {_LINES_MAX} lines")
    size, page = sum(len(f"{_show(m)}\n") for m in maps), os.sysconf("SC_PAGE_SIZE")
    if size >= page:
        refuse(field, len(maps), f"these lines are {size} bytes, the kernel takes {page - 1}")
    for side, name in ((_inside, "inside"), (_outside, "outside")):
        for m in maps:
            if side(m).stop > _ID_END:
                refuse(field, _show(m), f"{name} it goes beyond {_ID_END - 1}, the last id")
        for one, other in itertools.combinations(maps, 2):
            if _common([side(one)], [side(other)]):
                both = f"{_show(one)},{_show(other)}"
                refuse(field, both, f"they overlap {name}: map each id once")


def _remedy(part: range, grant: Grant) -> str:
    kind, user, first = grant.kind, grant.user, part.start
    if user is None:
        return "your uid has no name, and only to a name can they be: add it to passwd"
    return (
        f"as root, usermod --add-sub{kind.value}s {first}-{part.stop - 1} {user}, "
        f"which is the line {user}:{first}:{_count(part)} in {kind.file}"
    )


def _inside(m: IdMap) -> range:
    return range(m.inside, m.inside + m.count)


def _outside(m: IdMap) -> range:
    return range(m.outside, m.outside + m.count)


def _without(wanted: range, others: Iterable[range]) -> list[range]:
    """Give the parts of a range that are in none of the others."""
    parts = [wanted]
    for other in others:
        parts = _common(parts, [range(other.start), range(other.stop, wanted.stop)])
    return parts


def _common(ranges: Iterable[range], others: Iterable[range]) -> list[range]:
    """Give the parts of ranges, in their order, that are in the others too."""
    limits = list(others)
    both = (
        range(max(one.start, other.start), min(one.stop, other.stop))
        for one in ranges
        for other in limits
    )
    return [ids for ids in both if ids]


def _count(ids: range) -> int:
    return ids.stop - ids.start  # len() of this many fails where a word has 32 bits


def _show(m: IdMap) -> str:
    return f"{m.inside}:{m.outside}:{m.count}"


def _numbers(ids: range) -> str:
    return str(ids.start) if _count(ids) == 1 else f"{ids.start} to {ids.stop - 1}"


def _span(ids: range) -> str:
    return f"{_numbers(ids)} {'is' if _count(ids) == 1 else 'are'}"
