"""`measure=("noise", "instructions")` and `repeat`: the rest of what a run tells when asked."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import runner
from runner import (
    CAPTURE,
    ChildError,
    ConfigError,
    ErrorLocation,
    HostError,
    Limits,
    Sandbox,
    Status,
    observe,
)
from runner.doctor.probes import probe

pytestmark = pytest.mark.userns

# Events that every kernel counts: PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK. And one that
# there is not: PERF_TYPE_HARDWARE with the number of none.
TASK_CLOCK = (1, 1)
NO_EVENT = (0, 99)
BURN_IN_CHILDREN = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
BURN_TREE = f"({BURN_IN_CHILDREN}) & ({BURN_IN_CHILDREN}); wait"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(wall_time=30)) as made:
        made.start()
        yield made


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int]], None]:
    def choose(event: tuple[int, int]) -> None:
        monkeypatch.setattr(observe, "INSTRUCTIONS", event)

    return choose


def perf_is_refused() -> bool:
    """Tell whether this user may open no event at all, as with perf_event_paranoid 3."""
    return probe().perf_instructions in {errno.EACCES, errno.EPERM, errno.ENOSYS}


# Instructions: a software event goes the same way, where the machine has no counter.


def test_event_is_counted_in_the_whole_tree_from_exec_to_exit(
    sandbox: Sandbox, count: Callable[[tuple[int, int]], None]
) -> None:
    if perf_is_refused():
        pytest.skip("needs perf events for this user")
    count(TASK_CLOCK)
    result = sandbox.run(["sh", "-c", BURN_TREE], measure=["instructions"])
    assert result.ok
    assert result.instructions is not None
    assert result.cpu_ns is not None
    # Both are CPU time: the clock's stands while the kernel switches, cgroups' does not.
    assert result.instructions == pytest.approx(result.cpu_ns, rel=0.1)
    assert result.cpu_ns > 20_000_000


def test_event_of_one_run_is_not_the_nexts(
    sandbox: Sandbox, count: Callable[[tuple[int, int]], None]
) -> None:
    if perf_is_refused():
        pytest.skip("needs perf events for this user")
    count(TASK_CLOCK)
    first = sandbox.run(["sh", "-c", BURN_TREE], measure=["instructions"]).instructions
    second = sandbox.run(["true"], measure=["instructions"]).instructions
    assert first is not None
    assert second is not None
    assert second < first / 2
    assert sandbox.run(["true"]).instructions is None


def test_instructions_are_counted_exactly_where_the_doctor_says_so(sandbox: Sandbox) -> None:
    result = sandbox.run(["true"], measure=["instructions"])
    assert result.ok
    assert (result.instructions is not None) == (probe().perf_instructions == 0)


def test_event_that_there_is_not_leaves_none(
    sandbox: Sandbox, count: Callable[[tuple[int, int]], None]
) -> None:
    count(NO_EVENT)
    result = sandbox.run(["true"], measure=["instructions"])
    assert (result.status, result.instructions) == (Status.OK, None)


def test_event_that_is_required_and_there_is_not_is_a_host_error(
    count: Callable[[tuple[int, int]], None], tmp_path: Path
) -> None:
    count(NO_EVENT)
    with Sandbox(require=["instructions"]) as sandbox, pytest.raises(HostError) as caught:
        sandbox.run(["true"])
    error = caught.value
    if perf_is_refused():
        assert error.hint == "as root: sysctl -w kernel.perf_event_paranoid=2"
        return
    assert str(error) == "instructions cannot be counted here: No such file or directory"
    assert error.hint == (
        "run on a CPU with counters, or give the virtual machine its CPU's (a vPMU)"
    )


def test_event_that_is_required_is_counted_without_asking(
    count: Callable[[tuple[int, int]], None],
) -> None:
    if perf_is_refused():
        pytest.skip("needs perf events for this user")
    count(TASK_CLOCK)
    with Sandbox(require=["instructions"]) as sandbox:
        assert sandbox.run(["true"]).instructions
        assert "instructions" not in sandbox.enforced


# Noise.


def test_noise_is_told_where_it_is_asked_for(sandbox: Sandbox) -> None:
    assert sandbox.run(["true"]).noise is None
    noise = sandbox.run(["true"], measure=["noise"]).noise
    assert noise is not None
    assert noise.steal_ns is not None
    assert noise.load is not None
    assert (noise.ready_ns is not None) == os.path.exists("/proc/self/schedstat")
    assert (noise.migrations is not None) == os.path.exists("/proc/self/sched")


def test_program_that_shares_its_cpu_has_waited_for_it_and_is_suspect() -> None:
    cpu = min(os.sched_getaffinity(0))
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    args = ["/usr/bin/python3", "-S", "-c", burn]
    other = ["taskset", "-c", str(cpu), "sh", "-c", "while :; do :; done"]
    with Sandbox(cpus={cpu}, limits=Limits(wall_time=30)) as sandbox:
        sandbox.start()
        with subprocess.Popen(other) as beside:
            try:
                result = sandbox.run(args, measure=["noise"])
            finally:
                beside.kill()
    noise = result.noise
    assert noise is not None
    assert noise.ready_ns is not None
    assert result.wall_ns is not None
    assert result.cpu_ns is not None
    # It was either on the CPU or waiting for it, but for what its start takes.
    assert noise.ready_ns == pytest.approx(result.wall_ns - result.cpu_ns, rel=0.2)
    assert noise.ready_ns > 50_000_000
    # No turn on a CPU that others want is as long as 40 ms.
    assert result.context_switches_involuntary is not None
    assert result.context_switches_involuntary >= 5
    assert noise.migrations is not None
    assert noise.migrations <= 2  # to the only CPU that it may use
    assert f"it waited {noise.ready_ns / 1e6:.1f} ms for a CPU" in noise.suspect


# Repeat.


def test_runs_are_repeated_each_as_if_it_were_the_first(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    script = "test ! -e /tmp/been && : > /tmp/been && cat"
    result = sandbox.run(["sh", "-c", script], stdin=b"x", repeat=4)
    assert result.ok
    assert result.repeated is not None
    assert [each.stdout for each in result.repeated.results] == [b"x"] * 4
    assert result.repeated.cpu_ns is not None
    assert result.cpu_ns == result.repeated.cpu_ns.median
    assert sandbox.run(["true"], repeat=1).repeated is None


def test_file_as_stdin_starts_anew_where_it_stood(sandbox: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_bytes(b"skipped" + b"read")
    fd = os.open(file, os.O_RDONLY)
    try:
        os.lseek(fd, 7, os.SEEK_SET)
        result = sandbox.run(["cat"], stdin=fd, repeat=3)
    finally:
        os.close(fd)
    assert result.repeated is not None
    assert [each.stdout for each in result.repeated.results] == [b"read"] * 3


def test_pipe_as_stdin_cannot_be_repeated(sandbox: Sandbox) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(ConfigError) as caught:
            sandbox.run(["cat"], stdin=reading, repeat=2)
    finally:
        os.close(reading)
        os.close(writing)
    assert str(caught.value) == (
        f"stdin: {reading}: it cannot be read again: give bytes or a file"
    )


def test_first_run_that_is_not_ok_is_the_result_and_the_last(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    count = tmp_path / "count"
    count.write_bytes(b"")
    count.chmod(0o666)
    script = 'echo >> /place/count; test "$(wc -l < /place/count)" -lt 3'
    mount = runner.Mount.bind(str(tmp_path), "/place", readonly=False)
    with Sandbox(mounts=[mount]) as sandbox:
        result = sandbox.run(["sh", "-c", script], repeat=9)
    assert (result.status, result.exit_code) == (Status.NONZERO_EXIT, 1)
    assert result.repeated is not None
    assert [each.ok for each in result.repeated.results] == [True, True, False]


def test_cancel_ends_all_repeated_runs(sandbox: Sandbox) -> None:
    found: list[runner.Result] = []
    thread = threading.Thread(
        target=lambda: found.append(sandbox.run(["sleep", "0.05"], repeat=1000))
    )
    thread.start()
    time.sleep(0.3)
    sandbox.cancel()
    thread.join(20)
    assert found[0].status is Status.CANCELLED
    assert found[0].repeated is not None
    assert all(each.ok for each in found[0].repeated.results[:-1])


@pytest.mark.parametrize("repeat", [0, -1, 10_001, 1.5, "2"])
def test_repeat_that_cannot_be_meant_is_refused(sandbox: Sandbox, repeat: object) -> None:
    with pytest.raises(ConfigError) as caught:
        sandbox.run(["true"], repeat=repeat)  # type: ignore[arg-type]
    assert str(caught.value) == f"repeat: {repeat!r}: give how often to run it, 1 to 10000"


def test_one_shot_run_takes_both() -> None:
    result = runner.run(["true"], repeat=2, measure=["noise"], stdout=CAPTURE)
    assert result.repeated is not None
    assert all(each.noise is not None for each in result.repeated.results)


def test_run_that_is_repeated_fails_as_ever_if_it_cannot_be_executed(sandbox: Sandbox) -> None:
    with pytest.raises(ChildError) as caught:
        sandbox.run(["/none"], repeat=3)
    assert caught.value.location is ErrorLocation.EXECVE
