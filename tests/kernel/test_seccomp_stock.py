"""Each stock policy on the running kernel: what it closes, and what runs under it.

Rows FS1–FS8, H50–H59, U2, U59, M66–M71, M75, M77, M78; T3, T13, T22.
"""

from __future__ import annotations

import errno
import platform
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from runner import Limits, Mount, Result, Sandbox, Status
from runner.seccomp import compile_policy, evaluate, load, stock, syscalls
from runner.seccomp.rules import Verb
from runner.seccomp.start import START, with_secret

pytestmark = pytest.mark.userns

ARCH = platform.machine()
ALL = 2**64 - 1
NONSENSE = (ALL,) * 6

KILL: Final = -1
OPEN: Final = 0  # whatever the kernel answers
EPERM, ENOSYS, EAFNOSUPPORT, EACCES, EINVAL, ENOTTY = (
    errno.EPERM,
    errno.ENOSYS,
    errno.EAFNOSUPPORT,
    errno.EACCES,
    errno.EINVAL,
    errno.ENOTTY,
)

NAMES = ("default", "compiler", "jvm", "python", "node", "go", "strict")
Row = tuple[str, tuple[int, ...], tuple[int, ...]]


def everywhere(answer: int, *names: str) -> Iterator[Row]:
    return ((name, NONSENSE, (answer,) * len(NAMES)) for name in " ".join(names).split())


# Call, arguments, and the answer of each policy of NAMES. The arguments are such that no kernel
# takes them: were a call open, it would do nothing, and answer otherwise.
CLOSED: list[Row] = [
    *everywhere(
        EPERM,
        "mount umount2 pivot_root chroot unshare setns open_tree move_mount fsopen fsconfig",
        "fsmount fspick mount_setattr open_tree_attr",
        "init_module finit_module delete_module kexec_load kexec_file_load reboot",
        "swapon swapoff acct quotactl quotactl_fd syslog",
        "settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname",
        "bpf perf_event_open userfaultfd kcmp pidfd_getfd process_mrelease",
        "add_key request_key keyctl name_to_handle_at open_by_handle_at",
        "fanotify_init fanotify_mark memfd_secret sync syncfs vhangup",
        "mbind get_mempolicy set_mempolicy migrate_pages move_pages",
    ),
    *everywhere(
        ENOSYS,
        "clone3 openat2 io_uring_setup io_uring_enter io_uring_register",
        "io_setup io_submit io_getevents io_cancel statmount listmount",
        "lsm_get_self_attr lsm_list_modules",
    ),
    ("ptrace", NONSENSE, (*[EPERM] * 6, KILL)),
    ("process_vm_readv", NONSENSE, (*[EPERM] * 6, KILL)),
    ("process_vm_writev", NONSENSE, (*[EPERM] * 6, KILL)),
    # clone: flags that exclude each other. NEWUSER, NEWNS, NEWNET, and the parent's child.
    ("clone", (0x1001_0000,), (*[EPERM] * 6, KILL)),
    ("clone", (0x0003_0000,), (*[EPERM] * 6, KILL)),
    ("clone", (0x4001_0000,), (*[EPERM] * 6, KILL)),
    ("clone", (0xFFFF_FFFF_1001_0000,), (*[EPERM] * 6, KILL)),
    ("clone", (0x0001_8000,), (*[EPERM] * 6, KILL)),
    ("clone", (0x0000_0800,), (OPEN, OPEN, *[EPERM] * 4, KILL)),  # a process
    ("clone", (0x0001_0000,), (*[OPEN] * 6, KILL)),  # a thread
    ("execve", (0, 0, 0), (*[OPEN] * 6, KILL)),
    ("execve", (0, 0, 0, 0, 0, START), (*[OPEN] * 6, KILL)),
    ("execveat", (ALL, 0, 0, 0, 0), (*[OPEN] * 6, KILL)),
    # Of sockets: AF_VSOCK, CAN, ALG, netlink but for routing; a type that is none.
    ("socket", (40, 99), (*[EAFNOSUPPORT] * 5, EACCES, KILL)),
    ("socket", (29, 99), (*[EAFNOSUPPORT] * 5, EACCES, KILL)),
    ("socket", (38, 99), (*[EAFNOSUPPORT] * 5, EACCES, KILL)),
    ("socket", (16, 99, 12), (*[EAFNOSUPPORT] * 5, EACCES, KILL)),
    ("socket", (16, 99, 0), (OPEN, *[EAFNOSUPPORT] * 4, EACCES, KILL)),
    ("socket", (0x1_0000_0028, 99), (*[EAFNOSUPPORT] * 5, EACCES, KILL)),
    ("socket", (2, 99), (OPEN, *[EAFNOSUPPORT] * 4, EACCES, KILL)),
    ("socket", (10, 99), (OPEN, *[EAFNOSUPPORT] * 4, EACCES, KILL)),
    ("socket", (1, 99), (*[OPEN] * 5, EACCES, KILL)),
    ("socketpair", (38, 99), (*[EAFNOSUPPORT] * 5, EACCES, KILL)),
    ("connect", NONSENSE, (*[OPEN] * 5, ENOSYS, KILL)),
    # Typing into a terminal, pasting, line disciplines; with the ignored upper half set too.
    ("ioctl", (ALL, 0x5412), (EPERM,) * 7),
    ("ioctl", (ALL, 0x1_0000_5412), (EPERM,) * 7),
    ("ioctl", (ALL, 0x541C), (EPERM,) * 7),
    ("ioctl", (ALL, 0x5423), (EPERM,) * 7),
    ("ioctl", (ALL, 0x5401), (OPEN,) * 7),
    ("ioctl", (ALL, 0x89FF), (*[OPEN] * 6, ENOTTY)),
    ("personality", (8,), (EPERM,) * 7),
    ("personality", (0x0400_0000,), (EPERM,) * 7),
    ("personality", (0xFFFF_FFFF,), (*[OPEN] * 6, ENOSYS)),
    ("prctl", (62, 99), (EPERM,) * 7),
    ("prctl", (99999,), (*[OPEN] * 6, EINVAL)),
    ("prlimit64", (1, 99), (EPERM,) * 7),
    ("fcntl", (ALL, 1024), (EPERM,) * 7),
    ("fcntl", (ALL, 1036), (*[OPEN] * 6, EINVAL)),
    ("fchmod", (ALL, 0o4755), (EPERM,) * 7),
    ("fchmodat", (ALL, 0, 0o2755), (EPERM,) * 7),
    ("openat", (ALL, 0, 0x40, 0o4755), (EPERM,) * 7),
    ("openat", (ALL, 0, 0, 0o4755), (OPEN,) * 7),
    ("mknodat", (ALL, 0, 0o104755, 0), (EPERM,) * 7),
    ("fchmod", (ALL, 0o755), (*[OPEN] * 6, ENOSYS)),
    ("shmget", (0, 0, 0), (OPEN, *[ENOSYS] * 6)),
    ("mq_open", NONSENSE, (OPEN, *[ENOSYS] * 6)),
    ("kill", (ALL, 99), (*[OPEN] * 6, ENOSYS)),
    ("setuid", (ALL,), (*[OPEN] * 6, ENOSYS)),
    ("inotify_add_watch", NONSENSE, (*[OPEN] * 6, ENOSYS)),
    ("memfd_create", (0, ALL), (*[OPEN] * 6, ENOSYS)),
    ("seccomp", NONSENSE, (*[OPEN] * 6, ENOSYS)),
]
# What x86_64 alone has, fork and vfork among it: tried only where they are closed.
CLOSED_X86: list[Row] = [
    *everywhere(EPERM, "iopl ioperm modify_ldt uselib _sysctl create_module tuxcall"),
    ("fork", (), (OPEN, OPEN, *[EPERM] * 4, KILL)),
    ("vfork", (), (OPEN, OPEN, *[EPERM] * 4, KILL)),
    ("open", (0, 0x40, 0o4755), (EPERM,) * 7),
    ("chmod", (0, 0o4755), (EPERM,) * 7),
]
# What the kernel refuses by itself to who has no capabilities, with the same EPERM.
NEED_CAPABILITIES = (
    "mount umount2 pivot_root chroot setns open_tree open_tree_attr move_mount fsopen fsmount "
    "fspick mount_setattr init_module finit_module delete_module kexec_load kexec_file_load "
    "reboot swapon swapoff acct quotactl quotactl_fd syslog settimeofday clock_settime "
    "adjtimex clock_adjtime sethostname setdomainname bpf perf_event_open fanotify_init "
    "vhangup iopl ioperm prctl prlimit64 userfaultfd"
)
# What answers ENOSYS on a kernel that was built without it, or is older.
MAY_BE_MISSING = (
    "statmount listmount lsm_get_self_attr lsm_list_modules io_uring_setup io_uring_enter "
    "io_uring_register"
)
ROWS = CLOSED + (CLOSED_X86 if ARCH == "x86_64" else [])


def test_table_has_every_stock_policy() -> None:
    assert sorted(NAMES) == stock()


@pytest.mark.parametrize("arch", syscalls.AUDIT_ARCHS)
@pytest.mark.parametrize("policy", NAMES)
def test_filter_decides_each_dangerous_call_as_the_table_says(policy: str, arch: str) -> None:
    program, _ = with_secret(load(policy, arch))
    numbers = syscalls.numbers(arch)
    for name, arguments, answers in CLOSED + (CLOSED_X86 if arch == "x86_64" else []):
        action = evaluate.run(program, numbers[name], arch, arguments)
        given = {Verb.KILL: KILL, Verb.ALLOW: OPEN}.get(action.verb, action.data)
        assert given == answers[NAMES.index(policy)], (name, arguments)


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `calls`, which makes system calls."""
    place = tmp_path_factory.mktemp("calls")
    source = Path(__file__).with_name("calls.c")
    command = ["musl-gcc", "-static", "-O1", "-Wall", "-Werror", "-o", place / "calls", source]
    subprocess.run(command, check=True)
    place.chmod(0o755)
    return place


def tried(sandbox: Sandbox, *words: str) -> Result:
    return sandbox.run(["/calls/calls", *words])


def word(name: str, arguments: Sequence[int]) -> str:
    return ",".join(map(str, (syscalls.numbers(ARCH)[name], *arguments)))


@contextmanager
def confined(policy: str | bytes | None, place: Path) -> Iterator[Sandbox]:
    mounts = [Mount.bind(str(place), "/calls")]
    with Sandbox(policy=policy, mounts=mounts, limits=Limits(wall_time=60)) as sandbox:
        yield sandbox


def errnos(result: Result) -> list[int]:
    assert result.status is Status.OK, result
    return [int(line) for line in (result.stdout or b"").split()]


@pytest.mark.parametrize("policy", NAMES)
def test_dangerous_call_gets_the_answer_of_the_table(policy: str, calls: Path) -> None:
    column = NAMES.index(policy)
    refused = [row for row in ROWS if row[2][column] > 0]
    deadly = [row for row in ROWS if row[2][column] == KILL]
    with confined(policy, calls) as sandbox:
        given = errnos(tried(sandbox, *(word(name, args) for name, args, _ in refused)))
        assert [
            (name, args, answer) for (name, args, _), answer in zip(refused, given, strict=True)
        ] == [(name, args, answers[column]) for name, args, answers in refused]
        for name, args, _ in deadly:
            result = tried(sandbox, word(name, args))
            assert (result.status, result.stdout) == (Status.DISALLOWED_SYSCALL, b""), name
            if result.violation is not None:  # where the kernel tells
                assert result.violation.name == name


def test_dangerous_calls_without_a_filter_answer_otherwise(calls: Path) -> None:
    # Else the test above would show nothing.
    closed = {
        (name, args): set(answers) - {KILL, OPEN}
        for name, args, answers in ROWS
        if name not in {"fork", "vfork"}
    }
    with confined(None, calls) as sandbox:
        given = errnos(tried(sandbox, *(word(*call) for call in closed)))
    same = {
        name
        for ((name, _), answers), answer in zip(closed.items(), given, strict=True)
        if answer in answers
    }
    assert same <= {*NEED_CAPABILITIES.split(), *MAY_BE_MISSING.split()}


@pytest.mark.parametrize("policy", NAMES)
def test_call_of_a_foreign_abi_dies(policy: str, calls: Path) -> None:
    if ARCH != "x86_64":
        pytest.skip("x86_64")
    x32 = str(0x4000_0000 + 39)  # getpid
    with confined(policy, calls) as sandbox:
        for words in ([x32], ["20,int80"]):
            result = tried(sandbox, *words)
            assert (result.status, result.stdout) == (Status.DISALLOWED_SYSCALL, b""), words


@pytest.mark.parametrize("policy", NAMES)
def test_call_that_no_kernel_has_is_not_there(policy: str, calls: Path) -> None:
    with confined(policy, calls) as sandbox:
        given = errnos(tried(sandbox, "5000", str(2**31), str(ALL)))
    assert given == [ENOSYS] * 3


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("allow", 0),
        ("log", 0),
        ("errno 0", 0),
        ("errno EPERM", EPERM),
        ("errno ENOTTY", ENOTTY),
        ("errno 4095", 4095),
        ("trace 7", ENOSYS),  # as nobody traces
        ("notify", ENOSYS),  # as nobody listens
        ("kill", KILL),
        ("kill_thread", KILL),
        ("trap", KILL),  # as nobody handles SIGSYS
    ],
)
def test_action_is_what_the_program_sees(action: str, answer: int, calls: Path) -> None:
    policy = compile_policy(f"default allow\n{action} getppid", name="test", arch=ARCH)
    with confined(policy, calls) as sandbox:
        result = tried(sandbox, word("getppid", ()), word("getpid", ()))
    if answer == KILL:
        assert (result.signal, result.stdout) == (signal.SIGSYS, b"")
    else:
        assert errnos(result) == [answer, 0]


def test_program_under_strict_that_execs_itself_dies(calls: Path, tmp_path: Path) -> None:
    # Whatever it passes as the sixth argument: the mark of the policy's text, or its own guess.
    execve = syscalls.numbers(ARCH)["execve"]
    code = f"""
    #include <unistd.h>
    #include <sys/syscall.h>
    int main(int argc, char **argv, char **envp) {{
        if (argc > 2) return 42;
        char *again[] = {{"/calls/again", "a", "b", 0}};
        syscall({execve}L, again[0], again, envp, 0L, 0L, argc > 1 ? {START}UL : 0UL);
        return 43;
    }}"""
    (tmp_path / "again.c").write_text(code)
    command = ["musl-gcc", "-static", "-o", tmp_path / "again", tmp_path / "again.c"]
    subprocess.run(command, check=True)
    tmp_path.chmod(0o755)
    with confined("strict", tmp_path) as sandbox:
        for words in (["/calls/again"], ["/calls/again", "mark"]):
            assert sandbox.run(words).status is Status.DISALLOWED_SYSCALL
    with confined("default", tmp_path) as sandbox:
        assert sandbox.run(["/calls/again"]).exit_code == 42


def test_register_of_the_secret_is_clear_in_the_program(tmp_path: Path) -> None:
    if ARCH != "x86_64":
        pytest.skip("x86_64")
    # The secret was in r9. No register has it; rsp is the program's own.
    others = ["rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", *(f"r{n}" for n in range(10, 16))]
    code = [".globl _start", "_start:", *(f"or %{other}, %r9" for other in others)]
    code += ["xor %edi, %edi", "test %r9, %r9", "setnz %dil", "mov $231, %eax", "syscall"]
    (tmp_path / "a.s").write_text("\n".join([*code, ""]))
    command = ["gcc", "-nostdlib", "-static", "-o", tmp_path / "a", tmp_path / "a.s"]
    subprocess.run(command, check=True)
    tmp_path.chmod(0o755)
    with confined("strict", tmp_path) as sandbox:
        result = sandbox.run(["/calls/a"])
    assert (result.status, result.exit_code) == (Status.OK, 0)
