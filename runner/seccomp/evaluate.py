"""What a filter answers to a call: classic BPF as the kernel runs it for seccomp(2).

For what explains, checks or rewrites filters; a run does not need it. The instructions are
those that seccomp_check_filter() of kernel/seccomp.c lets pass, whoever made them.
"""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from runner.errors import ConfigError
from runner.seccomp.rules import ARGUMENT_MASK, WORD_MASK, Action, Verb
from runner.seccomp.syscalls import AUDIT_ARCHS

# <linux/bpf_common.h>: the low three bits of a code are its class, bit 3 says "with X".
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_X: Final = 0x08
_LD_WORD: Final = 0x20
_MEMORY: Final = 0x60
_LENGTH: Final = 0x80
_RETURN_A: Final = 0x16
_TO_X, _TO_A = 0x07, 0x87
_NEGATE: Final = 0x84
_DIVIDE: Final = 0x34

_ARITHMETIC: Final[Mapping[int, Callable[[int, int], int]]] = {
    0x04: operator.add,
    0x14: operator.sub,
    0x24: operator.mul,
    _DIVIDE: operator.floordiv,
    0x44: operator.or_,
    0x54: operator.and_,
    0x64: lambda a, b: a << (b & 31),
    0x74: lambda a, b: a >> (b & 31),
    _NEGATE: lambda a, _: -a,
    0xA4: operator.xor,
}
_JUMPS: Final[Mapping[int, Callable[[int, int], object]]] = {
    0x15: operator.eq,
    0x25: operator.gt,
    0x35: operator.ge,
    0x45: operator.and_,
}
_JUMP: Final = 0x05
_OTHERS: Final = {
    _LD,
    _LDX,
    _LD_WORD,
    _MEMORY,
    _MEMORY | _LDX,
    _LENGTH,
    _LENGTH | _LDX,
    _ST,
    _STX,
}
_CODES: Final = frozenset(
    _OTHERS
    | {_RET, _RETURN_A, _TO_X, _TO_A, _JUMP}
    | {code | by for code in (*_ARITHMETIC, *_JUMPS) for by in (0, _X)} - {_NEGATE | _X}
)

_DATA: Final = struct.Struct("<IIQ6Q")  # struct seccomp_data
_WORDS: Final = struct.Struct("<16I")
_MEMORY_WORDS: Final = 16  # BPF_MEMWORDS
_LONGEST: Final = 4096  # BPF_MAXINSNS


class Instruction(NamedTuple):
    """One struct sock_filter."""

    code: int
    if_true: int
    if_false: int
    value: int


def run(
    program: bytes,
    number: int,
    arch: str | int,
    arguments: Sequence[int] = (),
    instruction_pointer: int = 0,
) -> Action:
    """Give what the filter answers to a call.

    `arch` is a name of AUDIT_ARCHS, or the AUDIT_ARCH_* of any machine; arguments left out are
    0. Raises ConfigError for a program that the kernel would not take.
    """
    return trace(program, number, arch, arguments, instruction_pointer)[0]


def trace(
    program: bytes,
    number: int,
    arch: str | int,
    arguments: Sequence[int] = (),
    instruction_pointer: int = 0,
) -> tuple[Action, int]:
    """Do as `run`, and also give how many instructions it took."""
    audit = AUDIT_ARCHS[arch] if isinstance(arch, str) else arch
    given = [argument & ARGUMENT_MASK for argument in (*arguments, *[0] * 6)][:6]
    data = _WORDS.unpack(_DATA.pack(number & WORD_MASK, audit, instruction_pointer, *given))
    code = decode(program)
    memory = [0] * _MEMORY_WORDS
    a = x = at = steps = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        steps += 1
        other = x if operation & _X else value
        match operation & 7:
            case 0 | 1 as register:  # LD, LDX
                loaded = _loaded(operation, value, data, memory)
                a, x = (a, loaded) if register else (loaded, x)
            case 2 | 3 as register:  # ST, STX
                memory[value] = x if register == _STX else a
            case 4:  # ALU
                if operation == _DIVIDE | _X and not x:
                    return action_of(0), steps  # so a division by 0 ends
                a = _ARITHMETIC[operation & ~_X](a, other) & WORD_MASK
            case 5:  # JMP
                if operation == _JUMP:
                    at += value
                else:
                    at += if_true if _JUMPS[operation & ~_X](a, other) else if_false
            case 6:  # RET
                return action_of(a if operation == _RETURN_A else value), steps
            case _:  # MISC
                a, x = (a, a) if operation == _TO_X else (x, x)


def _loaded(operation: int, value: int, data: Sequence[int], memory: Sequence[int]) -> int:
    if operation == _LD_WORD:
        return data[value // 4]
    if operation & ~_LDX == _MEMORY:
        return memory[value]
    return _DATA.size if operation & ~_LDX == _LENGTH else value


def action_of(value: int) -> Action:
    """Give the action that a filter's 32-bit answer stands for.

    One that the kernel does not know kills the process (__seccomp_filter(), kernel/seccomp.c).
    """
    try:
        return Action(Verb(value & ~0xFFFF), value & 0xFFFF)
    except ValueError:
        return Action(Verb.KILL, value & 0xFFFF)


@functools.lru_cache(maxsize=8)
def decode(program: bytes) -> tuple[Instruction, ...]:
    """Give the instructions of a filter, which end, and stay within bounds.

    Raises ConfigError that names the first one that does not.
    """
    length, rest = divmod(len(program), 8)
    if rest or not 0 < length <= _LONGEST:
        message = f"filter: {len(program)} bytes: give 1 to {_LONGEST} instructions of 8 bytes"
        raise ConfigError(message)
    code = tuple(map(Instruction._make, struct.iter_unpack("<HBBI", program)))
    for index, instruction in enumerate(code):
        why = _fault(instruction, length - index - 1)
        if why:
            message = f"filter: instruction {index}: {why}"
            raise ConfigError(message)
    return code


def _fault(instruction: Instruction, after: int) -> str | None:
    """Say what is wrong with an instruction that is followed by `after` others."""
    code, if_true, if_false, value = instruction
    if code not in _CODES:
        return f"code 0x{code:02x} is none that a filter may have"
    if code & 7 == _JMP:
        furthest = value if code == _JUMP else max(if_true, if_false)
        return None if furthest < after else "it jumps past the end"
    if code & 7 != _RET and not after:
        return "it is the last, and does not return"
    if code == _LD_WORD and (value % 4 or value >= _DATA.size):
        return f"struct seccomp_data has no word at {value}"
    if code in {_ST, _STX, _MEMORY, _MEMORY | _LDX} and value >= _MEMORY_WORDS:
        return f"there are {_MEMORY_WORDS} words of memory, and no {value}"
    if code == _DIVIDE and not value:
        return "it divides by 0"
    return None
