"""`run-sandboxed true` against `python3 -c pass`, the same interpreter."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from bench.measure import Table, take_turns, timed


def spawn(*args: str) -> None:
    pid = os.posix_spawn(args[0], args, os.environ)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_command_against_an_empty_python(benchmark: Any, table: Table) -> None:
    command = str(Path(sys.executable).with_name("run-sandboxed"))
    measured, reference = take_turns(
        benchmark,
        lambda: timed(lambda: spawn(command, "--quiet", "true"), count=5),
        lambda: timed(lambda: spawn(sys.executable, "-c", "pass"), count=5),
        rounds=20,
    )
    table.ratio("run-sandboxed true, to python3 -c pass", measured, reference, budget=2.5)
