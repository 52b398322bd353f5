"""The faces of a sandbox take the same options: none is missing in one."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from runner import AsyncSandbox, AsyncSandboxPool, Sandbox, SandboxPool, run
from runner.pool.base import LeaseBase
from runner.pool.tasks import AsyncLease
from runner.pool.threads import Lease
from runner.sandbox import _RUN_OPTIONS, RunOptions, SandboxBase

RUN_OPTIONS = set(RunOptions.__annotations__)
PAIRS: list[tuple[type, type]] = [
    (Sandbox, AsyncSandbox),
    (SandboxPool, AsyncSandboxPool),
    (Lease, AsyncLease),
]
# Only an `async with` can wait for what the end of a lease takes.
ALONE = {"release"}


def public(face: type) -> set[str]:
    return {name for name in dir(face) if not name.startswith("_")} - ALONE


def parameters(call: Callable[..., object]) -> list[tuple[object, ...]]:
    found = inspect.signature(call).parameters.values()
    return [(one.name, one.kind, one.default, str(one.annotation)) for one in found]


@pytest.mark.parametrize(("blocking", "waiting"), PAIRS)
def test_faces_have_the_same_names_and_take_the_same_options(
    blocking: type, waiting: type
) -> None:
    assert public(blocking) == public(waiting)
    assert parameters(blocking) == parameters(waiting) or issubclass(blocking, LeaseBase)
    for name in public(blocking):
        one, other = getattr(blocking, name), getattr(waiting, name)
        if callable(one) and (blocking, name) != (Sandbox, "run"):
            told = [
                [(label, kind, default) for label, kind, default, _ in parameters(call)]
                for call in (one, other)
            ]
            assert told[0] == told[1], name


def test_run_takes_the_same_options_in_every_face() -> None:
    """One face spells them out, for whoever reads its help; the others take `RunOptions`."""
    spelled = inspect.signature(Sandbox.run).parameters
    assert set(spelled) - {"self", "args"} == RUN_OPTIONS
    for call in (AsyncSandbox.run, SandboxPool.run, AsyncSandboxPool.run, Lease.run):
        (options,) = [
            one
            for one in inspect.signature(call).parameters.values()
            if one.kind is inspect.Parameter.VAR_KEYWORD
        ]
        assert options.annotation == "Unpack[RunOptions]"


def test_options_of_a_run_and_of_its_sandbox_are_told_apart() -> None:
    made = set(inspect.signature(SandboxBase.__init__).parameters)
    assert RUN_OPTIONS & made == RUN_OPTIONS - _RUN_OPTIONS
    assert inspect.signature(run).parameters.keys() == {"args", "options"}
