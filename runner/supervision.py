"""From `Supervision` to the keeper's rules, and to the filter that stops the calls.

Pure. What each call does with its paths is stated once, in `PATHS`.
"""

from __future__ import annotations

import enum
import errno
import struct
from typing import TYPE_CHECKING, Final

from runner.config.supervision import ASK, KILL, NOTIFY
from runner.errors import ConfigError
from runner.quick import NamedTuple
from runner.seccomp.start import START

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.config import Supervision


class Kind(enum.IntEnum):
    """What a rule says of a call; numbered as enum rule_kind of native/decide.h."""

    ERRNO = 0
    KILL = 1
    COUNT = 2
    PATH = 3
    ASK = 4


class Use(enum.IntEnum):
    """What a call does with a path; numbered as enum path_use."""

    STAT = 0
    READ = 1
    WRITE = 2
    OPEN = 3  # by its flags
    OPENAT2 = 4  # by the flags in struct open_how
    CREAT = 5


class Follow(enum.IntEnum):
    """When a symlink at the end is followed; numbered as enum path_follow."""

    YES = 0
    NO = 1
    UNLESS_FLAG = 2
    IF_FLAG = 3


class PathSet(enum.IntEnum):
    """Numbered as enum path_set."""

    STAT = 0
    READ = 1
    WRITE = 2
    BAN = 3


class Match(enum.IntEnum):
    """Numbered as enum path_match."""

    EXACT = 0
    CHILDREN = 1
    BELOW = 2


class Path(NamedTuple):
    """Which arguments of a call are a path; `directory` and `flags` are None for none."""

    path: int
    use: Use
    directory: int | None = None
    flags: int | None = None
    follow: Follow = Follow.YES

    def packed(self) -> int:
        """Give it as the fourth argument of a rule: four bits for each field."""
        directory = 0 if self.directory is None else self.directory + 1
        flags = 0 if self.flags is None else self.flags + 1
        fields = (directory, self.path, flags, self.use, self.follow)
        return sum(int(value) << (4 * place) for place, value in enumerate(fields))


_NO, _UNLESS = Follow.NO, Follow.UNLESS_FLAG
_W, _S, _R = Use.WRITE, Use.STAT, Use.READ

# By name: each path of a call. Those of old are missing on some architectures.
PATHS: Final[Mapping[str, tuple[Path, ...]]] = {
    "open": (Path(0, Use.OPEN, flags=1),),
    "openat": (Path(1, Use.OPEN, 0, 2),),
    "openat2": (Path(1, Use.OPENAT2, 0, 2),),
    "creat": (Path(0, Use.CREAT),),
    "truncate": (Path(0, _W),),
    "unlink": (Path(0, _W, follow=_NO),),
    "unlinkat": (Path(1, _W, 0, follow=_NO),),
    "rmdir": (Path(0, _W, follow=_NO),),
    "mkdir": (Path(0, _W, follow=_NO),),
    "mkdirat": (Path(1, _W, 0, follow=_NO),),
    "mknod": (Path(0, _W, follow=_NO),),
    "mknodat": (Path(1, _W, 0, follow=_NO),),
    "symlink": (Path(1, _W, follow=_NO),),
    "symlinkat": (Path(2, _W, 1, follow=_NO),),
    "rename": (Path(0, _W, follow=_NO), Path(1, _W, follow=_NO)),
    "renameat": (Path(1, _W, 0, follow=_NO), Path(3, _W, 2, follow=_NO)),
    "renameat2": (Path(1, _W, 0, follow=_NO), Path(3, _W, 2, follow=_NO)),
    # A link is a second name to write by.
    "link": (Path(0, _W, follow=_NO), Path(1, _W, follow=_NO)),
    "linkat": (Path(1, _W, 0, 4, Follow.IF_FLAG), Path(3, _W, 2, follow=_NO)),
    "chmod": (Path(0, _W),),
    "fchmodat": (Path(1, _W, 0),),
    "fchmodat2": (Path(1, _W, 0, 3, _UNLESS),),
    "chown": (Path(0, _W),),
    "lchown": (Path(0, _W, follow=_NO),),
    "fchownat": (Path(1, _W, 0, 4, _UNLESS),),
    "utime": (Path(0, _W),),
    "utimes": (Path(0, _W),),
    "futimesat": (Path(1, _W, 0),),
    "utimensat": (Path(1, _W, 0, 3, _UNLESS),),
    "setxattr": (Path(0, _W),),
    "lsetxattr": (Path(0, _W, follow=_NO),),
    "removexattr": (Path(0, _W),),
    "lremovexattr": (Path(0, _W, follow=_NO),),
    "setxattrat": (Path(1, _W, 0, 2, _UNLESS),),
    "removexattrat": (Path(1, _W, 0, 2, _UNLESS),),
    "file_setattr": (Path(1, _W, 0, 4, _UNLESS),),
    "getxattrat": (Path(1, _S, 0, 2, _UNLESS),),
    "listxattrat": (Path(1, _S, 0, 2, _UNLESS),),
    "file_getattr": (Path(1, _S, 0, 4, _UNLESS),),
    "getxattr": (Path(0, _S),),
    "lgetxattr": (Path(0, _S, follow=_NO),),
    "listxattr": (Path(0, _S),),
    "llistxattr": (Path(0, _S, follow=_NO),),
    "stat": (Path(0, _S),),
    "lstat": (Path(0, _S, follow=_NO),),
    "newfstatat": (Path(1, _S, 0, 3, _UNLESS),),
    "statx": (Path(1, _S, 0, 2, _UNLESS),),
    "access": (Path(0, _S),),
    "faccessat": (Path(1, _S, 0),),
    "faccessat2": (Path(1, _S, 0, 3, _UNLESS),),
    "readlink": (Path(0, _S, follow=_NO),),
    "readlinkat": (Path(1, _S, 0, follow=_NO),),
    "statfs": (Path(0, _S),),
    "chdir": (Path(0, _S),),
    "inotify_add_watch": (Path(1, _R),),  # which tells the names in a directory
    "execve": (Path(0, _R),),
    "execveat": (Path(1, _R, 0, 4, _UNLESS),),
    "uselib": (Path(0, _R),),
}

# What paths cannot be judged beside, and so is refused with EPERM where they are.
UNJUDGED: Final = (
    # They reach files by other ways: a ring that opens, fds without a rule, handles.
    *("io_uring_setup", "open_tree", "open_tree_attr", "fsopen", "fspick", "bpf"),
    *("name_to_handle_at", "open_by_handle_at", "fanotify_mark"),
    # They change where all paths lead, and what may be done there.
    *("mount", "umount2", "move_mount", "mount_setattr", "pivot_root", "chroot", "setns"),
    # By it a page of memory holds whoever reads it: the keeper.
    "userfaultfd",
)


class CallRule(NamedTuple):
    """One rule for a call, by number."""

    number: int
    kind: Kind
    value: int = 0
    where: int = 0


class Rules(NamedTuple):
    """What the keeper decides by; `arch` is AUDIT_ARCH_*, `paths` are (set, match, path)."""

    arch: int
    calls: tuple[CallRule, ...]
    paths: tuple[tuple[PathSet, Match, str], ...]
    refuse: int  # the errno; 0: it ends the run; -1: somebody is asked
    by_notice: bool  # to the filter's listener, and not to a tracer
    execs: frozenset[int]  # by which the program itself is started

    @property
    def numbers(self) -> frozenset[int]:
        """Give the calls that have to stop."""
        return frozenset(rule.number for rule in self.calls)


def rules(wanted: Supervision, numbers: Mapping[str, int], arch: int) -> Rules:
    """Give the rules for an architecture's calls. Raises ConfigError for a name it has not.

    A call with a rule of its own has that rule alone.
    """
    unknown = sorted(wanted.calls.keys() - numbers.keys())
    if unknown:
        import difflib

        near = difflib.get_close_matches(unknown[0], numbers, n=1)
        hint = f"; is it {near[0]}?" if near else ""
        raise ConfigError(f"Supervision.calls: {unknown[0]!r}: no such system call{hint}")
    calls = [
        _asked(name, numbers[name]) if rule == ASK else _rule(numbers[name], rule)
        for name, rule in wanted.calls.items()
    ]
    if wanted.has_paths:
        calls += [
            CallRule(numbers[name], Kind.PATH, where=path.packed())
            for name, paths in PATHS.items()
            if name in numbers and name not in wanted.calls
            for path in paths
        ]
        calls += [
            CallRule(numbers[name], Kind.ERRNO, errno.EPERM)
            for name in UNJUDGED
            if name in numbers and name not in wanted.calls
        ]
    patterns = tuple(
        (path_set, *_pattern(pattern))
        for path_set in PathSet
        for pattern in getattr(wanted, path_set.name.lower()) or ()
    )
    execs = (numbers[name] for name in ("execve", "execveat") if name in numbers)
    refused = {KILL: 0, ASK: -1}.get(wanted.refuse)
    if refused is None:
        refused = errno_of(wanted.refuse)
    return Rules(arch, tuple(calls), patterns, refused, wanted.by == NOTIFY, frozenset(execs))


def _asked(name: str, number: int) -> CallRule:
    """Ask, with the first path that it has."""
    paths = PATHS.get(name)
    if paths is None:
        return CallRule(number, Kind.ASK)
    return CallRule(number, Kind.ASK, 1, paths[0].packed())


def _rule(number: int, rule: str | int) -> CallRule:
    if isinstance(rule, int):
        return CallRule(number, Kind.COUNT, rule)
    return (
        CallRule(number, Kind.KILL)
        if rule == KILL
        else CallRule(number, Kind.ERRNO, errno_of(rule))
    )


def errno_of(name: str) -> int:
    """Give the number of an errno."""
    return next(number for number, text in errno.errorcode.items() if text == name)


def _pattern(text: str) -> tuple[Match, str]:
    if text.endswith("/*"):
        return Match.CHILDREN, text[:-2] or "/"
    if text.endswith("/"):
        return Match.BELOW, text[:-1] or "/"
    return Match.EXACT, text


# Classic BPF as seccomp(2) takes it: code, jump if true, jump if false, value.
_INSTRUCTION: Final = struct.Struct("<HBBI")
_LOAD, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCH_AT, _SIXTH_AT = 0, 4, 56  # in struct seccomp_data, little-endian
_ALLOW, _TRACE, _NOTIFY = 0x7FFF_0000, 0x7FF0_0000, 0x7FC0_0000
_KILL_PROCESS, _KILL_THREAD = 0x8000_0000, 0
_KILLS: Final = frozenset({(_RETURN, 0, 0, _KILL_PROCESS), (_RETURN, 0, 0, _KILL_THREAD)})
_X32: Final = 0x4000_0000
# What a stop has with it: whether a rule or the policy is why.
BY_RULE, BY_POLICY = 0, 1

_Code = tuple[int, int, int, int]


def stopping(policy: bytes, wanted: Rules) -> bytes:
    """Give a filter with the policy's decisions, where what it allows stops if it has a rule.

    What it kills for stops for a tracer too, so that the keeper can say which call it was; the
    listener does so by itself. Calls of another architecture, which have no rules, end the
    program whatever the policy. Our own exec does not stop: it has the secret of
    seccomp/start.py.
    """
    code = [_INSTRUCTION.unpack_from(policy, at) for at in range(0, len(policy), 8)]
    for place, instruction in enumerate(code):
        if instruction == (_RETURN, 0, 0, _ALLOW):
            code[place] = (_JUMP, 0, 0, len(code) - place - 1)
    code += [*_own_calls_only(wanted.arch), *_tail(wanted)]
    if not wanted.by_notice:
        stop = (_RETURN, 0, 0, _TRACE | BY_POLICY)
        code = [stop if instruction in _KILLS else instruction for instruction in code]
    return b"".join(_INSTRUCTION.pack(*each) for each in code)


def _own_calls_only(arch: int) -> Iterator[_Code]:
    """End the program for all others, and leave the number where `_tail` wants it."""
    yield (_LOAD, 0, 0, _ARCH_AT)
    yield (_IF_EQUAL, 1, 0, arch)
    yield (_RETURN, 0, 0, _KILL_PROCESS)
    yield (_LOAD, 0, 0, _NUMBER_AT)
    yield (_IF_AT_LEAST, 0, 1, _X32)  # x32's numbers; -1 is a tracer's, and is above it too
    yield (_RETURN, 0, 0, _KILL_PROCESS)


def _tail(wanted: Rules) -> Iterator[_Code]:
    """Stop the calls that have rules. A jump goes 255 far: each has a way out."""
    stop = _NOTIFY if wanted.by_notice else _TRACE | BY_RULE
    low, high = START & 0xFFFF_FFFF, START >> 32
    for number in sorted(wanted.numbers):
        own = number in wanted.execs
        yield (_IF_EQUAL, 0, 6 if own else 1, number)
        if own:
            yield (_LOAD, 0, 0, _SIXTH_AT)
            yield (_IF_EQUAL, 0, 3, low)
            yield (_LOAD, 0, 0, _SIXTH_AT + 4)
            yield (_IF_EQUAL, 0, 1, high)
            yield (_RETURN, 0, 0, _ALLOW)
        yield (_RETURN, 0, 0, stop)
    yield (_RETURN, 0, 0, _ALLOW)
