"""The grader's own CPU time for a run: encode, send, receive, decode, read the accounting."""

from __future__ import annotations

import time
from typing import Any

from bench.measure import BATCH, Table
from runner.sandbox import Sandbox


def test_own_cpu_time_of_a_live_run(benchmark: Any, sandbox: Sandbox, table: Table) -> None:
    samples: list[float] = []

    def batch() -> None:
        start = time.process_time_ns()  # of this process with its threads, not its children
        for _ in range(BATCH):
            sandbox.run(["/bench/true"], stdout=None, stderr=None)
        samples.append((time.process_time_ns() - start) / BATCH / 1000)

    benchmark.pedantic(batch, rounds=50, warmup_rounds=1)
    table.figure(
        f"grader's CPU time a run (of {BATCH})",
        samples,
        sorted(samples)[len(samples) // 2],
        unit="µs",
        budget=80,
    )
