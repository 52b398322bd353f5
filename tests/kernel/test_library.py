"""Every public name has an example, and every example is true: docs/library.md, docstrings."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import pkgutil
from pathlib import Path

import pytest

import runner

pytestmark = pytest.mark.userns

LIBRARY = Path(__file__).parents[2] / "docs" / "library.md"
FLAGS = doctest.ELLIPSIS
NEEDS_EXTRA = {"runner.aio": "anyio", "runner.pool.tasks": "anyio"}


def examples(text: str, name: str) -> list[doctest.DocTest]:
    """Give the sections of a text, each of which stands alone but for its imports."""
    return [doctest.DocTestParser().get_doctest(text, {"os": os}, name, None, 0)]


def check(test: doctest.DocTest) -> None:
    report: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=report.append)
    assert not report, "".join(report)


def test_library_manual_is_true() -> None:
    pytest.importorskip("anyio")
    (test,) = examples(LIBRARY.read_text(), "library.md")
    check(test)


@pytest.mark.parametrize(
    "name", [*runner.__all__, "AsyncLease", "AsyncSandbox", "AsyncSandboxPool"]
)
def test_public_name_is_used_in_an_example(name: str) -> None:
    (test,) = examples(LIBRARY.read_text(), "library.md")
    used: set[str] = set()
    for example in test.examples:
        tree = ast.parse(example.source)
        used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert name in used


def modules_with_examples() -> list[str]:
    found = []
    for module in pkgutil.walk_packages(runner.__path__, "runner."):
        path = getattr(module.module_finder, "path", "")
        file = Path(path) / f"{module.name.rpartition('.')[2]}.py"
        file = file if file.exists() else file.with_suffix("") / "__init__.py"
        if ">>> " in file.read_text():
            found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_are_true(name: str) -> None:
    if name in NEEDS_EXTRA:
        pytest.importorskip(NEEDS_EXTRA[name])
    module = importlib.import_module(name)
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests
    for test in tests:
        check(test)
