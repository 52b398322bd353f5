"""Supervision as data: what is refused, the rules, the filter that stops calls. M73, M74."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import Runner, Supervision, plan, supervision
from runner.errors import ConfigError, ErrorLocation
from runner.plan import Op, Phase
from runner.seccomp import evaluate, load, syscalls
from runner.supervision import CallRule, Follow, Kind, Match, Path, PathSet, Use

X86 = syscalls.AUDIT_ARCHS["x86_64"]
NUMBERS = syscalls.numbers("x86_64")


def rules_of(**fields: Any) -> supervision.Rules:  # noqa: ANN401 - its fields
    return supervision.rules(Supervision(**fields), NUMBERS, X86)


_RULE = 'give "kill", "ask", an errno such as "EPERM", or a number'
_PATTERN = 'write a path without "..", then "/*" or "/" at its end if meant'


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"calls": {"fork": "deny"}},
            f"Supervision.calls['fork']: 'deny': {_RULE}",
        ),
        (
            {"calls": {"fork": -1}},
            "Supervision.calls['fork']: -1: a number of calls is 0 to 2147483647",
        ),
        (
            {"calls": {"fork": True}},
            "Supervision.calls['fork']: True: a number of calls is 0 to 2147483647",
        ),
        ({"read": "/usr"}, "Supervision.read: '/usr': give a list, not one text"),
        ({"read": ["usr"]}, "Supervision.read: 'usr': a pattern begins with /"),
        *(
            (
                {"write": [pattern]},
                f"Supervision.write: {pattern!r}: {_PATTERN}",
            )
            for pattern in ("/a/../b", "/a//b", "/a/*/b", "/a*", "/./a")
        ),
        (
            {"read": [], "refuse": "no"},
            'Supervision.refuse: \'no\': give "kill", "ask", or an errno such as "EACCES"',
        ),
        (
            {"calls": {"fork": 1}, "ban": ["/x"]},
            "Supervision.ban: ['/x']: paths are not supervised: give stat, read or write",
        ),
    ],
)
def test_supervision_that_cannot_be_meant_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Supervision(**fields)
    assert str(caught.value) == message


def test_supervision_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="it supervises nothing: give calls or paths"):
        Supervision()


def test_supervision_and_a_tracer_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="a process has one tracer: give one of them"):
        Runner(args=["x"], ptrace=True, supervision=Supervision(calls={"fork": 1}))


def test_call_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        rules_of(calls={"opennat": "kill"})
    assert str(caught.value) == (
        "Supervision.calls: 'opennat': no such system call; is it openat?"
    )


def test_rules_of_calls_are_by_number() -> None:
    found = rules_of(calls={"fork": 3, "socket": "kill", "clone": "EPERM"})
    assert found == (
        X86,
        (CallRule(57, Kind.COUNT, 3), CallRule(41, Kind.KILL), CallRule(56, Kind.ERRNO, 1)),
        (),
        0,
        False,
        {59, 322},
    )


def test_rules_of_paths_are_those_of_each_call_and_patterns() -> None:
    found = rules_of(stat=["/"], read=["/usr/"], write=["/tmp/*", "/dev/null"], ban=["/etc/"])
    assert found.paths == (
        (PathSet.STAT, Match.BELOW, "/"),
        (PathSet.READ, Match.BELOW, "/usr"),
        (PathSet.WRITE, Match.CHILDREN, "/tmp"),
        (PathSet.WRITE, Match.EXACT, "/dev/null"),
        (PathSet.BAN, Match.BELOW, "/etc"),
    )
    renameat2 = [rule for rule in found.calls if rule.number == NUMBERS["renameat2"]]
    assert [(rule.kind, rule.where) for rule in renameat2] == [
        (Kind.PATH, Path(1, Use.WRITE, 0, follow=Follow.NO).packed()),
        (Kind.PATH, Path(3, Use.WRITE, 2, follow=Follow.NO).packed()),
    ]
    assert found.refuse == 0
    assert rules_of(read=[], refuse="EACCES").refuse == errno.EACCES


def test_call_with_a_rule_of_its_own_has_that_rule_alone() -> None:
    found = rules_of(calls={"openat": "EPERM"}, read=["/"])
    assert [rule.kind for rule in found.calls if rule.number == NUMBERS["openat"]] == [
        Kind.ERRNO
    ]


def test_path_is_packed_in_fields_of_four_bits() -> None:
    assert Path(1, Use.OPEN, 0, 2).packed() == 1 | 1 << 4 | 3 << 8 | 3 << 12
    assert Path(3, Use.WRITE, 2, follow=Follow.NO).packed() == 3 | 3 << 4 | 2 << 12 | 1 << 16


def test_paths_are_of_calls_that_some_architecture_has() -> None:
    known = NUMBERS.keys() | syscalls.numbers("aarch64").keys()
    assert set(supervision.PATHS) <= known
    assert set(supervision.UNJUDGED) <= known


def test_ways_around_paths_are_refused_where_paths_are_judged_and_have_no_other_rule() -> None:
    def refused(**fields: object) -> set[int]:
        wanted = rules_of(**fields)
        return {rule.number for rule in wanted.calls if rule[1:3] == (Kind.ERRNO, errno.EPERM)}

    ways = {NUMBERS[name] for name in supervision.UNJUDGED}
    assert refused(read=["/"]) == ways
    assert refused(read=["/"], calls={"chroot": 1}) == ways - {NUMBERS["chroot"]}
    assert refused(calls={"fork": 3}) == set()


def answer(program: bytes, number: int, arch: int = X86) -> int:
    action = evaluate.run(program, number, arch)
    return action.verb | action.data


EVERYTHING = b"\x06\0\0\0\0\0\xff\x7f"
ALLOW, TRACE, KILL = 0x7FFF_0000, 0x7FF0_0000, 0x8000_0000


@pytest.mark.parametrize("policy", [b"", EVERYTHING])
def test_filter_stops_the_calls_that_have_rules_and_no_other(policy: bytes) -> None:
    wanted = rules_of(calls={"fork": 3, "socket": "kill"})
    program = supervision.stopping(policy, wanted)
    assert {n for n in range(600) if answer(program, n) != ALLOW} == {57, 41}
    assert answer(program, 57) == TRACE


@pytest.mark.parametrize("policy", [b"", EVERYTHING])
@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_filter_ends_other_abis_although_a_policy_allows_them(by: str, policy: bytes) -> None:
    program = supervision.stopping(policy, rules_of(calls={"fork": 3}, by=by))
    ends = TRACE | supervision.BY_POLICY if by == "ptrace" else KILL
    assert answer(program, 57, syscalls.AUDIT_ARCHS["aarch64"]) == ends
    assert answer(program, 57 | 0x4000_0000) == ends


@given(number=st.integers(0, 600), rules=st.sets(st.sampled_from(sorted(NUMBERS)), min_size=1))
def test_filter_is_never_looser_than_the_policy(number: int, rules: set[str]) -> None:
    policy = load("default", "x86_64")
    wanted = rules_of(calls=dict.fromkeys(rules, "EPERM"))
    before, after = answer(policy, number), answer(supervision.stopping(policy, wanted), number)
    if before == ALLOW:
        assert after == (TRACE if number in wanted.numbers else ALLOW)
    elif before in {KILL, 0}:
        assert after == TRACE | supervision.BY_POLICY
    else:
        assert after == before


def test_steps_say_the_rules_and_have_it_traced_before_its_filter() -> None:
    wanted = rules_of(calls={"fork": 3}, read=["/usr/"])
    runner = Runner(args=["/bin/true"], supervision=Supervision(calls={"fork": 3}))
    steps = plan.program(runner, candidates=[b"/bin/true"], files=(), rules=wanted)
    told = [step for step in steps if step.phase is Phase.SUPERVISE]
    assert told[0].op is Op.RULE_REFUSE
    assert told[1].args == ((X86 << 32 | 57) - 2**64, Kind.COUNT, 3, 0)
    assert (told[-1].op, told[-1].args, told[-1].strings) == (Op.RULE_PATH, (1, 2), (b"/usr",))
    own = [step.op for step in steps if step.phase is Phase.PROGRAM]
    assert own.count(Op.SYNC_READ) == 1
    assert own.index(Op.SYNC_READ) < own.index(Op.CLEAR_FDS)
    assert own[-2:] == [Op.SECCOMP, Op.EXEC]
    assert Op.NO_NEW_PRIVS in own
    assert {step.location for step in told} == {ErrorLocation.PTRACE_ME}
