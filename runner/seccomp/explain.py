"""Which rule decides a call: a call as one writes it, and what a policy says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from runner.errors import ConfigError
from runner.seccomp import syscalls
from runner.seccomp.rules import ARGUMENT_MASK, Policy, Rule
from runner.seccomp.start import START

_CALL: Final = re.compile(r"\s*(\w+)\s*(?:\((.*)\)\s*)?", re.ASCII | re.DOTALL)
# Where Python has the kernel's names for arguments; of a policy, what it defines comes first.
_MODULES: Final = ("socket", "os", "mmap", "fcntl", "termios", "signal", "resource")


class Call(NamedTuple):
    """A call as it is asked about; arguments None when nothing is said of them."""

    name: str
    arguments: tuple[int, ...] | None


def parse_call(text: str, constants: Mapping[str, int]) -> Call:
    """Read `socket`, or `socket(AF_INET, SOCK_STREAM|0x800, -1)`; those left out are 0.

    Raises ConfigError.
    """
    match = _CALL.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r}: write a call as name or name(argument, ...)")
    name, inner = match.groups()
    wrong = syscalls.fault(name)
    if wrong:
        raise ConfigError(f"{text!r}: {wrong}")
    if inner is None:
        return Call(name, None)
    words = inner.split(",") if inner.strip() else []
    if len(words) > 6:
        raise ConfigError(f"{text!r}: a call has at most 6 arguments")
    values = [_value(word.strip(), constants) for word in words]
    return Call(name, (*values, *[0] * (6 - len(values))))


def rules_of(policy: Policy, name: str) -> Iterator[Rule]:
    """Give the rules that may decide a call, in order, up to one that always does."""
    for rule in policy.rules:
        if name in rule.names:
            yield rule
            if not rule.when:
                return


def _value(word: str, constants: Mapping[str, int]) -> int:
    """Read an argument as the 64 bits that a filter sees."""
    sign = word[:1] if word[:1] in {"~", "-"} else ""
    value = 0
    for term in word[len(sign) :].split("|"):
        value |= _term(term.strip(), constants)
    if sign:
        value = ~value if sign == "~" else -value
    if not -(2**63) <= value <= ARGUMENT_MASK:
        raise ConfigError(f"{word}: it does not fit in 64 bits")
    return value & ARGUMENT_MASK


def _term(word: str, constants: Mapping[str, int]) -> int:
    if word in constants:
        return constants[word]
    if word == "START":
        return START
    try:
        return int(word, 0)
    except ValueError:
        found = _known(word)
    if found is None:
        near = syscalls.nearest(word, constants)
        raise ConfigError(f"{word!r} is neither a number nor a known name{near}") from None
    return found


def _known(word: str) -> int | None:
    from importlib import import_module

    if not word.isupper():
        return None
    values = (getattr(import_module(module), word, None) for module in _MODULES)
    return next((int(value) for value in values if isinstance(value, int)), None)
