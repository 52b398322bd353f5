"""START: how a filter tells the start of the program from an exec by the program.

A filter is loaded before the program's own exec, which it has to allow, and it cannot count.
But execve(2) and execveat(2) read five arguments at most, and a filter sees six: the exec that
starts the program gives a secret as its sixth, and a policy may ask for it. The kernel clears
the registers at an exec, so that the program never sees it, and cannot guess 64 bits.
"""

from __future__ import annotations

import os
import struct
from typing import Final

# What a policy's START is compiled to, until the start puts its secret there.
START: Final = 0xB5C1_6F0D_93E7_4A2B

_IF_EQUAL: Final = 0x15
_WORDS: Final = struct.Struct("<II")
_LOW, _HIGH = _WORDS.unpack(START.to_bytes(8, "little"))
_TRACE: Final = struct.pack("<I", _LOW)


def with_secret(program: bytes) -> tuple[bytes, int]:
    """Give the filter with a fresh secret in START's place, and the secret; 0 without START.

    The secret is a signed number, as arguments of steps are.
    """
    if _TRACE not in program:  # most have none, and a start is to be fast
        return program, 0
    secret = os.urandom(8)
    low, high = _WORDS.unpack(secret)
    words = {_LOW: low, _HIGH: high}
    code = [
        (code, yes, no, words.get(value, value) if code == _IF_EQUAL else value)
        for code, yes, no, value in struct.iter_unpack("<HBBI", program)
    ]
    sealed = b"".join(struct.pack("<HBBI", *one) for one in code)
    return sealed, int.from_bytes(secret, "little", signed=True)
