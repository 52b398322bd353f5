"""The examples of the documentation, run as they stand."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
pytestmark = pytest.mark.userns


@pytest.mark.parametrize("name", ["files.md", "pool.md"])
def test_examples_of_a_page_give_what_they_say(name: str) -> None:
    outcome = doctest.testfile(str(DOCS / name), module_relative=False)
    assert outcome.failed == 0
    assert outcome.attempted > 1


@pytest.mark.parametrize("name", ["runner.pool.threads"])
def test_examples_of_a_module_give_what_they_say(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.failed == 0
    assert outcome.attempted > 0
