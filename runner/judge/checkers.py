"""Checkers: whether the program's output agrees with the answer file.

A checker is a function of the open answer file and the output. It reads both once, in blocks,
so that hundreds of megabytes cost time in proportion and little memory. Add one by writing such
a function and naming it in CHECKERS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Final

from runner.errors import ConfigError
from runner.units import MiB

BLOCK_BYTES: Final = MiB
_WHITESPACE: Final = (b" ", b"\n", b"\t", b"\r", b"\v", b"\f")
_SHOWN_BYTES: Final = 40


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a checker found; `feedback` is for the jury: it quotes the answer."""

    accepted: bool
    feedback: str = ""


Checker = Callable[[BinaryIO, bytes], Outcome]


def tokens(answer: BinaryIO, output: bytes) -> Outcome:
    """Compare the words between ASCII whitespace, byte for byte."""
    expected = _split(iter(lambda: answer.read(BLOCK_BYTES), b""))
    got = _split(output[i : i + BLOCK_BYTES] for i in range(0, len(output), BLOCK_BYTES))
    left: list[bytes] = []
    right: list[bytes] = []
    before = 0  # words compared and found equal
    while True:
        left, right = left or next(expected, []), right or next(got, [])
        size = min(len(left), len(right))
        if left[:size] != right[:size]:
            at = next(i for i in range(size) if left[i] != right[i])
            return _differ(before + at, _show(left[at]), _show(right[at]))
        before += size
        if not size:
            break
        left, right = left[size:], right[size:]
    if left:
        return _differ(before, _show(left[0]), "the end of the output")
    if right:
        return _differ(before, "the end of the output", _show(right[0]))
    return Outcome(accepted=True)


CHECKERS: Final[dict[str, Checker]] = {"tokens": tokens}


def find(name: str) -> Checker:
    """Look a checker up; raises ConfigError that lists the known ones."""
    checker = CHECKERS.get(name)
    if checker is None:
        raise ConfigError(f"checker {name!r} is not known: write one of {', '.join(CHECKERS)}")
    return checker


def _split(blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the words of each block, never an empty list; a word may span many blocks."""
    held: list[bytes] = []  # the last word so far, not joined before its end is seen
    for block in blocks:
        cut = max(block.rfind(space) for space in _WHITESPACE)
        if cut < 0:
            held.append(block)
            continue
        words = b"".join([*held, block[:cut]]).split()
        held = [block[cut:]]
        if words:
            yield words
    words = b"".join(held).split()
    if words:
        yield words


def _differ(index: int, expected: str, got: str) -> Outcome:
    return Outcome(
        accepted=False, feedback=f"token {index + 1}: expected {expected}, got {got}"
    )


def _show(word: bytes) -> str:
    text = word[:_SHOWN_BYTES].decode("ascii", "backslashreplace")
    return f"'{text}'" if len(word) <= _SHOWN_BYTES else f"'{text}'… ({len(word)} bytes)"
