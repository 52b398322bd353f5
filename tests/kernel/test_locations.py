"""Each failing step is reported as it is: location, errno, index. F43, F45, FE1–FE32, T1, T2.

Real causes where there is one; else the keeper is started by deny_syscall.c, which makes one
system call fail. LOCATIONS lists every member that a plan or the keeper can report, and a test
compares it with the sources, so that a new one without a fault fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import runner
from runner import (
    Capabilities,
    ChildError,
    Credential,
    ErrorLocation,
    Hook,
    Landlock,
    Mount,
    Namespace,
    Rlimit,
    Runner,
    TimeOffsets,
    Where,
    helper,
    plan,
    wire,
)
from runner.errors import Detail, ProtocolError
from runner.plan import Op, Phase, Step

At = ErrorLocation
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.userns

USER_MOUNT = Namespace.USER | Namespace.MOUNT | Namespace.PID
# x86_64 and aarch64 number these alike only by luck: ask the headers.
SYSCALL_NAMES = (
    *("capset", "chdir", "clone", "close", "close_range", "dup2", "fcntl", "getpid"),
    *(
        "ioctl",
        "keyctl",
        "kill",
        "mount",
        "mount_setattr",
        "open",
        "open_tree",
        "openat",
        "openat2",
        "personality",
        "pipe2",
        "prlimit64",
    ),
    *("pivot_root", "prctl", "ptrace", "recvfrom", "rmdir", "rt_sigprocmask", "sendto"),
    *(
        "sethostname",
        "setns",
        "setpriority",
        "setresgid",
        "setresuid",
        "setsid",
        "socket",
        "umask",
        "umount2",
    ),
    *("unshare",),
)


@pytest.fixture(scope="session")
def syscalls() -> dict[str, int]:
    text = "#include <sys/syscall.h>\n" + "\n".join(
        f"#ifdef SYS_{name}\n@{name} SYS_{name}\n#endif" for name in SYSCALL_NAMES
    )
    out = subprocess.run(
        ["gcc", "-E", "-P", "-"], input=text, capture_output=True, text=True, check=True
    ).stdout
    return {name: int(number) for name, number in re.findall(r"@(\w+) (\d+)", out)}


@pytest.fixture(scope="session")
def deny_syscall(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("deny") / "deny_syscall"
    source = ROOT / "tests" / "deny_syscall.c"
    subprocess.run(["gcc", "-Wall", "-o", program, source], check=True)
    return str(program)


class Fault(NamedTuple):
    """A set-up, the system call to fail in it (name, errno, argument), and the report."""

    setup: dict[str, Any]
    error: int
    index: int | None = None
    deny: str | None = None
    arg: tuple[int, int] | None = None


PIVOT: dict[str, Any] = {"namespaces": USER_MOUNT, "pivot_root": "/tmp"}
USR = (Mount.tmpfs("/a"), Mount.bind("/usr"))
LINKS = (Mount.symlink("usr/bin", "/bin"), Mount.symlink("usr/lib", "/lib"))
MS_REMOUNT_ROOT = 32 | 4096 | 1 | 2 | 4
MS_PRIVATE = 16384 | 1 << 18
PR_CAPBSET_DROP, PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECUREBITS = 24, 1, 38, 28
O_WRONLY_CLOEXEC = os.O_WRONLY | os.O_CLOEXEC | 0o100000  # O_LARGEFILE, musl's
PR_SET_KEEPCAPS, PR_CAP_AMBIENT = 8, 47
WITH_IDS = {"namespaces": USER_MOUNT, "credential": Credential(0, 0)}
CAPABILITY = Capabilities.all_of(["KILL"])
ALLOW_ALL = b"\x06\0\0\0\0\0\xff\x7f"
NEW_NET = Namespace.USER | Namespace.NETWORK


DEV_NULL = os.open("/dev/null", os.O_RDONLY)


def go_on(pid: int) -> None:
    assert pid > 0


LOCATIONS: dict[ErrorLocation, Fault] = {
    At.CLONE: Fault({"namespaces": USER_MOUNT}, errno.ENOSPC, deny="clone"),
    At.UNSHARE_USER_READ: Fault(
        {"namespaces": USER_MOUNT}, errno.EACCES, deny="open", arg=(1, O_WRONLY_CLOEXEC)
    ),
    At.SETGROUPS: Fault(
        {"namespaces": USER_MOUNT, "credential": Credential(0, 0, (0,))}, errno.EPERM
    ),
    At.SETGID: Fault(WITH_IDS, errno.EINVAL, deny="setresgid"),
    At.SETUID: Fault(WITH_IDS, errno.EAGAIN, deny="setresuid"),
    At.DUP3: Fault({}, errno.EMFILE, deny="dup2"),
    At.FCNTL: Fault({"files": (0,) * 40}, errno.EMFILE, deny="fcntl", arg=(1, 1030)),
    At.SETSID: Fault({}, errno.EPERM, deny="setsid"),
    At.MOUNT_ROOT: Fault(
        {"namespaces": USER_MOUNT}, errno.EPERM, deny="mount", arg=(3, MS_PRIVATE)
    ),
    At.MOUNT_TMPFS: Fault(
        {"namespaces": USER_MOUNT, "pivot_root": "/nonexistent"}, errno.ENOENT
    ),
    At.MOUNT_CHDIR: Fault(PIVOT, errno.EIO, deny="chdir"),
    At.MOUNT: Fault(
        PIVOT | {"mounts": (Mount.directory("/d"), Mount.proc(), Mount.tmpfs("/t"))},
        errno.EPERM,
        index=1,
        deny="mount",
        arg=(3, 1 | 2 | 4 | 8),
    ),
    At.MOUNT_MKDIR: Fault(
        PIVOT | {"mounts": (Mount.file("/f", b""), Mount.tmpfs("/f/below"))},
        errno.ENOTDIR,
        index=1,
    ),
    At.PIVOT_ROOT: Fault(PIVOT, errno.EPERM, deny="pivot_root"),
    At.UMOUNT: Fault(PIVOT, errno.EBUSY, deny="umount2"),
    At.UNLINK: Fault(PIVOT, errno.EBUSY, deny="rmdir"),
    At.MOUNT_READONLY: Fault(PIVOT, errno.EPERM, deny="mount", arg=(3, MS_REMOUNT_ROOT)),
    At.CHDIR: Fault({"work_dir": "/nonexistent"}, errno.ENOENT),
    At.SETRLIMIT: Fault(
        {"rlimits": [Rlimit.named("NOFILE", 64), Rlimit.named("CORE", 0)]},
        errno.EPERM,
        index=1,
        deny="prlimit64",
        arg=(1, 4),
    ),
    At.SET_NO_NEW_PRIVS: Fault(
        {"no_new_privs": True}, errno.EINVAL, deny="prctl", arg=(0, PR_SET_NO_NEW_PRIVS)
    ),
    At.DROP_CAPABILITY: Fault(
        {"namespaces": USER_MOUNT, "drop_caps": True},
        errno.EPERM,
        deny="prctl",
        arg=(0, PR_SET_SECUREBITS),
    ),
    At.SET_CAP: Fault(
        {"namespaces": USER_MOUNT, "drop_caps": True}, errno.EPERM, deny="capset"
    ),
    At.SECCOMP: Fault({"seccomp": b"\x05\0\0\0\xff\0\0\0"}, errno.EINVAL),
    At.SYNC_WRITE: Fault({"sync_func": go_on}, errno.EPIPE, deny="sendto", arg=(2, 1)),
    At.SYNC_READ: Fault({"sync_func": go_on}, errno.EIO, deny="recvfrom", arg=(2, 1)),
    At.EXECVE: Fault({"args": ["/nonexistent"]}, errno.ENOENT),
    At.UNSHARE: Fault(
        {"namespaces": Namespace.USER | Namespace.CGROUP}, errno.ENOSPC, deny="unshare"
    ),
    At.SETNS: Fault({"namespaces": USER_MOUNT}, errno.EPERM, deny="setns"),
    At.HOSTNAME: Fault(
        {"namespaces": Namespace.USER | Namespace.UTS, "host_name": "x"},
        errno.EPERM,
        deny="sethostname",
    ),
    At.SYMLINK: Fault(
        PIVOT | {"mounts": (Mount.dev(), Mount.symlink("x", "/dev/fd"))},
        errno.EEXIST,
        index=1,
    ),
    At.FILE: Fault(
        PIVOT | {"mounts": (Mount.dev(), Mount.file("/dev/null", b""))},
        errno.EEXIST,
        index=1,
    ),
    At.MKNOD: Fault(
        PIVOT | {"mounts": (Mount.dev(), Mount.node("/dev/fuse", "c", 10, 229))},
        errno.EPERM,
        index=1,
    ),
    At.MOUNT_SOURCE: Fault(
        PIVOT | {"mounts": (Mount.bind("/usr"),)}, errno.EACCES, index=0, deny="open_tree"
    ),
    At.MOUNT_ATTRIBUTES: Fault(
        PIVOT | {"mounts": USR}, errno.EINVAL, index=1, deny="mount_setattr"
    ),
    At.PARENT_DEATH: Fault({}, errno.EINVAL, deny="prctl", arg=(0, PR_SET_PDEATHSIG)),
    At.CLOSE_RANGE: Fault({}, errno.EPERM, deny="close_range", arg=(2, 4)),
    At.SIGNALS: Fault({}, errno.EINVAL, deny="rt_sigprocmask", arg=(0, 2)),
    At.BOUNDING: Fault(
        {"namespaces": USER_MOUNT, "drop_caps": True},
        errno.EPERM,
        deny="prctl",
        arg=(0, PR_CAPBSET_DROP),
    ),
    At.CLOSE_WRITE: Fault({"sync_func": go_on}, errno.EIO, deny="close"),
    At.GETPID: Fault({}, errno.ENOSYS, deny="getpid"),
    At.KEEP_CAPABILITY: Fault(
        {"namespaces": USER_MOUNT, "credential": Credential(0, 0), "capabilities": CAPABILITY},
        errno.EPERM,
        deny="prctl",
        arg=(0, PR_SET_KEEPCAPS),
    ),
    At.IOCTL: Fault({"ctty": True, "files": (DEV_NULL,)}, errno.ENOTTY),
    At.PTRACE_ME: Fault({"ptrace": True}, errno.EPERM, deny="ptrace"),
    At.STOP: Fault(
        {"stop_before_seccomp": True, "seccomp": ALLOW_ALL}, errno.EPERM, deny="kill"
    ),
    At.TIME: Fault(
        {
            "namespaces": Namespace.USER | Namespace.TIME,
            "time_offsets": TimeOffsets(monotonic=-1e9),
        },
        errno.ERANGE,
    ),
    At.NETWORK: Fault(
        {"namespaces": NEW_NET, "loopback": True}, errno.EAFNOSUPPORT, deny="socket"
    ),
    At.HOOK: Fault(
        {"namespaces": USER_MOUNT, "hooks": (Hook(args=("true",)), Hook(args=("false",)))},
        errno.ECANCELED,
        index=1,
    ),
    At.SYSCTL: Fault(
        {"namespaces": NEW_NET, "sysctls": {"net.ipv4.ip_forward": "1", "net.no.such": "1"}},
        errno.ENOENT,
        index=1,
    ),
    At.UMASK: Fault({"umask": 0o22}, errno.ENOSYS, deny="umask"),
    At.OOM_SCORE: Fault(
        {"oom_score_adj": 1}, errno.EPERM, deny="openat", arg=(2, O_WRONLY_CLOEXEC)
    ),
    At.NICE: Fault({"nice": 1}, errno.EACCES, deny="setpriority"),
    At.AFFINITY: Fault({"cpus": (4095,)}, errno.EINVAL),
    At.PERSONALITY: Fault({"personality": 0}, errno.EINVAL, deny="personality"),
    At.AMBIENT: Fault(
        {"namespaces": USER_MOUNT, "capabilities": CAPABILITY},
        errno.EPERM,
        deny="prctl",
        arg=(0, PR_CAP_AMBIENT),
    ),
    At.LANDLOCK: Fault(
        {"landlock": Landlock(read=("/usr", "/nonexistent"))}, errno.ENOENT, index=1
    ),
    At.KEYRING: Fault({}, errno.EDQUOT, deny="keyctl"),
    At.PIPE: Fault({}, errno.EMFILE, deny="pipe2"),
}

# Reported by the keeper outside a `Runner`'s own steps; each has a test of its own below.
OF_THE_KEEPER = {At.CGROUP, At.CLEAN, At.INIT, At.MOUNT_LIMIT, At.WATCH}
OF_THE_KEEPER |= {At.COPY_IN, At.COPY_OUT}


def test_locations_all_have_a_fault() -> None:
    assert LOCATIONS.keys() | OF_THE_KEEPER == set(ErrorLocation)


def test_locations_in_the_sources_all_have_a_fault() -> None:
    found = set()
    for path in ROOT.glob("runner/plan/*.py"):
        found |= set(re.findall(r"\bAt\.([A-Z_0-9]+)\b", path.read_text()))
    for path in ROOT.glob("runner/native/*.c"):
        found |= set(re.findall(r"\bLOCATION_([A-Z_0-9]+)\b", path.read_text()))
    found -= {"NONE", "END"}
    assert found == {at.name for at in LOCATIONS.keys() | OF_THE_KEEPER}


@pytest.mark.parametrize("location", LOCATIONS, ids=lambda at: at.text)
def test_step_that_fails_is_reported_with_location_errno_and_index(
    location: ErrorLocation,
    syscalls: dict[str, int],
    deny_syscall: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = LOCATIONS[location]
    if fault.deny is not None:
        words = [deny_syscall, str(syscalls[fault.deny]), str(fault.error)]
        words += [str(word) for word in fault.arg or ()]
        wrapper = tmp_path / "keeper"
        wrapper.write_text(f"#!/bin/sh\nexec {' '.join(words)} {helper.keeper_path()}\n")
        wrapper.chmod(0o755)
        monkeypatch.setattr(helper, "keeper_path", lambda: str(wrapper))
    config = Runner(**{"args": ["/bin/true"], **fault.setup})
    with pytest.raises(ChildError) as caught:
        runner.start(config)
    error = caught.value
    assert (error.location, error.errno, error.index) == (location, fault.error, fault.index)


def keeper_with(steps: list[Step]) -> helper.Keeper:
    keeper = helper.Keeper()
    try:
        keeper.start(steps, clone_flags=0)
    except BaseException:
        keeper.close()
        raise
    return keeper


NOTHING = Step(Phase.JOINED, Op.UMASK, At.CHDIR, (0o022,))


def test_cgroup_that_cannot_be_entered_is_reported_with_its_index() -> None:
    config = Runner(args=["/bin/true"])
    with contextlib.closing(keeper_with([NOTHING])) as keeper, open("/dev/full", "w") as full:
        steps = plan.program(config, candidates=[b"/bin/true"], files=[-1], cgroups=[0, 1])
        null = os.open("/dev/null", os.O_WRONLY)
        encoded = wire.encode_plan(steps)
        keeper.send_run(encoded, fds=[null, full.fileno()], watch=wire.NO_WATCH, flags=0)
        os.close(null)
        with pytest.raises(ChildError) as caught:
            keeper.receive(steps)
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.CGROUP, errno.ENOSPC, 1)


def run_with_kept(fds: list[int], uses: list[wire.KeptUse]) -> wire.Reply:
    """Run `true` twice, the same kept fds with both; give the second reply."""
    config = Runner(args=["/bin/true"])
    steps = plan.program(config, candidates=[b"/bin/true"], files=[-1])
    with contextlib.closing(keeper_with([NOTHING])) as keeper:
        keeper.send_kept(fds, bytes(uses))
        for _ in range(2):
            keeper.send_run(wire.encode_plan(steps), fds=[], watch=wire.NO_WATCH, flags=0)
            reply = keeper.receive(steps)
    return reply


def test_kept_files_are_reset_and_read_in_each_run_as_was_said(tmp_path: Path) -> None:
    reset, unused = (os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in "ab")
    for fd in (reset, unused):
        os.write(fd, b"7\n")
    use = wire.KeptUse
    reply = run_with_kept(
        [reset, unused, unused, reset],
        [use.READ_BEFORE | use.READ_AFTER, use(0), use.READ_AFTER, use.RESET],
    )
    os.close(reset)
    os.close(unused)
    assert reply.readings == (b"0\n", b"0\n", b"7\n")


@pytest.mark.parametrize(
    ("flags", "use", "location"),
    [
        (os.O_RDONLY, wire.KeptUse.RESET, At.CGROUP),
        (os.O_WRONLY, wire.KeptUse.READ_BEFORE, At.CGROUP),
        (os.O_WRONLY, wire.KeptUse.READ_AFTER, At.WATCH),
    ],
)
def test_kept_file_that_cannot_be_used_fails_the_run(
    flags: int, use: wire.KeptUse, location: ErrorLocation
) -> None:
    """A figure that was not started anew, or not read, would be a wrong one.

    The location tells whether the program has run by then, and must not be run again.
    """
    null = os.open("/dev/null", flags)
    with pytest.raises(ChildError) as caught:
        run_with_kept([null], [use])
    os.close(null)
    assert (caught.value.location, caught.value.errno) == (location, errno.EBADF)
    assert caught.value.before_exec == (location is At.CGROUP)


def test_kept_file_that_is_longer_than_there_is_room_fails_the_run() -> None:
    zero = os.open("/dev/zero", os.O_RDONLY)
    with pytest.raises(ChildError) as caught:
        run_with_kept([zero], [wire.KeptUse.READ_AFTER])
    os.close(zero)
    assert (caught.value.location, caught.value.errno) == (At.WATCH, errno.EFBIG)


def test_kept_fds_that_are_not_as_many_as_their_uses_are_refused() -> None:
    with contextlib.closing(keeper_with([NOTHING])) as keeper:
        keeper.send_kept([], b"\1")
        with pytest.raises(ProtocolError, match="its header"):
            keeper.receive([])


def test_place_that_cannot_be_made_fresh_is_reported_as_clean() -> None:
    bad = Step(Phase.CLEAN, Op.KEEP_FRESH, At.CLEAN, (0, 0), (b"/nonexistent", b""), item=3)
    with pytest.raises(ChildError) as caught:
        keeper_with([NOTHING, bad])
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.CLEAN, errno.ENOENT, 3)


def test_place_that_was_fresh_once_is_reported_to_the_next_run_by_its_index() -> None:
    """The keeper's step is not one of the run's: no subject of these is named."""
    where = b"/tmp/run-sandboxed-test-fresh"
    make = Step(Phase.JOINED, Op.MKDIR, At.CHDIR, (0o755, 0), (where,))
    once = Step(Phase.CLEAN, Op.RMDIR, At.CLEAN, strings=(where,), item=3)
    with contextlib.closing(keeper_with([make, once])) as keeper:
        config = Runner(args=["/bin/true"])
        steps = plan.program(config, candidates=[b"/bin/true"], files=[-1])
        steps = [step._replace(subject="not this") for step in steps]
        encoded = wire.encode_plan(steps)
        keeper.send_run(encoded, fds=[], watch=wire.NO_WATCH, flags=0)
        assert keeper.receive(steps).kind == wire.ReplyKind.EXITED
        keeper.send_run(encoded, fds=[], watch=wire.NO_WATCH, flags=0)
        with pytest.raises(ChildError) as caught:
            keeper.receive(steps)
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.CLEAN, errno.ENOENT, 3)
    assert "not this" not in str(error)


def test_place_that_cannot_be_limited_is_reported_and_nothing_is_started() -> None:
    mounts = [Mount.tmpfs("/a", fresh=False), Mount.tmpfs("/nonexistent")]
    ready = list(plan.ready_places(mounts, disk=4096, inodes=None))
    with contextlib.closing(keeper_with([NOTHING])) as keeper:
        config = Runner(args=["/bin/true"])
        program = plan.program(config, candidates=[b"/bin/true"], files=[-1])
        for steps in ([*ready, *program], program):
            encoded = wire.encode_plan(steps)
            keeper.send_run(encoded, fds=[], watch=wire.NO_WATCH, flags=0)
            if steps is program:
                assert keeper.receive(steps).kind == wire.ReplyKind.EXITED
                continue
            with pytest.raises(ChildError) as caught:
                keeper.receive(steps)
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.MOUNT_LIMIT, errno.ENOENT, 1)
    assert error.subject == "/nonexistent"


def test_init_that_has_died_between_runs_is_never_a_verdict() -> None:
    """Where the program cannot have started it is started in another sandbox, unseen."""
    with runner.Sandbox() as sandbox:
        sandbox.start()
        dead = sandbox.init_pid
        assert dead is not None
        os.kill(dead, signal.SIGKILL)
        with contextlib.suppress(ChildError):  # it was started, while the others were killed
            assert sandbox.run(["sleep", "1"]).ok
        assert sandbox.run(["true"]).ok
        assert sandbox.init_pid != dead


def test_cpu_figure_that_cannot_be_read_at_the_start_is_reported_as_cgroup() -> None:
    config = Runner(args=["/bin/sleep", "5"])
    watch = wire.Watch(cpu_ns=10**9, cpu_fd=0, cpu_format=1)
    with contextlib.closing(keeper_with([NOTHING])) as keeper, open("/dev/null") as null:
        steps = plan.program(config, candidates=[b"/bin/sleep"], files=[-1])
        encoded = wire.encode_plan(steps)
        keeper.send_run(encoded, fds=[null.fileno()], watch=wire.encode_watch(watch), flags=0)
        with pytest.raises(ChildError) as caught:
            keeper.receive(steps)
    assert (caught.value.location, caught.value.errno) == (At.CGROUP, errno.EIO)


def test_file_that_cannot_be_put_in_is_reported_with_its_index_and_name() -> None:
    files = {"a": b"", "none/b": b"content"}
    with runner.Sandbox() as sandbox, pytest.raises(ChildError) as caught:
        sandbox.run(["true"], work_dir="/usr", files_in=files)
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.COPY_IN, errno.EROFS, 0)
    assert error.subject == "a"


def test_file_that_we_fail_to_take_out_is_reported_as_ours(
    syscalls: dict[str, int],
    deny_syscall: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrapper = tmp_path / "keeper"
    words = f"{deny_syscall} {syscalls['openat2']} {errno.ENFILE}"
    wrapper.write_text(f"#!/bin/sh\nexec {words} {helper.keeper_path()}\n")
    wrapper.chmod(0o755)
    monkeypatch.setattr(helper, "keeper_path", lambda: str(wrapper))
    with runner.Sandbox() as sandbox, pytest.raises(ChildError) as caught:
        sandbox.run(["true"], files_out=["a"])
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.COPY_OUT, errno.ENFILE, 0)


def test_error_text_reads_as_location_index_subject_and_errno() -> None:
    error = ChildError(At.MOUNT, errno.EACCES, 3, subject="/usr")
    assert str(error) == "mount[3] /usr: Permission denied (EACCES)"


def test_error_text_shows_index_zero() -> None:
    assert str(ChildError(At.SETRLIMIT, errno.EPERM, 0)).startswith("setrlimit[0]: ")


@pytest.mark.parametrize("place", ["", "/bin"])
def test_exec_of_a_file_whose_loader_is_missing_says_so(tmp_path: Path, place: str) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    name = "./script" if not place else str(script)
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=[name], work_dir=place or str(tmp_path)))
    error = caught.value
    assert (error.location, error.errno) == (At.EXECVE, errno.ENOENT)
    assert error.detail is Detail.LOADER_MISSING
    assert error.hint is not None
    assert error.hint.startswith("the file exists, its loader does not: ")


def test_exec_of_a_file_that_is_not_there_says_so() -> None:
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["/nonexistent"]))
    assert caught.value.hint == "no such program in the sandbox"


def test_exec_in_a_directory_that_is_mounted_noexec_says_so(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    tmp_path.chmod(0o755)
    hook = Hook(
        args=("/bin/sh", "-c", f"mount --bind -o noexec {tmp_path} {tmp_path}"),
        where=Where.INSIDE,
        env={"PATH": "/usr/bin:/bin:/usr/sbin"},
    )
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=[str(program)], namespaces=USER_MOUNT, hooks=[hook]))
    error = caught.value
    assert (error.location, error.errno) == (At.EXECVE, errno.EACCES)
    assert error.detail is Detail.MOUNTED_NOEXEC
    assert error.hint is not None
    assert "noexec" in error.hint


def test_filter_that_forbids_to_look_is_not_broken_by_the_explanation(tmp_path: Path) -> None:
    # execve alone may be called (x86_64: 59, aarch64: 221): another call would kill it.
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    number = 59 if os.uname().machine == "x86_64" else 221
    only_exec = struct.pack(
        "=HBBIHBBIHBBIHBBIHBBI",
        *(0x20, 0, 0, 0),  # load the number
        *(0x15, 1, 0, number),
        *(0x15, 0, 1, 231 if number == 59 else 94),  # exit_group
        *(0x06, 0, 0, 0x7FFF0000),
        *(0x06, 0, 0, 0x80000000),
    )
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=[str(script)], seccomp=only_exec))
    assert caught.value.detail is Detail.LOADER_MISSING


def test_failing_starts_leave_no_process_and_no_fd() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        with pytest.raises(ChildError):
            runner.start(Runner(args=["/nonexistent"]))
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES])
def test_hint_for_a_refused_first_mount_names_apparmor(error: int) -> None:
    hint = ChildError(At.MOUNT_ROOT, error, subject="/").hint
    assert hint is not None
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in hint
