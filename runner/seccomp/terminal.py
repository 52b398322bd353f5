"""A filter that allows all but to type into a terminal: for what shares the caller's.

Made here, for it has to hold for a foreign architecture's calls as well, and must end none.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

# <linux/audit.h>, and the numbers of ioctl(2) in what such a process may call: x32's too.
_IOCTL: Final = {
    0xC000003E: (16, 1 << 30 | 514),  # x86_64
    0x40000003: (54,),  # i386
    0xC00000B7: (29,),  # aarch64
    0x40000028: (54,),  # arm
}
_TIOCSTI: Final = 0x5412  # types, into the session of who started us (ioctl_tty(2))
_TIOCLINUX: Final = 0x541C  # pastes, on a console

_LOAD: Final = 0x20
_IF_EQ: Final = 0x15
_RETURN: Final = 0x06
_NUMBER_AT: Final = 0
_ARCH_AT: Final = 4
_REQUEST_AT: Final = 24  # the lower half of the second argument, all that ioctl(2) reads
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM


def no_typing() -> bytes:
    """Give the filter as seccomp(2) takes it."""
    calls: list[tuple[int, int, int, int]] = []
    for arch, numbers in _IOCTL.items():
        calls.append((_IF_EQ, 0, len(numbers) + 2, arch))
        calls.append((_LOAD, 0, 0, _NUMBER_AT))
        calls += [(_IF_EQ, -1, 0, number) for number in numbers]  # to the request
        calls.append((_RETURN, 0, 0, _ALLOW))
    calls.append((_RETURN, 0, 0, _ALLOW))
    request = [
        (_LOAD, 0, 0, _REQUEST_AT),
        (_IF_EQ, 2, 0, _TIOCSTI),
        (_IF_EQ, 1, 0, _TIOCLINUX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    found = [
        (code, len(calls) - place - 1 if yes < 0 else yes, no, constant)
        for place, (code, yes, no, constant) in enumerate(calls)
    ]
    program = [(_LOAD, 0, 0, _ARCH_AT), *found, *request]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
