"""Which sandboxes for one program share what was worked out for the first of them."""

from __future__ import annotations

import contextlib
import os

import pytest

from runner import blueprint as blueprints
from runner.blueprint import Blueprint, BoxConfig, Uses, keep, lend
from runner.config import Credential, Mount, Network
from runner.host import Host
from runner.plan import Phase


def config(*mounts: Mount, uses: Uses = Uses.ONE) -> BoxConfig:
    return BoxConfig(
        mounts=mounts,
        root=(Mount.bind("/usr", "/usr"), Mount.proc(), Mount.tmpfs("/tmp")),
        seccomp=b"",
        host_name="sandbox",
        name="",
        network=Network.NONE,
        require=frozenset(),
        extras={},
        user=Credential(1000, 1000),
        uses=uses,
    )


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blueprints, "_RECENT", [])
    monkeypatch.setattr(blueprints, "detect", lambda: Host(kernel=(6, 1), euid=os.geteuid()))
    monkeypatch.setattr(blueprints.Parent, "find", lambda _host: None)


def test_blueprint_is_lent_to_the_next_that_is_like_it() -> None:
    first = lend(config(), old_mounts=False)
    keep(first)
    assert lend(config(), old_mounts=False) is first


def test_blueprint_is_lent_to_one_at_a_time() -> None:
    first = lend(config(), old_mounts=False)
    keep(first)
    assert lend(config(), old_mounts=False) is first
    assert lend(config(), old_mounts=False) is not first


@pytest.mark.parametrize(
    ("other", "old_mounts"), [(config(Mount.bind("/opt", "/opt")), False), (config(), True)]
)
def test_blueprint_is_not_lent_to_one_unlike_it(other: BoxConfig, old_mounts: bool) -> None:
    first = lend(config(), old_mounts=False)
    keep(first)
    assert lend(other, old_mounts=old_mounts) is not first


def test_blueprint_of_which_the_host_was_seen_long_ago_is_not_lent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = lend(config(), old_mounts=False)
    keep(first)
    now = blueprints.time.monotonic()
    monkeypatch.setattr(blueprints.time, "monotonic", lambda: now + 1.1)
    assert lend(config(), old_mounts=False) is not first


def test_blueprint_of_another_process_or_user_is_not_lent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = lend(config(), old_mounts=False)
    keep(first)
    with monkeypatch.context() as fork:
        fork.setattr(blueprints.os, "getpid", lambda: 1)
        assert lend(config(), old_mounts=False) is not first
    with monkeypatch.context() as other:
        other.setattr(blueprints.os, "geteuid", lambda: 4711)
        assert lend(config(), old_mounts=False) is not first
    assert lend(config(), old_mounts=False) is first


def test_blueprints_that_are_kept_are_few() -> None:
    made = [lend(config(), old_mounts=False) for _ in range(9)]
    for blueprint in made:
        keep(blueprint)
    lent = [lend(config(), old_mounts=False) for _ in range(9)]
    assert len([blueprint for blueprint in lent if blueprint in made]) == 4


@pytest.mark.parametrize(
    ("uses", "looks"), [(Uses.MANY, True), (Uses.ONE_EACH, False), (Uses.ONE, False)]
)
def test_sandbox_for_one_program_looks_at_nothing_afterwards(
    *, uses: Uses, looks: bool
) -> None:
    made = Blueprint(config(uses=uses), old_mounts=False)
    with contextlib.ExitStack() as undo:
        steps = made.plan(4711, undo).steps
        again = made.plan(4712, undo).steps
    assert any(step.phase is Phase.CLEAN for step in steps) is looks
    assert [step.op for step in again] == [step.op for step in steps]
