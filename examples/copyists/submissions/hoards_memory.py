"""Hostile: takes 640 MB as fast as it can, and keeps writing to what it got, for at most 20 s."""

import contextlib
import signal

PIECE = 1 << 20
MOST_PIECES = 640
PAGE = 4096

signal.alarm(20)
hoard = []
while True:
    with contextlib.suppress(MemoryError):
        if len(hoard) < MOST_PIECES:
            hoard.append(bytearray(b"\xff") * PIECE)
        for piece in hoard[-8:]:
            piece[::PAGE] = bytes(PIECE // PAGE)
