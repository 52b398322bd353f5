"""OCI profiles: what they mean, what is wrong with them and in which line.

Rows K37, K66, K67, U59; T14, T20.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import ConfigError
from runner.seccomp import bpf, evaluate, oci, syscalls
from runner.seccomp.oci import Profile, parse_profile
from runner.seccomp.positions import Malformed, Node, read
from runner.seccomp.rules import Action, Verb

LAST = 2**64 - 1


def profile(text: str, **options: Any) -> Profile:  # noqa: ANN401
    given = {"arch": "x86_64", "kernel": "6.1.0"} | options
    return parse_profile(text, name="p.json", **given)


def written(*entries: dict[str, Any], **top: Any) -> str:  # noqa: ANN401
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": entries} | top)


def entry(*names: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"names": names, "action": "SCMP_ACT_ALLOW"} | more


def argument(index: int, op: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{op}"}


def decide(text: str, name: str, *arguments: int, **options: Any) -> str:  # noqa: ANN401
    arch = options.get("arch", "x86_64")
    numbers = syscalls.numbers(arch)
    program = bpf.compile_rules(profile(text, **options).policy, arch, numbers)
    return str(evaluate.run(program, numbers[name], arch, arguments))


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        profile(text)
    return str(raised.value).split("\n")


# --- What they mean.


@pytest.mark.parametrize(
    ("action", "more", "answer"),
    [
        ("KILL", {}, "kill_thread"),
        ("KILL_THREAD", {}, "kill_thread"),
        ("KILL_PROCESS", {}, "kill"),
        ("TRAP", {}, "trap"),
        ("ERRNO", {}, "errno EPERM"),
        ("ERRNO", {"errnoRet": 38}, "errno ENOSYS"),
        ("ERRNO", {"errnoRet": 0}, "errno 0"),
        ("ERRNO", {"errno": "EINVAL"}, "errno EINVAL"),
        ("ERRNO", {"errno": "EINVAL", "errnoRet": 22}, "errno EINVAL"),
        ("TRACE", {"errnoRet": 7}, "trace 7"),
        ("TRACE", {}, "trace 1"),
        ("NOTIFY", {}, "notify"),
        ("LOG", {}, "log"),
        ("ALLOW", {"errno": "", "args": None, "includes": {}, "excludes": {}}, "allow"),
    ],
)
def test_action_becomes(action: str, more: dict[str, Any], answer: str) -> None:
    text = written({"names": ["read"], "action": f"SCMP_ACT_{action}"} | more)
    assert decide(text, "read") == answer
    assert decide(text, "write") == "errno EPERM"


def test_default_errno_is_what_calls_without_an_entry_answer() -> None:
    assert decide(written(defaultErrnoRet=38), "read") == "errno ENOSYS"
    assert decide(written(defaultErrno="ENOSYS", defaultErrnoRet=38), "read") == "errno ENOSYS"
    assert decide(written(defaultAction="SCMP_ACT_ALLOW"), "read") == "allow"


@pytest.mark.parametrize(
    ("op", "value", "second", "holds", "fails"),
    [
        ("EQ", 5 << 32, 0, [5 << 32], [5, 0, 5 << 32 | 1]),
        ("NE", 16, 0, [1 << 32 | 16, 15], [16]),
        ("LT", 1 << 33, 0, [0, (1 << 33) - 1], [1 << 33, LAST]),
        ("LE", 1 << 33, 0, [1 << 33], [(1 << 33) + 1]),
        ("GT", 1 << 33, 0, [LAST], [1 << 33, 5]),
        ("GE", 1 << 33, 0, [1 << 33], [(1 << 33) - 1, 2**32 - 1]),
        ("MASKED_EQ", 0xF0 << 32, 0x30 << 32, [0x3F << 32, 0x730 << 32 | 9], [0x30, 0]),
    ],
)
def test_comparison_looks_at_all_64_bits(
    op: str, value: int, second: int, holds: list[int], fails: list[int]
) -> None:
    text = written(entry("read", args=[argument(2, op, value, second)]))
    assert {decide(text, "read", 0, 0, one) for one in holds} == {"allow"}
    assert {decide(text, "read", 0, 0, one) for one in fails} == {"errno EPERM"}


def test_arguments_of_one_entry_hold_together_and_two_of_one_index_each_alone() -> None:
    both = written(entry("read", args=[argument(0, "EQ", 1), argument(1, "EQ", 2)]))
    assert decide(both, "read", 1, 2) == "allow"
    assert decide(both, "read", 1, 3) == "errno EPERM"
    either = written(entry("read", args=[argument(0, "EQ", 1), argument(0, "EQ", 2)]))
    assert [decide(either, "read", n) for n in (1, 2, 3)] == ["allow", "allow", "errno EPERM"]


@pytest.mark.parametrize(
    ("condition", "options", "applies"),
    [
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, {}, False),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, {"capabilities": ["SYS_ADMIN"]}, True),
        (
            {"includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
            {"capabilities": ["SYS_ADMIN"]},
            False,
        ),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, {}, True),
        (
            {"excludes": {"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}},
            {"capabilities": ["SYS_ADMIN"]},
            False,
        ),
        ({"includes": {"arches": ["amd64", "x32"]}}, {}, True),
        ({"includes": {"arches": ["arm64"]}}, {}, False),
        ({"includes": {"arches": ["arm64"]}}, {"arch": "aarch64"}, True),
        ({"excludes": {"arches": ["amd64"]}}, {}, False),
        ({"includes": {"minKernel": "4.8"}}, {"kernel": "4.8.0-rc1"}, True),
        ({"includes": {"minKernel": "4.8"}}, {"kernel": "4.7.10"}, False),
        ({"includes": {"minKernel": "4.8"}}, {"kernel": "10.0"}, True),
        ({"excludes": {"minKernel": "4.8"}}, {"kernel": "4.8"}, False),
        ({"includes": {"minKernel": "4.8", "caps": ["CAP_BPF"]}}, {"kernel": "5.0"}, False),
        (
            {"excludes": {"minKernel": "4.8", "caps": ["CAP_BPF"]}},
            {"kernel": "4.0", "capabilities": ["BPF"]},
            False,
        ),
    ],
)
def test_entry_applies_as_its_conditions_say(
    condition: dict[str, Any], options: dict[str, Any], applies: bool
) -> None:
    answer = "allow" if applies else "errno EPERM"
    assert decide(written(entry("unshare") | condition), "unshare", **options) == answer


def test_of_two_entries_without_arguments_the_first_decides_and_a_note_says_so() -> None:
    text = written(entry("setns"), entry("read", "setns", action="SCMP_ACT_KILL"))
    assert decide(text, "setns") == "allow"
    assert decide(text, "read") == "kill_thread"
    assert profile(text).notes == (
        "p.json:1: 'setns' gets 'allow' by line 1, and so not 'kill_thread'",
    )


def test_what_has_no_effect_is_noted() -> None:
    text = """{
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64",
             "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/x",
        "syscalls": [{"action": "SCMP_ACT_KILL", "names": ["read",
            "raed", "socketcall", "vm86"]}]
    }"""
    found = profile(text)
    assert found.notes == (
        (
            "p.json:5: SCMP_ARCH_X86, SCMP_ARCH_X32: calls of a foreign architecture end the "
            "process, in every policy"
        ),
        "p.json:8: SECCOMP_FILTER_FLAG_LOG is not set: refused calls are not logged",
        "p.json:9: nobody listens: SCMP_ACT_NOTIFY is ENOSYS",
        "p.json:11: 'raed' is not a system call: did you mean 'read'?: it is left out",
    )
    assert [rule.names for rule in found.policy.rules] == [("read",)]
    assert profile(text, arch="aarch64").notes[0].startswith("p.json:6: SCMP_ARCH_ARM: ")


# --- What is wrong with them.


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "1: it is not JSON: a value is missing"),
        ("{\n", "2: it is not JSON: a name in quotes is missing"),
        ("[\n1 2]", "2: it is not JSON: ',' is missing"),
        ('{"a": 1,\n\n"a": 2}', "3: it is not JSON: 'a' is there twice"),
        ('{"a": 1} x', "1: it is not JSON: there is more after the end"),
        ('{"a":\nnope}', "2: it is not JSON: 'nope' is no value"),
        ('{"a": "x\n"}', "1: it is not JSON: Invalid control character at"),
        ("[" * 30, "1: it is not JSON: it is nested too deeply"),
        ("[1,]", "1: it is not JSON: a value is missing"),
        ("9" * 5000, "1: it is not JSON: '99999999999999999999' is no value"),
    ],
)
def test_text_that_is_not_json_is_refused_with_its_line(text: str, why: str) -> None:
    assert faults(text) == [f"p.json:{why}"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "a profile has to be an object"),
        (written(5), "an entry of 'syscalls' has to be an object"),
        ("{}", "'defaultAction' is missing"),
        (written(defaultAction=5), "'defaultAction': here has to be a string"),
        (
            written(defaultAction="SCMP_ACT_EERNO"),
            "'defaultAction': 'SCMP_ACT_EERNO' is unknown: did you mean 'SCMP_ACT_ERRNO'?",
        ),
        (
            written(defaultErrnoRet=4096),
            "'defaultErrnoRet' has to be a whole number from 0 to 4095",
        ),
        (
            written(defaultErrno="EPREM"),
            "'defaultErrno': 'EPREM' is unknown: did you mean 'EPERM'?",
        ),
        (
            written(defaultErrno="EPERM", defaultErrnoRet=2),
            "'defaultErrno' is EPERM, 'defaultErrnoRet' is 2: which?",
        ),
        (written(sysclals=[]), "a profile has no 'sysclals': did you mean 'syscalls'?"),
        (written(syscalls={}), "'syscalls' has to be a list"),
        (
            written(flags=["X"]),
            f"'flags': 'X' is unknown: one of {', '.join(oci._FLAGS)}",
        ),
        (
            written(architectures=[], archMap=[]),
            "both 'architectures' and 'archMap' are given: leave one out",
        ),
        (
            written(architectures=["SCMP_ARCH_X68"]),
            "'architectures': 'SCMP_ARCH_X68' is unknown: did you mean 'SCMP_ARCH_X86'?",
        ),
        (written(archMap=[5]), "an entry of 'archMap' has to be an object"),
        (written(entry()), "it names no system call"),
        (written({"names": ["read"]}), "'action' is missing"),
        (written({"action": "SCMP_ACT_LOG"}), "'names' is missing"),
        (
            written(entry("read", name="write")),
            "both 'name' and 'names' are given: leave one out",
        ),
        (
            written(entry("read", errnoRet=1)),
            "SCMP_ACT_ALLOW answers no errno: leave it out, or use SCMP_ACT_ERRNO",
        ),
        (
            written(entry("read", arg=[])),
            "an entry of 'syscalls' has no 'arg': did you mean 'args'?",
        ),
        (written(entry("read", args=[{}])), "'index' is missing|'op' is missing"),
        (
            written(entry("read", args=[argument(6, "EQ", 1)])),
            "'index' has to be a whole number from 0 to 5",
        ),
        (
            written(entry("read", args=[argument(0, "EQ", 2**64)])),
            "'value' has to be a whole number from 0 to 18446744073709551615",
        ),
        (
            written(entry("read", args=[argument(0, "EQ", True)])),
            "'value' has to be a whole number from 0 to 18446744073709551615",
        ),
        (
            written(entry("read", args=[argument(0, "EQUAL", 1)])),
            "'op': 'SCMP_CMP_EQUAL' is unknown: did you mean 'SCMP_CMP_EQ'?",
        ),
        (
            written(entry("read", args=[argument(0, "MASKED_EQ", 1, 2)])),
            "'valueTwo' 0x2 has bits outside of the mask 0x1",
        ),
        (written(entry("read", args=[argument(0, "LT", 0)])), "'arg0 < 0x0' never holds"),
        (written(entry("read", args=[argument(0, "GE", 0)])), "'arg0 >= 0x0' always holds"),
        (
            written(entry("read", includes={"caps": ["CAP_SYS_ADMINN"]})),
            "'caps': 'CAP_SYS_ADMINN' is unknown: did you mean 'CAP_SYS_ADMIN'?",
        ),
        (
            written(entry("read", excludes={"arches": ["amd46"]})),
            "'arches': 'amd46' is unknown: did you mean 'amd64'?",
        ),
        (
            written(entry("read", includes={"minKernel": "new"})),
            "'minKernel': 'new' is no version such as '4.8'",
        ),
        (written(entry("read", includes=[])), "'includes' has to be an object"),
        (
            written(entry("read", excludes={"cap": []})),
            "'excludes' has no 'cap': did you mean 'caps'?",
        ),
        (
            written(
                entry("read", args=[argument(0, "EQ", 1)]),
                entry("read", action="SCMP_ACT_KILL"),
            ),
            "'read' gets 'kill_thread' here and 'allow' by line 1, and both may hold: which?",
        ),
        (
            written(
                entry("read", args=[argument(0, "GT", 1)]),
                entry("read", action="SCMP_ACT_KILL", args=[argument(0, "LT", 5)]),
            ),
            "'read' gets 'kill_thread' here and 'allow' by line 1, and both may hold: which?",
        ),
    ],
)
def test_mistake_is_named_with_the_nearest_right_word(text: str, why: str) -> None:
    assert [fault.removeprefix("p.json:1: ") for fault in faults(text)] == why.split("|")


def test_entries_that_exclude_each_other_may_say_different_things() -> None:
    text = written(
        entry("read", args=[argument(0, "GT", 4)]),
        entry("read", action="SCMP_ACT_KILL", args=[argument(0, "LT", 5)]),
    )
    assert [decide(text, "read", one) for one in (4, 5)] == ["kill_thread", "allow"]


def test_all_faults_are_told_each_with_its_line() -> None:
    text = """{
        "defaultAction": "KILL",
        "syscalls": [
            {"names": ["read"],
             "action": "ALLOW", "args": [
                {"index": 9, "op": "SCMP_CMP_EQ"},
                5]},
            {"names": "read", "action": "SCMP_ACT_LOG",
             "includes": {"caps": ["SYS_ADMIN"]}}
        ]
    }"""
    assert [fault.removeprefix("p.json:") for fault in faults(text)] == [
        f"2: 'defaultAction': 'KILL' is unknown: one of {', '.join(oci._ACTIONS)}",
        f"5: 'action': 'ALLOW' is unknown: one of {', '.join(oci._ACTIONS)}",
        "6: 'index' has to be a whole number from 0 to 5",
        "7: an entry of 'args' has to be an object",
        "8: 'names' has to be a list",
        "8: it names no system call",
        "9: 'caps': 'SYS_ADMIN' is unknown: did you mean 'CAP_SYS_ADMIN'?",
    ]


# --- Whatever the text.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def plain(node: Node) -> object:
    if isinstance(node.value, dict):
        return {key: plain(one) for key, one in node.value.items()}
    if isinstance(node.value, list):
        return [plain(one) for one in node.value]
    return node.value


@given(value=json_values, indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans())
def test_json_is_read_as_the_standard_library_reads_it(
    value: object, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert plain(read(text)) == value


@given(text=st.text(alphabet='{}[]",:\\ \n0123456789.eE+-truefalsn\u00e9', max_size=40))
def test_text_is_json_or_malformed_as_for_the_standard_library(text: str) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
        with pytest.raises(Malformed):
            read(text)
    else:
        try:
            assert plain(read(text)) == value
        except Malformed as error:
            assert "is there twice" in str(error)  # noqa: PT017 - or it is read


words = st.sampled_from(
    [
        *oci._PROFILE,
        *oci._ENTRY,
        *oci._ARGUMENT,
        *oci._CONDITION,
        *oci._ACTIONS,
        *oci._OPS,
        *("read", "socket", "CAP_BPF", "amd64", "4.8", "EPERM", ""),
    ]
)
wild = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**65) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6),
    max_leaves=40,
)


@given(value=wild | st.dictionaries(words, wild, min_size=1))
def test_profile_of_any_shape_is_read_or_refused_line_by_line(value: object) -> None:
    text = json.dumps(value, indent=1)
    try:
        found = profile(text)
    except ConfigError as error:
        lines = range(1, text.count("\n") + 2)
        for fault in str(error).split("\n"):
            assert int(fault.split(":")[1]) in lines
    else:
        assert isinstance(found.policy.default, Action)


# --- libseccomp as the oracle: as crun gives it a profile's entries.

NAMES = ("read", "write", "socket", "clone")
numbers_ = st.sampled_from([0, 1, 5, 16, 2**31, 2**32 - 1, 2**32, 2**32 + 16, LAST])
# Of ordered comparisons in several rules of one call libseccomp 2.5.4 makes wrong filters.
comparisons = st.builds(
    argument, st.integers(0, 2), st.sampled_from(["EQ", "NE", "LE", "GT"]), numbers_
).filter(
    lambda one: (one["op"], one["value"]) not in {("SCMP_CMP_LE", LAST), ("SCMP_CMP_GT", LAST)}
)
entries = st.builds(
    entry,
    st.sampled_from(NAMES),
    action=st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_ERRNO"]),
    args=st.lists(comparisons, max_size=2, unique_by=lambda one: one["index"]),
)


def by_libseccomp(text: str) -> bytes:
    import pyseccomp

    loaded = json.loads(text)
    actions = {
        "SCMP_ACT_ALLOW": Verb.ALLOW.value,
        "SCMP_ACT_KILL": Verb.KILL_THREAD.value,
        "SCMP_ACT_ERRNO": Verb.ERRNO.value | 1,
    }
    made = pyseccomp.SyscallFilter(actions[loaded["defaultAction"]])
    for one in loaded["syscalls"]:
        if one["action"] == loaded["defaultAction"]:
            continue  # as crun does
        compared = [
            pyseccomp.Arg(arg["index"], getattr(pyseccomp, arg["op"][9:]), arg["value"])
            for arg in one["args"]
        ]
        made.add_rule(actions[one["action"]], one["names"][0], *compared)
    with os.fdopen(os.memfd_create("filter"), "w+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


@settings(max_examples=150, deadline=None)
@given(
    chosen=st.lists(entries, max_size=4, unique_by=lambda one: one["names"]),
    arguments=st.lists(st.tuples(numbers_, numbers_, numbers_), min_size=5, max_size=5),
)
def test_profile_decides_as_libseccomp_does(
    chosen: list[dict[str, Any]], arguments: list[tuple[int, ...]]
) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("x86_64")
    text = written(*chosen)
    numbers = syscalls.numbers("x86_64")
    mine = bpf.compile_rules(profile(text).policy, "x86_64", numbers)
    theirs = by_libseccomp(text)
    for name in NAMES:
        for given_ in arguments:
            answers = [
                evaluate.run(program, numbers[name], "x86_64", given_)
                for program in (mine, theirs)
            ]
            assert answers[0] == answers[1], (name, given_)
