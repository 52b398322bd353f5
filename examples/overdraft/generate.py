"""Write the tests of Overdraft: long inputs, one of which is decided by its first few words."""

from __future__ import annotations

import random
import sys
from itertools import accumulate
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from write_tests import main  # noqa: E402 (found by the line above)

MOST_DAYS = 1_000_000
LARGEST = 10**9


def solve(text: str) -> str:
    """Give the answer to one input: the reference solution."""
    amounts = [int(word) for word in text.split()[1:]]
    balance = 0
    for day, balance in enumerate(accumulate(amounts), start=1):
        if balance < 0:
            return f"overdrawn {day}\n"
    return f"solvent {balance}\n"


def account(*amounts: int) -> str:
    """Write amounts as an input."""
    return f"{len(amounts)}\n{' '.join(map(str, amounts))}\n"


def long_solvent() -> str:
    """Draw an account that ends far above 2**31 and is never below 0."""
    rng = random.Random(1)
    rest = (rng.randint(-LARGEST // 2, LARGEST) for _ in range(MOST_DAYS - 1))
    return account(LARGEST, *rest)


def long_early() -> str:
    """Draw a long account that is overdrawn on day 3: the rest need not be read."""
    rng = random.Random(2)
    rest = (rng.randint(-LARGEST, LARGEST) for _ in range(MOST_DAYS - 3))
    return account(5, -5, -1, *rest)


TESTS = {
    "01-sample": lambda: account(10, -4, -6, -1, 20),
    "02-solvent": lambda: account(2, -2, 7),
    "03-first-day": lambda: account(-1),
    "04-large-sums": lambda: account(*[LARGEST] * 9, *[-LARGEST] * 9),
    "05-long-early": long_early,
    "06-long-solvent": long_solvent,
}

if __name__ == "__main__":
    main(HERE, TESTS, solve)
