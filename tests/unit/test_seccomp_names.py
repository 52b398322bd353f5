"""The names of system calls that are reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.seccomp import syscalls
from runner.seccomp.__main__ import call_tables
from runner.seccomp.names import CALLS, ELSEWHERE, TABLES, describe

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028


@pytest.mark.parametrize(
    ("number", "arch", "expected"),
    [
        (101, X86_64, ("ptrace", "x86_64")),
        (0, X86_64, ("read", "x86_64")),
        (9999, X86_64, (None, "x86_64")),
        (-1, X86_64, (None, "x86_64")),
        (0x40000000, X86_64, ("read", "x32")),
        (0x40000000 + 520, X86_64, ("execve", "x32")),
        (0x7FFFFFFF, X86_64, (None, "x32")),
        (20, I386, ("getpid", "i386")),
        (102, I386, ("socketcall", "i386")),
        (117, AARCH64, ("ptrace", "aarch64")),
        (26, ARM, ("ptrace", "arm")),
        (1, 0xC000_0015, (None, "0xc0000015")),  # a machine that we have no table of
    ],
)
def test_call_is_named_by_the_table_of_its_architecture(
    number: int, arch: int, expected: tuple[str | None, str]
) -> None:
    assert describe(number, arch) == expected


def test_tables_are_those_that_would_be_written_now() -> None:
    tables = call_tables()
    assert sorted(tables) == sorted(os.listdir(CALLS))
    assert tables.keys() == {ELSEWHERE, *(f"{table}.txt" for table in TABLES)}
    for name, text in tables.items():
        assert Path(CALLS, name).read_text(encoding="ascii") == text


@pytest.mark.parametrize("arch", sorted(syscalls.AUDIT_ARCHS))
def test_every_call_that_a_policy_can_name_has_that_name(arch: str) -> None:
    for name, number in syscalls.numbers(arch).items():
        assert describe(number, syscalls.AUDIT_ARCHS[arch]) == (name, arch)
