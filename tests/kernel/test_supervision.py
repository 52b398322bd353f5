"""Programs whose calls the keeper decides: FP1–FP16, M73, M74.

Each call with a path is made with a path that is granted, where it ends as it does without
supervision, and with one that is not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import runner
from runner import (
    ChildError,
    ErrorLocation,
    ProtocolError,
    Result,
    Runner,
    Sandbox,
    Status,
    Supervision,
)
from tests.kernel.path_calls import (
    CALLS,
    NUMBERS,
    SMALLER,
    fill,
    use_of,
    words,
)
from tests.kernel.starting import output_of

PYTHON = "/usr/bin/python3"
# What a dynamic program reads to start at all.
SYSTEM = ("/usr/", "/lib/", "/lib64/", "/bin/", "/etc/ld.so.cache", "/etc/ld.so.preload")
SYSTEM += ("/etc/locale.alias", "/proc/self/exe", "/dev/null", "/proc/self/maps")
ENV = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    fill(tmp_path / "place")
    return tmp_path / "place"


def sets(place: Path, refuse: str = "EACCES", **more: Any) -> Supervision:  # noqa: ANN401
    fields: dict[str, Any] = {
        "stat": (str(place), f"{place}/*", f"{place}/stat/"),
        "read": (*SYSTEM, f"{place}/read/"),
        "write": (f"{place}/write/",),
        "ban": (f"{place}/soft/",),
        "refuse": refuse,
    }
    return Supervision(**(fields | more))


@pytest.mark.parametrize(("name", "at"), CALLS)
@pytest.mark.parametrize("entry", ["f", "d", "l", "new"])
def test_call_with_a_path_is_granted_by_the_set_that_it_needs(
    name: str, at: int, entry: str, place: Path, raw_call: str
) -> None:  # FP7, FP11
    use = use_of(name, at)
    granted = words(name, at, f"{place}/{use}/{entry}", str(place))
    refused = words(name, at, f"{place}/{SMALLER[use]}/{entry}", str(place))
    assert output_of(raw_call, *refused, supervision=sets(place)) == "EACCES\n"
    held = output_of(raw_call, *granted, supervision=sets(place))
    assert held != "EACCES\n"
    place.rename(place.with_name("used"))
    fill(place)
    assert output_of(raw_call, *granted) == held


@pytest.mark.parametrize(
    ("flags", "use"),
    [
        (os.O_RDONLY, "read"),
        (os.O_RDONLY | os.O_NOFOLLOW, "read"),
        (os.O_PATH, "read"),
        (os.O_WRONLY, "write"),
        (os.O_RDWR, "write"),
        (os.O_RDONLY | os.O_CREAT, "write"),
        (os.O_RDONLY | os.O_TRUNC, "write"),
        (os.O_RDONLY | os.O_EXCL, "write"),
        (os.O_RDONLY | os.O_TMPFILE, "read"),
    ],
)
def test_open_is_read_only_without_any_flag_that_changes(
    flags: int, use: str, place: Path, raw_call: str
) -> None:  # FP8
    for directory, granted in (("read", use == "read"), ("write", True)):
        args = [str(NUMBERS["openat"]), "-100", f"s:{place}/{directory}/f", str(flags), "0600"]
        refused = output_of(raw_call, *args, supervision=sets(place)) == "EACCES\n"
        assert refused != granted


LEADING = {
    "symlink": "open('read/out')",
    "two symlinks": "open('read/twice')",
    "symlinked directory": "open('read/up/none/f')",
    "dot dot": "open('read/../none/f')",
    "directory fd": "os.open('f', 0, dir_fd=os.open('none', os.O_PATH))",
    "working directory": "os.chdir('none'), open('f')",
    "own root": "open('/proc/self/root{place}/none/f')",
    "own directory": "open('/proc/self/cwd/none/f')",
    "own pid": "open(f'/proc/{os.getpid()}/cwd/none/f')",
    "hard link": "os.link('none/f', 'write/taken')",
    "renamed": "os.rename('none/f', 'write/taken')",
    "memory": "open('/proc/self/mem')",
    "another process": "open('/proc/1/status')",
    "parent": "open(f'/proc/{os.getppid()}/environ')",
    "tasks": "open(f'/proc/self/task/{os.getpid()}/mem')",
    "fds": "os.listdir('/proc/self/fd')",
}


@pytest.mark.parametrize("name", LEADING)
def test_path_is_judged_by_where_it_leads(name: str, place: Path) -> None:  # FP9, FP10
    (place / "read" / "out").symlink_to("../none/f")
    (place / "read" / "twice").symlink_to("out")
    (place / "read" / "up").symlink_to(place)
    line = LEADING[name].format(place=place) if "{place}" in LEADING[name] else LEADING[name]
    wanted = sets(
        place,
        stat=(str(place), f"{place}/"),
        read=("/usr/", "/lib/", "/lib64/", "/etc/", "/proc/", f"{place}/read/"),
    )
    assert attempt(line, place, wanted) == "EACCES\n"
    allowed = sets(place, stat=("/",), read=("/",), write=("/",))
    dangerous = name in {"own root", "own directory", "own pid", "memory", "another process"}
    dangerous |= name in {"parent", "tasks", "fds"}
    assert attempt(line, place, allowed) == ("EACCES\n" if dangerous else "done\n")


def attempt(line: str, place: Path, wanted: Supervision) -> str:
    program = (
        "import os, sys\n"
        f"try: {line}\n"
        "except OSError as e: import errno; print(errno.errorcode[e.errno])\n"
        "else: print('done')"
    )
    fields: dict[str, Any] = {"supervision": wanted, "work_dir": str(place), "env": ENV}
    return output_of(PYTHON, "-IS", "-c", program, **fields)


def run(place: Path, *args: str, **fields: Any) -> Result:  # noqa: ANN401
    given = {"work_dir": str(place), "env": ENV} | fields
    with runner.start(Runner(args=args, **given)) as process:
        return process.wait()


def test_standard_fds_can_be_opened_by_name(place: Path) -> None:
    line = "[open(f'/proc/self/fd/{n}', 'wb' if n else 'rb') for n in (0, 1)]"
    assert attempt(line, place, sets(place, read=("/",))) == "done\n"


def test_what_is_in_no_set_ends_the_run(place: Path) -> None:  # FP5
    result = run(place, "/bin/cat", "none/f", supervision=sets(place, "kill"))
    assert (result.status, result.signal) == (Status.DISALLOWED_SYSCALL, signal.SIGSYS)
    assert result.syscall == "openat"


def test_what_is_banned_fails_and_the_run_goes_on(place: Path) -> None:  # FP12
    wanted = sets(place, "kill")
    assert (
        output_of(
            "/bin/sh",
            "-c",
            "cat soft/f; cat read/f; exit 0",
            supervision=wanted,
            work_dir=str(place),
            env=ENV,
        )
        == "of read\n"
    )


def test_call_of_a_child_and_of_a_thread_counts(place: Path) -> None:  # FP2
    wanted = sets(place, "kill", stat=("/",), read=(*SYSTEM, "/etc/", f"{place}/read/"))
    for line in (
        "os.fork() or open('none/f'); os.wait()",
        "os.fork() or os.fork() or open('none/f'); time.sleep(5)",
        "t = threading.Thread(target=open, args=('none/f',)); t.start(); t.join()",
        "subprocess.run(['cat', 'none/f'])",
        "os.posix_spawn('/bin/cat', ['cat', 'none/f'], {}); os.wait()",
    ):
        program = f"import os, subprocess, threading, time\n{line}"
        result = run(place, PYTHON, "-IS", "-c", program, supervision=wanted)
        assert result.status is Status.DISALLOWED_SYSCALL, line
        assert result.wall_ns is not None
        assert result.wall_ns < 4 * 10**9


@pytest.mark.parametrize("count", [0, 1, 3])
def test_count_permits_exactly_that_many(count: int, place: Path) -> None:  # FP13, T6
    line = "[print(os.umask(0o22), flush=True) for _ in range(4)]"
    wanted = Supervision(calls={"umask": count})
    reading, writing = os.pipe()
    with open(reading) as pipe:
        program = ("import os\n" + line,)
        given = Runner(
            args=[PYTHON, "-IS", "-c", *program],
            files=(0, writing, 2),
            env=ENV,
            supervision=wanted,
        )
        with runner.start(given) as process:
            os.close(writing)
            assert pipe.read() == ("".join(["18\n"] * count) if count else "")
            assert process.wait().status is Status.DISALLOWED_SYSCALL


def test_count_is_of_the_whole_tree(place: Path) -> None:
    line = "import os\nfor _ in range(3): os.fork() or (os.umask(0), os._exit(0)); os.wait()"
    for count, status in ((3, Status.OK), (2, Status.DISALLOWED_SYSCALL)):
        result = run(
            place, PYTHON, "-IS", "-c", line, supervision=Supervision(calls={"umask": count})
        )
        assert result.status is status


def test_call_with_an_errno_fails_with_it(place: Path, raw_call: str) -> None:
    wanted = Supervision(calls={"getpriority": "EXDEV", "umask": "kill"})
    args = [str(NUMBERS["getpriority"]), "0", "0"]
    assert output_of(raw_call, *args, supervision=wanted) == "EXDEV\n"


def test_rule_that_the_policy_forbids_stays_forbidden(raw_call: str) -> None:
    deny = b"\x06\0\0\0\x01\0\x05\0"  # everything EPERM
    load_number = b"\x20\0\0\0\0\0\0\0"
    is_umask = b"\x15\0\0\x01" + NUMBERS["umask"].to_bytes(4, "little")
    allow = b"\x06\0\0\0\0\0\xff\x7f"
    policy = load_number + is_umask + deny + allow
    wanted = Supervision(calls={"umask": 5})
    args = [str(NUMBERS["umask"]), "0"]
    assert output_of(raw_call, *args, supervision=wanted, seccomp=policy) == "EPERM\n"
    assert output_of(raw_call, *args, supervision=wanted) == "0\n"


def test_call_that_the_policy_kills_for_is_named_too(place: Path, raw_call: str) -> None:
    load_number = b"\x20\0\0\0\0\0\0\0"
    is_umask = b"\x15\0\0\x01" + NUMBERS["umask"].to_bytes(4, "little")
    kill, allow = b"\x06\0\0\0\0\0\0\x80", b"\x06\0\0\0\0\0\xff\x7f"
    wanted = Supervision(calls={"getpriority": 5})
    result = run(
        place,
        raw_call,
        str(NUMBERS["umask"]),
        "18",
        supervision=wanted,
        seccomp=load_number + is_umask + kill + allow,
    )
    assert result.status is Status.DISALLOWED_SYSCALL
    assert result.violation is not None
    assert (result.violation.name, result.violation.args[0]) == ("umask", 18)


def test_signals_reach_a_supervised_program(place: Path) -> None:  # FP3
    script = "trap 'echo got' USR1; kill -USR1 $$; echo on"
    assert (
        output_of("/bin/sh", "-c", script, supervision=Supervision(calls={"umask": 9}), env=ENV)
        == "got\non\n"
    )


def test_end_of_the_keeper_ends_what_it_supervises(place: Path) -> None:  # FP1
    wanted = Supervision(calls={"umask": 9})
    process = runner.start(Runner(args=["/bin/sleep", "60"], supervision=wanted))
    pid = process.pid
    os.kill(process._keeper.pid, signal.SIGKILL)
    with pytest.raises(ProtocolError):
        process.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            time.sleep(0.01)
            continue
        break
    else:
        pytest.fail("it lives")


def test_program_that_does_not_exist_is_a_child_error(place: Path) -> None:  # FP4
    with pytest.raises(ChildError) as caught:
        run(place, "/nonexistent", supervision=sets(place))
    assert caught.value.location is ErrorLocation.EXECVE


def test_path_before_a_hole_in_memory_is_read(place: Path) -> None:  # FP6
    line = (
        "import ctypes, mmap\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "c.mmap.restype = ctypes.c_void_p\n"
        "at = c.mmap(None, 8192, 3, 34, -1, 0)\n"
        "assert c.munmap(ctypes.c_void_p(at + 4096), 4096) == 0\n"
        "path = b'none/f\\0'\n"
        "ctypes.memmove(at + 4096 - len(path), path, len(path))\n"
        "fd = c.open(ctypes.c_void_p(at + 4096 - len(path)), 0)\n"
        "print(fd, ctypes.get_errno())"
    )
    wanted = sets(place, stat=("/",), read=(*SYSTEM, "/etc/"))
    fields: dict[str, Any] = {"supervision": wanted, "work_dir": str(place), "env": ENV}
    assert output_of(PYTHON, "-IS", "-c", line, **fields) == "-1 13\n"


@pytest.mark.userns
def test_sandbox_supervises_each_run_by_its_own_paths() -> None:
    wanted = Supervision(
        stat=("/",), read=SYSTEM, write=("/tmp/", "/dev/null"), refuse="EACCES"
    )
    script = (
        "echo x >/tmp/f && cat /tmp/f; cat /etc/passwd; cat /proc/self/mem; cat /proc/1/maps"
    )
    with Sandbox(supervision=wanted) as box:
        for _ in range(2):
            result = box.run(["sh", "-c", script])
            assert result.stdout == b"x\n"
            assert result.stderr.count(b"Permission denied\n") == 3
            killed = box.run(["sh", "-c", "exit 3"])
            assert killed.exit_code == 3


@pytest.mark.userns
def test_sandbox_lives_on_after_a_call_that_ended_a_run() -> None:
    wanted = Supervision(calls={"umask": "kill"})
    with Sandbox(supervision=wanted) as box:
        keeper = None
        for _ in range(3):
            result = box.run(["sh", "-c", "(umask 0) & wait; sleep 9"])
            assert result.status is Status.DISALLOWED_SYSCALL
            assert box.run(["echo", "x"]).stdout == b"x\n"
            assert keeper in {None, box.keeper_pid}
            keeper = box.keeper_pid


def test_path_that_another_thread_changes_is_a_race_that_can_be_won(place: Path) -> None:
    """FP16: the decision and the kernel read the path one after the other."""
    line = (
        "import ctypes, threading\n"
        "c = ctypes.CDLL(None)\n"
        "path = ctypes.create_string_buffer(b'read/f', 64)\n"
        "def flip():\n"
        "    while True: path.value = b'none/f'; path.value = b'read/f'\n"
        "threading.Thread(target=flip, daemon=True).start()\n"
        "for _ in range(20000):\n"
        "    fd = c.open(path, 0)\n"
        "    if fd < 0: continue\n"
        "    text = ctypes.create_string_buffer(32)\n"
        "    c.pread(fd, text, 31, 0); c.close(fd)\n"
        "    if text.value == b'of none\\n': print('won', flush=True); import os; os._exit(0)\n"
    )
    wanted = sets(place, stat=("/",), read=(*SYSTEM, "/etc/", f"{place}/read/"))
    fields: dict[str, Any] = {"supervision": wanted, "work_dir": str(place), "env": ENV}
    assert output_of(PYTHON, "-IS", "-c", line, **fields) == "won\n"
