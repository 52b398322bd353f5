"""The default policy on the running kernel: what it closes, and what runs under it."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.host import parse_kernel
from runner.seccomp import bpf, compile_policy, load, syscalls
from runner.seccomp.rules import Action, Comparison, Op, Policy, Rule, Verb

ARCH = platform.machine()
ALL = 2**64 - 1
EPERM, ENOSYS, EAFNOSUPPORT = errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT

# Installs the filter in hexadecimal argv[1] (none if empty); then becomes argv[3:], or makes
# the calls in argv[3] and prints the errno of each, or calls i386's getpid by int 0x80.
LAUNCH = """
import ctypes, json, mmap, os, sys

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
code = bytes.fromhex(sys.argv[1])
buffer = ctypes.create_string_buffer(code, len(code) or 1)
program = Program(len(code) // 8, ctypes.addressof(buffer))
zero = ctypes.c_ulong(0)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, ctypes.c_ulong(2)
if code:
    if libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero):
        sys.exit("no_new_privs: " + os.strerror(ctypes.get_errno()))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), zero, zero):
        sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))
if sys.argv[2] == "exec":
    os.execvp(sys.argv[3], sys.argv[3:])
if sys.argv[2] == "int80":
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))  # mov $20, %eax; int $0x80; ret
    at = ctypes.addressof(ctypes.c_char.from_buffer(page))
    print(ctypes.CFUNCTYPE(ctypes.c_int)(at)())
else:
    answers = []
    for number, arguments in json.loads(sys.argv[3]):
        done = libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments))
        answers.append(ctypes.get_errno() if done == -1 else 0)
    print(json.dumps(answers))
"""


def launch(
    program: bytes, *words: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LAUNCH, program.hex(), *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, timeout=100
    )


def answers(program: bytes, *calls: tuple[str, tuple[int, ...]]) -> list[int]:
    numbers = syscalls.numbers(ARCH)
    listed = [(numbers[name], (*given, *[0] * (6 - len(given)))) for name, given in calls]
    done = launch(program, "calls", json.dumps(listed))
    assert done.returncode == 0, done.stderr
    errnos = json.loads(done.stdout)
    assert isinstance(errnos, list)
    return errnos


# Arguments that no kernel takes: were a call open, it would do nothing and answer otherwise.
NONSENSE = (ALL,) * 6
REFUSED = """
mount umount2 pivot_root chroot unshare setns open_tree open_tree_attr move_mount fsopen
fsconfig fsmount fspick mount_setattr init_module finit_module delete_module kexec_load reboot
swapon swapoff bpf perf_event_open userfaultfd add_key request_key keyctl ptrace
process_vm_readv process_vm_writev kcmp pidfd_getfd name_to_handle_at open_by_handle_at acct
quotactl quotactl_fd syslog settimeofday clock_settime adjtimex clock_adjtime sethostname
setdomainname fanotify_init fanotify_mark memfd_secret mbind get_mempolicy set_mempolicy
migrate_pages move_pages process_mrelease
"""
MISSING = "io_uring_setup io_uring_enter io_uring_register statmount listmount"
CLOSED: dict[str, tuple[int, tuple[int, ...]]] = {}
CLOSED |= dict.fromkeys(REFUSED.split(), (EPERM, NONSENSE))
CLOSED |= dict.fromkeys(MISSING.split(), (ENOSYS, NONSENSE))
CLOSED |= {
    "clone3": (ENOSYS, (0, 0)),
    "clone": (EPERM, (0x1001_0000,)),  # NEWUSER | THREAD, which no kernel takes together
    "ioctl": (EPERM, (ALL, 0x1_0000_5412)),
    "personality": (EPERM, (0x0008,)),
    "socket": (EAFNOSUPPORT, (40, 1, 0)),
    "socketpair": (EAFNOSUPPORT, (40, 1, 0)),
    "prctl": (EPERM, (62, 99)),
}


def test_default_policy_answers_dangerous_calls_with_their_errno() -> None:
    given = answers(load("default"), *((name, call) for name, (_, call) in CLOSED.items()))
    assert dict(zip(CLOSED, given, strict=True)) == {
        name: expected for name, (expected, _) in CLOSED.items()
    }


def test_default_policy_closes_what_only_x86_64_has() -> None:
    if ARCH != "x86_64":
        pytest.skip("x86_64")
    names = ("iopl", "ioperm", "modify_ldt", "uselib", "_sysctl", "create_module")
    assert answers(load("default"), *((name, NONSENSE) for name in names)) == [EPERM] * len(
        names
    )


@pytest.mark.root
def test_dangerous_calls_without_the_filter_answer_otherwise() -> None:
    # Else the test above would show nothing. For root, so that EPERM is not the kernel's own.
    # What these answer depends on how the kernel was built.
    unsure = {"personality", "prctl", "socket", "socketpair"}
    if parse_kernel(os.uname().release) < (6, 8):
        unsure |= {"statmount", "listmount"}  # so these are missing without the filter too
    open_to_root = {name: call for name, call in CLOSED.items() if name not in unsure}
    given = answers(b"", *((name, call) for name, (_, call) in open_to_root.items()))
    same = [
        name
        for (name, (expected, _)), answer in zip(open_to_root.items(), given, strict=True)
        if answer == expected
    ]
    assert same == []


def test_ordinary_calls_are_answered_by_the_kernel() -> None:
    calls = [
        ("getpid", ()),
        ("socket", (1, 1, 0)),
        ("socket", (2, 1, 0)),
        ("socket", (16, 3, 0)),
        ("personality", (0xFFFF_FFFF,)),
        ("memfd_create", (0, 0)),  # EFAULT: the name is a null pointer
        ("sched_yield", ()),
        ("ioctl", (ALL, 0x5401)),  # TCGETS
    ]
    expected = [0, 0, 0, 0, 0, errno.EFAULT, 0, errno.EBADF]
    assert answers(load("default"), *calls) == expected


def test_call_that_no_kernel_has_is_not_there() -> None:
    done = launch(load("default"), "calls", json.dumps([(5000, [0] * 6), (ALL, [0] * 6)]))
    assert json.loads(done.stdout) == [ENOSYS, ENOSYS]


def test_call_of_the_x32_abi_dies() -> None:
    if ARCH != "x86_64":
        pytest.skip("x86_64")
    done = launch(load("default"), "calls", json.dumps([(0x4000_0000 + 39, [0] * 6)]))
    assert done.returncode == -signal.SIGSYS


def test_call_of_i386_dies() -> None:
    if ARCH != "x86_64":
        pytest.skip("x86_64")
    if launch(b"", "int80").returncode:
        pytest.skip("IA32 emulation")
    done = launch(load("default"), "int80")
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, "")


def test_kill_in_a_policy_ends_the_process() -> None:
    program = compile_policy("default allow\nkill getppid", name="test", arch=ARCH)
    numbers = syscalls.numbers(ARCH)
    done = launch(program, "calls", json.dumps([(numbers["getppid"], [0] * 6)]))
    assert done.returncode == -signal.SIGSYS


def test_filter_with_jumps_further_than_255_is_taken_by_the_kernel() -> None:
    rules = tuple(
        Rule(
            Action(Verb.ERRNO, 1 + index % 100),
            ("getppid", "mseal")[index % 2 :][:1],
            (Comparison(index % 6, ALL, Op.EQ, index << 32 | 5),),
            ("far",),
            index,
        )
        for index in range(700)
    )
    policy = Policy("far", Action(Verb.ALLOW), rules)
    program = bpf.compile_rules(policy, ARCH, syscalls.numbers(ARCH))
    assert len(program) // 8 > 8 * 255
    arguments = tuple(698 << 32 | 5 if at == 698 % 6 else 0 for at in range(6))
    given = answers(program, ("getppid", arguments), ("getppid", ()))
    assert given == [1 + 698 % 100, 0]


# --- Real programs.

HELLO_C = """
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static void *say(void *word) { printf("%s\\n", (char *)word); return NULL; }
int main(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, say, "thread")) return 1;
    pthread_join(thread, NULL);
    fflush(stdout);
    if (fork() == 0) { puts("child"); return 0; }
    int status;
    return wait(&status) < 0 || status;
}
"""
HELLO_CPP = """
#include <future>
#include <iostream>
#include <vector>
int main() {
    auto sum = std::async(std::launch::async, [] { return std::vector<int>(42).size(); });
    std::cout << sum.get() << std::endl;
}
"""
HELLO_RUST = """
fn main() { println!("{}", std::thread::spawn(|| 42).join().unwrap()); }
"""
HELLO_GO = """package main
import "fmt"
func main() { c := make(chan int); go func() { c <- 42 }(); fmt.Println(<-c) }
"""
HELLO_JAVA = """
import java.util.stream.IntStream;
public class Main {
    public static void main(String[] a) throws Exception {
        Thread t = new Thread(() -> System.out.println("thread"));
        t.start(); t.join(); System.gc();
        System.out.println(IntStream.range(0, 43).parallel().max().getAsInt());
    }
}
"""
HELLO_PYTHON = """
import multiprocessing.pool, socket, subprocess, tempfile, threading
thread = threading.Thread(target=print, args=("thread",), kwargs={"flush": True})
thread.start(); thread.join()
print(subprocess.run(["echo", "child"], capture_output=True, text=True).stdout, end="")
left, right = socket.socketpair(); left.send(b"42"); print(right.recv(2).decode())
tempfile.NamedTemporaryFile().write(b"x")
with multiprocessing.Pool(2) as pool: print(sum(pool.map(abs, [-20, -22])))
"""
HELLO_NODE = """
const { execFileSync } = require("child_process");
const { Worker } = require("worker_threads");
console.log(execFileSync("echo", ["child"]).toString().trim());
new Worker("console.log(42)", { eval: true });
"""


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def output(directory: Path, *command: str) -> str:
    done = launch(load("default"), "exec", *command, cwd=directory)
    assert done.returncode == 0, (command, done.returncode, done.stderr)
    return done.stdout


@pytest.mark.parametrize("link", ["-pie", "-static"])
@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_c_compiles_and_runs(tmp_path: Path, compiler: str, link: str) -> None:
    (tmp_path / "a.c").write_text(HELLO_C)
    output(tmp_path, tool(compiler), "-O2", "-pthread", link, "-o", "a.out", "a.c")
    assert output(tmp_path, "./a.out") == "thread\nchild\n"


def test_cpp_compiles_and_runs(tmp_path: Path) -> None:
    (tmp_path / "a.cpp").write_text(HELLO_CPP)
    output(tmp_path, tool("g++"), "-O2", "-pthread", "a.cpp")
    assert output(tmp_path, "./a.out") == "42\n"


@pytest.mark.slow
def test_rust_compiles_and_runs(tmp_path: Path) -> None:
    (tmp_path / "a.rs").write_text(HELLO_RUST)
    output(tmp_path, tool("rustc"), "-O", "a.rs")
    assert output(tmp_path, "./a") == "42\n"


@pytest.mark.slow
def test_go_compiles_and_runs(tmp_path: Path) -> None:
    (tmp_path / "a.go").write_text(HELLO_GO)
    caches = (f"GOCACHE={tmp_path}/cache", f"GOPATH={tmp_path}/path")
    output(tmp_path, "env", *caches, tool("go"), "build", "-o", "a", "a.go")
    assert output(tmp_path, "./a") == "42\n"


@pytest.mark.slow
def test_java_compiles_and_runs(tmp_path: Path) -> None:
    (tmp_path / "Main.java").write_text(HELLO_JAVA)
    output(tmp_path, tool("javac"), "Main.java")
    assert output(tmp_path, tool("java"), "-Xmx128m", "Main") == "thread\n42\n"


def test_python_runs(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(HELLO_PYTHON)
    assert output(tmp_path, sys.executable, "a.py") == "thread\nchild\n42\n42\n"


def test_node_runs(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text(HELLO_NODE)
    assert output(tmp_path, tool("node"), "a.js") == "child\n42\n"


def test_program_may_confine_itself_further(tmp_path: Path) -> None:
    inner = compile_policy("default allow\nerrno EPERM getppid", name="test", arch=ARCH)
    number = syscalls.numbers(ARCH)["getppid"]
    calls = json.dumps([(number, [0] * 6)])
    within = [sys.executable, "-c", LAUNCH, inner.hex(), "calls", calls]
    assert json.loads(output(tmp_path, *within)) == [EPERM]
