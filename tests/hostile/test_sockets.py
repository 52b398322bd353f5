"""The network is looked at after runs that opened sockets: whichever way they did, and only so.

Where the filter tells of the calls, the keeper relies on it; see native/sockets.c.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence

import pytest

from runner import Result, Sandbox, Status

pytestmark = pytest.mark.userns

PYTHON = "/usr/bin/python3"
COUNTED = "print(open('/proc/self/net/snmp').read())"
SEND = """
import contextlib, socket
with contextlib.suppress(OSError): one.sendto(b'x', ('127.0.0.1', 9))
print('left')
"""
PLAIN = f"import socket; one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n{SEND}"
# push %rbx; mov $359, %eax; mov $2, %ebx; mov $2, %ecx; xor %edx, %edx; int $0x80; pop %rbx
OLDER = f"""
import ctypes, mmap, socket
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex('53b867010000bb02000000b90200000031d2cd805bc3'))
fd = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
if fd < 0: raise SystemExit('no such calls')
one = socket.socket(fileno=fd)
{SEND}"""


def returns(*answers: int) -> bytes:
    """Make a filter that gives the last answer, and has the others where nobody comes to."""
    jump = struct.pack("<HBBI", 0x05, 0, 0, len(answers) - 1)
    return jump + b"".join(struct.pack("<HBBI", 6, 0, 0, answer) for answer in answers)


ALLOW, LOG, TRAP, KILL = 0x7FFF0000, 0x7FFC0000, 0x30000, 0x80000000
POLICIES = {
    "told": returns(KILL, ALLOW),
    "a trap, which is the kernel's to do": returns(TRAP, ALLOW),
    "a log, which is the kernel's to write": returns(LOG),
    "no room for more": returns(*[ALLOW] * 4090),
}


def ran(sandbox: Sandbox, code: str, **options: object) -> Result:
    result = sandbox.run([PYTHON, "-S", "-c", code], **options)  # type: ignore[arg-type]
    if result.stderr == b"no such calls\n":
        pytest.skip("no calls of the older ABI")
    assert (result.status, result.stderr) == (Status.OK, b"")
    return result


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("leave", [PLAIN, OLDER], ids=["of this ABI", "of the older one"])
def test_what_a_socket_has_counted_is_not_seen_by_the_next_run(
    policy: bytes, leave: str
) -> None:
    if leave is OLDER and platform.machine() != "x86_64":
        pytest.skip("needs x86_64")
    with Sandbox(policy=policy) as sandbox:
        before = ran(sandbox, COUNTED).stdout
        for _ in range(2):
            assert ran(sandbox, leave).stdout == b"left\n"
            assert ran(sandbox, COUNTED).stdout == before


def test_run_without_sockets_keeps_the_sandbox_and_one_with_them_may_not() -> None:
    """An AF_UNIX socket is none that the network counts; what was counted cannot be undone."""
    with Sandbox() as sandbox:
        pids: list[int | None] = []
        for code in ("pass", "import socket; socket.socketpair()", "pass", PLAIN, "pass"):
            ran(sandbox, code)
            pids.append(sandbox.keeper_pid)
    assert pids[0] == pids[1] == pids[2] == pids[3] != pids[4]


def test_socket_is_no_refusal_that_a_policy_log_would_have() -> None:
    with Sandbox() as sandbox:
        log = ran(sandbox, PLAIN, policy_log=True).policy_log
        assert log is not None
        assert "socket" not in [call.name for call in log.calls]
        counts: Sequence[int] = [
            call.times
            for call in ran(sandbox, PLAIN, policy_log="all").policy_log.calls  # type: ignore[union-attr]
            if call.name == "socket"
        ]
        assert counts == [1]


def test_sockets_are_opened_under_signals_that_restart_calls() -> None:
    """While its call waits for the keeper, a program can be interrupted by a signal."""
    code = """
import signal, socket
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for _ in range(500): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    with Sandbox() as sandbox:
        ran(sandbox, code)
