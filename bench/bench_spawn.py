"""A sandbox from nothing, used once and torn down, against a bare run of the same program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.measure import LIMITS, Baseline, Table, take_turns, timed
from runner.config import Mount
from runner.sandbox import run


def test_sandbox_used_once_against_a_bare_run(
    benchmark: Any, programs: Path, baseline: Baseline, table: Table
) -> None:
    mounts = [Mount.bind(str(programs), "/bench")]
    measured, bare = take_turns(
        benchmark,
        lambda: timed(
            lambda: run(["/bench/true"], mounts=mounts, limits=LIMITS, stdout=None, stderr=None)
        ),
        baseline.batch,
        rounds=20,
    )
    table.ratio("sandbox used once", measured, bare, budget=3.5)
