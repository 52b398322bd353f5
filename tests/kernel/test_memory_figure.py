"""What `memory_bytes` counts: the rule of docs/accuracy.md, kind by kind. X13."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import MiB, Mount, Sandbox, Status
from runner.config import Limits
from tests.kernel.grouping import BATCHES

pytestmark = [pytest.mark.cgroup, pytest.mark.userns]

# The kernel's own for a process: its stack, page tables, files; and for a page table 1/512.
KERNELS_OWN = MiB // 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    place.chmod(0o777)
    source = Path(__file__).with_name("use_memory.c")
    command = ["musl-gcc", "-static", "-O1", "-o", place / "use", source]
    subprocess.run(command, check=True)
    return place


@pytest.fixture
def sandbox(place: Path) -> Iterator[Sandbox]:
    with Sandbox(mounts=[Mount.bind(str(place), "/place", readonly=False)]) as sandbox:
        yield sandbox


def memory_of(sandbox: Sandbox, kind: str, amount: int | str) -> int:
    result = sandbox.run(["/place/use", kind, str(amount)], limits=Limits(memory=256 * MiB))
    assert result.status is Status.OK, result.stderr
    if result.memory_bytes is None:
        pytest.skip("needs memory.peak (Linux 5.19)")
    return result.memory_bytes


@pytest.mark.parametrize("kind", ["anonymous", "shared", "children", "tmpfs"])
@pytest.mark.parametrize("size", [MiB, 48 * MiB])
def test_memory_of_this_kind_counts_once_and_nothing_else(
    sandbox: Sandbox, kind: str, size: int
) -> None:
    slack = BATCHES + KERNELS_OWN + size // 256
    assert size <= memory_of(sandbox, kind, size) <= size + slack


def test_page_cache_of_a_file_that_the_program_writes_counts(
    sandbox: Sandbox, place: Path
) -> None:
    # Its cache needs an index, and ext4 some of its own: 4 % were seen.
    size = 32 * MiB
    memory = memory_of(sandbox, "write", size)
    (place / "written").unlink()
    assert size <= memory <= size + size // 16 + BATCHES + KERNELS_OWN


def in_cache(path: Path, *, cached: bool) -> None:
    """Make a file of 8 MiB that is in the page cache, on our account, or not at all."""
    path.write_bytes(os.urandom(8 * MiB))
    path.chmod(0o644)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if not cached:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_on_disk(place: Path) -> bool:
    """Tell whether what is not cached is read from somewhere, unlike in a tmpfs."""
    number = os.stat(place).st_dev
    return os.path.exists(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")


def test_pages_of_a_mapped_file_count_if_nobody_had_read_it(
    sandbox: Sandbox, place: Path
) -> None:
    if not is_on_disk(place):
        pytest.skip("needs a disk")
    in_cache(place / "file", cached=False)
    assert memory_of(sandbox, "map", "/place/file") >= 8 * MiB


def test_pages_of_a_mapped_file_do_not_count_if_they_were_in_the_cache(
    sandbox: Sandbox, place: Path
) -> None:
    in_cache(place / "file", cached=True)
    assert memory_of(sandbox, "map", "/place/file") <= BATCHES + KERNELS_OWN


def test_memory_of_a_small_program_under_a_large_grader_is_its_own(place: Path) -> None:
    grader = (
        "from runner import *; from runner.config import Limits\n"
        "ballast = bytearray(500 << 20); ballast[::4096] = b'x' * len(ballast[::4096])\n"
        f"with Sandbox(mounts=[Mount.bind({str(place)!r}, '/place')]) as s:\n"
        "    r = s.run(['/place/use', 'anonymous', '1048576'], limits=Limits(memory=MiB * 8))\n"
        "    print(r.status.value, r.memory_bytes)\n"
    )
    command = [sys.executable, "-c", grader]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    status, memory = done.stdout.split()
    assert status == "ok"
    if memory == "None":
        pytest.skip("needs memory.peak (Linux 5.19)")
    assert MiB <= int(memory) <= MiB + BATCHES + KERNELS_OWN


def test_limit_of_one_mebibyte_runs_a_small_program(sandbox: Sandbox) -> None:
    size = 256 * 1024
    limits = Limits(memory=MiB)
    small = sandbox.run(["/place/use", "anonymous", str(size)], limits=limits)
    assert small.status is Status.OK
    large = sandbox.run(["/place/use", "anonymous", str(2 * MiB)], limits=limits)
    assert large.status is Status.MEMORY_LIMIT
    assert large.memory_bytes in {None, MiB}


def test_memory_of_libraries_that_the_host_has_in_use_is_not_the_programs(
    sandbox: Sandbox,
) -> None:
    memory = sandbox.run(["/bin/true"]).memory_bytes
    # libc.so.6 alone is 2 MB, of which what it writes to is its own.
    assert memory is None or memory <= MiB + BATCHES + 64 * mmap.PAGESIZE
