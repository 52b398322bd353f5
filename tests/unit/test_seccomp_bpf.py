"""The compiled filter decides as the rules say, and as libseccomp's filter for them does."""

import functools
import os
import struct
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.errors import ConfigError
from runner.seccomp import (
    COMPILED,
    bpf,
    compile_policy,
    evaluate,
    files,
    load,
    read,
    stock,
    syscalls,
)
from runner.seccomp.__main__ import compile_all
from runner.seccomp.rules import Action, Comparison, Op, Policy, Rule, Verb, unreachable

X86_64 = 0xC000003E
AARCH64 = 0xC00000B7
I386 = 0x40000003
ALLOW = 0x7FFF0000
KILL = 0x80000000
ERRNO = 0x00050000
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97

LAST = 2**64 - 1


def decide(program: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    answer, steps = trace(program, arch, number, arguments)
    # The package's evaluator is another implementation of the same: they have to agree.
    theirs = evaluate.trace(program, number, arch, arguments)
    assert theirs == (evaluate.action_of(answer), steps)
    return answer


def trace(
    program: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()
) -> tuple[int, int]:
    """Run a filter as seccomp(2) does; give its answer and how many instructions it took."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = steps = 0
    while True:
        operation, if_true, if_false, operand = code[at]
        steps += 1
        at += 1
        if operation == 0x06:
            return operand, steps
        if operation == 0x20:
            assert operand % 4 == 0
            accumulator = struct.unpack_from("<I", data, operand)[0]
        elif operation == 0x54:
            accumulator &= operand
        elif operation == 0x05:
            at += operand
        else:
            holds = {
                0x15: accumulator == operand,
                0x25: accumulator > operand,
                0x35: accumulator >= operand,
                0x45: accumulator & operand != 0,
            }[operation]
            at += if_true if holds else if_false


# --- Random rules, and what they mean, worked out apart from the compiler.

NUMBERS = {
    "read": 0,
    "write": 1,
    "open": 2,
    "ioctl": 16,
    "socket": 41,
    "clone": 56,
    "mseal": 462,
}
HOLDS = {
    Op.EQ: lambda left, right: left == right,
    Op.NE: lambda left, right: left != right,
    Op.LT: lambda left, right: left < right,
    Op.LE: lambda left, right: left <= right,
    Op.GT: lambda left, right: left > right,
    Op.GE: lambda left, right: left >= right,
}

words = st.sampled_from([0, 1, 2, 0x5412, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
values = st.builds(lambda high, low: high << 32 | low, words, words)
masks = st.sampled_from([LAST, 2**32 - 1]) | values
actions = st.sampled_from(
    [*map(Action, Verb), Action(Verb.ERRNO, 1), Action(Verb.ERRNO, 38), Action(Verb.TRACE, 7)]
)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    mask, op = draw(masks), draw(st.sampled_from(Op))
    comparison = Comparison(draw(st.integers(0, 2)), mask, op, draw(values) & mask)
    trivial = comparison.intervals in {(), ((0, mask),)}
    assume(not trivial)  # which the parser refuses
    return comparison


rules = st.builds(
    Rule,
    actions,
    st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, max_size=3, unique=True).map(tuple),
    st.lists(comparisons(), max_size=3).map(tuple),
    st.just(("random",)),
    st.just(1),
)
policies = st.builds(Policy, st.just("random"), actions, st.lists(rules, max_size=8).map(tuple))


def matches(rule: Rule, name: str, arguments: tuple[int, ...]) -> bool:
    return name in rule.names and all(
        HOLDS[one.op](arguments[one.argument] & one.mask, one.value) for one in rule.when
    )


def meaning(policy: Policy, name: str, arguments: tuple[int, ...]) -> int:
    for rule in policy.rules:
        if matches(rule, name, arguments):
            return rule.action.verb.value | rule.action.data
    return policy.default.verb.value | policy.default.data


def telling_arguments(when: list[Comparison], draw: st.DrawFn) -> tuple[int, ...]:
    """Take arguments at and beside the compared values, and with the upper half flipped."""
    near = [0, LAST, draw(values)]
    for one in when:
        around = (one.value - 1, one.value, one.value + 1, one.value | ~one.mask & LAST)
        near += [value & LAST for value in (*around, one.value ^ 1 << 32, one.value ^ 1 << 63)]
    return tuple(draw(st.lists(st.sampled_from(near), min_size=3, max_size=3)))


@settings(max_examples=150, deadline=None)
@given(policy=policies, data=st.data())
def test_filter_of_random_rules_decides_as_the_rules_say(
    policy: Policy, data: st.DataObject
) -> None:
    program = bpf.compile_rules(policy, "x86_64", NUMBERS)
    when = [one for rule in policy.rules for one in rule.when]
    for name, number in NUMBERS.items():
        for _ in range(4):
            arguments = telling_arguments(when, data.draw)
            expected = meaning(policy, name, arguments)
            assert decide(program, X86_64, number, arguments) == expected, (name, arguments)
            rule = policy.decider(name, arguments)
            assert (policy.default if rule is None else rule.action).value == expected
    for number in (3, 15, 17, 461, 463, 2**30 - 1, 2**31, 2**32 - 1):
        assert decide(program, X86_64, number) == policy.default.value
    for number in (2**30, 2**30 + 1, 2**30 + 56, 2**31 - 1):
        assert decide(program, X86_64, number) == KILL
    assert decide(program, I386, 0) == KILL
    assert decide(program, AARCH64, 0) == KILL


@settings(max_examples=150, deadline=None)
@given(chain=st.lists(rules, min_size=2, max_size=5), data=st.data())
def test_rule_called_unreachable_never_decides(chain: list[Rule], data: st.DataObject) -> None:
    *earlier, last = (
        Rule(rule.action, ("read",), rule.when, rule.origin, index)
        for index, rule in enumerate(chain)
    )
    if unreachable(last, earlier):
        when = [one for rule in chain for one in rule.when]
        for _ in range(20):
            arguments = telling_arguments(when, data.draw)
            first = next(
                (one for one in (*earlier, last) if matches(one, "read", arguments)), None
            )
            assert first is not last, arguments


# --- libseccomp as an oracle, for what it can express.


def plain(one: Comparison) -> Comparison:
    """Drop the mask of an ordered comparison: libseccomp compares the whole argument."""
    return one if one.op is Op.EQ else Comparison(one.argument, LAST, one.op, one.value)


# One rule a call. Of two, libseccomp 2.5.4 makes filters that mean something else: the rules
# `arg1 < 1567154` and `arg1 >= 0x1000000000` also hold for 1567155.
lists_of_plain = st.lists(
    comparisons().map(plain), max_size=2, unique_by=lambda one: one.argument
)


@st.composite
def plain_policies(draw: st.DrawFn) -> Policy:
    default, *others = draw(st.lists(actions, min_size=2, max_size=3, unique=True))
    names = draw(st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, unique=True))
    chosen = tuple(
        Rule(
            draw(st.sampled_from(others)), (name,), tuple(draw(lists_of_plain)), ("random",), 1
        )
        for name in names
    )
    return Policy("random", default, chosen)


def by_libseccomp(policy: Policy, level: int) -> bytes:
    pyseccomp = pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    made = pyseccomp.SyscallFilter(policy.default.value)
    made.remove_arch(pyseccomp.Arch.NATIVE)
    made.add_arch(pyseccomp.Arch.X86_64)
    made.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, level)
    for rule in policy.rules:
        compared = [
            pyseccomp.Arg(one.argument, pyseccomp.MASKED_EQ, one.mask, one.value)
            if one.op is Op.EQ
            else pyseccomp.Arg(one.argument, getattr(pyseccomp, one.op.name), one.value)
            for one in rule.when
        ]
        made.add_rule(rule.action.value, NUMBERS[rule.names[0]], *compared)
    with os.fdopen(os.memfd_create("filter"), "w+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


@settings(max_examples=150, deadline=None)
@given(policy=plain_policies(), level=st.sampled_from([1, 2]), data=st.data())
def test_filter_decides_as_libseccomps_does(
    policy: Policy, level: int, data: st.DataObject
) -> None:
    ours = bpf.compile_rules(policy, "x86_64", NUMBERS)
    theirs = by_libseccomp(policy, level)
    for name, number in NUMBERS.items():
        when = [one for rule in policy.rules if name in rule.names for one in rule.when]
        for _ in range(4):
            arguments = telling_arguments(when, data.draw)
            answers = (
                decide(ours, X86_64, number, arguments),
                decide(theirs, X86_64, number, arguments),
            )
            assert answers[0] == answers[1], (name, arguments)


# --- Single facts.


def compiled(text: str, arch: str = "x86_64") -> bytes:
    return compile_policy(text, name="test", arch=arch)


def test_int_comparison_with_a_high_word_set_still_matches() -> None:
    program = compiled("default allow\nerrno EPERM ioctl if int1 == 0x5412")
    assert decide(program, X86_64, 16, (0, 0x5412)) == ERRNO | EPERM
    assert decide(program, X86_64, 16, (0, 0x1_0000_5412)) == ERRNO | EPERM
    assert decide(program, X86_64, 16, (0, 0x5413)) == ALLOW


def test_arg_comparison_with_a_high_word_set_does_not_match() -> None:
    program = compiled("default allow\nerrno EPERM ioctl if arg1 == 0x5412")
    assert decide(program, X86_64, 16, (0, 0x5412)) == ERRNO | EPERM
    assert decide(program, X86_64, 16, (0, 0x1_0000_5412)) == ALLOW


def test_negative_int_matches_both_of_its_extensions() -> None:
    program = compiled("default allow\nkill kill if int0 == -1")
    assert decide(program, X86_64, 62, (0xFFFF_FFFF,)) == KILL
    assert decide(program, X86_64, 62, (LAST,)) == KILL


def test_filter_longer_than_a_jump_decides_right_everywhere() -> None:
    numbers = {f"call{index}": 2 * index for index in range(400)}
    chosen = tuple(
        Rule(
            Action(Verb.ERRNO, index),
            (name,),
            (Comparison(index % 6, LAST, Op.GE, index << 32 | 7),),
            ("far",),
            index,
        )
        for index, name in enumerate(numbers, 1)
    )
    program = bpf.compile_rules(Policy("far", Action(Verb.ALLOW), chosen), "x86_64", numbers)
    assert len(program) // 8 > 8 * 255
    for index, number in enumerate(numbers.values(), 1):
        at = tuple(index << 32 | 7 if one == index % 6 else 0 for one in range(6))
        below = tuple(index << 32 | 6 if one == index % 6 else LAST for one in range(6))
        assert decide(program, X86_64, number, at) == ERRNO | index
        assert decide(program, X86_64, number, below) == ALLOW
        assert decide(program, X86_64, number + 1, at) == ALLOW


@pytest.mark.parametrize("odd", [True, False])
def test_jump_as_far_as_can_be_and_one_further_lead_there(odd: bool) -> None:
    # Rules of two instructions that all jump to one RET, after one of two or of three: so the
    # distances grow by two, and 255 comes in one case and 256 in the other.
    shift = (
        (Comparison(1, 0xF0, Op.EQ, 0x30),) if odd else (Comparison(1, 2**32 - 1, Op.EQ, 1),)
    )
    equal = [(Comparison(0, 2**32 - 1, Op.EQ, index),) for index in range(1, 400)]
    chosen = tuple(
        Rule(Action(Verb.ERRNO, 7), ("read",), when, ("far",), 1) for when in (*equal, shift)
    )
    policy = Policy("far", Action(Verb.ALLOW), chosen)
    program = bpf.compile_rules(policy, "x86_64", {"read": 0})
    assert {decide(program, X86_64, 0, (index,)) for index in range(1, 400)} == {ERRNO | 7}
    assert decide(program, X86_64, 0, (0, 0x31 if odd else 1)) == ERRNO | 7
    assert decide(program, X86_64, 0, (400, 2)) == ALLOW


def test_filter_longer_than_the_kernel_takes_is_refused() -> None:
    chosen = tuple(
        Rule(
            Action(Verb.ERRNO, index),
            ("read",),
            (Comparison(0, LAST, Op.EQ, index),),
            ("a",),
            1,
        )
        for index in range(1, 1100)
    )
    with pytest.raises(
        ConfigError, match=r"^long: 5505 instructions on x86_64; the kernel takes 4096"
    ):
        bpf.compile_rules(Policy("long", Action(Verb.ALLOW), chosen), "x86_64", {"read": 0})


def test_every_action_becomes_its_seccomp_value() -> None:
    text = (
        "default allow\nkill read\nkill_thread write\ntrap 5 open\ntrap close\n"
        "errno EPERM stat\ntrace 9 fstat\nlog lstat\nnotify poll\nerrno 0 lseek"
    )
    program = compiled(text)
    answers = [decide(program, X86_64, number) for number in (*range(9), 9)]
    assert answers == [
        0x80000000,
        0x00000000,
        0x00030005,
        0x00030000,
        0x00050001,
        0x7FF00009,
        0x7FFC0000,
        0x7FC00000,
        0x00050000,
        0x7FFF0000,
    ]


def test_call_that_only_one_architecture_has_is_left_out_on_the_other() -> None:
    text = "default errno ENOSYS\nallow open openat"
    assert decide(compiled(text, "x86_64"), X86_64, 2) == ALLOW
    on_aarch64 = compiled(text, "aarch64")
    allowed = [n for n in range(500) if decide(on_aarch64, AARCH64, n) == ALLOW]
    assert allowed == [56]  # openat


# --- The stock policies.


rules_of = functools.cache(read)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("arch", syscalls.AUDIT_ARCHS)
@pytest.mark.parametrize("policy", stock())
def test_shipped_filter_decides_as_its_text_says(
    policy: str, arch: str, data: st.DataObject
) -> None:
    program, rules = load(policy, arch), rules_of(policy, arch)
    names = st.sampled_from(sorted(syscalls.numbers(arch)))
    with_comparisons = [name for rule in rules.rules if rule.when for name in rule.names]
    name = data.draw(names | st.sampled_from(with_comparisons))
    if name not in syscalls.numbers(arch):
        return  # what the other architecture has
    when = [one for rule in rules.rules if name in rule.names for one in rule.when]
    for _ in range(5):
        first, second, third = telling_arguments(when, data.draw)
        arguments = (first, second, third, data.draw(values), 0, data.draw(values))
        rule = rules.decider(name, arguments)
        action = rules.default if rule is None else rule.action
        number = syscalls.numbers(arch)[name]
        assert decide(program, syscalls.AUDIT_ARCHS[arch], number, arguments) == action.value


def test_shipped_filters_are_what_the_policies_compile_to() -> None:
    shipped = {path.name: path.read_bytes() for path in Path(COMPILED).iterdir()}
    assert shipped == compile_all(files.POLICIES)


@pytest.mark.parametrize(("arch", "audit"), syscalls.AUDIT_ARCHS.items())
@pytest.mark.parametrize(
    "name", ["compiler", "default", "go", "jvm", "node", "python", "strict"]
)
def test_stock_policy_is_small_and_decides_fast(name: str, arch: str, audit: int) -> None:
    program = load(name, arch)
    assert len(program) // 8 <= 160
    numbers = syscalls.numbers(arch)
    steps = {name: trace(program, audit, number)[1] for name, number in numbers.items()}
    # 12 for a call without comparisons; more with all of a call's, none of which holds.
    assert max(steps.values()) <= 24, steps
    # What the kernel executes when it installs the filter; see docs/seccomp.md.
    mean = sum(trace(program, audit, number)[1] for number in range(470)) / 470
    assert mean <= 12


@pytest.mark.parametrize(("arch", "audit"), syscalls.AUDIT_ARCHS.items())
@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("clone", (0x01200011,), ALLOW),
        ("clone", (0x10000011,), ERRNO | EPERM),
        ("clone", (0x00008011,), ERRNO | EPERM),
        ("clone3", (), ERRNO | ENOSYS),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0xFFFF_FFFF_0000_5412), ERRNO | EPERM),
        ("personality", (0xFFFF_FFFF,), ALLOW),
        ("personality", (LAST,), ALLOW),
        ("personality", (0x40000,), ALLOW),
        ("personality", (8,), ERRNO | EPERM),
        ("socket", (10, 1), ALLOW),
        ("socket", (16, 3, 0), ALLOW),
        ("socket", (16, 3, 12), ERRNO | EAFNOSUPPORT),
        ("socket", (40, 1), ERRNO | EAFNOSUPPORT),
        ("socketpair", (38, 5), ERRNO | EAFNOSUPPORT),
        ("prctl", (62,), ERRNO | EPERM),
        ("mount", (), ERRNO | EPERM),
        ("mseal", (), ALLOW),
        ("open_tree_attr", (), ERRNO | EPERM),
        ("io_uring_setup", (), ERRNO | ENOSYS),
    ],
)
def test_default_policy_decides(
    arch: str, audit: int, name: str, arguments: tuple[int, ...], answer: int
) -> None:
    number = syscalls.numbers(arch)[name]
    assert decide(load("default", arch), audit, number, arguments) == answer


STOCK = ["compiler", "default", "go", "jvm", "node", "python", "strict"]


def test_load_of_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as raised:
        load("defualt")
    assert str(raised.value) == (
        "policy: 'defualt' is not a stock policy: did you mean 'default'?; known: "
        "compiler, default, go, jvm, node, python, strict; a file's path has a slash"
    )
    assert stock() == STOCK


def test_load_of_a_path_reads_no_compiled_file() -> None:
    with pytest.raises(ConfigError) as raised:
        load("../compiled/default")
    assert str(raised.value) == "policy: '../compiled/default': No such file or directory"


def test_load_of_a_filter_gives_it_back() -> None:
    assert load(b"8 bytes.") == b"8 bytes."


def test_load_for_an_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as raised:
        load("default", "riscv64")
    assert str(raised.value) == "arch: 'riscv64' is not one of x86_64, aarch64"
