"""A run in a live sandbox, against a bare run of the same program."""

from __future__ import annotations

from typing import Any

import pytest

from bench.measure import Baseline, Table, take_turns, timed
from runner.sandbox import CAPTURE, Sandbox


@pytest.mark.parametrize(
    ("name", "output"), [("live run", None), ("live run, output captured", CAPTURE)]
)
def test_live_run_against_a_bare_run(
    benchmark: Any, sandbox: Sandbox, baseline: Baseline, table: Table, name: str, output: int
) -> None:
    measured, bare = take_turns(
        benchmark,
        lambda: timed(lambda: sandbox.run(["/bench/true"], stdout=output, stderr=output)),
        baseline.batch,
        rounds=50,
    )
    table.ratio(name, measured, bare, budget=2.0)


def test_live_run_of_a_glibc_program_against_a_bare_run(
    benchmark: Any, sandbox: Sandbox, glibc_baseline: Baseline, table: Table
) -> None:
    """What we add is the same; what we add it to takes longer to start."""
    measured, bare = take_turns(
        benchmark,
        lambda: timed(lambda: sandbox.run(["/bench/true-glibc"], stdout=None, stderr=None)),
        glibc_baseline.batch,
        rounds=50,
    )
    table.ratio("live run, static glibc program", measured, bare, budget=2.0)
