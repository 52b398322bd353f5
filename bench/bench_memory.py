"""A live run from a grader with 1 GB resident, against one with 10 MB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.measure import Grader, Table, take_turns
from runner.units import MiB


def test_run_from_a_large_grader_against_a_small_one(
    benchmark: Any, programs: Path, table: Table
) -> None:
    program = programs / "true"
    with (
        Grader(program, resident=10 * MiB) as small,
        Grader(program, resident=1024 * MiB) as big,
    ):
        measured, reference = take_turns(benchmark, big.batch, small.batch, rounds=50)
    table.ratio("grader of 1 GB, to 10 MB", measured, reference, budget=1.05)
