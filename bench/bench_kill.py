"""How far past its limit a program is killed, on a quiet machine and on a busy one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.load import everything_busy
from bench.measure import Table, percentile
from runner.config import Limits
from runner.result import Result, Status
from runner.sandbox import Sandbox

LIMIT = 0.03
KILLS = 200


@contextlib.contextmanager
def one_core_busy(_: Path) -> Iterator[None]:
    """The program itself keeps one core busy."""
    yield


@contextlib.contextmanager
def all_busy(spin: Path) -> Iterator[None]:
    with everything_busy([spin]):
        yield


def wall_lateness(result: Result) -> float:
    assert result.status is Status.WALL_TIME_LIMIT
    assert result.wall_ns is not None
    return result.wall_ns / 1e6 - LIMIT * 1e3


def cpu_lateness(result: Result) -> float:
    assert result.status is Status.CPU_TIME_LIMIT
    assert result.cpu_ns is not None
    return result.cpu_ns / 1e6 - LIMIT * 1e3


@pytest.mark.parametrize(
    ("load", "busy", "budget"),
    [("one core busy", one_core_busy, 5.0), ("all cores and GIL busy", all_busy, 10.0)],
    ids=["one-core-busy", "all-busy"],
)
@pytest.mark.parametrize(
    ("kind", "limits", "lateness"),
    [
        ("wall", Limits(wall_time=LIMIT), wall_lateness),
        ("CPU", Limits(cpu_time=LIMIT), cpu_lateness),
    ],
    ids=["wall", "cpu"],
)
def test_lateness_of_a_kill(
    benchmark: Any,
    sandbox: Sandbox,
    programs: Path,
    table: Table,
    load: str,
    busy: Callable[[Path], contextlib.AbstractContextManager[None]],
    budget: float,
    kind: str,
    limits: Limits,
    lateness: Callable[[Result], float],
) -> None:
    late: list[float] = []
    with busy(programs / "spin"):
        benchmark.pedantic(
            lambda: late.append(lateness(sandbox.run(["/bench/spin"], limits=limits))),
            rounds=KILLS,
        )
    for percent in (50, 99):
        name = f"kill past the {kind} limit, {load}, p{percent}"
        table.figure(name, late, percentile(late, percent), unit="ms", budget=budget)
