"""Attacks, each with the outcome that it must have. X21, X28, X29.

`unfiltered` sandboxes have no seccomp policy: there the attack gets as far as the kernel lets
it, and what stands in its way is the rest of the sandbox.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import (
    ChildError,
    ErrorLocation,
    Limits,
    MiB,
    Mount,
    Sandbox,
    Status,
    TimeOffsets,
)

pytestmark = pytest.mark.userns

PYTHON = "/usr/bin/python3"
PRELUDE = """
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    result = libc.syscall(*map(ctypes.c_long, args))
    return result if result >= 0 else -ctypes.get_errno()
CLONE, PTRACE, PRLIMIT = (56, 101, 302) if os.uname().machine == "x86_64" else (220, 117, 261)
CLONE_PARENT = 0x8000 | signal.SIGCHLD
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(wall_time=10, processes=50)) as made:
        yield made


@pytest.fixture
def unfiltered() -> Iterator[Sandbox]:
    with Sandbox(policy=None, limits=Limits(wall_time=10, processes=50)) as made:
        yield made


def python(code: str) -> list[str]:
    return [PYTHON, "-S", "-c", PRELUDE + code]


# The files of the host


@pytest.mark.parametrize("old_root", ["", "/old_root", "/.run-sandboxed-old-root"])
def test_planted_symlink_below_a_target_never_reaches_the_host(
    tmp_path: Path, old_root: str
) -> None:
    """A link left in a writable directory, and a mount target below it."""
    box, outside = tmp_path / "box", tmp_path / "outside"
    for directory in (tmp_path, box, outside):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o777)
    (box / "sub").symlink_to(f"{old_root}{outside}")
    planted = Mount.file("/work/sub/planted", b"x", mode=0o4755)
    work = Mount.bind(str(box), "/work", readonly=False)
    with Sandbox(mounts=[work, planted]) as sandbox, pytest.raises(ChildError) as caught:
        sandbox.start()
    at = (caught.value.location, caught.value.errno)
    assert at == (ErrorLocation.MOUNT_MKDIR, errno.ENOENT)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "extras", [{}, {"oom_score_adj": 500}, {"time_offsets": TimeOffsets(monotonic=5.0)}]
)
def test_planted_symlink_to_an_fd_of_ours_leads_nowhere(
    tmp_path: Path, extras: dict[str, Any]
) -> None:
    """A link to /proc/self/fd where the next program begins, or in the path to it."""
    box, outside = tmp_path / "box", tmp_path / "outside"
    for directory in (tmp_path, box, outside):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o777)
    for fd in range(3, 20):
        (box / str(fd)).symlink_to(f"/proc/self/fd/{fd}")
    shutil.copy("/bin/true", outside)
    work = Mount.bind(str(box), "/work", readonly=False)
    errors = set()
    with Sandbox(mounts=[work], **extras) as sandbox:
        for fd in range(3, 20):
            with contextlib.suppress(ChildError):
                # What it holds inside are the sandbox's own directories.
                show = f"cd ..; pwd; ls -d .{outside}"
                result = sandbox.run(["sh", "-c", show], work_dir=f"/work/{fd}")
                assert (result.stdout, result.exit_code) == (b"/\n", 2)
            with pytest.raises(ChildError) as caught:
                sandbox.run([f"/work/{fd}/..{outside}/true"])
            errors.add((caught.value.location, caught.value.errno))
    assert errors <= {
        (ErrorLocation.EXECVE, number) for number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
    }


def test_secrets_of_the_host_are_not_there(sandbox: Sandbox) -> None:
    places = ["/etc/shadow", "/root", "/home", "/var", "/boot", "/sys", "/proc/1/environ"]
    places += ["/proc/1/mem", "/proc/1/maps", "/proc/1/root/", "/proc/kcore"]
    # Not /proc/1/fd: which numbers are open is shown to the uid of who started us, in a user
    # namespace where that uid is 0; what they are is not.
    places += [f"/proc/1/fd/{fd}" for fd in range(8)]
    for place in places:
        result = sandbox.run(["sh", "-c", f"cat {place} || ls {place}/"])
        assert (result.stdout, result.ok) == (b"", False), place


def test_nothing_outside_its_own_places_can_be_written(sandbox: Sandbox) -> None:
    code = """
found = []
for top, dirs, files in os.walk("/"):
    if top.startswith(("/proc", "/tmp", "/dev/shm")):
        dirs.clear()
        continue
    if top.count("/") > 3:
        dirs.clear()
    try:
        open(os.path.join(top, ".mine"), "w").close()
        found.append(top)
    except OSError:
        pass
print(found)
"""
    result = sandbox.run(python(code), limits=Limits(wall_time=60))  # a host's whole /usr
    assert (result.status, result.stdout) == (Status.OK, b"[]\n")


def test_setuid_program_gives_nothing(sandbox: Sandbox) -> None:
    setuid = [
        path
        for path in Path("/usr/bin").iterdir()
        if path.is_file() and path.stat().st_mode & stat.S_ISUID
    ]
    assert setuid, "this host has no setuid program to try"
    status = sandbox.run(["sh", "-c", "grep -E 'NoNewPrivs|CapBnd' /proc/self/status"]).stdout
    assert status.split() == [b"CapBnd:", b"0" * 16, b"NoNewPrivs:", b"1"]
    assert b"nosuid" in sandbox.run(["grep", " /usr ", "/proc/self/mountinfo"]).stdout


@pytest.mark.root
@pytest.mark.parametrize("lost", ["-sys_admin", "-sys_admin,-setuid", "-setuid", "-all"])
def test_sysctls_of_the_host_are_not_writable_for_a_root_with_less(lost: str) -> None:
    """Such a grader may have no id but the host's 0 to give, for which they ask alone."""
    attack = (
        "import os\n"
        "for top, dirs, files in os.walk('/proc/sys'):\n"
        "    for name in files:\n"
        "        try: os.close(os.open(os.path.join(top, name), os.O_WRONLY))\n"
        "        except OSError: continue\n"
        "        print(os.path.join(top, name))\n"
    )
    code = (
        "import sys, runner\n"
        "try: result = runner.run(['/usr/bin/python3', '-S', '-c', sys.argv[1]])\n"
        "except runner.SandboxError as error: print('refused', error)\n"
        "else: print(result.status.value, result.stdout.decode(), result.stderr.decode())\n"
    )
    command = ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}", "/usr/bin/python3"]
    done = subprocess.run(
        [*command, "-c", code, attack],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() in (["ok"], ["refused", *done.stdout.split()[1:]])
    assert lost == "-all" or done.stdout.split() == ["ok"]


def test_sandbox_works_for_a_root_of_one_id() -> None:
    """`unshare -Ur`: uid 0, all capabilities, and no other id, nor setgroups."""
    code = "import runner; print(runner.run(['id', '-u']).stdout)"
    done = subprocess.run(
        ["unshare", "-Ur", "/usr/bin/python3", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "b'1000\\n'\n"


SETS_ID = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
machine = os.uname().machine
numbers = {"fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "openat": 257, "openat2": 437,
           "mknodat": 259} if machine == "x86_64" else {
           "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "openat": 56, "openat2": 437,
           "mknodat": 33}
if machine == "x86_64":
    numbers |= {"chmod": 90, "open": 2, "creat": 85, "mknod": 133}
open("f", "w").close()
fd = os.open("f", os.O_RDONLY)
how = (ctypes.c_uint64 * 3)(os.O_CREAT | os.O_WRONLY, 0o4755, 0)
for mode in (0o4755, 0o2755, 0o6755):
    calls = {
        "chmod": (b"f", mode), "fchmod": (fd, mode), "fchmodat": (-100, b"f", mode),
        "fchmodat2": (-100, b"f", mode, 0), "open": (b"n", os.O_CREAT | os.O_WRONLY, mode),
        "openat": (-100, b"n", os.O_CREAT | os.O_WRONLY, mode), "creat": (b"n", mode),
        "openat2": (-100, b"n", ctypes.byref(how), 24), "mknod": (b"n", 0o100000 | mode, 0),
        "mknodat": (-100, b"n", 0o100000 | mode, 0),
    }
    calls["O_TMPFILE"] = (-100, b".", os.O_TMPFILE | os.O_WRONLY, mode)
    numbers["O_TMPFILE"] = numbers["openat"]
    for name, arguments in calls.items():
        if name in numbers and libc.syscall(numbers[name], *arguments) != -1:
            print(name, oct(mode), "was not refused")
os.chmod("f", 0o1755)
print(oct(os.stat("f").st_mode))
"""


def test_no_set_id_file_is_made_in_a_writable_directory(tmp_path: Path) -> None:
    """It would be one on the host, where no mount of ours says nosuid."""
    mount = Mount.bind(str(tmp_path), "/box", readonly=False, owned=True)
    with Sandbox(mounts=[mount], work_dir="/box") as sandbox:
        result = sandbox.run([PYTHON, "-S", "-c", SETS_ID])
    assert (result.stdout, result.stderr) == (b"0o101755\n", b"")
    assert not [p for p in tmp_path.iterdir() if p.stat().st_mode & 0o6000]


def test_lease_on_a_file_of_the_host_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    mount = Mount.bind(str(tmp_path), "/box", readonly=False, owned=True)
    code = "import fcntl; fcntl.fcntl(open('/box/f'), fcntl.F_SETLEASE, fcntl.F_RDLCK)"
    with Sandbox(mounts=[mount]) as sandbox:
        result = sandbox.run([PYTHON, "-c", code])
    assert b"Operation not permitted" in result.stderr


def test_exec_that_hangs_can_be_cancelled_and_meets_its_limit(tmp_path: Path) -> None:
    """A write lease on the program makes its exec wait, for up to 45 s (fcntl(2))."""
    tmp_path.chmod(0o755)
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    with Sandbox(mounts=[Mount.bind(str(tmp_path), "/box")]) as sandbox:
        sandbox.start()
        # The signal that asks for the lease's end is not for us to die of.
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)
        with program.open("rb") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        leased = os.open(program, os.O_RDWR)
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        try:
            started = time.monotonic()
            result = sandbox.run(["/box/program"], limits=Limits(wall_time=1))
            assert time.monotonic() - started < 8
            assert not result.ok
        finally:
            os.close(leased)
            signal.signal(signal.SIGIO, before)
        assert sandbox.run(["/box/program"]).ok


def test_fresh_place_below_a_writable_directory_cannot_be_led_astray(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "a" / "t").mkdir(parents=True)
    (tmp_path / "a").chmod(0o777)
    mounts = [
        Mount.bind(str(tmp_path), "/box", readonly=False, owned=True),
        Mount.tmpfs("/box/a/t"),
    ]
    with Sandbox(mounts=mounts) as sandbox:
        assert sandbox.run(["sh", "-c", "mv /box/a /box/b; ln -s / /box/a; exit 0"]).ok
        (tmp_path / "a").unlink(missing_ok=True)
        if (tmp_path / "b").exists():
            (tmp_path / "b").rename(tmp_path / "a")
        assert sandbox.run(["ls", "/box/a/t"]).ok


# Keeper and init


def test_signals_do_not_reach_init_or_keeper(sandbox: Sandbox) -> None:
    code = """
for number in (1, 2, 9, 15, 19):
    for pid in (1, -1):
        try: os.kill(pid, number)
        except (PermissionError, ProcessLookupError): pass
os.kill(0, 18)
print("lives")
"""
    assert sandbox.run(python(code)).stdout == b"lives\n"
    assert sandbox.run(["true"]).ok


def test_fds_of_ours_are_not_in_the_program(sandbox: Sandbox) -> None:
    assert sandbox.run(["ls", "/proc/self/fd"]).stdout.split() == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("resource", range(16))
def test_limits_of_init_cannot_be_used_to_escape_a_kill(resource: int) -> None:
    """As an ordinary user init has the program's uid, and prlimit(2) asks for no more."""
    code = f"""
limit = (ctypes.c_uint64 * 2)(0, 0)
call(PRLIMIT, 1, {resource}, ctypes.addressof(limit), 0)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        time.sleep(20)
        os._exit(0)
time.sleep(20)
"""
    with Sandbox(policy=None, limits=Limits(wall_time=0.5)) as unfiltered:
        started = time.monotonic()
        try:
            assert unfiltered.run(python(code)).status is Status.WALL_TIME_LIMIT
        except ChildError as error:
            # Of CPU time init may have used too much already: its end is ours, no verdict, and
            # the kernel ends the rest. Only the policy can refuse that.
            assert (resource, error.location) == (0, ErrorLocation.INIT)  # noqa: PT017
        assert time.monotonic() - started < 5
        assert unfiltered.run(["true"]).ok


def test_prlimit_of_init_is_refused_by_the_policy(sandbox: Sandbox) -> None:
    code = "limit = (ctypes.c_uint64 * 2)(); print(call(PRLIMIT, 1, 7, 0, "
    assert sandbox.run(python(code + "ctypes.addressof(limit)))")).stdout == b"-1\n"


def test_children_given_to_the_keeper_are_ended_with_the_rest(unfiltered: Sandbox) -> None:
    """CLONE_PARENT makes the program's child the keeper's."""
    code = """
for _ in range(5):
    if call(CLONE, CLONE_PARENT, 0, 0, 0, 0) == 0:
        time.sleep(20)
        os._exit(0)
"""
    for _ in range(4):
        assert unfiltered.run(python(code)).ok
    names = unfiltered.run(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout.split()
    assert names == [b"sh"]
    keeper = unfiltered.keeper_pid
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    assert children == [str(unfiltered.init_pid)]
    started = time.monotonic()
    unfiltered.close()
    assert time.monotonic() - started < 2


def test_program_traced_by_its_child_does_not_hang_the_keeper(unfiltered: Sandbox) -> None:
    """Its zombie is only the tracer's to see, so a blocking wait4 would never return."""
    code = """
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.setsid()
    assert call(PTRACE, 0x4206, os.getppid(), 0, 0) == 0
    os.write(writing, b"x")
    time.sleep(20)
    os._exit(0)
os.read(reading, 1)
os._exit(5)
"""
    with contextlib.ExitStack() as stack:
        scope = Path("/proc/sys/kernel/yama/ptrace_scope")
        if scope.exists() and scope.read_text().strip() != "0":
            code = code.replace(
                "child = os.fork()", "libc.prctl(0x59616d61, -1); child = os.fork()"
            )
        started = time.monotonic()
        stack.callback(unfiltered.close)
        result = unfiltered.run(python(code))
    assert result.exit_code == 5
    assert time.monotonic() - started < 5


# Figures and verdicts


def test_flood_by_an_orphan_does_not_end_the_next_run() -> None:
    code = """
if os.fork() == 0:
    while True:
        os.write(1, b"x" * 65536)
os._exit(0)
"""
    limits = Limits(output=1000, wall_time=10)
    with Sandbox(limits=limits) as sandbox:
        seen = set()
        for _ in range(50):
            seen.add(sandbox.run(python(code)).status)
            assert sandbox.run(["true"]).ok
        assert seen <= {Status.OUTPUT_LIMIT, Status.OK}


def test_cpu_time_of_children_that_nobody_waits_for_counts(sandbox: Sandbox) -> None:
    """The kernel adds no time of a child to a parent that ignores SIGCHLD."""
    code = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(40):
    if os.fork() == 0:
        while time.process_time() < 0.08:
            pass
        os._exit(0)
    try: os.wait()
    except ChildProcessError: pass
"""
    result = sandbox.run(python(code), limits=Limits(cpu_time=0.5, wall_time=10))
    assert result.status is Status.CPU_TIME_LIMIT


def test_memory_of_a_process_without_its_first_thread_counts(sandbox: Sandbox) -> None:
    source = """
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
static void *hoard(void *unused) {
    usleep(50000);
    for (int i = 0; i < 320; i++) {
        char *p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        for (int j = 0; j < 1 << 20; j += 4096) p[j] = 1;
        usleep(1000);
    }
    return unused;
}
int main(void) { pthread_t t; pthread_create(&t, 0, hoard, 0); pthread_exit(0); }
"""
    build = "cat > /tmp/h.c && gcc -O -o /tmp/h /tmp/h.c -lpthread && exec /tmp/h"
    limits = Limits(memory=128 * MiB, wall_time=90)  # the compiler needs some of both too
    result = sandbox.run(["sh", "-c", build], stdin=source.encode(), limits=limits)
    assert (result.status, result.limit) == (Status.MEMORY_LIMIT, "memory")


def test_memory_shared_after_a_fork_counts_once(sandbox: Sandbox) -> None:
    code = """
ballast = bytearray(40 << 20)
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        time.sleep(0.3)
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
"""
    limits = Limits(memory=90 * MiB, wall_time=10, processes=10)
    assert sandbox.run(python(code), limits=limits).status is Status.OK


def test_own_kill_with_sigkill_is_no_limit(sandbox: Sandbox) -> None:  # T7
    limits = Limits(cpu_time=5, memory=256 * MiB, wall_time=10)
    result = sandbox.run(["sh", "-c", "kill -9 $$"], limits=limits)
    assert (result.status, result.signal, result.limit) == (Status.SIGNALLED, 9, None)


def test_own_stop_does_not_outlast_the_wall_limit(sandbox: Sandbox) -> None:
    result = sandbox.run(["sh", "-c", "kill -STOP $$"], limits=Limits(wall_time=0.5))
    assert result.status is Status.WALL_TIME_LIMIT


def test_fork_bomb_is_ended_whole(sandbox: Sandbox) -> None:  # X16, bounded by the limit
    bomb = "f() { f & f & }; f; sleep 20"
    limits = Limits(processes=40, wall_time=1)
    started = time.monotonic()
    result = sandbox.run(["sh", "-c", bomb], limits=limits)
    assert not result.ok
    assert time.monotonic() - started < 10
    names = sandbox.run(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout.split()
    assert names == [b"sh"]


# What runs know of each other and of the host


def test_network_reaches_nothing(sandbox: Sandbox) -> None:
    code = """
import socket
for address in (("127.0.0.1", 80), ("192.0.2.1", 80)):
    try: socket.create_connection(address, 1)
    except OSError as error: print(error.errno)
"""
    assert sandbox.run([PYTHON, "-c", PRELUDE + code]).stdout == b"101\n101\n"  # ENETUNREACH


def test_abstract_socket_of_the_host_is_not_reached(sandbox: Sandbox) -> None:
    import socket

    name = f"\0run-sandboxed-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as host:
        host.bind(name)
        host.listen()
        code = f"import socket\nsocket.socket(socket.AF_UNIX).connect({name!r})"
        result = sandbox.run([PYTHON, "-c", code])
    assert b"ConnectionRefusedError" in result.stderr


def test_session_keyring_is_the_runs_own(unfiltered: Sandbox) -> None:
    code = """
KEYCTL, ADD_KEY = (250, 248) if os.uname().machine == "x86_64" else (219, 217)
def describe():
    buffer = ctypes.create_string_buffer(4096)
    size = call(KEYCTL, 11, -3, ctypes.addressof(buffer), 4096)  # KEYCTL_READ of @s
    return size // 4 if size >= 0 else size
print(describe())
kind, name = ctypes.create_string_buffer(b"user"), ctypes.create_string_buffer(b"mine")
print(call(ADD_KEY, *map(ctypes.addressof, (kind, name, name)), 4, -3) > 0)
print(describe())
"""
    for _ in range(2):
        assert unfiltered.run(python(code)).stdout == b"0\nTrue\n1\n"


def test_mount_below_a_fresh_place_is_there_in_every_run(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "in").write_text("42")
    with Sandbox(mounts=[Mount.bind(str(tmp_path), "/tmp/data")]) as sandbox:
        for _ in range(3):
            result = sandbox.run(["sh", "-c", "cat /tmp/data/in; ls /tmp; echo x > /tmp/f"])
            assert (result.stdout, result.ok) == (b"42data\n", True)


def test_standard_streams_can_be_opened_by_name(sandbox: Sandbox) -> None:
    command = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin"
    result = sandbox.run(["sh", "-c", command], stdin=b"in")
    assert (result.stdout, result.stderr, result.ok) == (b"out\nin", b"err\n", True)


def test_crash_starts_no_handler_of_the_host(sandbox: Sandbox) -> None:
    """RLIMIT_CORE of 1 is what a core_pattern that is a pipe heeds; core(5)."""
    assert sandbox.run(["grep", "core", "/proc/self/limits"]).stdout.split()[4:6] == [
        b"1",
        b"1",
    ]
    result = sandbox.run(["sh", "-c", "kill -SEGV $$"])
    assert result.signal == signal.SIGSEGV
    assert not os.WCOREDUMP(0x8B if result.signal is None else result.signal)


def test_victim_of_an_attack_is_not_the_next_submission(sandbox: Sandbox) -> None:
    """After each attack in turn the same program gives the same result."""
    attacks = [
        "kill -9 -1",
        "rm -rf /tmp /dev/shm; chmod 0 /tmp",
        "mkdir -p /tmp/a/b/c; chmod -R 0 /tmp/a; mkfifo /dev/shm/p",
        "ulimit -n 3; ulimit -v 1000",
        "setsid sleep 30 & exec sleep 0.01",
        "trap '' TERM INT HUP; (sleep 30) & exit 3",
        "cat < /dev/zero > /tmp/full",
        "ipcmk -M 100000",
    ]
    expected = b"fresh\n1777 /tmp\n1777 /dev/shm\n"
    check = "echo fresh; stat -c '%a %n' /tmp /dev/shm; ls -A /tmp /dev/shm | grep -v : | xargs"
    for attack in attacks:
        sandbox.run(["sh", "-c", attack], limits=Limits(wall_time=2, processes=20))
        shown = sandbox.run(["sh", "-c", check])
        assert shown.stdout.rstrip() == expected.rstrip(), attack


def test_no_process_of_an_attack_is_left_on_the_host() -> None:
    with Sandbox(limits=Limits(wall_time=0.3)) as sandbox:
        sandbox.run(["sh", "-c", "for i in 1 2 3 4; do setsid sleep 6789 & done; wait"])
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "sleep 6789" not in listed.stdout
