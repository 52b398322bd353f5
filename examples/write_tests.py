"""Write the tests of an example problem; used by the `generate.py` of each problem.

A problem gives its tests, each a name and a function that makes the input, and a reference
solution. The same tests come out on every machine. What exists is kept, and a file appears
whole or not at all, so an interrupted or a concurrent run does no harm.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

Maker = Callable[[], str]
Solution = Callable[[str], str]


def main(problem: Path, tests: Mapping[str, Maker], solve: Solution) -> None:
    """Write the missing tests into the command line's directory, or `problem`/data."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else problem / "data"
    directory.mkdir(parents=True, exist_ok=True)
    for name, make in tests.items():
        question, answer = directory / f"{name}.in", directory / f"{name}.ans"
        if question.exists() and answer.exists():
            continue
        text = make()
        _write(answer, solve(text))
        _write(question, text)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(text, encoding="ascii", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
