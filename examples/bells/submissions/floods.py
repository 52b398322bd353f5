"""Hostile: writes half a gigabyte as fast as it can."""

import os

PIECE = b"123\n" * (1 << 14)

for _ in range((512 << 20) // len(PIECE)):
    os.write(1, PIECE)
