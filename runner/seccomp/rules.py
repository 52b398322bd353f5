"""What a policy says once it is read: actions, comparisons, rules, and which rules can apply.

Within one system call the first rule that matches decides; a call without one gets the default.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

WORD_MASK: Final = 2**32 - 1
ARGUMENT_MASK: Final = 2**64 - 1


class Verb(enum.IntEnum):
    """What the kernel does with a call: the upper half of the filter's answer, seccomp(2)."""

    KILL = 0x8000_0000
    KILL_THREAD = 0x0000_0000
    TRAP = 0x0003_0000
    ERRNO = 0x0005_0000
    NOTIFY = 0x7FC0_0000
    TRACE = 0x7FF0_0000
    LOG = 0x7FFC_0000
    ALLOW = 0x7FFF_0000


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """One answer of a filter; `data` is the errno, or what a tracer or a handler is told."""

    verb: Verb
    data: int = 0

    @property
    def value(self) -> int:
        """Give the 32 bits that the filter returns."""
        return self.verb | self.data

    @property
    def openness(self) -> int:
        """Order actions as the kernel orders the answers of several filters: least first."""
        return self.verb - 2**32 if self.verb >= 2**31 else int(self.verb)

    def __str__(self) -> str:
        """Give it as a policy writes it."""
        verb = self.verb.name.lower()
        if self.verb is Verb.ERRNO:
            return f"{verb} {errno.errorcode.get(self.data, self.data)}"
        return f"{verb} {self.data}" if self.data else verb


KILL: Final = Action(Verb.KILL)


class Op(enum.Enum):
    """How a comparison compares; all are unsigned, as the kernel's are."""

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """`(argument & mask) op value`; an `int` argument is one with mask 2**32 - 1."""

    argument: int
    mask: int
    op: Op
    value: int

    def __str__(self) -> str:
        """Give it as a policy writes it."""
        if self.mask == WORD_MASK:
            what = f"int{self.argument}"
        elif self.mask == ARGUMENT_MASK:
            what = f"arg{self.argument}"
        else:
            what = f"arg{self.argument} & {self.mask:#x}"
        return f"{what} {self.op.value} {self.value:#x}"

    @property
    def key(self) -> tuple[int, int]:
        """Give the bits that it looks at; comparisons of the same bits can be held together."""
        return self.argument, self.mask

    @property
    def intervals(self) -> Intervals:
        """Give the values of the masked argument for which it holds."""
        last, value = self.mask, self.value
        return {
            Op.EQ: _span(value, value, last),
            Op.NE: _span(0, value - 1, last) + _span(value + 1, last, last),
            Op.LT: _span(0, value - 1, last),
            Op.LE: _span(0, value, last),
            Op.GT: _span(value + 1, last, last),
            Op.GE: _span(value, last, last),
        }[self.op]


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One line of a policy: `action` for the calls in `names` if all of `when` hold.

    `origin` is the policy that the line stands in, after those that include it, outermost
    first; `arch` the only architecture that it is for, or None.
    """

    action: Action
    names: tuple[str, ...]
    when: tuple[Comparison, ...]
    origin: tuple[str, ...]
    line: int
    arch: str | None = None

    @property
    def place(self) -> str:
        return f"{self.origin[-1]}:{self.line}"

    def __str__(self) -> str:
        """Give it as a policy writes it."""
        condition = " and ".join(map(str, self.when))
        where = "" if self.arch is None else f"on {self.arch} "
        rule = f"{where}{self.action} {' '.join(self.names)}"
        return f"{rule} if {condition}" if condition else rule

    def decides(self, name: str, arguments: Sequence[int]) -> bool:
        """Tell whether it matches a call."""
        return name in self.names and all(
            _contains(one.intervals, arguments[one.argument] & one.mask) for one in self.when
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy, includes in their places; `constants` are the names that it defines."""

    name: str
    default: Action
    rules: tuple[Rule, ...]
    constants: Mapping[str, int] = dataclasses.field(default_factory=dict, compare=False)

    def on(self, arch: str) -> Policy:
        """Give it as it is for one architecture."""
        rules = tuple(rule for rule in self.rules if rule.arch in {None, arch})
        return dataclasses.replace(self, rules=rules)

    def decider(self, name: str, arguments: Sequence[int]) -> Rule | None:
        """Give the rule that decides a call, or None where the default does."""
        return next((rule for rule in self.rules if rule.decides(name, arguments)), None)


Intervals = tuple[tuple[int, int], ...]  # sorted, apart, both ends included


def unreachable(rule: Rule, earlier: Sequence[Rule]) -> str | None:
    """Say why `rule` can never apply after the `earlier` ones for the same call, or None.

    Exact where rules compare the same bits of one argument; it never condemns a rule that can
    apply, and may miss one that cannot where different bits or arguments play together.
    """
    mine = _by_key(rule.when)
    if not all(mine.values()):
        return "its comparisons can never hold together"
    for other in earlier:
        if all(_implied(comparison, rule.when, mine) for comparison in other.when):
            return f"{_where(other, rule)} already decides it"
    for key in {other.when[0].key for other in earlier if _keys(other) == 1}:
        rest = mine.get(key, ((0, key[1]),))
        for other in earlier:
            held = _by_key(other.when)
            if held.keys() == {key}:
                rest = _subtract(rest, held[key])
        if not rest:
            return "the lines before it already decide every case"
    return None


def apart(one: Rule, other: Rule) -> bool:
    """Tell whether two rules can be seen never to match the same arguments."""
    mine, theirs = _by_key(one.when), _by_key(other.when)
    return any(not _intersect(mine[key], theirs[key]) for key in mine.keys() & theirs.keys())


def _keys(rule: Rule) -> int:
    return len({comparison.key for comparison in rule.when})


def _where(other: Rule, rule: Rule) -> str:
    return f"line {other.line}" if other.origin == rule.origin else f"line {other.place}"


def _by_key(comparisons: Iterable[Comparison]) -> Mapping[tuple[int, int], Intervals]:
    held: dict[tuple[int, int], Intervals] = {}
    for comparison in comparisons:
        before = held.get(comparison.key, ((0, comparison.mask),))
        held[comparison.key] = _intersect(before, comparison.intervals)
    return held


def _implied(
    comparison: Comparison,
    given: Sequence[Comparison],
    held: Mapping[tuple[int, int], Intervals],
) -> bool:
    values = held.get(comparison.key, ((0, comparison.mask),))
    if not _subtract(values, comparison.intervals):
        return True
    return any(
        known.op is Op.EQ
        and known.argument == comparison.argument
        and comparison.mask & ~known.mask == 0
        and _contains(comparison.intervals, known.value & comparison.mask)
        for known in given
    )


def _span(first: int, last: int, limit: int) -> Intervals:
    first, last = max(first, 0), min(last, limit)
    return ((first, last),) if first <= last else ()


def _contains(intervals: Intervals, value: int) -> bool:
    return any(first <= value <= last for first, last in intervals)


def _intersect(left: Intervals, right: Intervals) -> Intervals:
    pairs = ((max(a, c), min(b, d)) for a, b in left for c, d in right)
    return tuple(sorted((first, last) for first, last in pairs if first <= last))


def _subtract(left: Intervals, right: Intervals) -> Intervals:
    for first, last in right:
        pieces = [((a, min(b, first - 1)), (max(a, last + 1), b)) for a, b in left]
        left = tuple((a, b) for pair in pieces for a, b in pair if a <= b)
    return left
