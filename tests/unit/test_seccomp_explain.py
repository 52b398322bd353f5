"""Calls as one writes them, and the rule that decides them."""

from __future__ import annotations

import signal
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ConfigError
from runner.seccomp import evaluate, load, read, syscalls
from runner.seccomp.explain import Call, parse_call, rules_of
from runner.seccomp.start import START

LAST = 2**64 - 1


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("read", None),
        ("read()", (0, 0, 0, 0, 0, 0)),
        ("read(1, 0x10, 0o17)", (1, 16, 15, 0, 0, 0)),
        (" read ( -1 , ~0, ~1 ) ", (LAST, LAST, LAST - 1, 0, 0, 0)),
        ("read(A|2, ~A|2)", (6, LAST - 6, 0, 0, 0, 0)),
        ("read(AF_INET6, SIGKILL, START)", (socket.AF_INET6, signal.SIGKILL, START, 0, 0, 0)),
        ("read(-9223372036854775808)", (2**63, 0, 0, 0, 0, 0)),
        ("read(1,2,3,4,5,6)", (1, 2, 3, 4, 5, 6)),
    ],
)
def test_call_reads_as(text: str, arguments: tuple[int, ...] | None) -> None:
    assert parse_call(text, {"A": 4}) == Call("read", arguments)


def test_what_a_policy_defines_comes_before_what_python_knows() -> None:
    call = parse_call("read(AF_INET)", {"AF_INET": 77})
    assert call.arguments == (77, 0, 0, 0, 0, 0)


WORDS = ["read", "socket", "(", ")", ",", "|", "~", "-", "0x", "1", "A", "AF_INET", "PATH", " "]


@given(text=st.lists(st.sampled_from(WORDS)).map("".join) | st.text())
def test_any_text_is_a_call_or_refused(text: str) -> None:
    try:
        call = parse_call(text, {"A": 4})
    except ConfigError:
        return
    assert call.name in syscalls.numbers("x86_64")
    assert call.arguments is None or all(0 <= one <= LAST for one in call.arguments)


@pytest.mark.parametrize("policy", ["default", "strict", "go"])
def test_call_without_arguments_has_every_rule_that_can_decide_it(policy: str) -> None:
    rules, program = read(policy, "x86_64"), load(policy, "x86_64")
    for name, number in syscalls.numbers("x86_64").items():
        listed = list(rules_of(rules, name))
        answers = {evaluate.run(program, number, "x86_64", (value,) * 6) for value in range(20)}
        possible = {rule.action for rule in listed} | {rules.default}
        assert answers <= possible, name
        if listed and not listed[0].when:
            assert answers == {listed[0].action}
