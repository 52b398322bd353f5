"""Page faults and context switches: of a program that causes a known number. FR9, M101."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import Mount, Result, Sandbox

pytestmark = pytest.mark.userns

# What the start of a static program takes besides.
FAULTS_OF_START = 200
SLEEPS_OF_START = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    place.chmod(0o777)
    source = Path(__file__).with_name("count_events.c")
    subprocess.run(["musl-gcc", "-static", "-O1", "-o", place / "count", source], check=True)
    (place / "file").write_bytes(b"x" * 65536)
    return place


@pytest.fixture
def sandbox(place: Path) -> Iterator[Sandbox]:
    with Sandbox(mounts=[Mount.bind(str(place), "/place")]) as sandbox:
        yield sandbox


def result_of(sandbox: Sandbox, *words: str) -> Result:
    result = sandbox.run(["/place/count", *words])
    assert result.ok, result
    return result


@pytest.mark.parametrize("kind", ["faults", "child-faults"])
def test_minor_faults_are_one_for_each_page_that_is_touched(
    sandbox: Sandbox, kind: str
) -> None:
    faults = result_of(sandbox, kind, "5000").page_faults_minor
    assert faults is not None
    assert 5000 <= faults <= 5000 + FAULTS_OF_START


def test_voluntary_switches_are_one_for_each_sleep(sandbox: Sandbox) -> None:
    switches = result_of(sandbox, "sleeps", "200").context_switches_voluntary
    assert switches is not None
    assert 200 <= switches <= 200 + SLEEPS_OF_START


def test_major_faults_are_those_for_which_a_disk_is_read(sandbox: Sandbox, place: Path) -> None:
    number = os.stat(place).st_dev
    if not os.path.exists(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"):
        pytest.skip("needs a disk")
    result_of(sandbox, "read", "/place/file")  # which has the program itself in the cache
    cached = result_of(sandbox, "read", "/place/file").page_faults_major
    fd = os.open(place / "file", os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    dropped = result_of(sandbox, "read", "/place/file").page_faults_major
    assert (cached, dropped) == (0, 1)


def test_peak_of_anonymous_memory_is_none_since_no_kernel_keeps_it(sandbox: Sandbox) -> None:
    assert result_of(sandbox, "faults", "100").memory_anon_bytes is None
