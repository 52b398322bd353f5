"""From `Landlock` to the kernel's access masks, for the Landlock that it has.

Pure. The rights and the ABI with which each came are <linux/landlock.h>'s and landlock(7)'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.errors import HostError
from runner.quick import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.config import Landlock

# Rights to files, by the ABI that they came with.
_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ: Final = 1 << 2 | 1 << 3  # files, directories
_CHANGE_DIRECTORY: Final = sum(1 << bit for bit in range(4, 13))  # remove and make entries
_REFER: Final = 1 << 13  # link and rename between directories
_TRUNCATE: Final = 1 << 14
_IOCTL_DEVICE: Final = 1 << 15
_RIGHTS_OF_ABI: Final = (
    (1, _EXECUTE | _WRITE_FILE | _READ | _CHANGE_DIRECTORY),
    (2, _REFER),
    (3, _TRUNCATE),
    (5, _IOCTL_DEVICE),
)
_GRANTS: Final = {
    "read": _READ,
    "write": _WRITE_FILE | _CHANGE_DIRECTORY | _REFER | _TRUNCATE | _IOCTL_DEVICE,
    "execute": _EXECUTE,
}
_PORTS: Final = {"bind": 1 << 0, "connect": 1 << 1}
_SCOPES: Final = {"abstract_unix_socket": 1 << 0, "signal": 1 << 1}

_FILES_ABI: Final = 3  # before it, a file that may not be written could still be truncated
_PORTS_ABI: Final = 4
_SCOPES_ABI: Final = 6
_KERNELS: Final = {_FILES_ABI: "6.2", _PORTS_ABI: "6.7", _SCOPES_ABI: "6.12"}


class Ruleset(NamedTuple):
    """What the kernel is told: masks of what is held, and of what is granted after all.

    `paths` are (position in its field's list, path, rights), `ports` (port, rights).
    """

    files: int
    ports_held: int
    scopes: int
    paths: tuple[tuple[int, str, int], ...]
    ports: tuple[tuple[int, int], ...]

    @property
    def empty(self) -> bool:
        """Tell whether the kernel could hold nothing of what was asked for."""
        return not (self.files or self.ports_held or self.scopes)


def ruleset(wanted: Landlock, abi: int) -> Ruleset:
    """Give the ruleset for a kernel's ABI, 0 for none. Raises HostError for what it has not."""
    if not wanted.best_effort:
        _require(wanted, abi)
    rights = sum(mask for since, mask in _RIGHTS_OF_ABI if abi >= since)
    files = rights if wanted.restricts_files else 0
    held = 0
    if abi >= _PORTS_ABI:
        held = sum(bit for name, bit in _PORTS.items() if getattr(wanted, name) is not None)
    scopes = sum(_SCOPES[name] for name in set(wanted.scopes)) if abi >= _SCOPES_ABI else 0
    paths = tuple(
        (number, path, grant & files)
        for name, grant in _GRANTS.items()
        for number, path in enumerate(getattr(wanted, name) or ())
        if files
    )
    ports = tuple(
        (port, bit)
        for name, bit in _PORTS.items()
        for port in sorted(set(getattr(wanted, name) or ()))
        if bit & held
    )
    return Ruleset(files, held, scopes, paths, ports)


def _require(wanted: Landlock, abi: int) -> None:
    needs: Iterable[tuple[str, bool, int]] = (
        ("files", wanted.restricts_files, _FILES_ABI),
        ("TCP ports", wanted.restricts_ports, _PORTS_ABI),
        ("scopes", bool(wanted.scopes), _SCOPES_ABI),
    )
    for what, asked, least in needs:
        if asked and abi < least:
            has = f"this kernel has ABI {abi}" if abi else "this kernel has none, or it is off"
            missing = f"Landlock's ABI {least} for rules on {what}: {has}"
            remedy = f"boot Linux {_KERNELS[least]} with landlock in lsm=, or best_effort=True"
            raise HostError(missing, remedy)
