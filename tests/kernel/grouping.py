"""Children that join groups and do something there, without a sandbox."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Callable

from runner.cgroup import Groups, Parent
from runner.cgroup.owner import MARK
from runner.config import Limits

# The kernel charges 64 pages at a time for each CPU.
BATCHES = 64 * mmap.PAGESIZE * (os.cpu_count() or 1)


def groups_of(parent: Parent, pid: int) -> set[str]:
    """List the groups that this process made; others may have theirs in the same places."""
    prefix = f"{MARK}.{os.stat('/proc/self/ns/pid').st_ino}.{pid}."
    return {
        f"{place.path}/{name}"
        for place in parent.places
        for name in os.listdir(place.path)
        if name.startswith(prefix)
    }


def start(groups: Groups, program: Callable[[], object]) -> int:
    """Fork a child that joins the groups and calls `program`; an OSError is its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            for fd in groups.placement:
                os.write(fd, b"0")
            program()
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    return pid


def run(groups: Groups, program: Callable[[], object], limits: Limits | None = None) -> int:
    """Prepare the groups, run a program in them, and give its wait status."""
    groups.prepare(limits or Limits())
    return os.waitpid(start(groups, program), 0)[1]


def touch(size: int) -> None:
    """Use this much memory, then give it back."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1


def burn(seconds: float) -> None:
    start_ns = time.thread_time_ns()
    while time.thread_time_ns() - start_ns < seconds * 1e9:
        pass


def hold(count: int) -> None:
    """Fork `count` children that live together, and reap them."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
