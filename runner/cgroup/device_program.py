"""The BPF program by which a v2 group's devices are held: assembled and attached with bpf(2).

The kernel runs it for each open and mknod of a device node, with the kind of device, what is
wanted of it, and its numbers (struct bpf_cgroup_dev_ctx, <linux/bpf.h>); 1 allows, 0 refuses.
Programs of the groups above run too, and all have to allow.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, Final

from runner.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.cgroup.devices import Device

_SYS_BPF: Final = {"x86_64": 321, "aarch64": 280}

# <linux/bpf.h>: commands, the type of program, where it goes, and that others may go there too.
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH = 5, 8, 9
_PROG_TYPE_CGROUP_DEVICE: Final = 15
_ATTACH_CGROUP_DEVICE: Final = 6
_ALLOW_MULTI: Final = 2

_KINDS: Final = {"b": 1, "c": 2}
_ACCESS: Final = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS: Final = 7

# Instructions: class, size or operation, and where the operand comes from.
_LOAD_WORD: Final = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_COPY: Final = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_SET: Final = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_AND: Final = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
_SHIFT_RIGHT: Final = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
_JUMP_IF_NOT: Final = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_EXIT: Final = 0x95  # BPF_JMP | BPF_EXIT

_RESULT, _CONTEXT, _KIND, _WANTED, _MAJOR, _MINOR, _SCRATCH = range(7)  # registers


def assemble(devices: Sequence[Device]) -> bytes:
    """Make the program that allows these devices and no other."""
    program = [
        _op(_LOAD_WORD, _KIND, source=_CONTEXT, offset=0),  # wanted << 16 | kind
        _op(_COPY, _WANTED, source=_KIND),
        _op(_AND, _KIND, value=0xFFFF),
        _op(_SHIFT_RIGHT, _WANTED, value=16),
        _op(_LOAD_WORD, _MAJOR, source=_CONTEXT, offset=4),
        _op(_LOAD_WORD, _MINOR, source=_CONTEXT, offset=8),
    ]
    for device in devices:
        program += _allow(device)
    return b"".join((*program, _op(_SET, _RESULT, value=0), _op(_EXIT)))


def _allow(device: Device) -> list[bytes]:
    """Return 1 if all of it fits, else go on behind these instructions."""
    refused = _ALL_ACCESS & ~sum(_ACCESS[letter] for letter in device.access)
    tests: list[tuple[int, int]] = [(_KIND, _KINDS[device.kind]), (_SCRATCH, 0)]
    if device.major is not None:
        tests.append((_MAJOR, device.major))
    if device.minor is not None:
        tests.append((_MINOR, device.minor))
    tail = [_op(_SET, _RESULT, value=1), _op(_EXIT)]
    jumps = [
        _op(_JUMP_IF_NOT, register, value=value, offset=len(tests) - place + 1)
        for place, (register, value) in enumerate(tests)
    ]
    head = [_op(_COPY, _SCRATCH, source=_WANTED), _op(_AND, _SCRATCH, value=refused)]
    return [*head, *jumps, *tail]


def _op(
    code: int, target: int = 0, *, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, value)


def attach(group: int, program: bytes) -> int:
    """Load a program and let it speak for a group's directory; the fd is the caller's.

    Raises HostError.
    """
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"GPL")
    load = struct.pack(
        "=IIQQIIQII",
        *(_PROG_TYPE_CGROUP_DEVICE, len(program) // 8),
        *(ctypes.addressof(code), ctypes.addressof(licence)),
        *(0, 0, 0, 0, 0),  # no log, no kernel version, no flags
    )
    fd = _bpf(_PROG_LOAD, load, "load")
    try:
        _bpf(_PROG_ATTACH, _attachment(group, fd, _ALLOW_MULTI), "attach")
    except HostError:
        os.close(fd)
        raise
    return fd


def detach(group: int, program: int) -> None:
    """Take a program away from its group; raises HostError."""
    _bpf(_PROG_DETACH, _attachment(group, program, 0), "detach")


def _attachment(group: int, program: int, flags: int) -> bytes:
    return struct.pack("=IIII", group, program, _ATTACH_CGROUP_DEVICE, flags)


def _bpf(command: int, attributes: bytes, verb: str) -> int:
    number = _SYS_BPF.get(os.uname().machine)
    if number is None:
        message = f"devices: no number of bpf(2) is known for {os.uname().machine}"
        raise HostError(message, "leave Limits.devices out, and bind only what may be used")
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(number, command, buffer, len(attributes))
    if result < 0:
        reason = os.strerror(ctypes.get_errno())
        message = f"devices: cannot {verb} a BPF program for a cgroup: {reason}"
        remedy = (
            "run as root with CAP_BPF and CAP_NET_ADMIN, on a kernel with CONFIG_CGROUP_BPF"
        )
        raise HostError(message, remedy)
    return int(result)
