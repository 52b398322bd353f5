"""Policy text: what it means, and what is said of each mistake in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ConfigError
from runner.seccomp import compile_policy, files, syscalls
from runner.seccomp.evaluate import run
from runner.seccomp.parse import parse_policy
from runner.seccomp.rules import Action, Comparison, Op, Policy, Verb

ALL = 2**64 - 1
LOW = 2**32 - 1


def parse(text: str, **sources: str) -> Policy:
    return parse_policy(text, name="test", sources=sources)


def faults(text: str, **sources: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text, **sources)
    return str(raised.value).split("\n")


def only_fault(line: str) -> str:
    (fault,) = faults(f"default allow\n{line}")
    return fault.removeprefix("test:2: ")


def when(condition: str) -> tuple[Comparison, ...]:
    (rule,) = parse(f"default allow\nkill read if {condition}").rules
    return rule.when


def test_policy_with_names_reasons_and_comparisons_reads_as_rules() -> None:
    policy = parse(
        "# why\n\ndefault errno ENOSYS  # newer calls\nallow read write # both\n"
        "errno EPERM clone if arg0 & 0x7e020000 != 0 and int1 == 3\n"
    )
    assert policy.default == Action(Verb.ERRNO, 38)
    assert [(rule.line, rule.action, rule.names, rule.when) for rule in policy.rules] == [
        (4, Action(Verb.ALLOW), ("read", "write"), ()),
        (
            5,
            Action(Verb.ERRNO, 1),
            ("clone",),
            (Comparison(0, 0x7E020000, Op.NE, 0), Comparison(1, LOW, Op.EQ, 3)),
        ),
    ]


@pytest.mark.parametrize(
    ("condition", "comparison"),
    [
        ("arg5 >= 0x1_0000_0000", Comparison(5, ALL, Op.GE, 2**32)),
        ("arg0 == -1", Comparison(0, ALL, Op.EQ, ALL)),
        ("int0 == -1", Comparison(0, LOW, Op.EQ, LOW)),
        ("int0 & ~0x40000 == 0", Comparison(0, 0xFFFB_FFFF, Op.EQ, 0)),
        ("arg0&3|8==1|2", Comparison(0, 11, Op.EQ, 3)),
    ],
)
def test_comparison_reads_as(condition: str, comparison: Comparison) -> None:
    assert when(condition) == (comparison,)


def test_defined_names_stand_for_their_values() -> None:
    (rule,) = parse("default allow\ndefine A 1\ndefine B A|4\nkill read if int0 & B == A").rules
    assert rule.when == (Comparison(0, 5, Op.EQ, 1),)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("allow raed", "'raed' is not a system call: did you mean 'read'?"),
        (
            "allow raed openatt",
            (
                "'raed' is not a system call: did you mean 'read'?; "
                "'openatt' is not a system call: did you mean 'openat'?"
            ),
        ),
        (
            "allow socketcall",
            "'socketcall' is a system call of neither x86_64 nor aarch64: remove it",
        ),
        ("allow read\0x", "'read\\x00x' is not a system call: did you mean 'read'?"),
        ("allow", "'allow' names no system call"),
        ("errno EPERM", "'errno EPERM' names no system call"),
        ("alow read", "'alow' is not an action: did you mean 'allow'?"),
        ("errno", "'errno' needs a name, such as EPERM"),
        ("errno EPREM mount", "'EPREM' is not an errno: did you mean 'EPERM'?"),
        ("errno 4096 mount", "4096 is not an errno: they end at 4095"),
        ("trace 65536 read", "65536 does not fit: 'trace' takes 0 to 65535"),
        ("default kill", "a second 'default': a policy has one"),
        ("default", "a second 'default': a policy has one"),
        ("define", "write 'define NAME VALUE'"),
        ("define A", "write 'define NAME VALUE'"),
        ("define 1A 2", "'1A' is not a name: letters, digits and _, no digit first"),
        ("define A two", "'two' is neither a number nor a defined name"),
        ("on", "write 'on ARCHITECTURE ACTION NAME'"),
        ("on arm allow read", "'arm' is not an architecture; known: x86_64, aarch64"),
        (
            "on x86_64",
            (
                "an action is missing: one of kill, kill_thread, trap, errno, notify, trace, "
                "log, allow"
            ),
        ),
        ("on x86_64 allow raed", "'raed' is not a system call: did you mean 'read'?"),
        ("include", "write 'include NAME'"),
        ("include other", "there is no policy 'other' to include; known: none"),
        (
            "kill read if arg0 = 1",
            (
                "'arg0 = 1' is not a comparison: write arg0 == 1, int1 != 2 or "
                "arg2 & 0x10 == 0, with 'and' between two"
            ),
        ),
        ("kill read if int0 == 0x100000000", "0x100000000 does not fit in 32 bits"),
        (
            "kill read if arg0 == 0x10000000000000000",
            "0x10000000000000000 does not fit in 64 bits",
        ),
        ("kill read if int0 == -0x80000001", "-0x80000001 does not fit in 32 bits"),
        ("kill read if int0 == AF_UNIX", "'AF_UNIX' is neither a number nor a defined name"),
        ("kill read if arg0 & 4 == 2", "'arg0 & 4 == 2': 2 has bits outside of the mask"),
        (
            "kill execve if arg5 > START",
            "'arg5 > START': START is a secret: compare it by == or != alone",
        ),
        ("kill read if arg0 < 0", "'arg0 < 0' never holds"),
        ("kill read if int0 > 0xffffffff", "'int0 > 0xffffffff' never holds"),
        ("kill read if arg0 >= 0", "'arg0 >= 0' always holds"),
        ("kill read if arg0 & 7 < 8", "'arg0 & 7 < 8' always holds"),
        ("kill read if arg0 & 0 == 0", "'arg0 & 0 == 0' always holds"),
    ],
)
def test_mistake_in_a_line_is_named_with_its_place_and_the_remedy(
    line: str, fault: str
) -> None:
    assert only_fault(line) == fault


@pytest.mark.parametrize(
    "condition", ["", "arg6 == 1", "arg0 ==", "arg0 == 1 or arg1 == 2", "x"]
)
def test_text_that_is_no_comparison_is_shown(condition: str) -> None:
    assert only_fault(f"kill read if {condition}").startswith(
        f"'{condition}' is not a comparison"
    )


def test_misspelt_constant_is_named_with_the_nearest() -> None:
    assert faults("default allow\ndefine AF_UNIX 1\nkill socket if int0 == AF_UNXI") == [
        "test:3: 'AF_UNXI' is neither a number nor a defined name: did you mean 'AF_UNIX'?"
    ]


def test_constant_defined_twice_is_refused() -> None:
    assert faults("default allow\ndefine A 1\ndefine A 1") == ["test:3: 'A' is defined twice"]


def test_all_faults_are_reported_at_once() -> None:
    assert faults("allow raed\nerrno EPREM mount\nallow read\nkill read") == [
        "test:1: 'raed' is not a system call: did you mean 'read'?",
        "test:2: 'EPREM' is not an errno: did you mean 'EPERM'?",
        "test:4: can never apply to 'read': line 3 already decides it",
        (
            "test: no 'default' line: say what a call that is not named gets, such as "
            "'default errno ENOSYS'"
        ),
    ]


def test_default_with_words_after_its_action_is_refused() -> None:
    assert faults("default errno ENOSYS read")[0] == (
        "test:1: 'read' is too much after 'default' and an action"
    )


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["allow read", "errno EPERM read if arg0 == 1"], "line 2 already decides it"),
        (["allow read", "errno EPERM read"], "line 2 already decides it"),
        (["kill read if arg0 > 5", "allow read if arg0 > 10"], "line 2 already decides it"),
        (["kill read if int0 == 5", "allow read if arg0 == 5"], "line 2 already decides it"),
        (
            ["kill read if arg0 > 5", "allow read if arg0 > 10 and arg1 == 1"],
            "line 2 already decides it",
        ),
        (
            ["kill read if arg0 < 5", "log read if arg0 >= 5", "allow read"],
            "the lines before it already decide every case",
        ),
        (
            ["kill read if arg0 < 5", "log read if arg0 > 5", "allow read if arg0 != 5"],
            "the lines before it already decide every case",
        ),
        (
            ["kill read if arg0 < 5 and arg0 > 7"],
            "its comparisons can never hold together",
        ),
    ],
)
def test_rule_that_can_never_apply_is_an_error(lines: list[str], why: str) -> None:
    last = len(lines) + 1
    text = "\n".join(["default allow", *lines])
    assert faults(text) == [f"test:{last}: can never apply to 'read': {why}"]


@pytest.mark.parametrize(
    "lines",
    [
        ["kill read if arg0 == 5", "allow read"],
        ["kill read if arg0 > 10", "allow read if arg0 > 5"],
        ["kill read if arg0 == 5", "allow read if int0 == 5"],
        ["kill read if arg0 == 5 and arg1 == 1", "allow read if arg0 == 5"],
        ["kill read if arg0 < 5", "log read if arg0 > 5", "allow read"],
        ["kill read if arg0 < 5", "log read if arg1 >= 5", "allow read"],
        ["kill read if arg0 < 5", "log read if arg0 >= 5 and arg1 == 1", "allow read"],
    ],
)
def test_rule_that_can_apply_is_kept(lines: list[str]) -> None:
    assert len(parse("\n".join(["default allow", *lines])).rules) == len(lines)


@pytest.mark.parametrize("first", ["<= 5", ">= 5", "< 6", "> 4", "!= 4", "== 5"])
def test_comparison_that_takes_in_a_value_leaves_it_to_no_later_line(first: str) -> None:
    assert faults(f"default allow\nkill read if arg0 {first}\nlog read if arg0 == 5") == [
        "test:3: can never apply to 'read': line 2 already decides it"
    ]


@pytest.mark.parametrize("first", ["<= 4", ">= 6", "< 5", "> 5", "!= 5", "== 4"])
def test_comparison_that_leaves_out_a_value_leaves_it_to_a_later_line(first: str) -> None:
    text = f"default allow\nkill read if arg0 {first}\nlog read if arg0 == 5"
    assert len(parse(text).rules) == 2


def test_name_given_twice_in_a_line_is_an_error() -> None:
    assert faults("default allow\nkill read read") == [
        "test:2: can never apply to 'read': line 2 already decides it"
    ]


# --- Architectures.


def test_line_on_one_architecture_is_for_that_alone() -> None:
    text = "default allow\non x86_64 errno EPERM read if int0 == 1\non aarch64 kill read"
    policy = parse(text)
    assert [str(rule) for rule in policy.on("x86_64").rules] == [
        "on x86_64 errno EPERM read if int0 == 0x1"
    ]
    assert [str(rule) for rule in policy.on("aarch64").rules] == ["on aarch64 kill read"]
    filters = {
        arch: compile_policy(text, name="test", arch=arch) for arch in syscalls.AUDIT_ARCHS
    }
    numbers = {arch: syscalls.numbers(arch)["read"] for arch in filters}
    answers = [str(run(filters[arch], numbers[arch], arch, (1,))) for arch in filters]
    assert answers == ["errno EPERM", "kill"]


def test_line_that_one_architecture_still_reaches_is_kept() -> None:
    assert len(parse("default allow\non x86_64 kill read\nerrno EPERM read").rules) == 2


@pytest.mark.parametrize(
    "lines",
    [
        "kill read\non x86_64 errno EPERM read",
        "on x86_64 kill read\non x86_64 errno EPERM read",
    ],
)
def test_line_that_no_architecture_reaches_is_an_error(lines: str) -> None:
    assert faults(f"default allow\n{lines}") == [
        "test:3: can never apply to 'read': line 2 already decides it"
    ]


def test_line_that_all_architectures_decide_before_is_an_error() -> None:
    lines = "on x86_64 kill read\non aarch64 kill read\nerrno EPERM read"
    assert faults(f"default allow\n{lines}") == [
        "test:4: can never apply to 'read': line 2 already decides it"
    ]


# --- Includes.


def test_include_brings_rules_in_its_place_and_a_default() -> None:
    policy = parse("allow read\ninclude base\nallow open", base="default kill\nallow write")
    assert policy.default == Action(Verb.KILL)
    assert [rule.place for rule in policy.rules] == ["test:1", "base:2", "test:3"]


def test_including_policy_overrides_rules_and_default_of_the_included() -> None:
    policy = parse(
        "default allow\nkill mount\ninclude base",
        base="default kill\nerrno EPERM mount umount2",
    )
    assert policy.default == Action(Verb.ALLOW)
    assert policy.rules[0].action == Action(Verb.KILL)


def test_rule_after_an_include_that_decides_the_call_is_an_error() -> None:
    assert faults("include base\nkill mount", base="default allow\nerrno EPERM mount") == [
        "test:2: can never apply to 'mount': line base:2 already decides it"
    ]


def test_two_included_policies_may_say_the_same() -> None:
    policy = parse("include a\ninclude b", a="default kill\nallow read", b="allow read")
    assert len(policy.rules) == 2


@pytest.mark.parametrize(
    ("first", "second"), [("allow", "errno EPERM"), ("errno EPERM", "kill"), ("log", "trap")]
)
def test_included_policy_that_closes_what_one_before_it_opens_is_an_error(
    first: str, second: str
) -> None:
    opens, closes = f"{first} read write", f"{second} read if int0 == 1\n{second} mount"
    assert faults("default allow\ninclude a\ninclude b", a=opens, b=closes) == [
        "b:1: can never apply to 'read': line a:1 already decides it"
    ]
    assert len(parse("default allow\ninclude b\ninclude a", a=opens, b=closes).rules) == 3
    text = f"default allow\n{first} read\ninclude b"  # what is written before an include
    assert len(parse(text, b=closes).rules) == 3


def test_presets_after_what_they_should_close_are_an_error() -> None:
    texts = files.stock_texts()
    found = faults("include default\ninclude no-exec", **texts)
    assert found == [
        f"no-exec:3: can never apply to {name!r}: line allow-processes:4 already decides it"
        for name in ("execve", "execveat")
    ]


def test_included_policies_that_differ_in_their_default_are_refused() -> None:
    assert faults("include a\ninclude b", a="default kill", b="default allow") == [
        "test: the policies that it includes differ in their 'default': write its own"
    ]


def test_fault_in_an_included_policy_has_its_place() -> None:
    assert faults("default allow\ninclude base", base="\nallow raed") == [
        "base:2: 'raed' is not a system call: did you mean 'read'?"
    ]


def test_include_of_an_unknown_policy_names_the_nearest_or_the_known() -> None:
    assert faults("default allow\ninclude bsae\ninclude x", base="", more="") == [
        "test:2: there is no policy 'bsae' to include: did you mean 'base'?",
        "test:3: there is no policy 'x' to include; known: base, more",
    ]


def test_policy_that_includes_itself_is_refused() -> None:
    assert faults("default allow\ninclude a", a="include b", b="include a") == [
        "b:1: 'a' includes itself"
    ]


def test_constants_of_an_included_policy_stay_there() -> None:
    (fault,) = faults("default allow\ninclude a\nkill read if int0 == A", a="define A 1")
    assert fault == "test:3: 'A' is neither a number nor a defined name"


# --- Whatever the text.

WORDS = [
    "default",
    "allow",
    "errno",
    "EPERM",
    "read",
    "mount",
    "if",
    "and",
    "arg0",
    "int1",
    "==",
]
WORDS += [
    "&",
    "|",
    "~1",
    "-1",
    "0x10",
    "!=",
    "define",
    "A",
    "include",
    "#",
    "\n",
    "\r",
    "\0",
    "é",
]


@given(text=st.lists(st.sampled_from(WORDS)).map(" ".join) | st.text())
def test_any_text_compiles_or_is_refused_with_its_lines(text: str) -> None:
    try:
        program = compile_policy(text, name="any", arch="x86_64")
    except ConfigError as error:
        assert all(line.startswith("any:") for line in str(error).split("\n"))  # noqa: PT017
    else:
        assert len(program) % 8 == 0


@given(data=st.data())
def test_stock_policy_with_a_mistake_in_it_compiles_or_is_refused_with_its_lines(
    data: st.DataObject,
) -> None:
    sources = files.stock_texts()
    name = data.draw(st.sampled_from(sorted(sources)))
    text = sources[name]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 8))
        new = data.draw(st.sampled_from(WORDS) | st.text(max_size=3))
        text = text[:at] + new + text[at + cut :]
    try:
        compile_policy(text, name=name, arch="x86_64", sources=sources)
    except ConfigError as error:
        for fault in str(error).split("\n"):
            assert fault.partition(":")[0] in sources


def test_includes_that_double_at_each_level_are_refused() -> None:
    sources = {f"p{n}": f"include p{n + 1}\ninclude p{n + 1}" for n in range(40)}
    found = faults("default allow\ninclude p0", **sources, p40="allow read")
    assert found[0].endswith("there are more than 200 includes")


def test_all_faults_of_one_line_are_told() -> None:
    assert only_fault("kill raed wirte if int9 == 1 and arg0 == X") == (
        "'raed' is not a system call: did you mean 'read'?; "
        "'wirte' is not a system call: did you mean 'write'?; "
        "'int9 == 1' is not a comparison: write arg0 == 1, int1 != 2 or arg2 & 0x10 == 0, with "
        "'and' between two; 'X' is neither a number nor a defined name"
    )


def test_fault_of_a_policy_that_is_included_twice_is_told_once() -> None:
    assert faults("default allow\ninclude a\ninclude a", a="kill raed") == [
        "a:1: 'raed' is not a system call: did you mean 'read'?"
    ]


# --- Architectures and libraries.


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(ConfigError, match="'arm' is not one of x86_64, aarch64"):
        compile_policy("default allow", name="test", arch="arm")


def test_newest_calls_are_known_by_number() -> None:
    for arch in syscalls.AUDIT_ARCHS:
        assert syscalls.numbers(arch)["mseal"] == 462
        assert syscalls.numbers(arch)["file_setattr"] == 469
    assert syscalls.numbers("x86_64")["openat"] == 257
    assert syscalls.numbers("aarch64")["openat"] == 56


def test_policies_are_loaded_and_compiled_without_libseccomp(tmp_path: Path) -> None:
    (tmp_path / "mine.policy").write_text("kill getpid\ninclude default")
    code = (
        "import sys; from runner.seccomp import load; load('default'); "
        "print('runner.seccomp.parse' in sys.modules); load(sys.argv[1]); "
        "print('pyseccomp' in sys.modules, 'ctypes' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "mine.policy")]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False\nFalse False\n"


def test_compiling_a_directory_with_a_faulty_policy_says_so_and_writes_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "bad.policy").write_text("default allow\nallow raed\n")
    command = [sys.executable, "-m", "runner.seccomp", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "bad:2: 'raed' is not a system call: did you mean 'read'?\n"
    assert done.stdout == ""
