"""Write the tests of Bells: short inputs, answers of up to 3.6 MB."""

from __future__ import annotations

import sys
from itertools import permutations
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from write_tests import main  # noqa: E402 (found by the line above)


def solve(text: str) -> str:
    """Give the answer to one input: the reference solution."""
    bells = "123456789"[: int(text)]
    return "".join("".join(row) + "\n" for row in permutations(bells))


TESTS = {
    "01-sample": lambda: "3\n",
    "02-one": lambda: "1\n",
    "03-six": lambda: "6\n",
    "04-nine": lambda: "9\n",
}

if __name__ == "__main__":
    main(HERE, TESTS, solve)
