"""Write the tests of Voucher: small ones, and two on which comparing all pairs is hopeless."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from write_tests import main  # noqa: E402 (found by the line above)

MOST_ITEMS = 500_000
LARGEST = 2 * 10**9


def solve(text: str) -> str:
    """Give the answer to one input: the reference solution."""
    voucher, *prices = [int(word) for word in text.split()[1:]]
    seen: Counter[int] = Counter()
    pairs = 0
    for price in prices:
        pairs += seen[voucher - price]
        seen[price] += 1
    return f"{pairs}\n"


def shop(voucher: int, *prices: int) -> str:
    """Write a voucher and prices as an input."""
    return f"{len(prices)} {voucher}\n{' '.join(map(str, prices))}\n"


def drawn(seed: int, voucher: int, items: int) -> str:
    """Draw prices in pairs that match and prices that match by chance only, shuffled."""
    rng = random.Random(seed)
    low, high = max(1, voucher - LARGEST), min(LARGEST, voucher - 1)
    prices = [rng.randint(low, high) for _ in range(3 * items // 4)]
    prices += [voucher - price for price in prices[: items - len(prices)]]
    rng.shuffle(prices)
    return shop(voucher, *prices)


TESTS = {
    "01-sample": lambda: shop(10, 5, 3, 7, 5, 3, 5),
    "02-none": lambda: shop(9, 1, 2, 4, 9),
    "03-equal": lambda: shop(8, *[4] * 1000),
    "04-beyond-int": lambda: shop(2 * LARGEST, LARGEST, LARGEST, 1, LARGEST),
    "05-thousand": lambda: drawn(5, 1_000, 1_000),
    "06-many": lambda: drawn(6, 2_000_000_001, MOST_ITEMS),
    "07-billions-of-pairs": lambda: shop(14, *[7] * 100_000),
}

if __name__ == "__main__":
    main(HERE, TESTS, solve)
