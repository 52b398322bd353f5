"""Names and numbers of system calls, for each architecture that we compile for.

The one module that uses pyseccomp, and for its tables alone. What libseccomp resolves is
checked here, for it answers an unknown name with -1 and a name of another architecture with
some other negative number, neither of which is an error to it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Final

from runner.errors import ConfigError, HostError

# AUDIT_ARCH_*, <linux/audit.h>: what a filter finds in seccomp_data.arch.
AUDIT_ARCHS: Final[Mapping[str, int]] = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

# libseccomp 2.5 ends at 456; since 403 a new call has the same number on all architectures.
# Source: scripts/syscall.tbl of Linux 6.18.
_NEWER: Final[Mapping[str, int]] = {
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
_PAST_THE_LAST: Final = 600
_UNKNOWN: Final = -1  # __NR_SCMP_ERROR
_LIBSECCOMP_NAMES: Final = {"i386": "X86"}


def check_arch(arch: str) -> None:
    """Refuse an architecture that we have no tables for, with a ConfigError."""
    if arch not in AUDIT_ARCHS:
        raise ConfigError(f"arch: {arch!r} is not one of {', '.join(AUDIT_ARCHS)}")


@functools.cache
def numbers(arch: str) -> Mapping[str, int]:
    """Give the number of each system call that `arch` has.

    Raises HostError where pyseccomp or libseccomp is not installed.
    """
    try:
        import pyseccomp
    except ImportError as error:
        remedy = "pip install run-sandboxed[policy]; the stock policies do without"
        raise HostError("pyseccomp, to compile policies, is not installed", remedy) from error
    except RuntimeError as error:
        remedy = "apt-get install libseccomp2; the stock policies do without"
        raise HostError("libseccomp.so.2, which pyseccomp uses, is missing", remedy) from error
    found = dict(_NEWER)
    table = getattr(pyseccomp.Arch, _LIBSECCOMP_NAMES.get(arch, arch.upper()))
    for number in range(_PAST_THE_LAST):
        try:
            name = pyseccomp.resolve_syscall(table, number)
        except ValueError:
            continue  # no call has this number
        found[name.decode()] = number
    return found


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(name for arch in AUDIT_ARCHS for name in numbers(arch))


def is_known(name: str) -> bool:
    """Tell whether an architecture of ours has such a call."""
    return name in _known()


def is_of_others(name: str) -> bool:
    """Tell whether only architectures have it that are none of ours."""
    import pyseccomp

    if name in _known() or not (name.isascii() and name.isidentifier()):
        return False
    number: int = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name)
    return number != _UNKNOWN


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
