"""Rules → BPF: a filter that is small, and quick to install as well as to run.

The kernel, when a filter is installed, tries it with every system call number to learn which
calls it always allows; those then skip the filter. So an installation costs some hundred runs
of the filter, and libseccomp's list of comparisons makes it slow. Ours is a search tree:

    the architecture                     a foreign one dies
    ├── ranges of numbers that get the same answer: a binary tree of JGE
    │   ├── single numbers in a range that get another: a JEQ each
    │   └── calls with comparisons: their rules, one after the other
    └── one RET for each answer, shared

A jump leads forward, and a conditional one at most 255 instructions far. So the code is built
from its end: what an instruction jumps to is there already, and an equal one serves again.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from runner.errors import ConfigError
from runner.seccomp.rules import KILL, WORD_MASK, Action, Comparison, Op, Policy
from runner.seccomp.syscalls import AUDIT_ARCHS

# <linux/bpf_common.h>, with their classes and the constant as the operand.
_LOAD: Final = 0x20
_AND: Final = 0x54
_JUMP: Final = 0x05
_IF_EQ: Final = 0x15
_IF_GT: Final = 0x25
_IF_GE: Final = 0x35
_IF_SET: Final = 0x45
_RETURN: Final = 0x06

# struct seccomp_data, <linux/seccomp.h>; both architectures are little-endian.
_NUMBER_AT: Final = 0
_ARCH_AT: Final = 4
_ARGUMENTS_AT: Final = 16

_MAX_JUMP: Final = 255
_MAX_EXCEPTIONS: Final = 2
_MAX_LENGTH: Final = 4096  # BPF_MAXINSNS

# x86_64 only: a number with bit 30 is a call of the x32 ABI, which reads some arguments
# otherwise. From 2**31 it is negative and no call at all: a tracer writes -1 to skip one.
_X32_FIRST: Final = 1 << 30
_X32_END: Final = 1 << 31

_NUMBERS: Final = 1 << 32
_CALLS: Final = 470  # NR_syscalls of Linux 6.18; on a newer one the tree is a little less even

_Rules = tuple[tuple[tuple[Comparison, ...], Action], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Decision:
    """The answer to one call: the first of `rules` that holds, else `default`."""

    rules: _Rules
    default: Action


@dataclasses.dataclass(frozen=True, slots=True)
class _Range:
    """The numbers from `start` to the next range's, but for a few: one comparison each."""

    start: int
    decision: _Decision
    exceptions: tuple[tuple[int, _Decision], ...] = ()


def compile_rules(policy: Policy, arch: str, numbers: Mapping[str, int]) -> bytes:
    """Give the filter as struct sock_filter[], little-endian.

    Raises ConfigError for one longer than the kernel takes.
    """
    code = _Code()
    search = code.tree(_ranges(policy, arch, numbers))
    native = code.word(_NUMBER_AT, WORD_MASK, search)
    checked = code.branch(_IF_EQ, AUDIT_ARCHS[arch], native, code.answer(KILL))
    code.word(_ARCH_AT, WORD_MASK, checked)
    if len(code.instructions) > _MAX_LENGTH:
        raise ConfigError(
            f"{policy.name}: {len(code.instructions)} instructions on {arch}; the kernel takes "
            f"{_MAX_LENGTH}: use fewer comparisons"
        )
    return b"".join(struct.pack("<HBBI", *one) for one in reversed(code.instructions))


def _ranges(policy: Policy, arch: str, numbers: Mapping[str, int]) -> Sequence[_Range]:
    """Give the ranges of equal decisions, from 0 up."""
    chains: dict[int, _Rules] = {}
    for rule in policy.on(arch).rules:
        for name in rule.names:
            if name in numbers:  # else a call that this architecture does not have
                chain = chains.get(numbers[name], ())
                if all(rule.when != when for when, _ in chain):  # two presets may say the same
                    chains[numbers[name]] = (*chain, (rule.when, rule.action))
    unnamed = _Decision((), policy.default)
    starts = {0: unnamed}
    for number in sorted(chains):
        starts[number] = _decision(chains[number], policy.default)
        starts[number + 1] = unnamed  # overwritten if that one is named too
    if arch == "x86_64":
        starts[_X32_FIRST] = _Decision((), KILL)
        starts[_X32_END] = unnamed
    ranges: list[_Range] = []
    for start in sorted(starts):
        _append(ranges, start, starts[start])
    return ranges


def _append(ranges: list[_Range], start: int, decision: _Decision) -> None:
    """Add what is decided from `start` on; a single call between equal ranges joins them."""
    if ranges and ranges[-1].decision == decision:
        return
    if len(ranges) > 1:
        around, single = ranges[-2:]
        few = len(around.exceptions) + 1 <= _MAX_EXCEPTIONS and not single.exceptions
        if around.decision == decision and start == single.start + 1 and few:
            exceptions = (*around.exceptions, (single.start, single.decision))
            ranges[-2:] = [_Range(around.start, decision, exceptions)]
            return
    ranges.append(_Range(start, decision))


def _decision(chain: _Rules, default: Action) -> _Decision:
    """Cut what follows a rule without comparisons: an including policy overrides it."""
    for index, (when, action) in enumerate(chain):
        if not when:
            return _Decision(chain[:index], action)
    return _Decision(chain, default)


def _middle(bounds: Sequence[int]) -> int:
    """Give the index of the bound that parts the calls between the outer two most evenly.

    By calls rather than by ranges: the kernel tries each call once when it installs a filter.
    """
    calls = [min(bound, _CALLS) for bound in bounds]
    outer = calls[0] + calls[-1]
    return min(range(1, len(bounds) - 1), key=lambda index: abs(outer - 2 * calls[index]))


class _Code:
    """A filter that grows towards its start. A place is an index counted from the end."""

    def __init__(self) -> None:
        self.instructions: list[tuple[int, int, int, int]] = []  # code, jt, jf, k
        self._places: dict[tuple[object, ...], int] = {}

    def tree(self, ranges: Sequence[_Range], end: int = _NUMBERS) -> int:
        """Search the ranges, which lead up to `end`, for the number in A."""
        if len(ranges) == 1:
            place = self._decide(ranges[0].decision)
            for number, decision in ranges[0].exceptions:
                place = self.branch(_IF_EQ, number, self._decide(decision), place)
            return place
        middle = _middle([*(one.start for one in ranges), end])
        border = ranges[middle].start
        upper = self.tree(ranges[middle:], end)
        lower = self.tree(ranges[:middle], border)
        return self.branch(_IF_GE, border, upper, lower)

    def _decide(self, decision: _Decision) -> int:
        place = self.answer(decision.default)
        for when, action in reversed(decision.rules):
            miss, place = place, self.answer(action)
            for comparison in reversed(when):
                place = self._compare(comparison, place, miss)
        return place

    def _compare(self, comparison: Comparison, yes: int, no: int) -> int:
        if comparison.op in {Op.NE, Op.LT, Op.LE}:
            yes, no = no, yes
        if yes == no:
            return yes
        low_at = _ARGUMENTS_AT + 8 * comparison.argument
        low, high = (
            (at, comparison.mask >> shift & WORD_MASK, comparison.value >> shift & WORD_MASK)
            for at, shift in ((low_at, 0), (low_at + 4, 32))
        )
        if comparison.op in {Op.EQ, Op.NE}:
            return self._equal(high, self._equal(low, yes, no), no)
        # "At most" is "more than" with the ways swapped, "less" is "at least".
        test = _IF_GT if comparison.op in {Op.GT, Op.LE} else _IF_GE
        place = self._ordered(test, low, yes, no)
        at, mask, value = high
        if mask:
            same = self.branch(_IF_EQ, value, place, no)
            place = self.word(at, mask, self.branch(_IF_GT, value, yes, same))
        return place

    def _equal(self, word: tuple[int, int, int], yes: int, no: int) -> int:
        at, mask, value = word
        if not mask or yes == no:
            return yes
        if not value and mask != WORD_MASK:
            return self.word(at, WORD_MASK, self.branch(_IF_SET, mask, no, yes))
        return self.word(at, mask, self.branch(_IF_EQ, value, yes, no))

    def _ordered(self, test: int, word: tuple[int, int, int], yes: int, no: int) -> int:
        at, mask, value = word
        if test == _IF_GE and not value:
            return yes
        return self.word(at, mask, self.branch(test, value, yes, no))

    def answer(self, action: Action) -> int:
        key = ("answer", action.value)
        if key not in self._places:
            self._places[key] = self._push((_RETURN, 0, 0, action.value))
        return self._places[key]

    def word(self, at: int, mask: int, then: int) -> int:
        """Load a 32-bit word of seccomp_data, keep the bits of the mask, and go on."""
        key = ("word", at, mask, then)
        if key not in self._places:
            if then != len(self.instructions) - 1:
                self._again(then)
            if mask != WORD_MASK:
                self._push((_AND, 0, 0, mask))
            self._places[key] = self._push((_LOAD, 0, 0, at))
        return self._places[key]

    def branch(self, test: int, value: int, yes: int, no: int) -> int:
        if yes == no:
            return yes
        key = (test, value, yes, no)
        if key not in self._places:
            # Bringing `no` near may push one more instruction between here and `yes`.
            yes = self._near(yes, _MAX_JUMP - 1)
            no = self._near(no, _MAX_JUMP)
            here = len(self.instructions)
            self._places[key] = self._push((test, here - yes - 1, here - no - 1, value))
        return self._places[key]

    def _near(self, place: int, reach: int) -> int:
        """Give a place within reach of the next instruction that does what `place` does."""
        return place if len(self.instructions) - place - 1 <= reach else self._again(place)

    def _again(self, place: int) -> int:
        """Push an instruction that does what `place` does."""
        operation, _, _, value = self.instructions[place]
        if operation == _RETURN:
            self._places["answer", value] = self._push((_RETURN, 0, 0, value))
            return self._places["answer", value]
        return self._push((_JUMP, 0, 0, len(self.instructions) - place - 1))

    def _push(self, instruction: tuple[int, int, int, int]) -> int:
        self.instructions.append(instruction)
        return len(self.instructions) - 1
