"""Attacks on the keeper that decides calls: it stays awake, and its limits hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runner import Limits, Mount, Sandbox, Status, Supervision

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
