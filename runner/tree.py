"""The host's own tree shown in a sandbox: its root entry by entry, its /etc with changes."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

from runner.config import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# A sandbox has its own of these.
NOT_SHOWN: Final = frozenset({"proc", "dev", "sys", "tmp", "mnt", "etc"})

_HOST_ETC: Final = ".host"
_MTAB: Final = "/proc/mounts"


def host_root(
    *, readonly: bool = True, hidden: Iterable[str] = NOT_SHOWN, root: str = "/"
) -> list[Mount]:
    """Show each entry of the host's root but the `hidden`: directories and files as binds.

    Symlinks are made anew. What appears in the host's root later is not there.
    """
    hidden = frozenset(hidden)
    return [
        entry
        for name in sorted(os.listdir(root))
        if name not in hidden
        for entry in _entry(os.path.join(root, name), f"/{name}", readonly=readonly)
    ]


def host_etc(files: Mapping[str, bytes], *, etc: str = "/etc") -> list[Mount]:
    """Show the host's /etc, but for `files`, by name, which are the sandbox's own.

    The host's is bound below, at /etc/.host, and each of its entries is a symlink into it, so
    that what the host replaces later is seen too. Its passwd and group are never linked: give
    them in `files`, or there are none.
    """
    own = {"passwd", "group", _HOST_ETC, *files}
    links = [name for name in sorted(os.listdir(etc)) if name not in own]
    return [
        Mount.directory("/etc"),
        Mount.bind(etc, f"/etc/{_HOST_ETC}"),
        *(Mount.symlink(_target(name), f"/etc/{name}") for name in links),
        *(Mount.file(f"/etc/{name}", content) for name, content in sorted(files.items())),
    ]


def _target(name: str) -> str:
    # A copy of the kernel's list in a file would be the host's.
    return _MTAB if name == "mtab" else f"{_HOST_ETC}/{name}"


def _entry(path: str, target: str, *, readonly: bool) -> Iterator[Mount]:
    with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            yield Mount.symlink(os.readlink(path), target)
        elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            yield Mount.bind(path, target, readonly=readonly, optional=True, follow=False)
