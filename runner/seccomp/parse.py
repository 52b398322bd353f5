"""Policy text → rules. The grammar and its meaning are in docs/seccomp.md.

All faults of a policy are found in one go, each with its place: `default:12: 'raed' is not …`.
"""

from __future__ import annotations

import dataclasses
import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from runner.errors import ConfigError
from runner.seccomp import syscalls
from runner.seccomp.rules import (
    ARGUMENT_MASK,
    WORD_MASK,
    Action,
    Comparison,
    Op,
    Policy,
    Rule,
    Verb,
    unreachable,
)
from runner.seccomp.start import START

_DIRECTIVES: Final = ("default", "define", "include", "on")
_VERBS: Final = {verb.name.lower(): verb for verb in Verb}
ERRNOS: Final = {name: number for number, name in errno.errorcode.items()} | {
    "EWOULDBLOCK": errno.EWOULDBLOCK,
    "EDEADLOCK": errno.EDEADLOCK,
    "ENOTSUP": errno.ENOTSUP,
}
MAX_ERRNO: Final = 4095  # MAX_ERRNO, <linux/err.h>; the kernel cuts a larger one down to it
_MAX_DATA: Final = 0xFFFF  # SECCOMP_RET_DATA
_MOST_INCLUDES: Final = 200

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_VALUE: Final = r"[~-]?\w+(?:\s*\|\s*\w+)*"
_COMPARISON: Final = re.compile(
    rf"(arg|int)([0-5])\s*(?:&\s*({_VALUE})\s*)?(==|!=|<=|>=|<|>)\s*({_VALUE})", re.ASCII
)


class _Fault(Exception):  # noqa: N818 - not an error that leaves this module
    """One thing wrong with one line; the message says what."""


@dataclasses.dataclass(slots=True)
class _Reading:
    """What the texts of one policy share: it and all that it includes."""

    sources: Mapping[str, str]
    rules: list[Rule] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)
    constants: dict[str, int] = dataclasses.field(default_factory=dict)
    includes: int = 0


@dataclasses.dataclass(slots=True)
class _File:
    """Reads one text."""

    origin: tuple[str, ...]
    shared: _Reading
    default: Action | None = None
    included_defaults: set[Action] = dataclasses.field(default_factory=set)
    constants: dict[str, int] = dataclasses.field(default_factory=lambda: {"START": START})

    def read(self, text: str) -> Action | None:
        """Read all lines; return the default action, this text's own before an included one."""
        for number, line in enumerate(text.split("\n"), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                self._line(words, number)
            except _Fault as fault:
                self.shared.faults.append(f"{self.origin[-1]}:{number}: {fault}")
        if self.default is None and len(self.included_defaults) > 1:
            why = "the policies that it includes differ in their 'default': write its own"
            self.shared.faults.append(f"{self.origin[-1]}: {why}")
        self.shared.constants.update(self.constants)
        return self.default or next(iter(self.included_defaults), None)

    def _line(self, words: list[str], number: int) -> None:
        match words:
            case ["default", *rest]:
                self._default(rest)
            case ["define", *rest]:
                _define(rest, self.constants)
            case ["include", *rest]:
                self._include(rest)
            case ["on"]:
                raise _Fault("write 'on ARCHITECTURE ACTION NAME'")
            case ["on", arch, *rest]:
                if arch not in syscalls.AUDIT_ARCHS:
                    known = ", ".join(syscalls.AUDIT_ARCHS)
                    raise _Fault(f"{arch!r} is not an architecture; known: {known}")
                self._rule(rest, number, arch)
            case _:
                self._rule(words, number)

    def _default(self, words: list[str]) -> None:
        if self.default is not None:
            raise _Fault("a second 'default': a policy has one")
        action, rest = _action(words)
        if rest:
            raise _Fault(f"{' '.join(rest)!r} is too much after 'default' and an action")
        self.default = action

    def _include(self, words: list[str]) -> None:
        if len(words) != 1:
            raise _Fault("write 'include NAME'")
        name = words[0]
        if name in self.origin:
            raise _Fault(f"{name!r} includes itself")
        sources = self.shared.sources
        if name not in sources:
            near = syscalls.nearest(name, sources)
            known = ", ".join(sorted(sources)) or "none"
            raise _Fault(f"there is no policy {name!r} to include{near or f'; known: {known}'}")
        self.shared.includes += 1
        if self.shared.includes > _MOST_INCLUDES:  # each may include two that include two
            raise _Fault(f"there are more than {_MOST_INCLUDES} includes")
        default = _File((*self.origin, name), self.shared).read(sources[name])
        if default is not None:
            self.included_defaults.add(default)

    def _rule(self, words: list[str], line: int, arch: str | None = None) -> None:
        action, rest = _action(words)
        cut = rest.index("if") if "if" in rest else len(rest)
        names = tuple(rest[:cut])
        if not names:
            raise _Fault(f"{' '.join(words)!r} names no system call")
        clauses = " ".join(rest[cut + 1 :]).split(" and ") if cut < len(rest) else []
        found = [_try_comparison(clause, self.constants) for clause in clauses]
        wrong = [fault for fault in map(syscalls.fault, names) if fault]
        wrong += [fault for fault in found if isinstance(fault, str)]
        if wrong:
            raise _Fault("; ".join(wrong))
        when = tuple(one for one in found if isinstance(one, Comparison))
        self.shared.rules.append(Rule(action, names, when, self.origin, line, arch))


def parse_policy(text: str, *, name: str, sources: Mapping[str, str]) -> Policy:
    """Read a policy; `sources` are the texts that it may include, by name.

    Raises ConfigError with one line for each fault, `name:line: what is wrong`.
    """
    reading = _Reading(sources)
    default = _File((name,), reading).read(text)
    faults = [*reading.faults, *_unreachable(reading.rules)]
    if default is None:
        why = "say what a call that is not named gets, such as 'default errno ENOSYS'"
        faults.append(f"{name}: no 'default' line: {why}")
    if faults or default is None:
        # Once each: what has a fault may be included twice.
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return Policy(name, default, tuple(reading.rules), reading.constants)


def _unreachable(rules: Sequence[Rule]) -> Iterator[str]:
    """Find the rules that can never apply, whatever the architecture."""
    dead = [dict(_dead(rules, arch)) for arch in syscalls.AUDIT_ARCHS]
    for index, rule in enumerate(rules):
        for name in rule.names:
            whys = [found[index, name] for found in dead if (index, name) in found]
            if len(whys) == (len(dead) if rule.arch is None else 1):
                yield f"{rule.place}: can never apply to {name!r}: {whys[0]}"


def _dead(rules: Sequence[Rule], arch: str) -> Iterator[tuple[tuple[int, str], str]]:
    """Find those of an architecture, but for what an including policy overrides.

    Of policies included side by side the first may close what another opens, and both say the
    same; not open what another closes.
    """
    deciders: dict[str, list[Rule]] = {}
    for index, rule in enumerate(rules):
        if rule.arch not in {None, arch}:
            continue
        for name in rule.names:
            before = deciders.setdefault(name, [])
            why = unreachable(rule, [other for other in before if _counts(other, rule)])
            if why:
                yield (index, name), why
            before.append(rule)


def _counts(other: Rule, rule: Rule) -> bool:
    """Tell whether it is a mistake if `other` leaves nothing to a later `rule`."""
    if other.origin[: len(rule.origin)] == rule.origin:
        return True  # of the same policy, or one that it includes
    if rule.origin[: len(other.origin)] == other.origin:
        return False  # what includes it overrides it
    return other.action.openness > rule.action.openness


def _action(words: list[str]) -> tuple[Action, list[str]]:
    if not words:
        raise _Fault(f"an action is missing: one of {', '.join(_VERBS)}")
    head, *rest = words
    verb = _VERBS.get(head)
    if verb is None:
        known = (*_VERBS, *_DIRECTIVES)
        raise _Fault(f"{head!r} is not an action{syscalls.nearest(head, known)}")
    if verb is Verb.ERRNO:
        if not rest:
            raise _Fault("'errno' needs a name, such as EPERM")
        return Action(verb, _errno(rest[0])), rest[1:]
    if verb in {Verb.TRACE, Verb.TRAP} and rest and _is_number(rest[0]):
        data = int(rest[0])
        if data > _MAX_DATA:
            raise _Fault(f"{data} does not fit: '{head}' takes 0 to {_MAX_DATA}")
        return Action(verb, data), rest[1:]
    return Action(verb), rest


def _errno(word: str) -> int:
    if _is_number(word):
        if int(word) > MAX_ERRNO:
            raise _Fault(f"{word} is not an errno: they end at {MAX_ERRNO}")
        return int(word)
    if word not in ERRNOS:
        raise _Fault(f"{word!r} is not an errno{syscalls.nearest(word, ERRNOS)}")
    return ERRNOS[word]


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _define(words: list[str], constants: dict[str, int]) -> None:
    if len(words) < 2:
        raise _Fault("write 'define NAME VALUE'")
    name = words[0]
    if not _NAME.fullmatch(name):
        raise _Fault(f"{name!r} is not a name: letters, digits and _, no digit first")
    if name in constants:
        raise _Fault(f"{name!r} is defined twice")
    constants[name] = _value(" ".join(words[1:]), constants, ARGUMENT_MASK)


def _try_comparison(text: str, constants: Mapping[str, int]) -> Comparison | str:
    try:
        return _comparison(text, constants)
    except _Fault as fault:
        return str(fault)


def _comparison(text: str, constants: Mapping[str, int]) -> Comparison:
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise _Fault(
            f"{text!r} is not a comparison: write arg0 == 1, int1 != 2 or arg2 & 0x10 == 0, "
            "with 'and' between two"
        )
    kind, argument, mask_text, op_text, value_text = match.groups()
    width = WORD_MASK if kind == "int" else ARGUMENT_MASK
    mask = width if mask_text is None else _value(mask_text, constants, width)
    comparison = Comparison(
        int(argument), mask, Op(op_text), _value(value_text, constants, width)
    )
    if comparison.value == START and comparison.op not in {Op.EQ, Op.NE}:
        raise _Fault(f"{text!r}: START is a secret: compare it by == or != alone")
    if comparison.value & ~mask and comparison.op in {Op.EQ, Op.NE}:
        raise _Fault(f"{text!r}: {value_text} has bits outside of the mask")
    if not comparison.intervals:
        raise _Fault(f"{text!r} never holds")
    if comparison.intervals == ((0, mask),):
        raise _Fault(f"{text!r} always holds")
    return comparison


def _value(text: str, constants: Mapping[str, int], width: int) -> int:
    """Read `0x10`, `-1`, `NAME`, `A|B` or `~A` as the bits of an argument of this width."""
    sign = text[0] if text[0] in "~-" else ""
    value = 0
    for term in text[len(sign) :].split("|"):
        value |= _term(term.strip(), constants)
    if sign == "~":
        value = ~value & width
    elif sign == "-":
        value = (width + 1 - value) if value <= (width + 1) // 2 else -1
    if not 0 <= value <= width:
        raise _Fault(f"{text} does not fit in {width.bit_length()} bits")
    return value


def _term(word: str, constants: Mapping[str, int]) -> int:
    if word in constants:
        return constants[word]
    try:
        return int(word, 0)
    except ValueError:
        near = syscalls.nearest(word, constants)
        raise _Fault(f"{word!r} is neither a number nor a defined name{near}") from None
