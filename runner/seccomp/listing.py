"""A compiled filter as text: what each instruction does, with names in place of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from runner.seccomp import evaluate, syscalls
from runner.seccomp.evaluate import Instruction

# What our compiler makes filters of, <linux/bpf_common.h>.
_LOAD: Final = 0x20
_AND: Final = 0x54
_JUMP: Final = 0x05
_TESTS: Final = {0x15: "==", 0x25: ">", 0x35: ">=", 0x45: "&"}
_RETURN: Final = 0x06

_FIELDS: Final = ("number", "arch", "pointer.low", "pointer.high")


def listing(program: bytes, arch: str) -> Iterator[str]:
    """Give a line for each instruction of a filter that was compiled for `arch`."""
    code = evaluate.decode(program)
    numbers = {number: name for name, number in syscalls.numbers(arch).items()}
    audits = {number: name for name, number in syscalls.AUDIT_ARCHS.items()}
    held = _held(code)
    for index, instruction in enumerate(code):
        names = {"number": numbers, "arch": audits}.get(held[index], {})
        yield f"{index:4}  {_text(index, instruction, held[index], names)}"


def _held(code: Sequence[Instruction]) -> list[str]:
    """Give what A holds before each instruction: a field of the call, masked or not."""
    held = [""] * len(code)
    for index, (operation, if_true, if_false, value) in enumerate(code):
        after = held[index]
        if operation == _LOAD:
            after = _field(value)
        elif operation == _AND:
            after += f" & {value:#x}"
        ways = {_LOAD: [0], _AND: [0], _RETURN: [], _JUMP: [value]}
        for way in ways.get(operation, [if_true, if_false]):
            held[index + 1 + way] = after
    return held


def _field(offset: int) -> str:
    """Name a word of struct seccomp_data."""
    if offset < 16:
        return _FIELDS[offset // 4]
    return f"arg{(offset - 16) // 8}.{'high' if offset % 8 else 'low'}"


def _text(index: int, instruction: Instruction, held: str, names: dict[int, str]) -> str:
    operation, if_true, if_false, value = instruction
    if operation == _LOAD:
        return f"load {_field(value)}"
    if operation == _AND:
        return f"keep {value:#x} of it"
    if operation == _RETURN:
        return f"return {evaluate.action_of(value)}"
    if operation == _JUMP:
        return f"go to {index + 1 + value}"
    operand = str(value) if held == "number" else f"{value:#x}"
    name = f" ({names[value]})" if value in names else ""
    ways = f"{index + 1 + if_true}, else {index + 1 + if_false}"
    return f"if {held} {_TESTS[operation]} {operand}{name} go to {ways}"
