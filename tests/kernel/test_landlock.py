"""What Landlock's rules hold a program to, without a namespace and in a sandbox. M76, K36, H24.

Each attack is a line of Python, run with rules and, to see that it would succeed, without.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import runner
from runner import ChildError, ErrorLocation, Landlock, Limits, Runner, Sandbox, Status
from runner.doctor import probes
from tests.kernel.starting import output_of, script

pytestmark = pytest.mark.landlock

PYTHON = "/usr/bin/python3"
SYSTEM = tuple(
    path for path in ("/usr", "/lib", "/lib64", "/bin", "/etc") if os.path.exists(path)
)
DONE = "done\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("secret\n")
    (tmp_path / "out" / "file").chmod(0o777)
    (tmp_path / "in" / "own").write_text("mine\n")
    return tmp_path


def attempt(line: str, place: Path, landlock: Landlock | None = None) -> str:
    """Give "done", or the name of the errno with which the line fails."""
    program = (
        "import errno, os, socket, sys\n"
        f"try: {line}\n"
        "except OSError as e: print(errno.errorcode[e.errno])\n"
        "else: print('done')"
    )
    return output_of(PYTHON, "-IS", "-c", program, landlock=landlock, work_dir=str(place))


ATTACKS = {
    "read": "open('out/file')",
    "list": "os.listdir('out')",
    "write": "open('out/file', 'r+')",
    "append": "open('out/file', 'a')",
    "truncate": "os.truncate('out/file', 0)",
    "make": "open('out/new', 'x')",
    "mkdir": "os.mkdir('out/new')",
    "symlink": "os.symlink('x', 'out/new')",
    "fifo": "os.mkfifo('out/new')",
    "unlink": "os.unlink('out/file')",
    "rename in": "os.rename('out/file', 'in/taken')",
    "rename out": "os.rename('in/own', 'out/given')",
    "dot dot": "open('in/../out/file')",
    "by fd of the root": "open('file', opener=lambda p, f: os.open(p, f, "
    "dir_fd=os.open('out', os.O_PATH)))",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_in_no_rule_is_refused(attack: str, place: Path) -> None:
    rules = Landlock(read=(*SYSTEM, "in"), write=("in",), execute=SYSTEM)
    assert attempt(ATTACKS[attack], place, rules) == "EACCES\n"
    assert attempt(ATTACKS[attack], place) == DONE


def test_what_is_in_a_rule_is_granted(place: Path) -> None:
    rules = Landlock(read=(*SYSTEM, "in"), write=("in",), execute=SYSTEM)
    for line in (
        "open('in/own').read()",
        "open('in/new', 'x').close(), os.rename('in/new', 'in/other'), os.unlink('in/other')",
        "os.truncate('in/own', 0)",
        "os.mkdir('in/d'), open('in/d/f', 'w').close(), os.rename('in/d/f', 'in/f')",
    ):
        assert attempt(line, place, rules) == DONE


def test_rule_on_a_file_is_for_that_file_alone(place: Path) -> None:
    rules = Landlock(read=(*SYSTEM, "out/file"), write=("out/file",), execute=SYSTEM)
    assert attempt("open('out/file', 'r+').read()", place, rules) == DONE
    assert attempt("open('in/own')", place, rules) == "EACCES\n"
    assert attempt("os.unlink('out/file')", place, rules) == "EACCES\n"


def test_symlink_out_of_a_rule_leads_nowhere(place: Path) -> None:
    (place / "in" / "link").symlink_to(place / "out" / "file")
    rules = Landlock(read=(*SYSTEM, "in"), execute=SYSTEM)
    assert attempt("open('in/link')", place, rules) == "EACCES\n"
    assert attempt("open('in/link')", place) == DONE


def test_program_that_may_not_be_executed_is_a_child_error(place: Path) -> None:
    (place / "out" / "program").write_bytes(Path("/bin/true").read_bytes())
    (place / "out" / "program").chmod(0o755)
    rules = Landlock(read=("/",), execute=SYSTEM)
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=[str(place / "out" / "program")], landlock=rules))
    assert (caught.value.location, caught.value.errno) == (ErrorLocation.EXECVE, errno.EACCES)


def test_child_is_held_to_the_rules_and_cannot_widen_them(place: Path) -> None:
    # landlock_create_ruleset(files: read), add "/" to it, restrict_self: it succeeds, and
    # both rulesets hold.
    more = (
        "import ctypes, os, struct, subprocess, sys\n"
        "c = ctypes.CDLL(None).syscall\n"
        "ruleset = c(444, struct.pack('QQQ', 12, 0, 0), 24, 0)\n"
        "root = os.open('/', os.O_PATH)\n"
        "print(c(445, ruleset, 1, struct.pack('=Qi', 12, root), 0), c(446, ruleset, 0))\n"
        "sys.stdout.flush()\n"
        "print(subprocess.run(['cat', 'out/file'], capture_output=True).stdout)"
    )
    rules = Landlock(read=(*SYSTEM, "in", "/dev"), write=("/dev",), execute=SYSTEM)
    given = {"landlock": rules, "work_dir": str(place), "env": {"PATH": "/usr/bin:/bin"}}
    assert output_of(PYTHON, "-IS", "-c", more, **given) == "0 0\nb''\n"
    given["landlock"] = Landlock(read=("/",), write=("/dev",), execute=SYSTEM)
    assert output_of(PYTHON, "-IS", "-c", more, **given) == "0 0\nb'secret\\n'\n"


def test_fd_that_was_given_stays_usable(place: Path) -> None:
    rules = Landlock(read=SYSTEM, execute=SYSTEM)
    reading, writing = os.pipe()
    with open(place / "out" / "file") as given, open(reading) as pipe:
        files = (given.fileno(), writing, 2)
        with runner.start(Runner(args=["/bin/cat"], files=files, landlock=rules)) as process:
            os.close(writing)
            assert pipe.read() == "secret\n"
            assert process.wait().status is Status.OK


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_connect_is_to_the_ports_of_the_rules_alone(
    listener: socket.socket, place: Path
) -> None:
    port = listener.getsockname()[1]
    line = f"socket.create_connection(('127.0.0.1', {port}), 5)"
    assert attempt(line, place, Landlock(connect=())) == "EACCES\n"
    assert attempt(line, place, Landlock(connect=(port ^ 1,))) == "EACCES\n"
    assert attempt(line, place, Landlock(connect=(port,))) == DONE
    assert attempt(line, place, Landlock(bind=())) == DONE


def test_bind_is_to_the_ports_of_the_rules_alone(place: Path) -> None:
    line = "socket.socket().bind(('127.0.0.1', 0))"
    assert attempt(line, place, Landlock(bind=())) == "EACCES\n"
    assert attempt(line, place, Landlock(bind=(1,))) == "EACCES\n"
    assert attempt(line, place, Landlock(bind=(0,))) == DONE
    assert attempt(line, place, Landlock(connect=())) == DONE


def test_signal_to_a_process_of_the_same_user_outside_is_refused(place: Path) -> None:  # H24
    line = f"os.kill({os.getpid()}, 0)"
    assert attempt(line, place, Landlock(scopes=("signal",))) == "EPERM\n"
    assert attempt(line, place, Landlock(scopes=("abstract_unix_socket",))) == DONE
    assert attempt("os.kill(os.getpid(), 0)", place, Landlock(scopes=("signal",))) == DONE


def test_abstract_socket_of_another_is_refused(place: Path) -> None:  # H17
    name = f"run-sandboxed-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        line = f"socket.socket(socket.AF_UNIX).connect('\\0{name}')"
        rules = Landlock(scopes=("abstract_unix_socket",))
        assert attempt(line, place, rules) == "EPERM\n"
        assert attempt(line, place, Landlock(scopes=("signal",))) == DONE


def test_rules_hold_a_program_that_is_let_through_by_mounts_and_users(place: Path) -> None:
    assert script("echo x >/dev/null && echo y", landlock=None) == "y\n"
    rules = Landlock(read=("/",), execute=("/",))
    assert script("echo x >/dev/null && echo y", landlock=rules) == ""


@pytest.mark.userns
def test_sandbox_has_rules_on_its_own_paths() -> None:  # K36: as of a mount that is rw
    rules = Landlock(read=("/",), execute=("/usr", "/lib", "/lib64", "/bin"), write=("/dev",))
    line = "echo x >/tmp/f; echo $?; echo x >/dev/null; echo $?"
    with Sandbox(landlock=rules) as box:
        for _ in range(2):
            assert box.run(["sh", "-c", line]).stdout == b"2\n0\n"
    with Sandbox() as box:
        assert box.run(["sh", "-c", line]).stdout == b"0\n0\n"


@pytest.mark.userns
def test_sandbox_without_a_path_of_a_rule_fails_and_says_which() -> None:
    with Sandbox(landlock=Landlock(read=("/usr", "/none"))) as box:
        with pytest.raises(ChildError) as caught:
            box.run(["true"])
        error = caught.value
        assert (error.location, error.errno) == (ErrorLocation.LANDLOCK, errno.ENOENT)
        assert (error.index, error.subject) == (1, "/none")


@pytest.mark.root  # a user may not look at its keeper's fds: it is not dumpable
def test_run_cancelled_while_its_rules_are_made_leaves_the_keeper_no_fd() -> None:
    """Its process shares the keeper's fds, and is killed with some of its own open."""
    paths = ("/", *("/usr/" + "./" * number for number in range(400)))
    rules = Landlock(read=paths, execute=("/",))
    cancelled = 0
    with Sandbox(landlock=rules, limits=Limits(wall_time=20)) as box:
        for _ in range(40):
            seconds = random.uniform(0.001, 0.006)
            timer = threading.Timer(seconds, box.cancel)
            timer.start()
            # The keeper hears of every call, the exec too, and so does not sleep meanwhile.
            cancelled += box.run(["true"], policy_log="all").status is Status.CANCELLED
            timer.join()
        open_files = [
            os.readlink(entry) for entry in Path(f"/proc/{box.keeper_pid}/fd").iterdir()
        ]
    assert cancelled
    assert not [path for path in open_files if path.startswith(("/usr", "anon_inode:[landl"))]


def test_probe_tells_the_abi_of_this_kernel() -> None:
    abi, error = probes.landlock()
    assert error == 0
    assert abi >= 1


def test_rules_work_without_any_namespace_for_a_plain_user(place: Path) -> None:
    rules = Landlock(read=SYSTEM, execute=SYSTEM, scopes=("signal",), bind=(), connect=())
    given = Runner(args=[PYTHON, "-IS", "-c", "raise SystemExit(7)"], landlock=rules)
    with runner.start(given) as process:
        result = process.wait()
    assert (result.status, result.exit_code) == (Status.NONZERO_EXIT, 7)
    assert not given.namespaces
