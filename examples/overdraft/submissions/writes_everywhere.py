"""Hostile: writes wherever it can, and fails if that is anywhere but /tmp. Fills /tmp.

It destroys its own source too, which is there: the next test would fail if that stayed.
"""

import contextlib
import os
import sys
from itertools import accumulate

FORBIDDEN = ("/", "/etc", "/usr", "/usr/bin", "/usr/lib", "/proc", "/sys")
NAME = "left-by-a-submission"
PIECE = b"\xff" * (1 << 20)
MOST_PIECES = 80


def can_create(directory):
    """Tell whether a file can be made there; it is removed at once."""
    path = os.path.join(directory, NAME)
    try:
        with open(path, "wb") as file:
            file.write(PIECE[:1])
    except OSError:
        return False
    os.unlink(path)
    return True


def can_change(path):
    """Tell whether an existing file opens for writing; nothing is written."""
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError:
        return False
    return True


def fill(directory):
    """Write until nothing fits, or for 80 MiB, then remove it all."""
    paths = [os.path.join(directory, f"{NAME}-{number}") for number in range(MOST_PIECES)]
    with contextlib.suppress(OSError):
        for path in paths:
            with open(path, "wb") as file:
                file.write(PIECE)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


if any(map(can_create, FORBIDDEN)) or can_change(sys.executable):
    sys.exit(1)
fill("/tmp")
with open(__file__, "wb") as source:
    source.write(PIECE)
amounts = map(int, sys.stdin.buffer.read().split()[1:])
balance = 0
for day, balance in enumerate(accumulate(amounts), 1):
    if balance < 0:
        print("overdrawn", day)
        break
else:
    print("solvent", balance)
