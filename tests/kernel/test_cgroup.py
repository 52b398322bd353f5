"""Groups on this kernel: what they limit and what they count in every run."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from runner.cgroup import CpuFormat, Groups
from runner.config import Limits
from runner.errors import HostError
from runner.units import MiB
from tests.kernel.grouping import BATCHES, burn, hold, run, start, touch

pytestmark = pytest.mark.cgroup


def test_memory_hog_above_the_limit_is_killed_and_counted(groups: Groups) -> None:
    status = run(groups, lambda: touch(128 * MiB), Limits(memory=32 * MiB))
    usage = groups.usage()
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert usage.oom_kills is not None
    assert usage.oom_kills >= 1
    assert usage.memory_limit_hits is not None
    assert usage.memory_limit_hits >= 1
    assert usage.memory_bytes in {None, 32 * MiB}


def test_memory_counts_after_an_oom_kill_are_those_of_the_next_run(groups: Groups) -> None:
    run(groups, lambda: touch(64 * MiB), Limits(memory=16 * MiB))
    run(groups, lambda: touch(MiB), Limits(memory=16 * MiB))
    usage = groups.usage()
    assert usage.oom_kills == 0
    assert usage.memory_limit_hits == 0


def test_memory_below_the_limit_is_measured_to_a_few_batches(groups: Groups) -> None:
    status = run(groups, lambda: touch(64 * MiB), Limits(memory=128 * MiB))
    usage = groups.usage()
    assert status == 0
    assert usage.oom_kills == 0
    assert usage.memory_limit_hits == 0
    if usage.memory_bytes is None:
        pytest.skip("needs memory.peak (Linux 5.19)")
    # Page tables are 1/512 of the memory; the fork of this process adds its own and its stack.
    assert 64 * MiB <= usage.memory_bytes <= 64 * MiB + BATCHES + 4 * MiB


def test_memory_peak_of_a_run_does_not_hold_the_last_runs(groups: Groups) -> None:
    run(groups, lambda: touch(64 * MiB))
    first = groups.usage()
    run(groups, lambda: touch(MiB))
    second = groups.usage()
    if first.memory_bytes is None or second.memory_bytes is None:
        pytest.skip("needs memory.peak (Linux 5.19)")
    assert first.memory_bytes >= 64 * MiB
    assert second.memory_bytes <= MiB + 2 * BATCHES + 4 * MiB


def test_memory_of_files_that_a_run_left_in_the_cache_is_not_the_next_runs(
    groups: Groups, tmp_path: object
) -> None:
    def write_file() -> None:
        with open(f"{tmp_path}/large", "wb") as file:
            file.write(bytes(24 * MiB))

    run(groups, write_file, Limits(memory=64 * MiB))
    before = groups.placement
    run(groups, lambda: touch(MiB), Limits(memory=64 * MiB))
    usage = groups.usage()
    assert groups.placement != before
    if usage.memory_bytes is None:
        pytest.skip("needs memory.peak (Linux 5.19)")
    assert usage.memory_bytes <= MiB + BATCHES + 4 * MiB


def test_memory_limit_when_lowered_raised_and_lifted_is_the_one_that_holds(
    groups: Groups,
) -> None:
    for limit, status in (
        (64 * MiB, 0),
        (16 * MiB, signal.SIGKILL),
        (96 * MiB, 0),
        (None, 0),
        (16 * MiB, signal.SIGKILL),
    ):
        assert run(groups, lambda: touch(32 * MiB), Limits(memory=limit)) == status


def test_memory_limit_below_what_is_in_use_is_refused_by_v1_and_kills_in_v2(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, tell = os.pipe()

    def occupy() -> None:
        memory = bytearray(32 * MiB)
        os.write(tell, b"1")
        signal.pause()
        del memory

    groups.prepare(Limits())
    pid = start(groups, occupy)
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    for member in groups._members:  # else prepare would take a new group
        monkeypatch.setattr(member, "is_stale", lambda: False)
    if groups.clone_into is None:
        with pytest.raises(HostError) as caught:
            groups.prepare(Limits(memory=MiB))
        assert caught.value.missing == "cannot prepare a cgroup: Device or resource busy"
        assert caught.value.hint == (
            "the limit is below what the kernel still charges to the group: raise it"
        )
        os.kill(pid, signal.SIGKILL)
    else:
        groups.prepare(Limits(memory=MiB))
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_fork_beyond_the_limit_is_refused_and_counted(groups: Groups) -> None:
    status = run(groups, lambda: hold(5), Limits(processes=3))
    usage = groups.usage()
    assert os.waitstatus_to_exitcode(status) == errno.EAGAIN
    assert usage.process_limit_hits == 1
    assert usage.processes_peak in {None, 3}
    groups.close()  # the two children that the program left


def test_processes_peak_is_that_of_the_last_run_alone(groups: Groups) -> None:
    peaks = []
    for count in (4, 1, 0):
        run(groups, lambda count=count: hold(count))  # type: ignore[misc]
        peaks.append(groups.usage().processes_peak)
    if None in peaks:
        pytest.skip("needs pids.peak (Linux 6.1)")
    assert peaks == [5, 2, 1]


def test_cpu_time_counts_the_whole_tree_and_this_run_only(groups: Groups) -> None:
    def tree() -> None:
        pid = os.fork()
        if pid == 0:
            burn(0.05)
            os._exit(0)
        os.waitpid(pid, 0)
        burn(0.1)

    for _ in range(2):
        before = os.times()
        run(groups, tree)
        after = os.times()
        # All that was used by our children since, in ticks of 10 ms, bounds it from above.
        ticks = after.children_user - before.children_user
        ticks += after.children_system - before.children_system
        cpu_ns = groups.usage().cpu_ns
        assert cpu_ns is not None
        assert 0.150 <= cpu_ns / 1e9 <= ticks + 0.030


def test_cpu_file_tells_the_time_of_a_running_program(groups: Groups) -> None:
    assert groups.cpu is not None
    groups.prepare(Limits())
    fd, form = groups.cpu

    def read_ns() -> int:
        text = os.pread(fd, 4096, 0)
        if form is CpuFormat.V1_CPUACCT_USAGE:
            return int(text) - groups.cpu_start_ns
        return int(text.split()[1]) * 1000 - groups.cpu_start_ns

    assert read_ns() == 0
    pid = start(groups, lambda: burn(60))
    deadline = time.monotonic() + 30
    while read_ns() < 100_000_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert read_ns() >= 100_000_000
    assert groups.usage().cpu_ns == read_ns()


def test_pids_current_is_zero_only_when_all_are_reaped(groups: Groups) -> None:
    assert groups.pids_current is not None
    groups.prepare(Limits())
    seen = [os.pread(groups.pids_current, 64, 0)]
    pid = start(groups, lambda: None)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    seen.append(os.pread(groups.pids_current, 64, 0))
    os.waitpid(pid, 0)
    seen.append(os.pread(groups.pids_current, 64, 0))
    assert seen == [b"0\n", b"1\n", b"0\n"]


def test_cpu_stat_of_a_v2_group_splits_user_and_system(v2_groups: Groups) -> None:
    assert v2_groups.enforces["cpu_time"] == "cgroup"
    run(v2_groups, lambda: burn(0.1))
    usage = v2_groups.usage()
    assert usage.cpu_ns is not None
    assert usage.user_ns is not None
    assert usage.system_ns is not None
    assert usage.cpu_ns >= 100_000_000
    # Each is rounded down to a microsecond by itself.
    assert abs(usage.user_ns + usage.system_ns - usage.cpu_ns) <= 2000
    assert usage.oom_kills is None
