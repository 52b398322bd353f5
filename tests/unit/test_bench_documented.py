"""The tables and pictures of the documentation are those of the data that lie beside them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from bench import record

DOCS = Path(record.__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("name", "page"), [("accuracy", "accuracy.md"), ("compare", "performance.md")]
)
def test_tables_of_the_documentation_are_made_of_the_data(name: str, page: str) -> None:
    report = importlib.import_module(f"bench.{name}.report")
    text = (DOCS / page).read_text().splitlines()
    lines = [line for line in report.lines(report.read()) if line]
    assert len(lines) > 10
    assert [line for line in lines if line not in text] == []


@pytest.mark.parametrize("name", ["accuracy", "compare"])
def test_pictures_of_the_documentation_are_drawn_from_the_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = importlib.import_module(f"bench.{name}.report")
    monkeypatch.setattr(record, "PICTURES", tmp_path)
    report.pictures(report.read())
    drawn = sorted(tmp_path.iterdir())
    assert len(drawn) == 3
    for picture in drawn:
        assert (DOCS / "pictures" / picture.name).read_text() == picture.read_text()
