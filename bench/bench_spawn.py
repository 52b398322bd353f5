"""A sandbox from nothing, used once and torn down, against a bare run of the same program."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench.measure import BATCH, LIMITS, Baseline, Table, take_turns, timed
from runner.config import Mount
from runner.sandbox import Sandbox, run

PAUSE_S = 0.02  # in which a grader that has something else to do would do it


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


@pytest.mark.parametrize(
    ("name", "pause_s"),
    [
        ("sandbox used once, made ahead, no pause between", 0.0),
        ("sandbox used once, made ahead, 20 ms between", PAUSE_S),
    ],
)
def test_sandbox_made_ahead_against_a_bare_run(
    benchmark: Any, programs: Path, baseline: Baseline, table: Table, name: str, pause_s: float
) -> None:
    mounts = [Mount.bind(str(programs), "/bench")]

    def batch() -> list[int]:
        samples = []
        for _ in range(BATCH):
            time.sleep(pause_s)
            samples += timed(
                lambda: sandbox.run(["/bench/true"], stdout=None, stderr=None), count=1
            )
        return samples

    with Sandbox(mounts=mounts, limits=LIMITS, fresh="sandbox") as sandbox:
        measured, bare = take_turns(benchmark, batch, baseline.batch, rounds=20)
    table.ratio(name, measured, bare, budget=3.5)
