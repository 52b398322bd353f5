"""`run-sandboxed inject`: C21–C24, M32, M33, T25."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from runner import Namespace, Runner, Sandbox, helper, start
from runner.host import detect

Start = Callable[..., subprocess.Popen[bytes]]
Command = Callable[..., subprocess.CompletedProcess[bytes]]

pytestmark = pytest.mark.userns

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
INSIDE = (
    Namespace.USER | Namespace.PID | Namespace.MOUNT | Namespace.UTS | Namespace.IPC
    | Namespace.NETWORK | Namespace.CGROUP | Namespace.TIME
)  # fmt: skip


def namespaces(pid: int | str) -> list[str]:
    return [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS]


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Give what it wrote to stderr, with nothing on stdout and status 1."""
    assert (done.returncode, done.stdout) == (1, b"")
    return done.stderr.decode()


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def program(name: str = "", **fields: object) -> Iterator[tuple[int, int]]:
    """Have a program run in all namespaces; gives the pids of its keeper and of itself."""
    before = set(children(os.getpid()))
    options = {"namespaces": INSIDE, "host_name": "within"} | fields
    config = Runner(args=["/bin/sleep", "60"], **options)  # type: ignore[arg-type]
    with start(config, name=name) as process:
        (keeper,) = set(children(os.getpid())) - before
        yield keeper, process.pid


@contextmanager
def injected(start: Start, pid: int) -> Iterator[subprocess.Popen[bytes]]:
    """Have a command run inside; it writes a line when it has begun."""
    with start("inject", str(pid), "sh", "-c", "echo; exec sleep 60") as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"\n"
            yield process
        finally:
            process.kill()


# Where it enters: C21


@pytest.mark.parametrize("which", ["keeper", "init", "program", "supervisor"])
def test_inject_enters_all_namespaces_of_the_program(which: str, command: Command) -> None:
    with program() as (keeper, inside):
        (init,) = set(children(keeper)) - {inside}
        pid = {"keeper": keeper, "init": init, "program": inside, "supervisor": os.getpid()}
        script = f"cd /proc/self/ns; readlink {' '.join(KINDS)}; hostname"
        # Its /proc is the host's, in which what it joined has another self.
        done = command("inject", str(pid[which]), "sh", "-c", script)
        assert done.stderr == b""
        assert done.stdout.decode().split() == [*namespaces(inside), "within"]


def test_inject_is_root_inside_and_starts_in_the_root_directory(command: Command) -> None:
    with program() as (keeper, _):
        done = command("inject", str(keeper), "sh", "-c", "id -u; id -g; pwd")
        assert done.stdout.decode().split() == ["0", "0", "/"]


@pytest.mark.root
@pytest.mark.parametrize("setgroups", [True, False])
def test_inject_takes_none_of_our_groups_along(setgroups: bool, command: Command) -> None:
    with program(gid_mappings_enable_setgroups=setgroups) as (keeper, _):
        prefix = ("setpriv", "--groups=0,5")
        done = command("inject", str(keeper), "id", "-G", prefix=prefix)
        assert (done.stdout, done.stderr) == (b"0\n", b"")


@pytest.fixture
def sandbox(start: Start) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Give what has a sandbox run a script, which has begun by then and says so."""
    with ExitStack() as stack:

        def run(*options: str, script: str = "") -> subprocess.Popen[bytes]:
            words = (*options, "sh", "-c", f"{script} echo; exec sleep 60")
            process = stack.enter_context(start("-q", *words))
            stack.callback(process.terminate)
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            return process

        yield run


Run = Callable[..., subprocess.Popen[bytes]]


def test_inject_into_a_sandbox_sees_its_processes(sandbox: Run, command: Command) -> None:
    done = command("inject", str(sandbox().pid), "ps", "-A", "-o", "args=")
    assert "sleep 60" in done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")


def test_inject_has_the_ids_that_the_sandbox_has(sandbox: Run, command: Command) -> None:
    done = command("inject", str(sandbox().pid), "sh", "-c", "id -u; id -g; id -G")
    # To the sandbox of who may give no other ids, its own is all that there is.
    number = b"0" if detect().maps_ids else b"1000"
    assert done.stdout.split() == 3 * [number]


@pytest.mark.root
def test_inject_into_a_sandbox_where_nothing_runs_enters_it(command: Command) -> None:
    with Sandbox(host_name="idle") as sandbox:
        sandbox.start()
        assert command("inject", str(sandbox.keeper_pid), "hostname").stdout == b"idle\n"


def test_inject_where_no_program_runs_is_refused_to_a_user(command: Command) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs a plain user")
    with Sandbox() as sandbox:
        sandbox.start()
        for pid in (sandbox.keeper_pid, sandbox.init_pid):
            assert said(command("inject", str(pid), "true")) == (
                f"run-sandboxed: inject: sandbox {pid} has no process by which you may enter "
                "it\nrun-sandboxed: enter while a program of yours runs in it, or as root\n"
            )


def test_inject_into_what_is_no_sandbox_is_refused(command: Command) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert "it has no sandbox, nor is it in one" in said(
            command("inject", str(process.pid), "true")
        )
        process.kill()
    assert "there is no such process" in said(command("inject", str(process.pid), "true"))


def test_inject_into_one_of_several_sandboxes_is_refused_and_names_them(
    command: Command,
) -> None:
    with program() as (one, _), program() as (other, _):
        refused = said(command("inject", str(os.getpid()), "true"))
    first, second = sorted((one, other))
    assert f"it has several sandboxes: give one of the pids {first}, {second}\n" in refused


# By name


def test_inject_by_name_enters_the_sandbox_of_that_name(sandbox: Run, command: Command) -> None:
    sandbox("--name=first", "--hostname=one")
    sandbox("--name=second", "--hostname=two")
    assert command("inject", "second", "hostname").stdout == b"two\n"
    assert command("inject", "first", "hostname").stdout == b"one\n"


def test_inject_by_a_name_that_nobody_has_is_refused(command: Command) -> None:
    refused = said(command("inject", "nobodys", "true"))
    assert refused == "run-sandboxed: inject: 'nobodys': no sandbox of yours has this name\n"


def test_inject_by_a_name_that_two_have_names_both(command: Command) -> None:
    with program(name="twin") as (one, _), program(name="twin") as (other, _):
        refused = said(command("inject", "twin", "true"))
    first, second = sorted((one, other))
    assert f"several have this name: give one of the pids {first}, {second}\n" in refused


def test_program_inside_cannot_take_a_name(sandbox: Run, command: Command) -> None:
    script = "mkfifo /tmp/fake; cd /tmp; bash -c 'exec -a keeper cat fake' &"
    process = sandbox(script=script)
    done = command("inject", str(process.pid), "ps", "-A", "-o", "args=")
    assert "keeper fake" in done.stdout.decode().splitlines()
    assert "no sandbox of yours has this name" in said(command("inject", "fake", "true"))


@pytest.mark.root
def test_inject_by_name_finds_nobody_elses(start: Start, command: Command) -> None:
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    words = ("-q", "--name=foreign", "sh", "-c", "echo; sleep 60")
    with start(*words, prefix=prefix, cwd="/") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        done = command("inject", "foreign", "true")
        entered = command("inject", str(process.pid), "true")
        process.terminate()
    assert "no sandbox of yours" in said(done)
    assert entered.returncode == 0


# Has a pid namespace of its own, with a process in it, as a sandbox has.
_FAKE = """
import ctypes, os
assert ctypes.CDLL(None).unshare(0x10000000 | 0x20000000) == 0
if os.fork():
    os.write(1, b"\\n")
os.read(0, 1)
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Give a directory that everybody may enter; tmp_path is below one that is root's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.root
def test_child_of_root_that_takes_a_name_is_not_entered(
    open_place: Path, command: Command
) -> None:
    (open_place / "taken").write_text(_FAKE)
    # As login(1) starts a shell: root's child, and another user's process.
    with subprocess.Popen(
        ["keeper", "taken"],
        executable=sys.executable,
        cwd=open_place,
        user=65534,
        group=65534,
        extra_groups=[],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        alone = command("inject", "taken", "true")
        with program(name="taken"):
            beside = command("inject", "taken", "hostname")
        process.stdin.close()
    assert "no sandbox of yours has this name" in said(alone)
    assert (beside.stdout, beside.stderr) == (b"within\n", b"")


def test_process_with_a_carriage_return_in_its_name_disturbs_nobody(command: Command) -> None:
    script = "open('/proc/self/comm', 'w').write('a\\rb'); print(flush=True); input()"
    with (
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
        program() as (keeper, _),
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        assert Path(f"/proc/{process.pid}/comm").read_bytes() == b"a\rb\n"
        done = command("inject", str(keeper), "hostname")
        process.communicate(b"\n")
    assert (done.stdout, done.stderr) == (b"within\n", b"")


@pytest.mark.parametrize("word", ["4294967295", "9" * 5000])
def test_inject_into_a_pid_that_nobody_can_have_is_refused(word: str, command: Command) -> None:
    refused = said(command("inject", word, "true"))
    assert refused == f"run-sandboxed: inject: '{word}': there is no such process\n"


@pytest.mark.root
def test_inject_without_a_proc_of_its_pid_namespace_is_refused(command: Command) -> None:
    refused = said(command("inject", "1", "true", prefix=("unshare", "-p", "--fork")))
    assert "a /proc that has the processes of this pid namespace" in refused


@pytest.mark.parametrize("name", ["7", "-x", "a/b", "a b", "x" * 65])
def test_name_that_reads_as_something_else_is_refused(name: str, command: Command) -> None:
    done = command(f"--name={name}", "true")
    assert done.returncode == 125
    assert done.stderr.decode().startswith(f"run-sandboxed: --name: {name!r}: use letters")


# The command: C21, C24, T25


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_status_is_the_commands(script: str, status: int, command: Command) -> None:
    with program() as (keeper, _):
        assert command("inject", str(keeper), "sh", "-c", script).returncode == status


def test_command_has_our_streams_and_environment(
    command: Command, environment: dict[str, str]
) -> None:
    environment["MARK"] = "mine"
    with program() as (keeper, _):
        script = "cat; echo $MARK; echo told >&2"
        done = command("inject", str(keeper), "sh", "-c", script, data=b"given\n")
    assert (done.stdout, done.stderr) == (b"given\nmine\n", b"told\n")


def test_command_is_looked_up_inside(
    place: Path, sandbox: Run, command: Command, environment: dict[str, str]
) -> None:
    (place / "there").write_text("#!/bin/sh\necho $0\n")
    (place / "there").chmod(0o755)
    process = sandbox("-b", f"{place}:/only/inside")
    environment["PATH"] = "/only/inside:/usr/bin:/bin"
    assert command("inject", str(process.pid), "there").stdout == b"/only/inside/there\n"


def test_command_is_by_default_the_callers_shell(
    command: Command, environment: dict[str, str]
) -> None:
    with program() as (keeper, _):
        assert command("inject", str(keeper), data=b"echo $0\n").stdout == b"/bin/sh\n"
        environment["SHELL"] = "/bin/echo"
        assert command("inject", str(keeper)).stdout == b"\n"


def test_usage_error_has_status_64(command: Command) -> None:
    for words in ([], ["-x", "1"]):
        done = command("inject", *words)
        assert done.returncode == 64
        assert b"usage: run-sandboxed inject PID|NAME [COMMAND [ARG...]]\n" in done.stderr


def test_end_of_ours_ends_the_command(start: Start) -> None:
    with program() as (keeper, _), injected(start, keeper) as process:
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b""  # nobody holds it open any more


def test_command_cannot_type_into_the_callers_terminal(start: Start) -> None:
    code = (
        "import fcntl, termios\n"
        "for call, word in ((termios.TIOCSTI, b'x'), (0x541c, b'\\3')):\n"
        "    try:\n"
        "        fcntl.ioctl(0, call, word)\n"
        "    except OSError as error:\n"
        "        print(error.errno, flush=True)\n"
    )
    ours, theirs = pty.openpty()
    try:
        take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
        prefix = (sys.executable, "-c", f"{take}; os.execv(sys.argv[1], sys.argv[1:])")
        with (
            program() as (keeper, _),
            start(
                *("inject", str(keeper), "/usr/bin/python3", "-c", code),
                prefix=prefix,
                stdin=theirs,
                start_new_session=True,
            ) as process,
        ):
            out, _ = process.communicate(timeout=60)
        assert out.decode().split() == [str(errno.EPERM)] * 2
        assert select.select([theirs], [], [], 0) == ([], [], [])
    finally:
        os.close(ours)
        os.close(theirs)


# What enters is sealed: C22, C23


def test_sealed_keeper_is_a_copy_that_nobody_can_write_to() -> None:
    with closing(helper.Keeper(sealed=True)) as keeper:
        exe = f"/proc/{keeper.pid}/exe"
        assert os.readlink(exe) == "/memfd:keeper (deleted)"
        with open(exe, "rb") as file:
            seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
            assert file.read() == Path(helper.keeper_path()).read_bytes()
        wanted = (
            fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        )
        assert seals == wanted
        with pytest.raises(OSError, match="Text file busy") as caught:
            os.open(exe, os.O_WRONLY)
        assert caught.value.errno == errno.ETXTBSY


@pytest.mark.root
def test_what_enters_is_sealed(start: Start) -> None:
    with program() as (keeper, _), injected(start, keeper) as process:
        (entered,) = children(process.pid)
        assert os.readlink(f"/proc/{entered}/exe") == "/memfd:keeper (deleted)"


@pytest.mark.root
@pytest.mark.parametrize("ids", [("--ruid=65534",), ("--rgid=65534", "--keep-groups")])
def test_inject_with_anothers_rights_is_refused(ids: tuple[str, ...], command: Command) -> None:
    refused = said(command("inject", "1", "true", prefix=("setpriv", *ids)))
    assert "inject has another user's or group's rights" in refused
