"""`measure=("status", …)`: the program's /proc as it was at its exit. K56, K57, M102, M104.

The keeper traces the program for it. So there is a test for each way to end, and for what a
tracer might disturb.
"""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import (
    ChildError,
    ConfigError,
    ErrorLocation,
    Limits,
    MiB,
    Mount,
    Sandbox,
    Status,
    Supervision,
)

pytestmark = pytest.mark.userns

TOUCHED = 8 * MiB
OWN = MiB // 2  # of a static program without memory
AT_EXIT = ("status", "smaps_rollup", "smaps")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    place.chmod(0o777)
    source = Path(__file__).with_name("exit_ways.c")
    command = ["musl-gcc", "-static", "-O1", "-pthread", "-o", place / "ways", source]
    subprocess.run(command, check=True)
    return place


@pytest.fixture
def sandbox(place: Path) -> Iterator[Sandbox]:
    limits = Limits(wall_time=20)
    mount = Mount.bind(str(place), "/place")
    with Sandbox(mounts=[mount], limits=limits, policy=None) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("way", "exit_code", "signal"),
    [
        ("plain", 0, None),
        ("late", 0, None),
        ("exec", 0, None),
        ("thread-exec", 0, None),
        ("thread-exit", 5, None),
        ("threads", 0, None),
        ("kill", None, 9),
        ("kill-threads", None, 9),
        ("segv", None, 11),
        ("children", 0, None),
        ("stops", 0, None),
        ("signals", 0, None),
        ("ptrace", 0, None),
        ("untraced", 0, None),
    ],
)
def test_program_that_ends_so_tells_its_memory_and_ends_as_ever(
    sandbox: Sandbox, way: str, exit_code: int | None, signal: int | None
) -> None:
    result = sandbox.run(["/place/ways", way], measure=AT_EXIT)
    assert (result.exit_code, result.signal) == (exit_code, signal), result
    assert set(result.at_exit) == set(AT_EXIT)
    assert result.vm_hwm_bytes is not None
    assert TOUCHED <= result.vm_hwm_bytes <= TOUCHED + OWN
    for name, field in (("status", "RssAnon"), ("smaps_rollup", "Anonymous"), ("smaps", "Rss")):
        assert TOUCHED <= result.exit_sizes(name)[field] <= TOUCHED + OWN


def test_run_that_asks_for_nothing_has_nothing_and_is_not_traced(sandbox: Sandbox) -> None:
    result = sandbox.run(["/place/ways", "ptrace"])
    assert (result.at_exit, result.vm_hwm_bytes) == ({}, None)
    assert result.exit_code == 42  # it may be traced by its parent: nobody does


def test_program_that_stops_all_the_time_is_ended_by_its_limit(sandbox: Sandbox) -> None:
    result = sandbox.run(
        ["/place/ways", "storm"], limits=Limits(wall_time=0.3), measure=["status"]
    )
    assert (result.status, result.signal) == (Status.WALL_TIME_LIMIT, 9)
    assert sandbox.run(["true"], measure=["status"]).ok


def test_program_runs_while_its_threads_memory_is_read_and_its_time_counts(
    sandbox: Sandbox,
) -> None:
    """What is read at the exit of a thread is no pause in which the others stand still."""
    result = sandbox.run(["/place/ways", "many-threads"], measure=AT_EXIT)
    assert result.ok
    assert result.wall_ns is not None
    assert result.wall_ns >= 0.4e9  # of half a second: less one reading, of the last exit


def test_limit_that_ends_a_program_leaves_its_memory_to_be_seen(sandbox: Sandbox) -> None:
    limits = Limits(wall_time=2)  # it touches its memory first, which may take a while
    result = sandbox.run(["/place/ways", "forever"], limits=limits, measure=["status"])
    assert (result.status, result.signal) == (Status.WALL_TIME_LIMIT, 9)
    # Before Linux 6.2 each thread has up to 64 pages that are not counted yet.
    assert result.exit_sizes("status")["RssAnon"] >= TOUCHED - 64 * mmap.PAGESIZE


@pytest.mark.cgroup
def test_program_that_the_kernel_kills_for_its_memory_tells_it(sandbox: Sandbox) -> None:
    args = ["/usr/bin/python3", "-S", "-c", "bytearray(b'x') * (1 << 30)"]
    limits = Limits(memory=64 * MiB, wall_time=20)
    result = sandbox.run(args, limits=limits, measure=["status"])
    assert (result.status, result.signal) == (Status.MEMORY_LIMIT, 9)
    assert result.vm_hwm_bytes is not None
    assert 48 * MiB <= result.vm_hwm_bytes <= 80 * MiB


def test_file_longer_than_a_mebibyte_is_cut(sandbox: Sandbox) -> None:
    script = (
        "import mmap, os\n"
        "held = [mmap.mmap(-1, 4096, prot=1 + i % 2) for i in range(4000)]\n"
        "os._exit(0)"
    )
    result = sandbox.run(["/usr/bin/python3", "-S", "-c", script], measure=["smaps", "status"])
    assert len(result.at_exit["smaps"]) == MiB
    assert result.at_exit["status"].startswith(b"Name:\tpython3")


def test_file_of_one_run_is_not_the_nexts(sandbox: Sandbox) -> None:
    first = sandbox.run(["/place/ways", "plain"], measure=["smaps"])
    second = sandbox.run(["true"], measure=["status"])
    assert list(first.at_exit) == ["smaps"]
    assert second.at_exit["status"].startswith(b"Name:\ttrue\n")


def test_program_that_cannot_be_executed_is_told_as_ever(sandbox: Sandbox) -> None:
    with pytest.raises(ChildError) as caught:
        sandbox.run(["/none"], measure=["status"])
    assert caught.value.location is ErrorLocation.EXECVE
    assert sandbox.run(["true"], measure=["status"]).ok


def test_program_whose_file_it_may_not_read_tells_its_status_alone(place: Path) -> None:
    file = place / "unreadable"
    file.write_bytes((place / "ways").read_bytes())
    file.chmod(0o111)
    with Sandbox(mounts=[Mount.bind(str(place), "/place")], policy=None) as sandbox:
        result = sandbox.run(["/place/unreadable", "plain"], measure=AT_EXIT)
    assert result.ok
    # Another uid than the file's is not shown its mappings (exec makes it not dumpable).
    assert set(result.at_exit) >= {"status"}


def test_default_policy_lets_itself_be_traced(place: Path) -> None:
    with Sandbox(mounts=[Mount.bind(str(place), "/place")]) as sandbox:
        result = sandbox.run(["/place/ways", "threads"], measure=AT_EXIT)
    assert result.ok
    assert set(result.at_exit) == set(AT_EXIT)


def test_program_that_was_just_written_is_tried_again(place: Path) -> None:
    file = place / "written"
    file.write_bytes((place / "ways").read_bytes())
    file.chmod(0o755)
    writing = os.open(file, os.O_WRONLY)
    with Sandbox(mounts=[Mount.bind(str(place), "/place")]) as sandbox:
        sandbox.start()
        with subprocess.Popen(["sleep", "0.02"], pass_fds=[writing]):
            os.close(writing)
            assert sandbox.run(["/place/written", "plain"], measure=["status"]).ok


def test_supervised_program_has_a_tracer_already(place: Path) -> None:
    supervision = Supervision(read=("/",))
    with Sandbox(supervision=supervision) as sandbox, pytest.raises(ConfigError) as caught:
        sandbox.run(["true"], measure=["status"])
    assert str(caught.value) == (
        "measure: ['status']: a supervised program has one tracer already: "
        "leave the one or the other"
    )


@pytest.mark.parametrize("measure", ["status", ["maps"], ["status", "cpu"]])
def test_measure_that_there_is_not_is_refused(sandbox: Sandbox, measure: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        sandbox.run(["true"], measure=measure)
    assert str(caught.value) == (
        f"measure: {measure!r}: give a list of some of "
        "noise, instructions, status, smaps_rollup, smaps"
    )
