"""The soak itself: finds nothing where there is nothing, and each kind of leak."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.soak.__main__ import soak
from bench.soak.census import MARK, census, more, settled
from runner import Sandbox
from runner.cgroup import Parent
from runner.host import detect

pytestmark = pytest.mark.userns


@pytest.mark.slow
def test_soak_of_a_few_hundred_runs_leaves_nothing() -> None:
    """How long a run takes, too few and beside other tests, says nothing."""
    assert soak(400, slower=math.inf) == []


@pytest.mark.slow
def test_soak_tells_what_was_kept_and_fails() -> None:
    """Ours by far: what the keepers have open between two runs differs by a few."""
    with contextlib.ExitStack() as kept:

        def keep() -> None:
            for _ in range(50):
                kept.enter_context(fd_kept())

        found = soak(200, slower=math.inf, between=keep)
    assert len(found) == 1
    assert found[0].endswith(" more fds")


@contextlib.contextmanager
def fd_kept() -> Iterator[None]:
    with open("/dev/null", "rb"):
        yield


@contextlib.contextmanager
def process_kept() -> Iterator[None]:
    with subprocess.Popen(["sleep", "100"]) as process:
        try:
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def file_kept() -> Iterator[None]:
    with tempfile.NamedTemporaryFile(prefix=MARK):
        yield


@contextlib.contextmanager
def shared_memory_kept() -> Iterator[None]:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"x" * (80 << 20))
        file.flush()
        yield


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    with mmap.mmap(-1, 20 << 20) as kept:
        for at in range(0, len(kept), mmap.PAGESIZE):
            kept[at] = 1
        yield


@pytest.mark.parametrize(
    ("leak", "names"),
    [
        (contextlib.nullcontext, set()),
        (fd_kept, {"fds"}),
        (process_kept, {"processes"}),
        (file_kept, {"temporary files", "fds"}),
        (
            shared_memory_kept,
            {"objects in shared memory", "MiB of shared memory", "fds"},
        ),
        (memory_kept, {"MiB of the grader"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_census_tells_what_there_is_more_of(
    leak: Callable[[], contextlib.AbstractContextManager[None]], names: set[str]
) -> None:
    before = census()
    with leak():
        found = more(before, census())
    # A child's are counted too; Shmem is that of the whole host.
    others = {"fds", "mounts", "MiB of keepers"} if leak is process_kept else set()
    assert names <= found.keys() <= names | others | {"MiB of shared memory"}
    assert more(before, settled(before)).keys() <= {"MiB of shared memory"}


@pytest.mark.cgroup
def test_census_tells_of_a_group_that_was_kept() -> None:
    parent = Parent.find(detect())
    assert parent is not None
    before = census()
    with parent.create():
        assert more(before, census())["cgroups"] > 0
    assert "cgroups" not in more(before, settled(before))


def test_census_tells_of_what_a_sandbox_keeps() -> None:
    """A file in its place, seen by root alone; and the sandbox itself, when it is closed."""
    before = census()
    with Sandbox(fresh="submission") as sandbox:
        sandbox.run(["true"])
        started = census()
        sandbox.run(["sh", "-c", "head -c 100000 /dev/zero >/tmp/kept"])
        found = more(started, census())
        assert "processes" in more(before, started)
    if os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split()[2] != "1":
        assert {"inodes in sandboxes", "bytes in sandboxes"} <= found.keys()
    assert not more(before, settled(before)).keys() - {"MiB of shared memory"}
