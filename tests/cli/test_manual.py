"""The manual page in the tree is the one that the option table gives."""

from __future__ import annotations

from pathlib import Path

from runner.cli.manual import man_page

_FILE = Path(__file__).parent.parent.parent / "man" / "run-sandboxed.1"


def test_manual_page_is_up_to_date() -> None:
    assert _FILE.read_text(encoding="ascii") == man_page()
