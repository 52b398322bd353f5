"""Which call it was that a filter has ended a program for, and that it has not happened."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import (
    ChildError,
    ErrorLocation,
    Landlock,
    Limits,
    Result,
    Runner,
    Sandbox,
    Status,
    TimeOffsets,
    start,
)
from runner.seccomp import compile_policy, syscalls

pytestmark = pytest.mark.userns

ARCH = platform.machine()
PYTHON = "/usr/bin/python3"
PRELUDE = """
import ctypes, mmap, os, signal, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*args):
    result = libc.syscall(*map(ctypes.c_ulong, args))
    return result if result >= 0 else -ctypes.get_errno()
def machine(code):
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=7)
    page.write(bytes.fromhex(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
NUMBERS = syscalls.numbers(ARCH)
GETPGID = NUMBERS["getpgid"]
KILLS = compile_policy("default allow\nkill getpgid", name="test", arch=ARCH)
CALLED = f"getpgid ({GETPGID} of {ARCH})"
LIMITS = Limits(wall_time=10)


def policy(text: str) -> bytes:
    return compile_policy(text, name="test", arch=ARCH)


def python(code: str) -> list[str]:
    return [PYTHON, "-S", "-c", PRELUDE + code]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(policy=KILLS, limits=LIMITS) as made:
        yield made


def ending(result: Result) -> tuple[Status, int | None, int | None, str | None]:
    call = None if result.violation is None else str(result.violation)
    return result.status, result.signal, result.exit_code, call


DISALLOWED = (Status.DISALLOWED_SYSCALL, signal.SIGSYS, None)


def test_killed_call_is_told_with_its_number_architecture_and_arguments(
    sandbox: Sandbox,
) -> None:
    result = sandbox.run(
        python(f"print(1, flush=True); call({GETPGID}, 2**64 - 1, 2, 3, 4, 5, 6)")
    )
    assert ending(result) == (*DISALLOWED, CALLED)
    assert result.violation is not None
    assert result.violation.args == (2**64 - 1, 2, 3, 4, 5, 6)
    assert result.violation.instruction > 2**16
    assert (result.stdout, result.syscall) == (b"1\n", "getpgid")


def test_killed_call_stands_in_the_json_form(sandbox: Sandbox) -> None:
    result = json.loads(sandbox.run(python(f"call({GETPGID}, 1, 2, 3, 4, 5, 6)")).to_json())
    violation = result["violation"]
    instruction = violation.pop("instruction")
    assert isinstance(instruction, int)
    assert violation == {
        "name": "getpgid",
        "number": GETPGID,
        "arch": ARCH,
        "args": [1, 2, 3, 4, 5, 6],
    }
    assert (result["syscall"], result["status"]) == ("getpgid", "disallowed_syscall")


def test_run_without_a_violation_tells_of_none(sandbox: Sandbox) -> None:
    result = sandbox.run(["true"])
    assert ending(result) == (Status.OK, None, 0, None)
    assert json.loads(result.to_json())["violation"] is None


@pytest.mark.parametrize(
    "code",
    [
        "threading.Thread(target=violate).start(); signal.pause()",
        "os.fork() or violate(); signal.pause()",
        "os.fork() or os.fork() or violate(); signal.pause()",
        "os.fork() or (os.setsid(), os.fork() and os._exit(0), violate()); signal.pause()",
        f"import subprocess; subprocess.run(['{PYTHON}', '-c', sys.argv[1]]); signal.pause()",
    ],
    ids=["thread", "child", "grandchild", "orphan in its session", "vfork and exec"],
)
def test_violation_anywhere_in_the_tree_ends_the_run(sandbox: Sandbox, code: str) -> None:
    violate = f"def violate(): call({GETPGID})\n"
    words = python(violate + code)
    result = sandbox.run([*words, PRELUDE + f"call({GETPGID})"])
    assert ending(result) == (*DISALLOWED, CALLED)


def test_exec_that_is_killed_is_told_at_once() -> None:
    times = []
    with Sandbox(policy=policy("default allow\nkill execve"), limits=LIMITS) as sandbox:
        sandbox.start()
        for _ in range(3):
            times.append(-time.monotonic())
            result = sandbox.run(["true"])
            times[-1] += time.monotonic()
            assert ending(result) == (*DISALLOWED, f"execve ({NUMBERS['execve']} of {ARCH})")
    # A process that borrows the keeper's memory would have waited for its timer, a second.
    assert min(times) < 1


def test_program_that_is_not_there_is_an_error_under_a_filter_that_lets_nothing_exit() -> None:
    text = "default kill\nallow execve"
    with Sandbox(policy=policy(text), limits=LIMITS) as sandbox:
        for _ in range(2):
            with pytest.raises(ChildError) as caught:
                sandbox.run(["/nowhere"])
            assert caught.value.location is ErrorLocation.EXECVE


@pytest.mark.parametrize("action", ["kill", "kill_thread"])
def test_kill_of_a_thread_ends_the_run_too(action: str) -> None:
    with Sandbox(policy=policy(f"default allow\n{action} getpgid"), limits=LIMITS) as sandbox:
        code = f"threading.Thread(target=call, args=({GETPGID},)).start(); signal.pause()"
        assert ending(sandbox.run(python(code))) == (*DISALLOWED, CALLED)


def test_call_without_a_name_is_told_by_its_number() -> None:
    with Sandbox(policy=policy("default kill\n" + _allow_all()), limits=LIMITS) as sandbox:
        result = sandbox.run(python("call(5000)"))
    assert ending(result) == (*DISALLOWED, f"5000 of {ARCH}")
    assert result.syscall is None


def _allow_all() -> str:
    return "allow " + " ".join(sorted(NUMBERS))


def test_call_of_i386_is_told_by_the_table_of_i386(sandbox: Sandbox) -> None:
    if ARCH != "x86_64":
        pytest.skip("x86_64")
    code = "print(machine('b814000000cd80c3'))"  # mov $20, %eax; int $0x80; ret
    with Sandbox(policy=None, limits=LIMITS) as unfiltered:
        if not unfiltered.run(python(code)).ok:
            pytest.skip("IA32 emulation")
    assert ending(sandbox.run(python(code))) == (*DISALLOWED, "getpid (20 of i386)")


def test_call_of_x32_is_told_by_the_table_of_x32(sandbox: Sandbox) -> None:
    if ARCH != "x86_64":
        pytest.skip("x86_64")
    result = sandbox.run(python("call(0x40000000 + 520)"))
    assert ending(result) == (*DISALLOWED, f"execve ({0x40000000 + 520} of x32)")


def test_sigsys_of_the_programs_own_is_no_violation(sandbox: Sandbox) -> None:
    result = sandbox.run(python("os.kill(os.getpid(), signal.SIGSYS)"))
    assert ending(result) == (Status.SIGNALLED, signal.SIGSYS, None, None)


# A filter of the program's own: what it kills is its own doing, and has no name.
OWN_FILTER = f"""
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
def install(flags, *code):
    buffer = ctypes.create_string_buffer(b"".join(code), 8 * len(code))
    program = Program(len(code), ctypes.addressof(buffer))
    return call({NUMBERS["seccomp"]}, 1, flags, ctypes.addressof(program))
"""
LOAD = struct.pack("<HBBI", 0x20, 0, 0, 0)
IS_GETPPID = struct.pack("<HBBI", 0x15, 0, 1, NUMBERS["getppid"])
KILL, ALLOW = struct.pack("<HBBI", 6, 0, 0, 0), struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000)


def test_kill_by_a_filter_of_the_programs_own_is_its_own_signal(sandbox: Sandbox) -> None:
    own = f"install(0, {LOAD}, {IS_GETPPID}, {KILL}, {ALLOW})"
    result = sandbox.run(python(f"{OWN_FILTER}{own}; os.getppid()"))
    assert ending(result) == (Status.SIGNALLED, signal.SIGSYS, None, None)


def test_listener_of_the_programs_own_is_refused_as_there_is_one(sandbox: Sandbox) -> None:
    result = sandbox.run(python(f"{OWN_FILTER}print(install(8, {ALLOW}))"))
    assert result.stdout == b"-16\n"  # EBUSY


def test_trap_that_nothing_handles_is_disallowed_and_has_no_name() -> None:
    with Sandbox(policy=policy("default allow\ntrap getpgid"), limits=LIMITS) as sandbox:
        assert ending(sandbox.run(python(f"call({GETPGID})"))) == (*DISALLOWED, None)


def test_notify_of_a_policy_that_nobody_supervises_is_enosys() -> None:
    with Sandbox(policy=policy("default allow\nnotify getpgid"), limits=LIMITS) as sandbox:
        result = sandbox.run(python(f"print(call({GETPGID}), call({GETPGID}))"))
    assert (result.stdout, result.status) == (b"-38 -38\n", Status.OK)


@pytest.mark.parametrize("files", [5, 8])
def test_few_open_files_are_enough_to_tell(sandbox: Sandbox, files: int) -> None:
    words = ["/bin/sh", "-c", 'exec "$0" -S -c "$1"', PYTHON, PRELUDE + f"call({GETPGID})"]
    result = sandbox.run(words, limits=Limits(wall_time=10, open_files=files))
    assert ending(result) == (*DISALLOWED, CALLED)


def test_program_in_another_time_namespace_is_told() -> None:
    """It is born of a copy, beside which the keeper does not sleep."""
    offsets = TimeOffsets(monotonic=5.0)
    with Sandbox(policy=KILLS, limits=LIMITS, time_offsets=offsets) as sandbox:
        for _ in range(3):
            result = sandbox.run(python(f"print(1, flush=True); call({GETPGID})"))
            assert ending(result) == (*DISALLOWED, CALLED)
            assert result.stdout == b"1\n"
            assert sandbox.run(["cat"], stdin=b"in").stdout == b"in"


def test_fds_of_the_keeper_are_the_same_after_each_kind_of_run(sandbox: Sandbox) -> None:
    sandbox.start()
    if not os.access(f"/proc/{sandbox.keeper_pid}/fd", os.R_OK):
        pytest.skip("needs uid 0")
    sandbox.run(["true"])  # it keeps the groups' files from the first one on
    time.sleep(0.1)
    before = _fds(sandbox)
    sandbox.run(["true"])
    sandbox.run(python(f"call({GETPGID})"))
    with pytest.raises(ChildError):
        sandbox.run(["/nowhere"])
    with pytest.raises(ChildError):
        sandbox.run(["true"], work_dir="/nowhere")
    end = time.monotonic() + 5  # it answers before it closes what came with the request
    while _fds(sandbox) != before and time.monotonic() < end:
        time.sleep(0.01)
    assert _fds(sandbox) == before


def test_fds_of_a_ruleset_that_fails_do_not_stay_with_the_keeper() -> None:
    """The program's process has made it in fds that it shares."""
    with Sandbox(policy=KILLS, landlock=Landlock(read=("/usr", "/nowhere"))) as sandbox:
        sandbox.start()
        if not os.access(f"/proc/{sandbox.keeper_pid}/fd", os.R_OK):
            pytest.skip("needs uid 0")
        for _ in range(2):
            with pytest.raises(ChildError) as caught:
                sandbox.run(["true"])
            assert caught.value.location is ErrorLocation.LANDLOCK
        assert not any("landlock" in target for target in _fds(sandbox).values())


def _fds(sandbox: Sandbox) -> dict[str, str]:
    """Give what each fd is, but for the number of a group: some kernels need one a run."""
    directory = f"/proc/{sandbox.keeper_pid}/fd"
    fds = {}
    for fd in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # it has been closed since
            target = os.readlink(f"{directory}/{fd}")
            fds[fd] = re.sub(r"/run-sandboxed\.[0-9.]+/", "/GROUP/", target)
    return fds


def test_program_has_no_fd_of_the_keepers(sandbox: Sandbox) -> None:
    result = sandbox.run(python("print(sorted(map(int, os.listdir('/proc/self/fd'))))"))
    assert result.stdout == b"[0, 1, 2, 3]\n"  # 3 is the listing's own


def test_runner_as_it_is_given_is_ended_by_the_kernel() -> None:
    with start(Runner(args=python(f"call({GETPGID})"), seccomp=KILLS)) as process:
        assert ending(process.wait()) == (*DISALLOWED, None)


# Allows all, with a listener, so that no other filter may have one.
LISTENED_TO = (
    PRELUDE
    + OWN_FILTER
    + f"""
zero = ctypes.c_ulong(0)
libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero)
assert install(8, {ALLOW}) >= 0
sys.path.insert(0, sys.argv[1])
import runner
with runner.Sandbox(policy=bytes.fromhex(sys.argv[2])) as sandbox:
    result = sandbox.run(sys.argv[3:])
print(result.status.value, result.signal, result.violation)
"""
)


def test_where_somebody_else_listens_the_kernel_kills() -> None:
    words = [sys.executable, "-c", LISTENED_TO, str(Path(__file__).parents[2]), KILLS.hex()]
    words += python(f"call({GETPGID})")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("disallowed_syscall 31 None\n", "")
