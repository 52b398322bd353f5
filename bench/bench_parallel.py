"""Two graders with a sandbox each on two cores, against one: runs per second."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.measure import Grader, Table

RUNS = 100


def runs_per_second(graders: Sequence[Grader]) -> float:
    start = time.perf_counter()
    for grader in graders:
        grader.send(RUNS)
    for grader in graders:
        grader.answer()
    return len(graders) * RUNS / (time.perf_counter() - start)


def test_two_sandboxes_on_two_cores_against_one(
    benchmark: Any, programs: Path, table: Table
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("needs two cores")
    one: list[float] = []
    both: list[float] = []
    program = programs / "true"
    with Grader(program, core=cores[0]) as first, Grader(program, core=cores[1]) as second:
        runs_per_second([first, second])
        benchmark.pedantic(
            lambda: both.append(runs_per_second([first, second])),
            setup=lambda: one.append(runs_per_second([first])),
            rounds=30,
        )
    table.speedup("two cores, to one", both, one, budget=1.7)
