"""The evaluator of filters: each instruction, and what the kernel would not take."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ConfigError
from runner.seccomp import evaluate
from runner.seccomp.evaluate import run, trace
from runner.seccomp.rules import Action, Verb

LAST = 2**64 - 1


def program(*instructions: tuple[int, ...]) -> bytes:
    padded = (
        (code, *rest) if len(rest) == 3 else (code, 0, 0, *rest) for code, *rest in instructions
    )
    return b"".join(struct.pack("<HBBI", *one) for one in padded)


def value_of(
    *instructions: tuple[int, ...], number: int = 0, arguments: tuple[int, ...] = ()
) -> int:
    """Give what A holds after the instructions, by way of two answers of 16 bits."""
    halves = [
        run(
            program(*instructions, *tail, (0x44, 0x7FF00000), (0x16, 0)),
            number,
            "x86_64",
            arguments,
        ).data
        for tail in ([(0x54, 0xFFFF)], [(0x74, 16)])
    ]
    return halves[1] << 16 | halves[0]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0, 7),
        (4, 0xC000003E),
        (8, 0x2222),
        (12, 0x1111),
        (16, 0x89ABCDEF),
        (20, 0x01234567),
        (56, 0xFFFFFFFF),
        (60, 0xFFFFFFFF),
    ],
)
def test_word_of_seccomp_data_is_loaded(at: int, expected: int) -> None:
    loaded = program((0x20, at), (0x15, 0, 1, expected), (0x06, 0x7FFF0000), (0x06, 0))
    arguments = (0x0123456789ABCDEF, 0, 0, 0, 0, -1)
    given = run(loaded, 7, "x86_64", arguments, 0x1111_0000_2222)
    assert given == Action(Verb.ALLOW)


@pytest.mark.parametrize(
    ("code", "operand", "expected"),
    [
        (0x04, 0xFFFFFFFF, 99),
        (0x14, 101, 0xFFFFFFFF),
        (0x24, 0x40000000, 0),
        (0x34, 7, 14),
        (0x44, 0x80000003, 0x80000067),
        (0x54, 0x6, 4),
        (0x64, 30, 0),
        (0x64, 26, 0x90000000),
        (0x74, 3, 12),
        (0xA4, 0xFF, 0x9B),
    ],
)
def test_arithmetic_by_constant_and_by_x_gives_32_bits(
    code: int, operand: int, expected: int
) -> None:
    assert value_of((0x00, 100), (code, operand)) == expected
    assert value_of((0x00, 100), (0x01, operand), (code | 8, 0)) == expected


def test_registers_memory_and_length_are_as_in_bpf() -> None:
    assert value_of((0x00, 5), (0x84, 0)) == 0xFFFFFFFB
    assert value_of((0x00, 5), (0x02, 15), (0x00, 0), (0x60, 15)) == 5
    assert value_of((0x01, 6), (0x03, 0), (0x60, 0)) == 6
    assert value_of((0x00, 7), (0x02, 3), (0x61, 3), (0x00, 0), (0x87, 0)) == 7
    assert value_of((0x00, 8), (0x07, 0), (0x00, 1), (0x0C, 0)) == 9
    assert value_of((0x80, 0)) == 64
    assert value_of((0x81, 0), (0x87, 0)) == 64


def test_division_by_an_x_of_zero_answers_kill_thread() -> None:
    code = program((0x01, 0), (0x3C, 0), (0x06, 0x7FFF0000))
    assert trace(code, 0, "x86_64") == (Action(Verb.KILL_THREAD), 2)


@pytest.mark.parametrize(
    ("code", "value", "holds"),
    [
        (0x15, 9, True),
        (0x15, 8, False),
        (0x25, 8, True),
        (0x25, 9, False),
        (0x35, 9, True),
        (0x35, 10, False),
        (0x45, 12, True),
        (0x45, 6, False),
    ],
)
def test_jump_leads_by_constant_and_by_x(code: int, value: int, holds: bool) -> None:
    expected = Action(Verb.ERRNO, 1 if holds else 2)
    ends = ((0x06, 0x50001), (0x06, 0x50002))
    by_constant = program((0x00, 9), (code, 0, 1, value), *ends)
    by_x = program((0x00, 9), (0x01, value), (code | 8, 0, 1, 0), *ends)
    assert trace(by_constant, 0, "aarch64") == (expected, 3)
    assert trace(by_x, 0, "aarch64") == (expected, 4)


def test_jump_always_skips_what_it_says() -> None:
    code = program((0x05, 1), (0x06, 0x50001), (0x06, 0x50002))
    assert trace(code, 0, "x86_64") == (Action(Verb.ERRNO, 2), 2)


@pytest.mark.parametrize("verb", Verb)
def test_answer_is_an_action_with_its_data(verb: Verb) -> None:
    assert run(program((0x06, verb | 0x1234)), 0, "x86_64") == Action(verb, 0x1234)


def test_answer_that_the_kernel_does_not_know_kills() -> None:
    assert run(program((0x06, 0x12345678)), 0, "x86_64") == Action(Verb.KILL, 0x5678)


def test_architecture_may_be_any_audit_number() -> None:
    code = program((0x20, 4), (0x15, 0, 1, 0x40000003), (0x06, 0x7FFF0000), (0x06, 0))
    assert run(code, 20, 0x40000003) == Action(Verb.ALLOW)


@pytest.mark.parametrize(
    ("instructions", "why"),
    [
        ([], "filter: 0 bytes: give 1 to 4096 instructions of 8 bytes"),
        ([(6, 0)] * 4097, "filter: 32776 bytes: give 1 to 4096 instructions of 8 bytes"),
        (
            [(0x28, 0), (6, 0)],
            "filter: instruction 0: code 0x28 is none that a filter may have",
        ),
        (
            [(0x8C, 0), (6, 0)],
            "filter: instruction 0: code 0x8c is none that a filter may have",
        ),
        ([(0x20, 2), (6, 0)], "filter: instruction 0: struct seccomp_data has no word at 2"),
        ([(0x20, 64), (6, 0)], "filter: instruction 0: struct seccomp_data has no word at 64"),
        (
            [(0x02, 16), (6, 0)],
            "filter: instruction 0: there are 16 words of memory, and no 16",
        ),
        ([(0x34, 0), (6, 0)], "filter: instruction 0: it divides by 0"),
        ([(0x05, 1), (6, 0)], "filter: instruction 0: it jumps past the end"),
        ([(6, 0), (0x15, 0, 1, 5), (6, 0)], "filter: instruction 1: it jumps past the end"),
        ([(6, 0), (0x20, 0)], "filter: instruction 1: it is the last, and does not return"),
    ],
)
def test_program_that_the_kernel_would_not_take_is_refused(
    instructions: list[tuple[int, ...]], why: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        run(program(*instructions), 0, "x86_64")
    assert str(raised.value) == why


@given(code=st.binary(max_size=200) | st.lists(st.binary(min_size=8, max_size=8)).map(b"".join))
def test_evaluator_given_any_bytes_answers_or_refuses(code: bytes) -> None:
    try:
        instructions = evaluate.decode(code)
    except ConfigError:
        return
    answer, steps = trace(code, 1, "x86_64", (LAST, 0))
    assert isinstance(answer, Action)
    assert 1 <= steps <= len(instructions)
