"""Parsing of cgroup files, names of owners, and the meters on files as kernels write them."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.cgroup import owner
from runner.cgroup.cpu import CpuacctMeter, CpuStatMeter, CpuTimes
from runner.cgroup.files import Directory, read, read_fields, read_number
from runner.cgroup.memory import MemoryFigures, MemoryV1, MemoryV2
from runner.cgroup.pids import PidsMeter, ProcessCounts
from runner.config import Limits
from runner.errors import HostError
from runner.seccomp.syscalls import numbers
from runner.units import MiB

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RESIDUE = 1_000_000
BATCH = 64 * mmap.PAGESIZE


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Directory]:
    directory = Directory(str(tmp_path))
    yield directory
    directory.close()


def texts(meter: PidsMeter | MemoryV1 | MemoryV2) -> list[bytes]:
    return [read(fd) for fd in meter.files]


def begin(meter: PidsMeter | MemoryV1 | MemoryV2, limits: Limits) -> None:
    meter.prepare(limits)
    meter.begin(texts(meter))


def fill(path: Path, **files: str) -> None:
    """Write files whose names have `__` for a dot."""
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)


def test_fields_of_a_flat_keyed_file_are_numbers_by_name(
    tmp_path: Path, group: Directory
) -> None:
    fill(tmp_path, memory__events="low 0\nmax 12\noom_kill 1\n")
    assert read_fields(group.open("memory.events")) == {b"low": 0, b"max": 12, b"oom_kill": 1}


def test_fields_of_an_empty_file_are_none(tmp_path: Path, group: Directory) -> None:
    fill(tmp_path, pids__events="")
    assert read_fields(group.open("pids.events")) == {}


def test_number_when_the_file_changes_is_read_anew(tmp_path: Path, group: Directory) -> None:
    fill(tmp_path, cpuacct__usage="1\n")
    fd = group.open("cpuacct.usage")
    fill(tmp_path, cpuacct__usage="18446744073709551615\n")
    assert read_number(fd) == 2**64 - 1


def test_directory_when_closed_twice_closes_its_files_once(tmp_path: Path) -> None:
    fill(tmp_path, tasks="")
    directory = Directory(str(tmp_path))
    fds = [directory.fd, directory.open("tasks")]
    assert directory.open_if_present("cgroup.kill") is None
    directory.close()
    directory.close()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_cpuacct_gives_the_difference_and_no_split(tmp_path: Path, group: Directory) -> None:
    fill(tmp_path, cpuacct__usage="500\n")
    meter = CpuacctMeter(group)
    meter.begin(read(meter.fd))
    fill(tmp_path, cpuacct__usage="1700\n")
    assert meter.start_ns == 500
    assert meter.measure(read(meter.fd)) == CpuTimes(1200, None, None)


def test_cpu_stat_gives_the_differences_in_ns(tmp_path: Path, group: Directory) -> None:
    fill(tmp_path, cpu__stat="usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 0\n")
    meter = CpuStatMeter(group)
    meter.begin(read(meter.fd))
    fill(tmp_path, cpu__stat="usage_usec 110\nuser_usec 96\nsystem_usec 14\nnr_periods 0\n")
    assert meter.start_ns == 10_000
    assert meter.measure(read(meter.fd)) == CpuTimes(100_000, 90_000, 10_000)


def test_pids_without_peak_and_events_gives_none_for_both(
    tmp_path: Path, group: Directory
) -> None:
    fill(tmp_path, pids__current="0\n", pids__max="max\n")
    meter = PidsMeter(group)
    begin(meter, Limits(processes=7))
    assert (tmp_path / "pids.max").read_text() == "7ax\n"  # a file of the kernel takes it whole
    assert meter.measure(texts(meter)) == ProcessCounts(peak=None, limit_hits=None)
    assert not meter.is_stale()


def test_pids_when_the_limit_is_the_same_does_not_write_again(
    tmp_path: Path, group: Directory
) -> None:
    fill(tmp_path, pids__current="0\n", pids__max="", pids__events="max 3\n", pids__peak="1\n")
    meter = PidsMeter(group)
    begin(meter, Limits(processes=7))
    fill(tmp_path, pids__max="", pids__events="max 5\n", pids__peak="7\n")
    assert meter.measure(texts(meter)) == ProcessCounts(peak=7, limit_hits=2)
    assert meter.is_stale()
    begin(meter, Limits(processes=7))
    assert (tmp_path / "pids.max").read_text() == ""


def v1_files(path: Path, **files: str) -> None:
    names = ("usage_in_bytes", "max_usage_in_bytes", "limit_in_bytes", "failcnt", "force_empty")
    fill(path, **{f"memory__{name}": "0\n" for name in names} | files)


def test_memory_v1_without_oom_kill_count_gives_none(tmp_path: Path, group: Directory) -> None:
    v1_files(tmp_path, memory__oom_control="oom_kill_disable 0\nunder_oom 0\n")
    meter = MemoryV1(group, residue=RESIDUE)
    begin(meter, Limits(memory=4096))
    fill(tmp_path, memory__max_usage_in_bytes="4096\n", memory__failcnt="2\n")
    assert meter.measure(texts(meter)) == MemoryFigures(
        peak_bytes=4096, oom_kills=None, limit_hits=2
    )


def test_memory_v1_when_more_than_the_residue_is_charged_is_stale(
    tmp_path: Path, group: Directory
) -> None:
    v1_files(tmp_path, memory__oom_control="oom_kill 0\n")
    meter = MemoryV1(group, residue=RESIDUE)
    fill(tmp_path, memory__usage_in_bytes=f"{RESIDUE}\n")
    begin(meter, Limits())
    assert not meter.is_stale()
    fill(tmp_path, memory__usage_in_bytes=f"{RESIDUE + 1}\n")
    meter.measure(texts(meter))
    assert meter.is_stale()
    fill(tmp_path, memory__usage_in_bytes="0\n")  # freed meanwhile
    assert not meter.is_stale()


def v2_files(path: Path, **files: str) -> None:
    events = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n"
    defaults = {"memory__current": "0\n", "memory__max": "", "memory__events": events}
    fill(path, **defaults | files)


def test_memory_v2_before_peak_gives_none_and_uses_its_group_again(
    tmp_path: Path, group: Directory
) -> None:
    v2_files(tmp_path)
    meter = MemoryV2(group, residue=RESIDUE)
    begin(meter, Limits(memory=4096))
    fill(tmp_path, memory__events="low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\n")
    assert meter.measure(texts(meter)) == MemoryFigures(None, oom_kills=2, limit_hits=9)
    assert not meter.is_stale()


def test_memory_v2_with_a_peak_that_only_rises_is_stale_once_used(
    tmp_path: Path, group: Directory
) -> None:
    v2_files(tmp_path, memory__peak="700\n")
    (tmp_path / "memory.peak").chmod(0o444)
    meter = MemoryV2(group, residue=RESIDUE)
    assert not meter.is_stale()
    begin(meter, Limits())
    assert meter.measure(texts(meter)).peak_bytes == 700
    assert meter.resets == ()
    assert meter.is_stale()


def test_memory_v2_with_a_peak_that_resets_is_used_again(
    tmp_path: Path, group: Directory
) -> None:
    v2_files(tmp_path, memory__peak="7")
    meter = MemoryV2(group, residue=RESIDUE)
    begin(meter, Limits())
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in meter.resets] == [
        str(tmp_path / "memory.peak")
    ]
    assert meter.measure(texts(meter)).peak_bytes == 7
    assert not meter.is_stale()


def test_memory_v2_turns_swap_off_with_a_limit_on_memory_or_without(
    tmp_path: Path, group: Directory
) -> None:
    v2_files(tmp_path, memory__swap__max="", memory__oom__group="0")
    meter = MemoryV2(group, residue=RESIDUE)
    assert (tmp_path / "memory.oom.group").read_text() == "1"
    begin(meter, Limits())
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    assert meter.holds_swap(Limits())
    begin(meter, Limits(memory=4096))
    assert (tmp_path / "memory.max").read_text() == "4096"
    assert meter.measure(texts(meter)).swap_bytes == 0
    assert not meter.is_stale()


def test_memory_v2_that_may_swap_is_used_once_and_gives_the_peak(
    tmp_path: Path, group: Directory
) -> None:
    v2_files(tmp_path, memory__swap__max="", memory__swap__peak="77\n")
    meter = MemoryV2(group, residue=RESIDUE)
    begin(meter, Limits(memory=4096, swap=8192))
    assert (tmp_path / "memory.swap.max").read_text() == "8192"
    assert meter.measure(texts(meter)).swap_bytes == 77
    assert meter.is_stale()


def test_memory_v2_without_a_swap_file_refuses_only_a_limit_that_is_asked_for(
    tmp_path: Path, group: Directory
) -> None:
    v2_files(tmp_path)
    meter = MemoryV2(group, residue=RESIDUE)
    begin(meter, Limits())
    assert not meter.holds_swap(Limits())
    assert meter.measure(texts(meter)).swap_bytes is None
    with pytest.raises(HostError) as caught:
        begin(meter, Limits(swap=1))
    assert caught.value.missing == "this kernel's cgroups have no memory.swap.max"


@pytest.mark.parametrize(
    ("swap", "both"), [(0, 4096 + BATCH), (MiB, 4096 + MiB), (1, 4096 + BATCH), (None, -1)]
)
def test_memory_v1_limits_swap_by_the_sum_at_least_a_batch_above(
    tmp_path: Path, group: Directory, swap: int | None, both: int
) -> None:
    v1_files(tmp_path, memory__oom_control="oom_kill 0\n", memory__memsw__limit_in_bytes="")
    meter = MemoryV1(group, residue=RESIDUE)
    begin(meter, Limits(memory=4096, swap=swap))
    text = (tmp_path / "memory.memsw.limit_in_bytes").read_text()
    assert text == str(both)
    assert meter.holds_swap(Limits(memory=4096, swap=swap)) == (swap is not None)


@pytest.mark.parametrize(
    ("accounts", "remedy"),
    [
        (True, "give a limit on memory as well"),
        (False, "boot a kernel that has swap with swapaccount=1, or leave swap at 0"),
    ],
)
def test_memory_v1_refuses_a_swap_limit_that_it_cannot_hold(
    tmp_path: Path, group: Directory, accounts: bool, remedy: str
) -> None:
    files = {"memory__memsw__limit_in_bytes": ""} if accounts else {}
    v1_files(tmp_path, memory__oom_control="oom_kill 0\n", **files)
    meter = MemoryV1(group, residue=RESIDUE)
    begin(meter, Limits())
    assert not meter.holds_swap(Limits())
    with pytest.raises(HostError) as caught:
        begin(meter, Limits(swap=MiB, memory=None if accounts else MiB))
    assert caught.value.missing == "cgroup v1 limits swap only together with memory"
    assert caught.value.hint == remedy


def test_owner_names_are_ours_alive_and_all_different() -> None:
    first, second = owner.new_name(), owner.new_name()
    assert first != second
    assert first.startswith(
        f"run-sandboxed.{os.stat('/proc/self/ns/pid').st_ino}.{os.getpid()}."
    )
    assert not owner.is_leftover(first)


def test_owner_when_the_pid_started_at_another_time_is_gone() -> None:
    mark, namespace, pid, start_time, number = owner.new_name().split(".")
    other = f"{mark}.{namespace}.{pid}.{int(start_time) + 1}.{number}"
    assert owner.is_leftover(other)


def test_owner_when_no_such_pid_is_left_is_gone() -> None:
    namespace = os.stat("/proc/self/ns/pid").st_ino
    assert owner.is_leftover(f"run-sandboxed.{namespace}.{2**22}.5.0")


def name_of(process: subprocess.Popen[bytes]) -> str:
    """Give the name that a process tells, when it sleeps or its main thread has ended."""
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


OWNER = """
import ctypes, sys, threading, time
from runner.cgroup import owner
print(owner.new_name(), flush=True)
if sys.argv[1] == "thread":
    threading.Thread(target=time.sleep, args=(60,)).start()
    ctypes.CDLL(None).syscall(ctypes.c_long(SYS_exit), 0)
time.sleep(60)
"""


@pytest.mark.parametrize("lives", ["main", "thread"])
def test_owner_that_was_killed_is_gone_though_nobody_waits_for_it(lives: str) -> None:
    """A server may be long in reaping its workers, or an init that reaps nobody their orphans.

    One whose first thread has ended looks the same but for its other threads.
    """
    text = OWNER.replace("SYS_exit", str(numbers(platform.machine())["exit"]))
    command = [sys.executable, "-c", text, lives]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        name = name_of(process)
        state = Path(f"/proc/{process.pid}/stat")
        while lives == "thread" and ") Z " not in state.read_text():
            time.sleep(0.001)
        assert not owner.is_leftover(name)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ") Z " in state.read_text()
        assert owner.is_leftover(name)


def test_owner_in_another_pid_namespace_is_never_taken_for_gone() -> None:
    assert not owner.is_leftover(f"run-sandboxed.1.{2**22}.5.0")


@pytest.mark.parametrize(
    "name",
    [
        "user.slice",
        "run-sandboxed",
        "run-sandboxed.1.2.3",
        "run-sandboxed.a.b.c.d",
        "run-sandboxed.1.2.3.4.5",
        "run-sandboxed.4026531836.-1.0.0",
    ],
)
def test_owner_of_a_name_that_is_not_ours_is_never_taken_for_gone(name: str) -> None:
    assert not owner.is_leftover(name)
