"""The command as its users start it: a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parent.parent.parent)
ARGV = (sys.executable, "-m", "runner.cli.main")

Start = Callable[..., subprocess.Popen[bytes]]
Command = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory that the sandbox's user may enter and write to, whoever that is."""
    for path in (tmp_path.parent, tmp_path):
        path.chmod(0o777)
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "PYTHONPATH": ROOT,
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture
def start(place: Path, environment: dict[str, str]) -> Start:
    """Give what starts `PREFIX… run-sandboxed WORDS…` in `place`, in `environment`."""

    def run(
        *words: str | bytes, prefix: tuple[str, ...] = (), **options: object
    ) -> subprocess.Popen[bytes]:
        settings: dict[str, object] = {
            "cwd": place,
            "env": environment,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        return subprocess.Popen([*prefix, *ARGV, *words], **(settings | options))  # type: ignore[call-overload, no-any-return]

    return run


@pytest.fixture
def command(start: Start) -> Command:
    """Give what runs it to the end; `data` is its standard input."""

    def run(
        *words: str | bytes, data: bytes | None = None, **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        if data is not None:
            options["stdin"] = subprocess.PIPE
        with start(*words, **options) as process:
            out, err = process.communicate(data, timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run
