"""What programs called → the policy under which they run: of a base policy, these calls.

The text is read again when another run is added to it, so each line has the count of its call
in its comment; of a call that several lines decide, the first.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Final

from runner.errors import ConfigError
from runner.seccomp.explain import rules_of
from runner.seccomp.rules import Policy, Rule
from runner.seccomp.start import START

# A program may need these though no run had to: it was killed, or no signal came.
_ENDINGS: Final = ("exit", "exit_group", "rt_sigreturn", "restart_syscall")
_STARTS: Final = ("execve", "execveat")

_HEAD: Final = "# What programs were seen to call within the policy {}, in {} runs."
_FIRST: Final = re.compile(
    re.escape(_HEAD).replace(r"\{\}", r"(\S+)", 1).replace(r"\{\}", r"(\d+)", 1), re.ASCII
)
_CALL: Final = re.compile(r"(?:errno \w+|trap \d+|trace \d+|\w+) (\w+).*# (\d+)", re.ASCII)
_COLUMN: Final = 39


@dataclasses.dataclass(frozen=True, slots=True)
class Learned:
    """How often each call was made, in how many runs, under which base policy."""

    base: str
    runs: int
    calls: Mapping[str, int]

    def __add__(self, other: Learned) -> Learned:
        """Give both together."""
        names = {**self.calls, **other.calls}
        calls = {name: self.calls.get(name, 0) + other.calls.get(name, 0) for name in names}
        return Learned(self.base, self.runs + other.runs, calls)


def read(text: str, place: str) -> Learned:
    """Read what `write` has written. Raises ConfigError for another text."""
    first, *lines = text.split("\n")
    head = _FIRST.fullmatch(first)
    if head is None:
        message = f"{place}: it was not learned: name a new file, it would be overwritten"
        raise ConfigError(message)
    found = filter(None, map(_CALL.fullmatch, lines))
    return Learned(head[1], int(head[2]), {match[1]: int(match[2]) for match in found})


def write(learned: Learned, base: Policy) -> str:
    """Give the policy: of the base, what decides the calls that were made, and nothing else."""
    lines = [
        _HEAD.format(learned.base, learned.runs),
        "# The number is how often. Another run is added to it: changes made by hand get lost,",
        "# so include it where you want more.",
        "",
        "default errno ENOSYS",
        "",
    ]
    for name, times in sorted(learned.calls.items(), key=lambda item: (-item[1], item[0])):
        first, *others = _lines(base, name)
        lines += [f"{first:<{_COLUMN}} # {times}", *others]
    if not learned.calls.keys() & set(_STARTS):
        lines.append(f"allow {' '.join(_STARTS)} if arg5 == START # its own start alone")
    for name in _ENDINGS:
        if name not in learned.calls:
            lines += _lines(base, name)
    return "\n".join(lines) + "\n"


def _lines(base: Policy, name: str) -> Iterator[str]:
    """Give the base's rules for a call, and its default where they leave something."""
    rules = list(rules_of(base, name))
    for rule in rules:
        only = dataclasses.replace(rule, names=(name,))
        yield str(only).replace(f"{START:#x}", "START")
    if not rules or rules[-1].when:
        yield str(Rule(base.default, (name,), (), (base.name,), 0))
