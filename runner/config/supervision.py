"""`Supervision`: calls of a program that are decided one by one, and paths that it may use."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping
from typing import Final

from runner.config.checks import check_bytes, refuse
from runner.quick import dataclass, field

_SETS: Final = ("stat", "read", "write", "ban")
_NEEDED: Final = frozenset({"exit_group"})
_MOST_COUNTED: Final = 2**31
KILL, ASK, ALLOW = "kill", "ask", "allow"
PTRACE, NOTIFY = "ptrace", "notify"


@dataclass(frozen=True)
class Call:
    """A call that waits to be decided.

    `name` is None where this machine has none for `number`; `path` is what its path leads to,
    "" where it has none; `pid` is the caller's thread, as the host numbers it. `args` are
    registers: what they point at may change until the call happens.
    """

    name: str | None
    number: int
    args: tuple[int, ...]
    path: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """Calls that stop and are decided by the keeper; every other costs nothing.

    calls     by name: "kill" ends the run, an errno such as "EPERM" is what it returns, "ask"
              asks `decide`, a number n permits exactly n of them in the whole tree and then
              ends the run
    stat, read, write    paths that may be looked at, read, written; who may write may read, who
              may read may look. A pattern is a path; "/dir/*" all directly in it; "/dir/" the
              directory and all below. None in all three: paths are not supervised
    ban       paths that are refused with EACCES where `refuse` would end the run
    refuse    what becomes of a path in no set: "kill", an errno, or "ask"
    decide    called for "ask", by notify alone, with a `Call`; it gives "allow", "kill" or an
              errno. The call waits meanwhile, the limits hold. What it raises ends the run and
              comes back from `Sandbox.run`
    by        "ptrace": the keeper is the tracer; "notify": it hears the filter's notices
              (Linux 5.14; in a `Sandbox` alone), opens what is granted itself and hands over
              the fd, so that nothing can be changed in between

    A path is meant as the program sees it, when all symlinks are followed; its own directory of
    /proc is /proc/self. What leads through /proc to fds, memory, other processes or out of the
    root is refused whatever the sets say, but for its fds 0, 1 and 2.

    It is a second line behind mounts and filters, not in their place: the program may change a
    path between the decision and the call (docs/supervision.md).
    """

    calls: Mapping[str, str | int] = field(default_factory=dict)
    stat: Collection[str] | None = None
    read: Collection[str] | None = None
    write: Collection[str] | None = None
    ban: Collection[str] = ()
    refuse: str = KILL
    by: str = PTRACE
    decide: Callable[[Call], str] | None = None

    def __post_init__(self) -> None:
        for name, rule in self.calls.items():
            _check_rule(name, rule)
        for name in _SETS:
            given = getattr(self, name)
            if isinstance(given, str | bytes):
                refuse(f"Supervision.{name}", given, "give a list, not one text")
            for pattern in given or ():
                _check_pattern(f"Supervision.{name}", pattern)
        self._check_asking()
        if self.by not in {PTRACE, NOTIFY}:
            refuse("Supervision.by", self.by, 'give "ptrace" or "notify"')
        if self.by == NOTIFY and not _NEEDED.isdisjoint(self.calls):
            refuse(
                "Supervision.calls", sorted(_NEEDED), "by notify, the start itself makes them"
            )
        if not self.calls and not self.has_paths:
            refuse("Supervision", self, "it supervises nothing: give calls or paths")
        if self.ban and not self.has_paths:
            refuse(
                "Supervision.ban",
                self.ban,
                "paths are not supervised: give stat, read or write",
            )

    def _check_asking(self) -> None:
        if self.refuse not in {KILL, ASK} and not is_errno(self.refuse):
            why = 'give "kill", "ask", or an errno such as "EACCES"'
            refuse("Supervision.refuse", self.refuse, why)
        asks = self.refuse == ASK or ASK in self.calls.values()
        if asks and (self.decide is None or self.by != NOTIFY):
            refuse("Supervision", ASK, 'it needs somebody to ask: give decide, and by="notify"')
        if self.decide is not None and not asks:
            refuse("Supervision.decide", self.decide, 'nothing is asked: give a rule "ask"')

    @property
    def has_paths(self) -> bool:
        """Tell whether paths are supervised."""
        return any(paths is not None for paths in (self.stat, self.read, self.write))

    @property
    def opens(self) -> bool:
        """Tell whether the keeper opens files for the program."""
        return self.by == NOTIFY and (self.has_paths or ASK in self.calls.values())


def is_errno(name: object) -> bool:
    """Tell whether this is the name of an errno."""
    return name in errno.errorcode.values()


def _check_rule(name: str, rule: str | int) -> None:
    field = f"Supervision.calls[{name!r}]"
    if isinstance(rule, int):
        if isinstance(rule, bool) or not 0 <= rule < _MOST_COUNTED:
            refuse(field, rule, f"a number of calls is 0 to {_MOST_COUNTED - 1}")
    elif rule not in {KILL, ASK} and not is_errno(rule):
        refuse(field, rule, 'give "kill", "ask", an errno such as "EPERM", or a number')


def _check_pattern(field: str, pattern: str) -> None:
    if not isinstance(pattern, str) or not pattern.startswith("/"):
        refuse(field, pattern, "a pattern begins with /")
    check_bytes(field, pattern)
    path = pattern.removesuffix("/*").removesuffix("/")
    if "*" in path or any(part in {"", ".", ".."} for part in path.split("/")[1:]):
        refuse(
            field, pattern, 'write a path without "..", then "/*" or "/" at its end if meant'
        )
