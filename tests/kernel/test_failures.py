"""What happens to us during a run is an exception that says so, never a verdict."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner import (
    ChildError,
    ErrorLocation,
    Limits,
    MiB,
    ProtocolError,
    Sandbox,
)
from runner.cgroup import Parent
from runner.cgroup.place import Place, own_directory
from runner.host import Host, detect

pytestmark = pytest.mark.userns

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(wall_time=60)) as made:
        made.start()
        yield made


@contextlib.contextmanager
def later(act: Callable[[], object]) -> Iterator[None]:
    """Do something while a program runs."""
    timer = threading.Timer(0.3, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_keeper_that_is_stopped_is_an_exception_and_the_next_run_works(
    sandbox: Sandbox,
) -> None:
    """It holds no limit then: the sleep goes on, whatever its time."""
    keeper = sandbox.keeper_pid
    assert keeper is not None
    stop = later(lambda: os.kill(keeper, signal.SIGSTOP))
    with stop, pytest.raises(ProtocolError) as caught:
        sandbox.run(["sleep", "50"], limits=Limits(wall_time=1))
    assert str(caught.value) == (
        "the keeper was stopped, by a signal that is not ours, and has been killed"
    )
    assert not Path(f"/proc/{keeper}").exists()
    assert sandbox.run(["true"]).ok


def test_keeper_that_was_stopped_for_a_moment_goes_on(sandbox: Sandbox) -> None:
    keeper = sandbox.keeper_pid
    assert keeper is not None
    os.kill(keeper, signal.SIGSTOP)
    with later(lambda: os.kill(keeper, signal.SIGCONT)):
        assert sandbox.run(["true"]).ok
    assert sandbox.keeper_pid == keeper


def test_keeper_that_is_stopped_is_killed_at_the_second_look_of_one_wait(
    sandbox: Sandbox,
) -> None:
    """And not for having been stopped in an earlier run too."""
    box = sandbox._life.box
    assert box is not None
    keeper = box.keeper

    def stop() -> None:
        os.kill(keeper.pid, signal.SIGSTOP)
        while ") T " not in Path(f"/proc/{keeper.pid}/stat").read_text():
            time.sleep(0.001)

    def look_later() -> None:
        keeper._looked_at = 0.0
        keeper.look()

    stop()
    look_later()
    keeper.look()  # too soon to tell
    os.kill(keeper.pid, signal.SIGCONT)
    keeper.ping(60)
    stop()
    look_later()
    with pytest.raises(ProtocolError, match=r"^the keeper was stopped"):
        look_later()


def own_group(host: Host, place: Place) -> Path:
    """Give our own group, where processes may be: in v2, `place` is for groups alone."""
    if place.version == 1:
        return Path(place.path)
    (mount,) = (mount for mount in host.cgroup_mounts if mount.version == 2)
    own = own_directory(mount, host.cgroup_paths.get(""))
    assert own is not None
    return Path(own)


@pytest.mark.root
@pytest.mark.cgroup
@pytest.mark.parametrize(
    ("cpu_time", "number"), [(None, errno.ENODEV), (0.5, errno.EIO)], ids=["end", "look"]
)
def test_group_that_is_removed_during_the_run_is_an_exception(
    sandbox: Sandbox, tmp_path: Path, cpu_time: float | None, number: int
) -> None:
    """By somebody who moves the program out of it first: no limit holds any more.

    The program has run, and must not be run again.
    """
    host = detect()
    parent = Parent.find(host)
    assert parent is not None
    limits = Limits(wall_time=60, memory=64 * MiB, cpu_time=cpu_time)
    mine = f".{os.getpid()}."

    def remove() -> None:
        for place in parent.places:
            for group in Path(place.path).iterdir():
                if mine in group.name and (group / "cgroup.procs").is_file():
                    for pid in (group / "cgroup.procs").read_text().split():
                        (own_group(host, place) / "cgroup.procs").write_text(pid)
                    group.rmdir()

    with open(tmp_path / "out", "wb") as out:
        command = ["sh", "-c", "echo x; sleep 3"]
        with later(remove), pytest.raises(ChildError) as caught:
            sandbox.run(command, limits=limits, stdout=out.fileno())
    assert (caught.value.location, caught.value.errno) == (ErrorLocation.WATCH, number)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("somebody removed the program's cgroup")
    assert (tmp_path / "out").read_text() == "x\n"
    assert sandbox.run(["true"], limits=limits).ok


FULL = """
import os, sys
from runner import HostError, Limits, Mount, Sandbox
place = sys.argv[1]
def show(run):
    try:
        print(run().status.value)
    except HostError as error:
        print(error, "|", error.hint)
with Sandbox() as sandbox, open(place + "/out", "wb") as out:
    write = ["head", "-c", "100000", "/dev/zero"]
    show(lambda: sandbox.run(write, stdout=out.fileno()))
    show(lambda: sandbox.run(["true"], stdout=out.fileno()))
    show(lambda: sandbox.run(["sh", "-c", "kill -KILL $$"], stderr=out.fileno()))
    os.truncate(place + "/out", 0)
    show(lambda: sandbox.run(["false"], stdout=out.fileno()))
box = [Mount.bind(place, "/box", readonly=False)]
with Sandbox(mounts=box, user=(0, 0)) as sandbox:
    show(lambda: sandbox.run(["sh", "-c", "head -c 100000 /dev/zero >/box/x"]))
    show(lambda: sandbox.run(["sh", "-c", "exit 5"]))
    os.truncate(place + "/x", 0)
    show(lambda: sandbox.run(["sh", "-c", "exit 5"]))
"""


def test_full_disk_of_the_caller_is_a_host_error_where_the_program_fails(
    tmp_path: Path,
) -> None:
    """Where it succeeds there is nothing to say. The disk is a tmpfs that only we see."""
    mount = 'mount -t tmpfs -o size=64k,mode=0777 tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-ec", mount, "sh"]
    done = subprocess.run(
        [*command, str(tmp_path), sys.executable, FULL],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    remedy = "make room there, or send it elsewhere"
    assert done.stdout.splitlines() == [
        f"the file system of stdout is full | {remedy}",
        "ok",
        f"the file system of stderr is full | {remedy}",
        "nonzero_exit",
        f"the file system of {tmp_path} is full | {remedy}",
        f"the file system of {tmp_path} is full | {remedy}",
        "nonzero_exit",
    ]


SMALL_FILES = """
import resource
from runner import SandboxError, Sandbox
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
with Sandbox() as sandbox:
    try:
        print(sandbox.run(["head", "-c", "100000", "/dev/zero"]))
    except SandboxError as error:
        print(type(error).__name__, error.location.name, error.errno_name)
    print(sandbox.run(["echo", "x"]).stdout)
"""


def test_output_that_we_have_no_room_to_keep_is_an_exception() -> None:
    """The grader's own limit on the size of files holds for what it captures, too."""
    command = [sys.executable, "-c", SMALL_FILES]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    said, after = done.stdout.splitlines()
    assert said == "ChildError PIPE EFBIG", "and the keeper is not killed by SIGXFSZ"
    assert after == "b'x\\n'"
