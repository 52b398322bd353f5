"""Names and numbers of system calls, for each architecture that we compile for.

Read from the tables in `calls/`, which `python -m runner.seccomp` writes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from typing import Final

from runner.errors import ConfigError
from runner.seccomp.names import CALLS, ELSEWHERE

# AUDIT_ARCH_*, <linux/audit.h>: what a filter finds in seccomp_data.arch.
AUDIT_ARCHS: Final[Mapping[str, int]] = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}


def check_arch(arch: str) -> None:
    """Refuse an architecture that we have no tables for, with a ConfigError."""
    if arch not in AUDIT_ARCHS:
        raise ConfigError(f"arch: {arch!r} is not one of {', '.join(AUDIT_ARCHS)}")


@functools.cache
def numbers(arch: str) -> Mapping[str, int]:
    """Give the number of each system call that `arch` has."""
    with open(os.path.join(CALLS, f"{arch}.txt"), encoding="ascii") as file:
        pairs = (line.split() for line in file)
        return {name: int(number) for number, name in pairs}


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(name for arch in AUDIT_ARCHS for name in numbers(arch))


def is_known(name: str) -> bool:
    """Tell whether an architecture of ours has such a call."""
    return name in _known()


def is_of_others(name: str) -> bool:
    """Tell whether only architectures have it that are none of ours."""
    with open(os.path.join(CALLS, ELSEWHERE), encoding="ascii") as file:
        return name in file.read().split("\n")


def fault(name: str) -> str | None:
    """Say what is wrong with a name that no architecture of ours has, or None."""
    if name in _known():
        return None
    if is_of_others(name):
        return f"{name!r} is a system call of neither {' nor '.join(AUDIT_ARCHS)}: remove it"
    return f"{name!r} is not a system call{nearest(name, _known())}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Give `: did you mean 'openat'?` for the word most like it, or nothing."""
    import difflib

    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f": did you mean {close[0]!r}?" if close else ""
