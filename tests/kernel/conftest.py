"""Groups for the tests that work on them without a sandbox, and raw_call.c, compiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runner.cgroup import Groups, Parent, Resource, v2
from runner.host import Host, detect
from tests.kernel.path_calls import compile_raw_call


@pytest.fixture(scope="module")
def host() -> Host:
    return detect()


@pytest.fixture
def parent(host: Host) -> Parent:
    found = Parent.find(host)
    if found is None or found.why_not:
        pytest.skip("needs a cgroup tree that we may write to")
    return found


@pytest.fixture
def v2_groups(host: Host) -> Iterator[Groups]:
    """Groups in the v2 tree alone, which on a hybrid host has no controllers."""
    place, why_not = v2.find(host, [Resource.CPU])
    if place is None:
        pytest.skip(f"needs cgroup v2: {why_not.missing}")
    with Parent((place,), {}, 0, host).create() as made:
        yield made


@pytest.fixture
def groups(parent: Parent) -> Iterator[Groups]:
    with parent.create() as made:
        yield made


@pytest.fixture(scope="session")
def raw_call(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compile_raw_call(tmp_path_factory.mktemp("raw"))
