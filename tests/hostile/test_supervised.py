"""Attacks on the keeper that decides calls: it stays awake, and its limits hold."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from runner import Limits, Mount, Sandbox, Status, Supervision
from runner.seccomp import compile_policy

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


@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_more_calls_than_can_be_decided_keep_no_limit_from_its_time(
    by: str, tmp_path: Path
) -> None:
    program = tmp_path / "storm"
    gcc = ["gcc", "-static", "-O1", "-pthread", "-xc", "-", "-o", program]
    subprocess.run(gcc, input=STORM.encode(), check=True)
    rules = Supervision(calls={"getppid": 2**31 - 1}, by=by)
    limits = Limits(wall_time=0.5, processes=2000)
    with Sandbox(mounts=[Mount.bind(str(program), "/storm")], supervision=rules) as box:
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
