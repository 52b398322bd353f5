"""Why a run ended, each way by a program that really does it: status, limit, signal. X5, X14.

What the kernel tells nobody is asserted too: then the program's own end is all that is said.
docs/verdicts.md has the table.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import GiB, KiB, Limits, MiB, Mount, Result, Rlimit, Sandbox, Status
from runner.cgroup import Parent, Resource
from runner.host import detect

pytestmark = pytest.mark.userns

REFUSED, GAVE_UP = 7, 3  # exit codes of end_somehow.c

# None of which a program that only ends can meet.
EVERY_LIMIT: dict[str, object] = {
    "cpu_time": 10,
    "idle_time": 30,
    "memory": 32 * MiB,
    "address_space": GiB,
    "output": KiB,
    "processes": 8,
    "disk": MiB,
    "inodes": 9,
}

Ended = tuple[Status, str | None, int | None, int | None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the program twice: with a small array, and one of a GiB, dynamic and static."""
    place = tmp_path_factory.mktemp("place")
    place.chmod(0o755)
    source = Path(__file__).with_name("end_somehow.c")
    for name, flags in (
        ("end", ["-static"]),
        ("large", ["-DSTATIC_MIB=1024"]),
        ("large-static", ["-DSTATIC_MIB=1024", "-static"]),
        ("large-pie", ["-DSTATIC_MIB=1024", "-static-pie"]),
    ):
        command = ["gcc", "-O0", "-pthread", *flags, "-o", place / name, source]
        subprocess.run(command, check=True)
    return place


@pytest.fixture
def sandbox(place: Path) -> Iterator[Sandbox]:
    with Sandbox(mounts=[Mount.bind(str(place), "/place")]) as made:
        made.start()
        yield made


@pytest.fixture
def in_group(sandbox: Sandbox) -> bool:
    return sandbox.enforced["memory"] == "cgroup"


def run(sandbox: Sandbox, how: str, *, program: str = "end", **limits: object) -> Result:
    limited = Limits(wall_time=60).replace(**limits)
    return sandbox.run([f"/place/{program}", *how.split()], limits=limited)


def ended(result: Result) -> Ended:
    return result.status, result.limit, result.exit_code, result.signal


# Memory


def test_memory_that_is_touched_beyond_the_limit_is_memory_limit(sandbox: Sandbox) -> None:
    result = run(sandbox, f"malloc {GiB}", memory=32 * MiB)
    assert ended(result) == (Status.MEMORY_LIMIT, "memory", None, signal.SIGKILL)


@pytest.mark.parametrize("program", ["large", "large-static", "large-pie"])
def test_array_larger_than_the_limit_starts_and_is_memory_limit_when_it_is_used(
    sandbox: Sandbox, program: str
) -> None:
    unused = run(sandbox, "exit 0", program=program, memory=32 * MiB)
    assert ended(unused) == (Status.OK, None, 0, None)
    used = run(sandbox, "array", program=program, memory=32 * MiB)
    assert ended(used) == (Status.MEMORY_LIMIT, "memory", None, signal.SIGKILL)


@pytest.mark.parametrize("program", ["large", "large-static", "large-pie"])
@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"address_space": 256 * MiB}, "address_space"),
        ({"rlimits": (Rlimit.named("AS", 256 * MiB),)}, "rlimits"),
        ({"rlimits": (Rlimit.named("DATA", 256 * MiB),)}, "rlimits"),
    ],
    ids=["address-space", "AS", "DATA"],
)
def test_program_too_large_to_be_loaded_is_memory_limit(
    sandbox: Sandbox, program: str, limits: dict[str, object], name: str
) -> None:
    """The kernel fails when the old image is gone, and so kills it before it runs."""
    result = run(sandbox, "exit 0", program=program, **limits)
    assert ended(result) == (Status.MEMORY_LIMIT, name, None, signal.SIGSEGV)


def test_program_that_fits_and_crashes_under_such_a_limit_is_signalled(
    sandbox: Sandbox,
) -> None:
    result = run(sandbox, f"kill {int(signal.SIGSEGV)}", address_space=256 * MiB)
    assert ended(result) == (Status.SIGNALLED, None, None, signal.SIGSEGV)


def test_malloc_that_returned_null_under_an_address_space_limit_is_the_programs_end(
    sandbox: Sandbox,
) -> None:
    """No kernel counts or tells it: whether it failed for that, only the program knows."""
    result = run(sandbox, f"malloc {GiB}", address_space=256 * MiB)
    assert ended(result) == (Status.NONZERO_EXIT, None, REFUSED, None)


def test_stack_that_overflows_is_signalled(sandbox: Sandbox) -> None:
    """As any access to nothing is: the kernel tells nobody where it was."""
    result = run(sandbox, f"stack {4 * MiB}", stack=MiB)
    assert ended(result) == (Status.SIGNALLED, None, None, signal.SIGSEGV)
    assert ended(run(sandbox, f"stack {4 * MiB}", stack=8 * MiB))[0] is not Status.SIGNALLED


def test_child_killed_for_memory_is_memory_limit_whatever_the_program_does(
    sandbox: Sandbox, in_group: bool
) -> None:
    """The program itself would go on; where a whole group is killed, it cannot."""
    result = run(sandbox, f"child {GiB}", memory=32 * MiB)
    assert (result.status, result.limit) == (Status.MEMORY_LIMIT, "memory")
    assert (result.exit_code, result.signal) in {(0, None), (None, signal.SIGKILL)}
    assert bool(result.oom_kills) == in_group


# Processes and threads


@pytest.mark.parametrize("how", ["threads", "forks"])
def test_program_that_fails_for_a_refused_thread_or_fork_is_process_limit(
    sandbox: Sandbox, in_group: bool, how: str
) -> None:
    result = run(sandbox, f"{how} 8", processes=8)
    if in_group:
        assert ended(result) == (Status.PROCESS_LIMIT, "processes", REFUSED, None)
    elif sandbox.enforced["processes"] == "rlimit":
        # RLIMIT_NPROC refuses as well, and nobody counts it.
        assert ended(result) == (Status.NONZERO_EXIT, None, REFUSED, None)
    assert ended(run(sandbox, f"{how} 7", processes=8)) == (Status.OK, None, 0, None)


def test_program_that_lives_with_a_refused_thread_is_ok(sandbox: Sandbox) -> None:
    result = run(sandbox, "some-threads 20", processes=8)
    assert ended(result) == (Status.OK, None, 0, None)


@pytest.mark.cgroup
def test_thread_refused_in_python_is_process_limit(sandbox: Sandbox) -> None:
    start = "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    code = "import threading, time\n" + 9 * start
    result = sandbox.run(["python3", "-Sc", code], limits=Limits(processes=8, wall_time=60))
    assert ended(result) == (Status.PROCESS_LIMIT, "processes", 1, None)
    assert b"can't start new thread" in result.stderr


@pytest.mark.cgroup
def test_thread_refused_to_a_java_machine_is_process_limit(
    sandbox: Sandbox, place: Path
) -> None:
    """It starts a dozen before any of the program's: with fewer it does not start."""
    result = sandbox.run(["java", "-version"], limits=Limits(processes=4, wall_time=60))
    assert (result.status, result.limit, result.exit_code) == (
        *(Status.PROCESS_LIMIT, "processes"),
        1,
    )


# Files


@pytest.mark.parametrize("name", ["output", "file_size"])
@pytest.mark.parametrize(
    ("how", "code", "number"),
    [("write", None, signal.SIGXFSZ), ("write-on", GAVE_UP, None)],
)
def test_output_file_beyond_its_size_is_output_limit(
    sandbox: Sandbox, tmp_path: Path, name: str, how: str, code: int | None, number: int | None
) -> None:
    """A program that ignores the signal, as Python's do, leaves the file just as large."""
    with open(tmp_path / "out", "wb") as file:
        result = sandbox.run(
            ["/place/end", how, "5000"],
            stdout=file.fileno(),
            limits=Limits(wall_time=60).replace(**{name: 4096}),
        )
    assert ended(result) == (Status.OUTPUT_LIMIT, name, code, number)
    assert (tmp_path / "out").stat().st_size == 4096


def test_output_file_of_just_its_size_is_ok(sandbox: Sandbox, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        result = sandbox.run(
            ["/place/end", "write-on", "4096"],
            stdout=file.fileno(),
            limits=Limits(output=4096, wall_time=60),
        )
    assert ended(result) == (Status.OK, None, 0, None)


@pytest.mark.parametrize("limit", ["output", "file_size"])
def test_file_of_its_own_beyond_the_size_is_output_limit(sandbox: Sandbox, limit: str) -> None:
    command = ["sh", "-c", "exec /place/end write 5000 >/tmp/x"]
    limits = Limits(wall_time=60).replace(**{limit: 4096})
    result = sandbox.run(command, limits=limits)
    assert ended(result) == (Status.OUTPUT_LIMIT, limit, None, signal.SIGXFSZ)
    # Of a signal that was ignored, and a file that is the program's own, nothing tells.
    command = ["sh", "-c", "exec /place/end write-on 5000 >/tmp/x"]
    assert ended(sandbox.run(command, limits=limits)) == (
        *(Status.NONZERO_EXIT, None),
        *(GAVE_UP, None),
    )


# Its own end


@pytest.mark.parametrize("code", [1, 124, 137, 139, 255])
def test_exit_code_like_that_of_a_signal_is_nonzero_exit(sandbox: Sandbox, code: int) -> None:
    result = run(sandbox, f"exit {code}", **EVERY_LIMIT)
    assert ended(result) == (Status.NONZERO_EXIT, None, code, None)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGXCPU, signal.SIGTERM]
)
def test_signal_that_it_sent_itself_is_signalled_under_every_limit(
    sandbox: Sandbox, number: signal.Signals
) -> None:
    result = run(sandbox, f"kill {int(number)}", **EVERY_LIMIT)
    assert ended(result) == (Status.SIGNALLED, None, None, number)


# Two at once


def test_memory_wins_over_the_refused_fork_that_came_before_it(sandbox: Sandbox) -> None:
    script = f"/place/end forks 20; /place/end malloc {GiB}; exit 5"
    result = sandbox.run(
        ["sh", "-c", script], limits=Limits(processes=8, memory=32 * MiB, wall_time=60)
    )
    assert (result.status, result.limit) == (Status.MEMORY_LIMIT, "memory")


@pytest.mark.cgroup
def test_refused_fork_wins_over_the_full_disk(sandbox: Sandbox) -> None:
    script = "head -c 2M /dev/zero >/tmp/x; /place/end forks 20; exit 5"
    limits = Limits(processes=8, disk=MiB, wall_time=60)
    assert ended(sandbox.run(["sh", "-c", script], limits=limits)) == (
        *(Status.PROCESS_LIMIT, "processes"),
        *(5, None),
    )


def test_time_limit_wins_over_the_full_disk(sandbox: Sandbox) -> None:
    script = "head -c 2M /dev/zero >/tmp/x; while :; do :; done"
    limits = Limits(cpu_time=0.2, disk=MiB, wall_time=60)
    assert ended(sandbox.run(["sh", "-c", script], limits=limits)) == (
        *(Status.CPU_TIME_LIMIT, "cpu_time"),
        *(None, signal.SIGKILL),
    )


def test_output_limit_wins_over_the_exit_that_came_before_the_look(sandbox: Sandbox) -> None:
    result = run(sandbox, "write 5000", output=4096)
    assert (result.status, result.limit) == (Status.OUTPUT_LIMIT, "output")


# The host's trouble

IN_A_GROUP = """
import sys
with open(sys.argv[1], "w") as file:
    file.write("0")
from runner import HostError, Limits, MiB, Mount, Sandbox
limits = Limits(memory=1024 * MiB, wall_time=60)
with Sandbox(mounts=[Mount.bind(sys.argv[2], "/place")]) as sandbox:
    try:
        print(sandbox.run(["/place/end", "malloc", str(512 * MiB)], limits=limits))
    except HostError as error:
        print(error)
    print(sandbox.run(["true"], limits=limits).status.value)
"""


@pytest.fixture
def above() -> Iterator[Path]:
    """Make a group of less memory than a program may use, and give the file to join it by."""
    parent = Parent.find(detect())
    assert parent is not None
    (where,) = (place for place in parent.places if Resource.MEMORY in place.resources)
    group = Path(where.path) / f"above.{os.getpid()}"
    group.mkdir()
    if where.version == 1:
        (group / "memory.limit_in_bytes").write_text(str(128 * MiB))
        main = group
    else:
        (group / "memory.max").write_text(str(128 * MiB))
        (group / "cgroup.subtree_control").write_text("+memory +pids")
        main = group / "main"
        main.mkdir()
    yield main / "cgroup.procs"
    main.rmdir()
    if main is not group:
        group.rmdir()


@pytest.mark.root
@pytest.mark.cgroup
def test_kill_for_memory_by_a_group_above_is_not_the_programs_verdict(
    place: Path, above: Path
) -> None:
    """The whole grader has less memory than its program may use."""
    command = [sys.executable, "-c", IN_A_GROUP, str(above), str(place)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == (
        "memory ran out above the program's own limit, in a group above ours or on the whole "
        "host, and a process of it was killed\nok\n"
    )
