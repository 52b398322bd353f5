"""docs/capabilities.md: each row of the table names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "capabilities.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(test_\w+)`", TABLE)
ROWS = [*range(1, 15), *range(20, 34), *range(40, 80), 113]


def test_capabilities_have_each_row_once() -> None:
    assert re.findall(r"^\| M(\d+) \|", TABLE, re.MULTILINE) == [str(row) for row in ROWS]


def test_capabilities_name_a_test_in_each_row() -> None:
    rows = [line for line in TABLE.splitlines() if re.match(r"\| [MT]\d", line)]
    assert [row for row in rows if not re.search(r"`[\w/]+\.py::test_\w+` \|$", row)] == []


def test_tests_that_the_capabilities_name_exist() -> None:
    missing = []
    for file, name in NAMED:
        path = ROOT / file if "/" in file else ROOT / "tests" / "kernel" / file
        names = set()
        if path.exists():
            tree = ast.parse(path.read_bytes())
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if name not in names:
            missing.append(f"{file}::{name}")
    assert missing == []
