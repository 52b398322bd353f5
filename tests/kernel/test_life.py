"""Sandboxes that are damaged, and applications that do what applications do."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import CAPTURE, ConfigError, Hook, Mount, ProtocolError, Sandbox, SandboxError
from runner.host import detect
from runner.units import MiB

pytestmark = pytest.mark.userns

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        assert made.run(["true"]).ok
        yield made


def end(pid: int | None) -> None:
    """Kill a process that is not ours to wait for, and see it gone."""
    assert pid is not None
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    deadline = time.monotonic() + 10
    state = Path(f"/proc/{pid}/stat")
    while state.exists() and ") Z " not in state.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.close(pidfd)


# Damage


@pytest.mark.parametrize("victim", ["keeper", "init"])
def test_sandbox_whose_process_was_killed_between_runs_is_replaced(
    sandbox: Sandbox, victim: str
) -> None:
    before = sandbox.keeper_pid
    end(sandbox.keeper_pid if victim == "keeper" else sandbox.init_pid)
    assert sandbox.run(["echo", "again"]).stdout == b"again\n"
    assert sandbox.keeper_pid != before


@pytest.mark.root
def test_sandbox_that_cannot_be_cleaned_is_replaced_for_the_next_run(
    sandbox: Sandbox,
) -> None:
    """Somebody takes /tmp away, so that it cannot be unmounted after the run."""
    before = sandbox.keeper_pid
    take_away(sandbox)
    assert sandbox.run(["true"]).ok  # after which another /tmp is found than was left
    result = sandbox.run(["stat", "-f", "-c", "%T", "/tmp"])
    assert result.stdout == b"tmpfs\n"
    assert sandbox.keeper_pid != before


def take_away(sandbox: Sandbox) -> None:
    """Unmount /tmp in a sandbox, from outside."""
    assert sandbox.init_pid is not None
    pidfd = os.pidfd_open(sandbox.init_pid)
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        user_and_mounts, detach = 0x10000000 | 0x20000, 2
        failed = libc.setns(pidfd, user_and_mounts) or libc.umount2(b"/tmp", detach)
        os._exit(1 if failed else 0)
    os.close(pidfd)
    assert os.waitpid(pid, 0)[1] == 0


def test_run_that_may_have_started_is_not_started_again(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    mine = Mount.bind(str(tmp_path), "/work", readonly=False)
    with Sandbox(mounts=[mine]) as sandbox:
        assert sandbox.run(["true"]).ok
        killer = threading.Thread(target=kill_when_there, args=(tmp_path / "1", sandbox))
        killer.start()
        with pytest.raises(ProtocolError, match="the keeper has ended"):
            sandbox.run(["sh", "-c", "n=$(ls /work | wc -l); > /work/$((n + 1)); sleep 20"])
        killer.join()
        assert sandbox.run(["ls", "/work"]).stdout == b"1\n"


def kill_when_there(path: Path, sandbox: Sandbox) -> None:
    while not path.exists():
        time.sleep(0.001)
    end(sandbox.keeper_pid)


# What stays, and for how long


def test_files_of_a_submission_stay_until_reset_and_nothing_else_does() -> None:
    with Sandbox(fresh="submission") as sandbox:
        leave = "echo left > /tmp/file; mkdir /dev/shm/d; ipcmk -M 100; sleep 30 &"
        assert sandbox.run(["sh", "-c", leave]).ok
        look = "cat /tmp/file; ls /dev/shm; tail -n +2 /proc/sysvipc/shm; pgrep sleep"
        assert sandbox.run(["sh", "-c", look]).stdout == b"left\nd\n"
        before = sandbox.keeper_pid
        sandbox.reset()
        assert sandbox.run(["sh", "-c", look]).stdout == b""
        assert sandbox.keeper_pid == before, "it is emptied where it is"


@pytest.mark.parametrize("fresh", ["run", "submission"])
def test_reset_of_what_no_program_has_touched_leaves_the_sandbox(fresh: Any) -> None:  # noqa: ANN401
    with Sandbox(fresh=fresh) as sandbox:
        sandbox.reset()
        assert sandbox.keeper_pid is None, "nothing was started"
        for _ in range(3):
            look = sandbox.run(["stat", "-c", "%d", "/tmp", "/dev/shm"]).stdout
            before = sandbox.keeper_pid
            sandbox.reset()
            assert sandbox.run(["stat", "-c", "%d", "/tmp", "/dev/shm"]).stdout == look
            assert sandbox.keeper_pid == before


NOT_EMPTIED = {
    "tmpfs that is not fresh": {"mounts": [Mount.tmpfs("/kept", mode=0o777, fresh=False)]},
    "mount below a fresh place": {
        "mounts": [Mount.tmpfs("/kept", mode=0o777), Mount.tmpfs("/kept/below", mode=0o777)]
    },
    "writable /dev": {"mounts": [dataclasses.replace(Mount.dev(), readonly=False)]},
    "hook": {"hooks": [Hook(args=["/bin/true"])]},
}


@pytest.mark.parametrize("kind", NOT_EMPTIED)
def test_reset_replaces_a_sandbox_that_cannot_be_emptied(kind: str) -> None:
    with Sandbox(fresh="submission", **NOT_EMPTIED[kind]) as sandbox:  # type: ignore[arg-type]
        places = "for p in /kept /kept/below /dev /tmp; do [ ! -w $p ] ||"
        assert sandbox.run(["sh", "-c", f"{places} echo >$p/left; done"]).ok
        before = sandbox.keeper_pid
        sandbox.reset()
        found = sandbox.run(["sh", "-c", f"{places} cat $p/left; done 2>/dev/null"])
        assert (found.stdout, sandbox.keeper_pid != before) == (b"", True)


@pytest.mark.root
def test_reset_replaces_a_sandbox_whose_place_somebody_has_taken_away() -> None:
    with Sandbox(fresh="submission") as sandbox:
        assert sandbox.run(["touch", "/tmp/file"]).ok
        before = sandbox.keeper_pid
        take_away(sandbox)
        sandbox.reset()
        result = sandbox.run(["sh", "-c", "stat -f -c %T /tmp; ls /tmp"])
        assert result.stdout == b"tmpfs\n"
        assert sandbox.keeper_pid != before


@pytest.mark.parametrize("who", ["keeper", "init"])
def test_reset_of_a_sandbox_that_is_dead_leaves_nothing_to_be_missed(who: str) -> None:
    with Sandbox(fresh="submission") as sandbox:
        assert sandbox.run(["touch", "/tmp/file"]).ok
        end(sandbox.keeper_pid if who == "keeper" else sandbox.init_pid)
        sandbox.reset()
        assert sandbox.run(["ls", "/tmp"]).stdout == b""


def test_damage_after_a_reset_is_no_loss_and_the_run_is_made_in_another() -> None:
    with Sandbox(fresh="submission") as sandbox:
        assert sandbox.run(["touch", "/tmp/file"]).ok
        sandbox.reset()
        end(sandbox.init_pid)
        assert sandbox.run(["ls", "/tmp"]).stdout == b""


def test_files_of_a_submission_that_are_lost_are_told_before_a_run_misses_them() -> None:
    with Sandbox(fresh="submission") as sandbox:
        assert sandbox.run(["touch", "/tmp/file"]).ok
        end(sandbox.init_pid)
        with pytest.raises(SandboxError):
            sandbox.run(["ls", "/tmp/file"])
        assert sandbox.run(["ls", "/tmp"]).stdout == b""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fresh": "test"}, 'fresh: \'test\': known are "run", "submission" and "sandbox"'),
        (
            {"fresh": "submission", "mounts": [Mount.mqueue()]},
            "fresh: 'submission': queues at '/dev/mqueue' cannot stay: leave it out",
        ),
    ],
)
def test_freshness_that_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sandbox(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message


# Applications


def test_fork_has_a_sandbox_of_its_own_and_ends_only_that(sandbox: Sandbox) -> None:
    """As the workers of a prefork server do with what their parent has made."""
    parents = sandbox.keeper_pid
    for leave in (os._exit, sys.exit):
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                assert sandbox.keeper_pid is None
                assert sandbox.run(["echo", "child"]).stdout == b"child\n"
                assert sandbox.keeper_pid not in {None, parents}
                sandbox.close()
                code = 0
            finally:
                if leave is os._exit:
                    os._exit(code)
                run_exit_handlers(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert sandbox.run(["echo", "parent"]).stdout == b"parent\n"
        assert sandbox.keeper_pid == parents


def run_exit_handlers(code: int) -> None:
    """End a fork as the interpreter would, but for pytest's own handlers."""
    import weakref

    weakref.finalize._exitfunc()  # type: ignore[attr-defined]
    gc.collect()
    os._exit(code)


def test_fork_while_a_thread_runs_a_program_can_run_its_own(sandbox: Sandbox) -> None:
    thread = threading.Thread(target=lambda: sandbox.run(["sleep", "1"]))
    thread.start()
    time.sleep(0.2)  # it holds the lock
    pid = os.fork()
    if pid == 0:
        with sandbox:
            ok = sandbox.run(["true"]).ok
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert thread.is_alive()
    thread.join()
    assert sandbox.run(["true"]).ok


def test_sandbox_that_is_dropped_warns_and_leaves_nothing() -> None:
    dropped = [Sandbox()]
    dropped[0].start()
    keeper = dropped[0].keeper_pid
    with pytest.warns(ResourceWarning, match="a sandbox was not closed"):
        dropped.clear()
    assert not Path(f"/proc/{keeper}").exists()


# Each is the text of an application; none may hang, or leave its keeper behind.
APPLICATIONS = {
    "ignores SIGCHLD": """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with Sandbox() as sandbox:
    for _ in range(3): show(sandbox.run(["sh", "-c", "sleep 0.01 & exit 3"]))
""",
    "reaps every child in its SIGCHLD handler": """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
signal.signal(signal.SIGCHLD, reap)
for _ in range(3):
    with Sandbox() as sandbox: show(sandbox.run(["sh", "-c", "exit 3"]))
""",
    "waits for any child in a thread": """
def reap():
    while True:
        try: os.waitpid(-1, 0)
        except ChildProcessError: time.sleep(0.001)
threading.Thread(target=reap, daemon=True).start()
for _ in range(3):
    with Sandbox() as sandbox: show(sandbox.run(["sh", "-c", "exit 3"]))
""",
    "never closes it": """
sandbox = Sandbox()
for _ in range(3): show(sandbox.run(["sh", "-c", "exit 3"]))
""",
    "ends by os._exit": """
sandbox = Sandbox()
for _ in range(3): show(sandbox.run(["sh", "-c", "exit 3"]))
os._exit(0)
""",
    "ends by an exception": """
sys.excepthook = lambda *_: os.write(1, b"")
sandbox = Sandbox()
for _ in range(3): show(sandbox.run(["sh", "-c", "exit 3"]))
sandbox.absent
""",
    "ends its main thread while another runs a program": """
sandbox = Sandbox()
def work():
    for _ in range(3): show(sandbox.run(["sh", "-c", "sleep 0.05; exit 3"]))
    sys.exit(5)
threading.Thread(target=work).start()
""",
    "ends while a daemon thread runs a program": """
sandbox = Sandbox()
for _ in range(3): show(sandbox.run(["sh", "-c", "exit 3"]))
def work():
    with contextlib.suppress(ProtocolError): sandbox.run(["sleep", "50"])
threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
""",
    "is killed": """
sandbox = Sandbox()
for _ in range(3): show(sandbox.run(["sh", "-c", "exit 3"]))
os.kill(os.getpid(), signal.SIGKILL)
""",
    "forks without exec and goes before its child": """
sandbox = Sandbox()
for _ in range(3): show(sandbox.run(["sh", "-c", "exit 3"]))
if os.fork() == 0:
    for fd in (0, 1, 2): os.close(fd)
    time.sleep(1)
""",
    "works in a thread of each interpreter exit": """
import atexit
sandbox = Sandbox()
@atexit.register
def late():
    for _ in range(3): show(sandbox.run(["sh", "-c", "exit 3"]))
    sandbox.close()
""",
    "is a prefork server that reaps its workers": """
def reap(*_):
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]: pass
signal.signal(signal.SIGCHLD, reap)
sandbox = Sandbox()
sandbox.start()  # before the fork, as with gunicorn's preload_app
read, write = os.pipe()
for _ in range(3):
    if os.fork() == 0:
        os.write(write, b"%d\\n" % sandbox.run(["sh", "-c", "exit 3"]).exit_code)
        sys.exit()
os.close(write)
with open(read) as lines: print(*map(str.strip, lines), flush=True)
assert sandbox.run(["true"]).ok
sandbox.close()
""",
    "works in a subinterpreter": """
try: import _interpreters as interpreters
except ImportError: import _xxsubinterpreters as interpreters
one = interpreters.create()
interpreters.run_string(one, '''
from runner import Sandbox
with Sandbox() as sandbox:
    for _ in range(3): print(sandbox.run(["sh", "-c", "exit 3"]).exit_code, flush=True)
''')
interpreters.destroy(one)
""",
    "runs in multiprocessing's forked workers": """
import multiprocessing
sandbox = Sandbox()
sandbox.start()
def work(_): return sandbox.run(["sh", "-c", "exit 3"]).exit_code
with multiprocessing.get_context("fork").Pool(2) as pool:
    for code in pool.map(work, range(3)): print(code, flush=True)
    pool.close(); pool.join()
sandbox.close()
""",
}
PRELUDE = """
import contextlib, os, signal, sys, threading, time
from runner import ProtocolError, Sandbox
def show(result): print(result.exit_code, flush=True)
print(os.getpid(), flush=True)
"""


@pytest.mark.parametrize("text", APPLICATIONS.values(), ids=APPLICATIONS)
def test_application_gets_its_results_and_leaves_no_process(text: str) -> None:
    command = [sys.executable, "-c", PRELUDE + text]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    pid, *codes = done.stdout.split()
    assert (codes, done.stderr) == (["3"] * 3, "")
    deadline = time.monotonic() + 10
    while left := children_of_the_dead(int(pid)):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def children_of_the_dead(session: int) -> list[str]:
    """Give keepers of this checkout whose application has gone."""
    keeper = str(ROOT / "runner" / "keeper")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            words = (process / "stat").read_text().rpartition(")")[2].split()
            if words[1] in {"1", str(session)} and os.readlink(process / "exe") == keeper:
                found.append(process.name)
    return found


def test_error_of_a_sandbox_is_never_a_result() -> None:
    with Sandbox() as sandbox, pytest.raises(SandboxError):
        sandbox.run(["/nowhere"])


def test_fresh_sandbox_has_run_nothing_before() -> None:
    """Pids count up in a sandbox: in each of these the program is the first."""
    with Sandbox(fresh="sandbox") as sandbox:
        first = sandbox.run(["sh", "-c", "echo $$; ipcmk -Q; touch /tmp/x"]).stdout
        pid = first.split()[0]
        for _ in range(5):
            result = sandbox.run(["sh", "-c", "echo $$; ls /tmp"])
            assert result.stdout == pid + b"\n"
            assert result.ok


def test_fresh_sandbox_is_another_with_ids_of_its_own() -> None:
    with Sandbox(fresh="sandbox") as sandbox:
        maps = {sandbox.run(["cat", "/proc/self/uid_map"]).stdout for _ in range(4)}
    assert len(maps) == (4 if detect().maps_ids else 1)


def test_fresh_sandbox_that_was_killed_while_it_waited_is_replaced() -> None:
    with Sandbox(fresh="sandbox") as sandbox:
        for _ in range(3):
            assert sandbox.run(["true"]).ok
            spare = sandbox._life._spare
            assert spare is not None
            end(spare.keeper.pid)


def test_fresh_sandbox_whose_init_dies_when_it_is_made_is_replaced() -> None:
    with Sandbox(fresh="sandbox") as sandbox:
        assert sandbox.run(["true"]).ok
        sandbox.start()
        end(sandbox.init_pid)
        assert sandbox.run(["true"]).ok


def test_fresh_sandbox_of_which_a_source_has_gone_says_so() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(f"{directory}/place")
        mount = Mount.bind(f"{directory}/place", "/place")
        with Sandbox(fresh="sandbox", mounts=[mount]) as sandbox:
            assert sandbox.run(["test", "-d", "/place"]).ok
            assert sandbox.run(["test", "-d", "/place"]).ok
            sandbox.start()
            os.rmdir(f"{directory}/place")
            assert sandbox.run(["test", "-d", "/place"]).ok  # it was made before that
            with pytest.raises(ConfigError, match="/place"):
                sandbox.run(["true"])


@pytest.mark.cgroup
def test_fresh_sandboxes_take_over_the_groups_of_those_that_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Making and removing them takes long; their figures start anew with each run."""
    # What was seen of the host is looked at anew each second, and the groups are made with it.
    monkeypatch.setattr("runner.blueprint._LIFETIME_S", 60)
    with Sandbox(fresh="sandbox") as sandbox:
        joined = []  # the objects, so that no id is used again
        for _ in range(6):
            result = sandbox.run(["sh", "-c", "cat /proc/self/cgroup"])
            assert result.ok
            assert result.processes_peak in {1, 2, None}
            spare = sandbox._life._spare
            assert spare is not None
            assert spare._groups is not None
            joined.append(spare._groups)
        hog = sandbox.run(["head", "-c", "30m", "/dev/zero"], stdout=CAPTURE)
        assert hog.ok
        small = sandbox.run(["true"])
        assert small.memory_bytes is not None
        assert small.memory_bytes < 8 * MiB
    assert len(set(map(id, joined))) <= 3
