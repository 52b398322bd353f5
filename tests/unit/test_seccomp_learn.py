"""The policy that is learned from counts of calls."""

from __future__ import annotations

import platform

import pytest

from runner.errors import ConfigError
from runner.seccomp import compile_policy, evaluate, files, learn, start, syscalls
from runner.seccomp.learn import Learned
from runner.seccomp.parse import parse_policy

ARCH = platform.machine()
NUMBERS = syscalls.numbers(ARCH)
ENDINGS = "allow exit\nallow exit_group\nallow rt_sigreturn\nallow restart_syscall\n"
HEAD = """\
# What programs were seen to call within the policy base, in 3 runs.
# The number is how often. Another run is added to it: changes made by hand get lost,
# so include it where you want more.

default errno ENOSYS

"""
BASE = parse_policy(
    """
default kill
errno EPERM socket if int0 == 16
allow socket if arg1 & 0xff == 1
allow read write exit exit_group rt_sigreturn restart_syscall execve
kill execveat if arg5 != START
log execveat
""",
    name="base",
    sources={},
)


def test_calls_are_written_by_how_often_as_the_base_decides_them() -> None:
    calls = {"write": 7, "socket": 12, "execve": 1, "read": 7, "getpid": 2}
    assert (
        learn.write(Learned("base", 3, calls), BASE)
        == HEAD
        + (
            "errno EPERM socket if int0 == 0x10      # 12\n"
            "allow socket if arg1 & 0xff == 0x1\n"
            "kill socket\n"
            "allow read                              # 7\n"
            "allow write                             # 7\n"
            "kill getpid                             # 2\n"
            "allow execve                            # 1\n"
        )
        + ENDINGS
    )


def test_program_that_starts_no_other_may_only_be_started_itself() -> None:
    text = learn.write(Learned("base", 3, {"exit_group": 3}), BASE)
    assert text == HEAD + (
        "allow exit_group                        # 3\n"
        "allow execve execveat if arg5 == START # its own start alone\n"
        "allow exit\nallow rt_sigreturn\nallow restart_syscall\n"
    )


def test_condition_on_start_is_written_by_its_name() -> None:
    text = learn.write(Learned("base", 3, {"execveat": 4}), BASE)
    assert "kill execveat if arg5 != START          # 4\nlog execveat\n" in text


def test_learned_is_read_again_as_it_was_written() -> None:
    calls = {"socket": 12, "execveat": 4, "read": 1, "getpid": 2}
    learned = Learned("base", 3, calls)
    assert learn.read(learn.write(learned, BASE), "f") == learned


def test_learned_together_is_the_sum() -> None:
    one, other = Learned("base", 2, {"read": 1, "write": 2}), Learned("base", 1, {"read": 5})
    assert one + other == Learned("base", 3, {"read": 6, "write": 2})


@pytest.mark.parametrize("text", ["", "default allow\n", "# What programs were seen to call"])
def test_text_that_was_not_learned_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        learn.read(text, "./f")
    message = "./f: it was not learned: name a new file, it would be overwritten"
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["default", "strict", "python"])
def test_learned_policy_decides_its_calls_as_the_stock_policy_does(name: str) -> None:
    base = files.read(name, ARCH)
    names = sorted(NUMBERS)[::3]
    text = learn.write(Learned(name, 1, dict.fromkeys(names, 1)), base)
    learned = compile_policy(text, name="learned", arch=ARCH)
    whole = files.compile_anew(name, ARCH)
    for number, arguments in (
        (NUMBERS[call], arguments)
        for call in names
        for arguments in (
            (),
            (1, 1, 1, 1, 1, 1),
            (16, 0x5412),
            (0x7E020000,),
            (0,) * 5 + (start.START,),
        )
    ):
        answer = evaluate.run(learned, number, ARCH, arguments)
        assert answer == evaluate.run(whole, number, ARCH, arguments), (number, arguments)
    unnamed = next(call for call in sorted(NUMBERS) if call not in {*names, *learn._ENDINGS})
    assert str(evaluate.run(learned, NUMBERS[unnamed], ARCH)) == "errno ENOSYS"
