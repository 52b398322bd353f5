"""Landlock's rules as data: what is refused, and what a kernel of each ABI is told. M76."""

from __future__ import annotations

from typing import Any

import pytest

from runner import Landlock, Runner, landlock, plan
from runner.errors import ConfigError, ErrorLocation, HostError
from runner.plan import Op

NEWEST = 7
ALL_FILES = (1 << 16) - 1
READ, WRITE = 0b1100, ALL_FILES & ~0b1101


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"read": "/usr"}, "Landlock.read: '/usr': give a list, not one text"),
        ({"write": [""]}, "Landlock.write: '': a path is a text that is not empty"),
        ({"execute": ["a\0b"]}, "Landlock.execute: 'a\\x00b': it holds a NUL byte"),
        ({"bind": [65536]}, "Landlock.bind: 65536: a port is 0 to 65535"),
        ({"connect": [-1]}, "Landlock.connect: -1: a port is 0 to 65535"),
        (
            {"scopes": ["signals"]},
            "Landlock.scopes: 'signals': known are abstract_unix_socket, signal",
        ),
    ],
)
def test_rule_that_cannot_be_meant_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Landlock(**fields)
    assert str(caught.value) == message


def test_rules_that_restrict_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="it restricts nothing: give paths, ports or scopes"):
        Landlock(best_effort=True)


@pytest.mark.parametrize(
    ("abi", "held"),
    [(3, (1 << 15) - 1), (4, (1 << 15) - 1), (5, ALL_FILES), (NEWEST, ALL_FILES)],
)
def test_ruleset_for_files_holds_all_rights_that_the_kernel_knows(abi: int, held: int) -> None:
    rules = landlock.ruleset(Landlock(read=["/usr", "/lib"], write=["/tmp"]), abi)
    assert rules == (
        *(held, 0, 0),
        ((0, "/usr", READ), (1, "/lib", READ), (0, "/tmp", WRITE & held)),
        (),
    )


def test_ruleset_that_grants_nothing_forbids_all() -> None:
    assert landlock.ruleset(Landlock(execute=()), NEWEST) == (ALL_FILES, 0, 0, (), ())


def test_ruleset_for_ports_holds_only_what_was_given() -> None:
    rules = landlock.ruleset(Landlock(connect=[443, 80, 443]), NEWEST)
    assert rules == (0, 0b10, 0, (), ((80, 0b10), (443, 0b10)))
    rules = landlock.ruleset(Landlock(bind=(), connect=(0,)), NEWEST)
    assert rules == (0, 0b11, 0, (), ((0, 0b10),))


def test_ruleset_for_scopes_has_the_kernels_bits() -> None:
    scopes = [("abstract_unix_socket",), ("signal",), ("signal", "abstract_unix_socket")]
    rules = [landlock.ruleset(Landlock(scopes=names), NEWEST) for names in scopes]
    assert [r.scopes for r in rules] == [1, 2, 3]


@pytest.mark.parametrize(
    ("fields", "abi", "missing", "kernel"),
    [
        ({"read": ["/"]}, 0, "files: this kernel has none, or it is off", "6.2"),
        ({"read": ["/"]}, 2, "files: this kernel has ABI 2", "6.2"),
        ({"bind": ()}, 3, "TCP ports: this kernel has ABI 3", "6.7"),
        ({"scopes": ["signal"]}, 5, "scopes: this kernel has ABI 5", "6.12"),
    ],
)
def test_kernel_that_cannot_hold_it_is_a_host_error_unless_best_effort(
    fields: dict[str, Any], abi: int, missing: str, kernel: str
) -> None:
    with pytest.raises(HostError) as caught:
        landlock.ruleset(Landlock(**fields), abi)
    assert str(caught.value).endswith(f" for rules on {missing}")
    assert (
        caught.value.hint == f"boot Linux {kernel} with landlock in lsm=, or best_effort=True"
    )
    rules = landlock.ruleset(Landlock(**fields, best_effort=True), abi)
    assert rules.empty == (abi != 2)
    assert (rules.ports_held, rules.scopes) == (0, 0)


def test_steps_enter_the_ruleset_after_the_ids_and_before_the_filter() -> None:
    runner = Runner(args=["/bin/true"], landlock=Landlock(read=["/usr"], bind=[80]))
    rules = landlock.ruleset(Landlock(read=["/usr"], bind=[80]), NEWEST)
    steps = plan.program(runner, candidates=[b"/bin/true"], files=(0, 1, 2), ruleset=rules)
    ops = [step.op for step in steps]
    own = [op for op in ops if op.name.startswith("LANDLOCK")]
    assert own == [Op.LANDLOCK, Op.LANDLOCK_PATH, Op.LANDLOCK_PORT, Op.LANDLOCK_RESTRICT]
    assert ops.index(Op.NO_NEW_PRIVS) + 1 == ops.index(Op.LANDLOCK)
    assert ops.index(Op.LANDLOCK_RESTRICT) + 1 == ops.index(Op.CLOSE_RANGE)
    assert {s.location for s in steps if s.op in own} == {ErrorLocation.LANDLOCK}
    named = [(s.item, s.subject) for s in steps if s.op in own[1:3]]
    assert named == [(0, "/usr"), (0, "port 80")]


def test_steps_of_a_kernel_that_can_hold_nothing_are_none() -> None:
    rules = landlock.ruleset(Landlock(scopes=["signal"], best_effort=True), 5)
    runner = Runner(args=["/bin/true"])
    with_it, without = (
        plan.program(runner, candidates=[b"/bin/true"], files=(), ruleset=each)
        for each in (rules, None)
    )
    assert with_it == without
