"""Put files into a sandbox and take them out, between runs, through its keeper.

The keeper opens each file, in the sandbox's namespaces and with its ids (native/files.c). What
goes in is written by it, so that no page of it is charged to the program, and that nobody of
ours holds the file open for writing when it is executed. What comes out is read here, from an
fd of what is known to be a regular file, and never more of it than was asked for; or the kernel
copies it from there into an artefact.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from runner.config.checks import refuse
from runner.config.files import FileIn, LinkIn
from runner.errors import ChildError, ErrorLocation
from runner.memfd import memfd_of
from runner.plan import files as steps_of
from runner.result import FileState, OutFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.config import Credential
    from runner.config.files import FileOut
    from runner.helper import Keeper
    from runner.plan import Step

# What a request carries: fds of sources, and bytes of small files in the plan itself.
_BATCH_FILES: Final = 100
_BATCH_BYTES: Final = 32 * 1024
_INLINE_BYTES: Final = 8 * 1024
_READ_BYTES: Final = 1 << 20

_MISSING: Final = (errno.ENOENT, errno.ENOTDIR)
# The program's doing too, each with what it is.
_REFUSED: Final = {
    errno.ELOOP: "a directory of its path is a symbolic link",
    errno.EXDEV: "it is on another file system",
    errno.EACCES: "the sandbox's own ids may not read it",
    errno.EPERM: "the sandbox's own ids may not read it",
    # By whom it is shared with: nobody else is alive in the sandbox.
    errno.EAGAIN: "somebody holds a lease on it",
    errno.ESTALE: "somebody has replaced it meanwhile",
}
_TYPES: Final = {
    stat.S_IFLNK: "it is a symbolic link",
    stat.S_IFDIR: "it is a directory",
    stat.S_IFIFO: "it is a fifo",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}


def put(
    keeper: Keeper,
    base: str,
    files: Sequence[tuple[str, FileIn | LinkIn | None]],
    owner: Credential,
    *,
    before: Sequence[Step],
) -> None:
    """Put files in, in their order; ConfigError or ChildError says which could not be.

    `before` are steps that come first. Where it fails nothing stays.
    """
    try:
        if before:
            keeper.files(before)
        _put(keeper, base, files, owner)
    except BaseException:
        keeper.send_clean()
        raise


def _put(
    keeper: Keeper,
    base: str,
    files: Sequence[tuple[str, FileIn | LinkIn | None]],
    owner: Credential,
) -> None:
    left = list(enumerate(files))
    while left:
        with contextlib.ExitStack() as opened:
            fds: list[int] = []
            steps = [steps_of.file_owner(owner)]
            while left and len(steps) <= _BATCH_FILES and _size(steps) < _BATCH_BYTES:
                item, (name, what) = left.pop(0)
                if isinstance(what, FileIn):
                    source = _source(name, what, opened, fds)
                    step = steps_of.file_in(base, name, item, source, mode=what.mode)
                elif isinstance(what, LinkIn):
                    step = steps_of.file_link(base, name, item, what.target)
                else:
                    step = steps_of.file_remove(base, name, item)
                steps.append(step)
            keeper.files(steps, fds)


def take(
    keeper: Keeper, base: str, wanted: Sequence[FileOut], owner: Credential
) -> dict[str, OutFile]:
    """Take files out; what the program has left in their place is data, not an error."""
    owned = steps_of.file_owner(owner)
    return {
        one.name: _take(keeper, [owned, steps_of.file_out(base, one.name, index)], one)
        for index, one in enumerate(wanted)
    }


def _size(steps: Sequence[Step]) -> int:
    return sum(len(step.data) for step in steps)


def _source(
    name: str, what: FileIn, opened: contextlib.ExitStack, fds: list[int]
) -> int | bytes:
    """Give the content where it is small, else its place among the frame's fds."""
    if isinstance(what.source, bytes) and len(what.source) <= _INLINE_BYTES:
        return what.source
    fds.append(_open(name, what, opened))
    return len(fds) - 1


def _open(name: str, what: FileIn, opened: contextlib.ExitStack) -> int:
    """Give an fd of the content; `opened` closes what is not the caller's."""
    source = what.source
    if isinstance(source, int):
        fd = source
    elif isinstance(source, bytes):
        fd = memfd_of("file", source)
        opened.callback(os.close, fd)
    elif isinstance(source, os.PathLike):
        try:
            # O_NONBLOCK: a fifo without a writer opens at once, and is then refused.
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            refuse("files_in", name, f"{os.fspath(source)}: {error.strerror}")
        opened.callback(os.close, fd)
    else:
        fd = source.fileno()
    try:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError as error:
        refuse("files_in", name, f"fd {fd}: {error.strerror}")
    if not regular:
        refuse("files_in", name, "its source is no regular file")
    return fd


def _take(keeper: Keeper, steps: Sequence[Step], wanted: FileOut) -> OutFile:
    try:
        fd = keeper.files(steps)
    except ChildError as error:
        return _not_taken(wanted, error)
    try:
        status = os.fstat(fd)
        content, artefact = b"", None
        if wanted.store is not None and status.st_size <= wanted.max_bytes:
            artefact = wanted.store.add(fd, status.st_size)  # it may grow
        else:
            content = _read(fd, wanted.max_bytes)
        whole = artefact is not None or len(content) == status.st_size
    finally:
        os.close(fd)
    return OutFile(
        name=wanted.name,
        state=FileState.OK if whole else FileState.TRUNCATED,
        optional=wanted.optional,
        content=content,
        size=status.st_size,
        mode=stat.S_IMODE(status.st_mode),
        artefact=artefact,
    )


def _not_taken(wanted: FileOut, error: ChildError) -> OutFile:
    if error.location is not ErrorLocation.COPY_OUT:
        raise error
    state = FileState.REFUSED
    if error.errno in _MISSING:
        state, why = FileState.MISSING, "it is not there"
    elif error.errno == errno.EINVAL and error.status is not None:
        why = _TYPES.get(stat.S_IFMT(error.status), "it is no regular file")
    elif error.errno in _REFUSED:
        why = _REFUSED[error.errno]
    else:
        raise error
    return OutFile(name=wanted.name, state=state, optional=wanted.optional, why=why)


def _read(fd: int, limit: int) -> bytes:
    """Read from the start, and no more than `limit`, however large the file says it is."""
    parts = []
    while limit > 0 and (part := os.read(fd, min(limit, _READ_BYTES))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)
