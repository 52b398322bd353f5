"""The figures are what the programs say themselves: bench/accuracy, small. X10, X13."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.accuracy import cases, kills
from bench.accuracy.languages import ALLOCATORS, BURNERS, C, compile_c
from runner import MiB, Sandbox
from tests.kernel.grouping import BATCHES

pytestmark = [pytest.mark.cgroup, pytest.mark.userns]

# What a process does after its last look at the clock, its end, takes longer on a busy machine;
# and there are up to nine of them.
LOADED = 5 * cases.MS
# What the kernel has for a process: its stack, page tables, task; eight of them and the first.
PROCESSES = 9 * MiB // 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("calibrated")
    place.chmod(0o755)
    C.build(place)
    compile_c("witness", place)
    kills.build(place)
    return place


@pytest.fixture
def live(place: Path) -> Iterator[Sandbox]:
    with cases.sandbox(place) as live:
        yield live


@pytest.mark.parametrize("kind", BURNERS)
def test_cpu_time_is_what_the_program_says_it_used(live: Sandbox, kind: str) -> None:
    case = cases.Case("C", C.command, kind, 50, runtime=False)
    sample = cases.measure(live, case)
    assert sample is not None
    assert sample.truth >= 50 * cases.MS
    assert abs(sample.error) <= cases.bound(case, sample.truth) + LOADED


@pytest.mark.parametrize("kind", BURNERS)
def test_cpu_time_is_what_wait_tells_of_all_its_processes(live: Sandbox, kind: str) -> None:
    case = cases.Case("C", C.command, kind, 50, runtime=True)
    sample = cases.measure(live, case)
    assert sample is not None
    assert sample.truth >= sample.said
    assert abs(sample.error) <= cases.bound(case, sample.truth) + LOADED


@pytest.mark.parametrize("kind", ALLOCATORS)
def test_memory_is_what_the_program_says_it_touched(live: Sandbox, kind: str) -> None:
    case = cases.Case("C", C.command, kind, 64, runtime=False)
    sample = cases.measure(live, case)
    if sample is None:
        pytest.skip("needs memory.peak (Linux 5.19)")
    assert sample.truth == 64 * MiB
    slack = BATCHES + (PROCESSES if kind == "many" else 0)
    assert 0 <= sample.error <= cases.bound(case, sample.truth) + slack


@pytest.mark.parametrize("kill", kills.KILLS, ids=lambda kill: kill.name)
def test_kill_comes_after_the_limit_and_soon(place: Path, kill: kills.Kill) -> None:
    with kills.sandbox(place) as live:
        # Some 0.3 s were seen with ten programs for each CPU.
        assert 0 <= kills.measure(live, kill, place) <= 5000
