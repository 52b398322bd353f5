"""Builds the C programs of the benchmarks, and prints the table of figures at the end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.measure import LIMITS, Baseline, Table
from runner.config import Mount
from runner.sandbox import Sandbox

HERE = Path(__file__).parent
TABLE = Table()


def compile_static(name: str, directory: Path, *, libc: str = "musl") -> Path:
    """Compile bench/NAME.c: with musl where there is one, as glibc's start-up costs more.

    With glibc it is NAME-glibc.
    """
    glibc = libc == "glibc"
    compiler = "gcc" if glibc else shutil.which("musl-gcc") or "gcc"
    program = directory / (f"{name}-glibc" if glibc else name)
    source = HERE / f"{name}.c"
    subprocess.run([compiler, "-O2", "-static", "-o", program, source], check=True)
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the compiled programs."""
    directory = tmp_path_factory.mktemp("programs")
    directory.chmod(0o755)
    for name in ("true", "spin", "baseline"):
        compile_static(name, directory)
    compile_static("true", directory, libc="glibc")
    return directory


@pytest.fixture
def baseline(programs: Path) -> Iterator[Baseline]:
    with Baseline([str(programs / "baseline"), str(programs / "true")]) as bare:
        yield bare


@pytest.fixture
def glibc_baseline(programs: Path) -> Iterator[Baseline]:
    with Baseline([str(programs / "baseline"), str(programs / "true-glibc")]) as bare:
        yield bare


@pytest.fixture
def sandbox(programs: Path) -> Iterator[Sandbox]:
    """A live sandbox with everything on, and the programs in /bench."""
    with Sandbox(mounts=[Mount.bind(str(programs), "/bench")], limits=LIMITS) as live:
        assert live.run(["/bench/true"]).ok
        yield live


@pytest.fixture(scope="session")
def table() -> Table:
    return TABLE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("figures and budgets")
    for line in TABLE.lines():
        terminalreporter.line(line)
