"""System calls that are tried with arguments that change nothing: what the kernel answers.

A version says little: a container's filter may refuse what the kernel has.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import platform
import signal
import struct
from typing import Final

# From asm-generic; every architecture numbers those since Linux 5.1 alike, but for alpha.
_OPEN_TREE, _MOUNT_SETATTR, _LANDLOCK_CREATE_RULESET = 428, 442, 444
_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241, "riscv64": 241}

_AT_FDCWD: Final = -100
_O_CLOEXEC: Final = os.O_CLOEXEC  # which is OPEN_TREE_CLOEXEC
_LANDLOCK_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION: give the ABI, make nothing
_PERF_ATTR_SIZE_VER0: Final = 64
_PERF_INSTRUCTIONS: Final = 1
_PERF_FLAGS: Final = 1 | 1 << 5 | 1 << 6  # disabled, exclude_kernel, exclude_hv


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The errno of each, 0 for what works; of Landlock the ABI too, 0 without."""

    open_tree: int
    mount_setattr: int
    pidfds: int
    perf_instructions: int
    landlock: int
    landlock_abi: int


def probe() -> Probed:
    """Try them all; nothing is left open."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi, error = landlock()
    return Probed(
        open_tree=_fd(*_call(libc, _OPEN_TREE, _AT_FDCWD, b"/", _O_CLOEXEC)),
        mount_setattr=_mount_setattr(libc),
        pidfds=_pidfds(),
        perf_instructions=_perf_instructions(libc),
        landlock=error,
        landlock_abi=abi,
    )


def landlock() -> tuple[int, int]:
    """Give the ABI of the kernel's Landlock, 0 without, and the errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi, error = _call(libc, _LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    return max(abi, 0), error


def _call(libc: ctypes.CDLL, number: int, *args: object) -> tuple[int, int]:
    """Give the result and the errno, 0 if it did not fail."""
    wide = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(libc.syscall(ctypes.c_long(number), *wide))
    return result, ctypes.get_errno() if result < 0 else 0


def _fd(fd: int, error: int) -> int:
    if fd >= 0:
        os.close(fd)
    return error


def _mount_setattr(libc: ctypes.CDLL) -> int:
    # A struct of no size is refused by the call itself, which so shows that it is there.
    _, error = _call(libc, _MOUNT_SETATTR, -1, b"", 0, None, 0)
    return 0 if error == errno.EINVAL else error


def _pidfds() -> int:
    try:
        fd = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(fd, 0)
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _perf_instructions(libc: ctypes.CDLL) -> int:
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        return errno.ENOSYS
    attr = bytearray(_PERF_ATTR_SIZE_VER0)  # struct perf_event_attr; type 0 is HARDWARE
    struct.pack_into("=IIQ", attr, 0, 0, len(attr), _PERF_INSTRUCTIONS)
    struct.pack_into("=Q", attr, 40, _PERF_FLAGS)
    return _fd(*_call(libc, number, bytes(attr), 0, -1, -1, 8))  # 8: close on exec
