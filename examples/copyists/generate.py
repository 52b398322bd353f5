"""Write the tests of Two copyists: with the longest copies a whole table does not fit."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from string import ascii_lowercase

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from write_tests import main  # noqa: E402 (found by the line above)

LONGEST = 9_000


def solve(text: str) -> str:
    """Give the answer to one input: the reference solution.

    Bit j of `rising` is clear where column j of the table's current row is one more than column
    j - 1. One addition moves all of these to the next row, since a carry runs up to the next
    clear bit; so a row costs a few operations on one long integer.
    """
    first, second = text.split()
    every = (1 << len(first)) - 1
    places = dict.fromkeys(ascii_lowercase, 0)
    for index, letter in enumerate(first):
        places[letter] |= 1 << index
    rising = every
    for letter in second:
        matched = rising & places[letter]
        rising = ((rising + matched) | (rising - matched)) & every
    return f"{len(first) - rising.bit_count()}\n"


def damaged(rng: random.Random, original: str) -> str:
    """Copy a text carelessly: one letter in five is left out, one in five is added."""
    copy = []
    for letter in original:
        if rng.random() < 0.8:
            copy.append(letter)
        if rng.random() < 0.2:
            copy.append(rng.choice(ascii_lowercase))
    return "".join(copy)[:LONGEST]


def copies(seed: int, length: int, letters: str) -> str:
    """Draw a text of `length` letters and two copies of it."""
    rng = random.Random(seed)
    original = "".join(rng.choices(letters, k=length))
    return f"{damaged(rng, original)}\n{damaged(rng, original)}\n"


TESTS = {
    "01-sample": lambda: "parchment\narchivist\n",
    "02-nothing-shared": lambda: "abcabc\nxyz\n",
    "03-greedy-fails": lambda: "xabcdabcd\nabcdxabcd\n",
    "04-short": lambda: copies(4, 300, ascii_lowercase),
    "05-long": lambda: copies(5, LONGEST + 200, "abcd"),
    "06-equal": lambda: f"{'ab' * (LONGEST // 2)}\n{'ba' * (LONGEST // 2)}\n",
}

if __name__ == "__main__":
    main(HERE, TESTS, solve)
