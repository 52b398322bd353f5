"""From a number and an architecture to the name of a system call, for what is reported.

The tables lie in `calls/`, a line each; `python -m runner.seccomp` writes them. A foreign
architecture's are here too: its calls are those that die.
"""

from __future__ import annotations

import os
from typing import Final

CALLS: Final = os.path.join(os.path.dirname(__file__), "calls")

# AUDIT_ARCH_*, <linux/audit.h>, as the kernel reports them; 32-bit ones where a 64-bit one is.
_ARCHS: Final = {
    0xC000_003E: "x86_64",
    0x4000_0003: "i386",
    0xC000_00B7: "aarch64",
    0x4000_0028: "arm",
}
TABLES: Final = (*_ARCHS.values(), "x32")
ELSEWHERE: Final = "elsewhere.txt"  # names that no architecture has that we compile for
_X32_BIT: Final = 1 << 30


def describe(number: int, arch: int) -> tuple[str | None, str]:
    """Give a call's name, None if none is known, and that of its architecture.

    `number` is the kernel's, `arch` an AUDIT_ARCH_*. Calls of the x32 ABI are x86_64's with
    bit 30 set.
    """
    table = _ARCHS.get(arch, f"{arch:#x}")
    if table == "x86_64" and number >= _X32_BIT:
        table, number = "x32", number - _X32_BIT
    try:
        with open(os.path.join(CALLS, f"{table}.txt"), encoding="ascii") as file:
            for line in file:
                known, name = line.split()
                if int(known) == number:
                    return name, table
    except FileNotFoundError:  # an architecture that we have no table of
        return None, table
    return None, table
