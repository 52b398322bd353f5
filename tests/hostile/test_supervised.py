"""Attacks on the keeper that decides calls: it stays awake, and its limits hold."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runner import (
    ConfigError,
    DeviceAccess,
    HostError,
    Landlock,
    Limits,
    Mount,
    Sandbox,
    Status,
    Supervision,
)
from runner.seccomp import compile_policy, syscalls

pytestmark = pytest.mark.userns

STORM = """
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *call(void *unused) { for (;;) syscall(SYS_getppid); return unused; }
int main(void)
{
    pthread_t thread;
    for (int i = 0; i < 1500; i++) pthread_create(&thread, 0, call, 0);
    call(0);
}
"""


# Each of its 26 symlinks goes 1600 steps before it leads to the next.
LONG_WAY = """
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static pthread_barrier_t together;
static void *open_it(void *unused)
{
    pthread_barrier_wait(&together);
    for (;;) open("/tmp/Z", O_RDONLY);
    return unused;
}
int main(void)
{
    static char target[5 * 800 + 2];
    char name[] = "A";
    pthread_t thread;
    chdir("/tmp");
    mkdir("d", 0700);
    for (int i = 0; i < 800; i++) memcpy(target + 5 * i, "d/../", 5);
    for (target[4000] = 'd'; *name <= 'Z'; target[4000] = (*name)++) symlink(target, name);
    pthread_barrier_init(&together, 0, 101);
    for (int i = 0; i < 100; i++) pthread_create(&thread, 0, open_it, 0);
    open_it(0);
}
"""


def compiled(source: str, program: Path) -> str:
    gcc = ["gcc", "-static", "-O1", "-pthread", "-xc", "-", "-o", program]
    subprocess.run(gcc, input=source.encode(), check=True)
    return str(program)


@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_paths_that_take_long_keep_no_limit_from_its_time(by: str, tmp_path: Path) -> None:
    """One call may hold the keeper for a tenth of a second, but not a hundred together."""
    program = compiled(LONG_WAY, tmp_path / "way")
    mounts = [Mount.bind(program, "/way")]
    rules = Supervision(read=("/",), write=("/tmp/",), refuse="EACCES", by=by)
    with Sandbox(mounts=mounts, supervision=rules) as box:
        result = box.run(["/way"], limits=Limits(wall_time=0.3))
    assert result.status is Status.WALL_TIME_LIMIT
    assert result.wall_ns < 3e9


@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_more_calls_than_can_be_decided_keep_no_limit_from_its_time(
    by: str, tmp_path: Path
) -> None:
    program = compiled(STORM, tmp_path / "storm")
    rules = Supervision(calls={"getppid": 2**31 - 1}, by=by)
    limits = Limits(wall_time=0.5, processes=2000)
    with Sandbox(mounts=[Mount.bind(program, "/storm")], supervision=rules) as box:
        result = box.run(["/storm"], limits=limits)
    assert result.status is Status.WALL_TIME_LIMIT
    assert result.wall_ns < 20e9


OWN = """
import os
for name in ("/proc/self/stat", "/proc/thread-self/stat"):
    print(open(name).read().split()[0] == str(os.getpid()))
try: open("/proc/self/oom_score_adj", "w").write("500")
except OSError as error: print(error.strerror)
"""


def test_own_directory_of_proc_is_the_sandboxs_and_not_the_hosts() -> None:
    rules = Supervision(stat=("/",), read=("/",), write=("/",), by="notify")
    with Sandbox(supervision=rules) as box:
        result = box.run(["/usr/bin/python3", "-IS", "-c", OWN])
    assert result.stdout == b"True\nTrue\nRead-only file system\n"


BENEATH = """
import ctypes, os
os.makedirs("/tmp/in/tmp"); open("/tmp/in/tmp/f", "w"); open("/tmp/f", "w"); os.chdir("/tmp/in")
libc = ctypes.CDLL(None, use_errno=True)
for resolve in (0, 2, 4, 8, 16):
    how = (ctypes.c_uint64 * 3)(0, 0, resolve)
    fd = libc.syscall(437, -100, b"/tmp/f", how, 24)
    print(fd >= 0 or os.strerror(ctypes.get_errno()))
"""


@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_path_that_is_to_be_resolved_otherwise_is_not_opened(by: str) -> None:
    """As from another root (RESOLVE_IN_ROOT), where what is judged is not what it leads to."""
    policy = compile_policy("default allow", name="test", arch=platform.machine())
    rules = Supervision(stat=("/",), read=("/",), write=("/tmp/",), by=by)
    with Sandbox(supervision=rules, policy=policy) as box:
        result = box.run(["/usr/bin/python3", "-IS", "-c", BENEATH])
    no = b"Function not implemented\n"
    assert result.stdout == b"True\nTrue\n" + no * 3, result


# An action for mkdirat by a filter of the program's own; then the call, three times.
OWN_FILTER = """
import ctypes, os, struct, sys
c = ctypes.CDLL(None, use_errno=True)
number = int(sys.argv[2])
filter = struct.pack("<HBBIHBBIHBBIHBBI", 32, 0, 0, 0, 21, 0, 1, number,
                     6, 0, 0, int(sys.argv[1], 0), 6, 0, 0, 0x7fff0000)
text = ctypes.create_string_buffer(filter)
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(text)))
assert c.prctl(22, 2, program) == 0
for _ in range(3):
    done = c.syscall(number, -100, b"/tmp/made", 0o700)
    print(done or os.path.isdir("/tmp/made"), os.strerror(ctypes.get_errno()), flush=True)
"""


@pytest.mark.parametrize("data", [0, 1, 7])
@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_filter_that_the_program_adds_takes_no_call_from_the_policy(by: str, data: int) -> None:
    """The newest filter's data is what a tracer reads, where several want it to be asked."""
    arch = platform.machine()
    number = syscalls.numbers(arch)["mkdirat"]
    policy = compile_policy("default allow\nkill mkdirat", name="test", arch=arch)
    rules = Supervision(stat=("/",), read=("/",), write=("/tmp/",), by=by)
    words = ["/usr/bin/python3", "-IS", "-c", OWN_FILTER, str(0x7FF00000 + data), str(number)]
    with Sandbox(supervision=rules, policy=policy) as box:
        result = box.run(words)
    assert (result.status, result.syscall) == (Status.DISALLOWED_SYSCALL, "mkdirat")
    assert result.stdout == b""


def test_filter_that_the_program_adds_may_trace_what_has_no_rule() -> None:
    """Without a tracer of its own it gets ENOSYS, as from the kernel."""
    number = syscalls.numbers(platform.machine())["mkdirat"]
    rules = Supervision(calls={"umask": 100})
    words = ["/usr/bin/python3", "-IS", "-c", OWN_FILTER, str(0x7FF00001), str(number)]
    with Sandbox(supervision=rules) as box:
        result = box.run(words)
    assert result.stdout == 3 * b"-1 Function not implemented\n"


# Each call with a path that is in no set, or that makes of a file to read one to write.
AROUND = """
import ctypes, errno, os, sys
c = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    made = c.syscall(ctypes.c_long(number), *words)
    print("done" if made >= 0 else errno.errorcode[ctypes.get_errno()])
numbers = dict(word.split("=") for word in sys.argv[1:])
number = lambda name: int(numbers[name])
value = ctypes.create_string_buffer(b"v")
how = (ctypes.c_uint64 * 2)(ctypes.addressof(value), 1)
room = ctypes.create_string_buffer(256)
for flags in (os.O_RDONLY, os.O_PATH):
    call(number("linkat"), os.open("/place/read/f", flags), b"", -100, b"/tmp/taken", 0x1000)
call(number("setxattrat"), -100, b"/place/none/f", 0, b"user.x", how, 16)
call(number("file_getattr"), -100, b"/place/none/f", room, 24, 0)
call(number("inotify_add_watch"), c.inotify_init(), b"/place/none", 0xfff)
call(number("open_tree"), -100, b"/place/none/f", 0)
call(number("name_to_handle_at"), -100, b"/place/none/f", room, room, 0)
call(number("io_uring_setup"), 8, room)
call(number("userfaultfd"), 1)
call(number("chroot"), b"/place/none")
"""
AROUND_CALLS = (
    *("linkat", "setxattrat", "file_getattr", "inotify_add_watch", "open_tree"),
    *("name_to_handle_at", "io_uring_setup", "userfaultfd", "chroot"),
)


@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_no_other_call_leads_around_the_rules_of_paths(by: str, tmp_path: Path) -> None:
    """Whatever the policy allows: it knows no paths."""
    for name in ("read", "none"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    rules = Supervision(
        stat=("/usr/",),
        read=("/usr/", "/lib/", "/lib64/", "/etc/", "/place/read/"),
        write=("/tmp/",),
        refuse="EACCES",
        by=by,
    )
    numbers = syscalls.numbers(platform.machine())
    words = [f"{name}={numbers[name]}" for name in AROUND_CALLS]
    mounts = [Mount.bind(str(tmp_path), "/place", readonly=False, owned=True)]
    with Sandbox(supervision=rules, mounts=mounts, policy=None) as box:
        result = box.run(["/usr/bin/python3", "-IS", "-c", AROUND, *words])
    expected = ["ENOENT"] * 2 + ["EACCES"] * 3 + ["EPERM"] * 5
    assert result.stdout.decode().split() == expected, result.stderr


FOREIGN = """
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
int main(void)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT;
    char *path = mmap(0, 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
    long fd;
    strcpy(path, "/etc/passwd");
    __asm__ volatile("int $0x80" : "=a"(fd) : "a"(5), "b"((int)(long)path), "c"(0), "d"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    printf("%ld\\n", fd);
}
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="calls of i386 are x86_64's")
@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_call_of_another_architecture_ends_the_run_although_the_policy_allows_it(
    by: str, tmp_path: Path
) -> None:
    """It has other numbers, and so no rule."""
    everything = b"\x06\0\0\0\0\0\xff\x7f"
    mounts = [Mount.bind(compiled(FOREIGN, tmp_path / "foreign"), "/foreign")]
    rules = Supervision(read=("/foreign",), refuse="EACCES", by=by)
    with Sandbox(supervision=rules, mounts=mounts, policy=everything) as box:
        result = box.run(["/foreign"])
    assert (result.status, result.stdout) == (Status.DISALLOWED_SYSCALL, b"")
    assert result.violation is not None
    assert (result.violation.number, result.violation.arch) == (5, "i386")


# Calls, while signals come that restart them.
RESTARTED = """
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>
static void handle(int number) { (void)number; }
int main(void)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 100}, {0, 100}}, never = {0};
    char name[32];
    int failed = 0;
    sigaction(SIGALRM, &action, 0);
    setitimer(ITIMER_REAL, &often, 0);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "/tmp/%d", i);
        failed += open(name, O_CREAT | O_EXCL | O_WRONLY, 0600) < 0;
        close(3);
        (void)getppid();
    }
    setitimer(ITIMER_REAL, &never, 0);
    printf("%d\\n", failed);
}
"""


@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_signals_have_no_call_decided_twice(by: str, tmp_path: Path) -> None:
    """A file that was made anew is there already, and a count is reached too early."""
    mounts = [Mount.bind(compiled(RESTARTED, tmp_path / "restarted"), "/restarted")]
    rules = Supervision(calls={"getppid": 500}, read=("/",), write=("/tmp/",), by=by)
    with Sandbox(supervision=rules, mounts=mounts) as box:
        result = box.run(["/restarted"])
    assert (result.status, result.stdout) == (Status.OK, b"0\n")


UNTRACED = """
import ctypes, errno, os, sys
c = ctypes.CDLL(None, use_errno=True)
clone, umask, mkdirat = map(int, sys.argv[1:])
def call(*words):
    return "done" if c.syscall(*words) >= 0 else errno.errorcode[ctypes.get_errno()]
child = c.syscall(clone, 0x800000 | 17, 0, 0, 0, 0)
if child == 0:
    print(call(umask, 0), call(mkdirat, -100, b"/tmp/made", 0o700), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_process_that_is_not_traced_makes_no_call_that_would_stop() -> None:
    arch = platform.machine()
    numbers = syscalls.numbers(arch)
    policy = compile_policy("default allow\nkill mkdirat", name="test", arch=arch)
    words = [str(numbers[name]) for name in ("clone", "umask", "mkdirat")]
    with Sandbox(supervision=Supervision(calls={"umask": 9}), policy=policy) as box:
        result = box.run(["/usr/bin/python3", "-IS", "-c", UNTRACED, *words])
    assert result.stdout == b"ENOSYS ENOSYS\n"


@pytest.mark.parametrize(
    ("field", "fields", "limits"),
    [
        ("Runner.landlock", {"landlock": Landlock(read=["/"], execute=["/"])}, {}),
        pytest.param(
            "Limits.devices", {}, {"devices": [DeviceAccess("c 1:3")]}, marks=pytest.mark.cgroup
        ),
    ],
)
def test_what_does_not_hold_for_the_keeper_is_refused_where_it_opens(
    field: str, fields: dict[str, Any], limits: dict[str, Any]
) -> None:
    def run(wanted: Supervision) -> None:
        with Sandbox(supervision=wanted, limits=Limits(**limits), **fields) as box:
            box.run(["true"])

    for wanted in (
        Supervision(read=("/",), by="notify"),
        Supervision(calls={"openat": "ask"}, by="notify", decide=lambda _call: "allow"),
    ):
        with pytest.raises(ConfigError, match=f"^{field}: .* keeper, which opens files"):
            run(wanted)
    for wanted in (Supervision(read=("/",)), Supervision(calls={"umask": 9}, by="notify")):
        with contextlib.suppress(HostError):  # no Landlock, or no controller
            run(wanted)
