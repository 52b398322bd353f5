"""The tables of names and numbers, as libseccomp has them; to write those that are shipped.

The one module that uses pyseccomp, and it alone: what compiles policies reads the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import pyseccomp

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
_LIBSECCOMP_NAMES: Final = {"i386": "X86"}
# Numbers: of most architectures; of the three ABIs of MIPS; arm's own.
_ORDINARY: Final = range(600)
_ALL: Final = (
    *_ORDINARY,
    *(number + first for first in (4000, 5000, 6000) for number in _ORDINARY),
    *range(983_041, 983_050),
)


def numbers(arch: str) -> Mapping[str, int]:
    """Give the number of each system call that `arch` has."""
    table = getattr(pyseccomp.Arch, _LIBSECCOMP_NAMES.get(arch, arch.upper()))
    return dict(_NEWER) | dict(_calls(table, _ORDINARY))


def all_names() -> frozenset[str]:
    """Give the names of all calls of all architectures."""
    tables = [getattr(pyseccomp.Arch, name) for name in dir(pyseccomp.Arch) if name.isupper()]
    return frozenset(name for table in tables for name, _ in _calls(table, _ALL))


def _calls(table: int, numbers: Iterable[int]) -> Iterator[tuple[str, int]]:
    for number in numbers:
        name = _name(table, number)
        if name is not None:
            yield name, number


def _name(table: int, number: int) -> str | None:
    try:
        found: bytes = pyseccomp.resolve_syscall(table, number)
    except ValueError:  # no call has this number
        return None
    return found.decode()
