"""How far past its limit a program gets: CPU time, wall time, memory; in ms."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.accuracy.languages import PLACE, compile_c
from bench.load import everything_busy
from runner import Limits, MiB, Mount, Result, Sandbox, Status

TIME = 0.03
FOR_EVER = "1000000"
MARKS = "/marks"
LOADS = {"idle": "nothing else of ours", "busy": "all cores and the GIL busy"}


class Kill(NamedTuple):
    """A program that does not end by itself, its limit, and how late the kill was."""

    name: str
    command: tuple[str, ...]
    limits: Limits
    expected: Status
    late_ns: Callable[[Result, Path], int]


def wall(result: Result, _: Path) -> int:
    assert result.wall_ns is not None
    return result.wall_ns - round(TIME * 1e9)


def cpu(result: Result, _: Path) -> int:
    assert result.cpu_ns is not None
    return result.cpu_ns - round(TIME * 1e9)


def memory(result: Result, marks: Path) -> int:
    """Count from when it began with the 64 KiB that it did not get; its start-up is in it."""
    assert result.wall_ns is not None
    first, last = struct.unpack_from("qq", marks.read_bytes())
    return result.wall_ns - int(last - first)


SPIN, THREADS = ((f"{PLACE}/c", kind, FOR_EVER) for kind in ("spin", "threads"))
HOG = (f"{PLACE}/hog", MARKS)
WALL, CPU = Status.WALL_TIME_LIMIT, Status.CPU_TIME_LIMIT
KILLS = (
    Kill("wall time", SPIN, Limits(wall_time=TIME), WALL, wall),
    Kill("CPU time, one thread", SPIN, Limits(cpu_time=TIME), CPU, cpu),
    Kill("CPU time, four threads", THREADS, Limits(cpu_time=TIME), CPU, cpu),
    Kill("4 MiB of memory", HOG, Limits(memory=4 * MiB), Status.MEMORY_LIMIT, memory),
    Kill("64 MiB of memory", HOG, Limits(memory=64 * MiB), Status.MEMORY_LIMIT, memory),
)


def build(place: Path) -> None:
    """Compile what has no end; raises CalledProcessError."""
    compile_c("hog", place)


@contextlib.contextmanager
def loaded(load: str, place: Path) -> Iterator[None]:
    """Be idle but for the program itself, or keep every core and the GIL busy."""
    if load == "idle":
        yield
    else:
        with everything_busy([place / "c", "spin", FOR_EVER]):
            yield


def sandbox(place: Path) -> Sandbox:
    """Make one that has the programs, and a file for the times of one of them."""
    marks = place / "marks"
    marks.write_bytes(bytes(4096))
    marks.chmod(0o666)
    return Sandbox(
        mounts=[
            Mount.bind(str(place), PLACE),
            Mount.bind(str(marks), MARKS, readonly=False),
        ]
    )


def measure(live: Sandbox, kill: Kill, place: Path) -> float:
    """Run it once, and give by how many ms it outlived its limit."""
    result = live.run(kill.command, limits=kill.limits)
    assert result.status is kill.expected, (kill.name, result)
    return kill.late_ns(result, place / "marks") / 1e6
