"""The steps that put files into a sandbox and open those that come out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.errors import ErrorLocation as At
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from runner.config import Credential


def file_owner(owner: Credential) -> Step:
    """Work as the program's user, whose is what is made then."""
    ids = (owner.uid, owner.gid)
    return Step(Phase.FILES, Op.FILE_OWNER, At.COPY_IN, ids, subject="setfsuid")


def file_in(base: str, name: str, item: int, source: int | bytes, *, mode: int) -> Step:
    """Make a file of the content, or of what is behind an fd of the frame."""
    fd, content = (source, b"") if isinstance(source, int) else (-1, source)
    return Step(
        Phase.FILES,
        Op.FILE_IN,
        At.COPY_IN,
        (fd, mode),
        (os.fsencode(base), os.fsencode(name)),
        content,
        item=item,
        subject=name,
    )


def file_link(base: str, name: str, item: int, target: str) -> Step:
    """Make a symbolic link."""
    strings = (os.fsencode(base), os.fsencode(name), os.fsencode(target))
    return Step(Phase.FILES, Op.FILE_LINK, At.COPY_IN, strings=strings, item=item, subject=name)


def file_remove(base: str, name: str, item: int) -> Step:
    """Remove a file or link, if it is there."""
    strings = (os.fsencode(base), os.fsencode(name))
    return Step(
        Phase.FILES, Op.FILE_REMOVE, At.COPY_IN, strings=strings, item=item, subject=name
    )


def file_out(base: str, name: str, item: int) -> Step:
    """Open a regular file for reading."""
    strings = (os.fsencode(base), os.fsencode(name))
    return Step(Phase.FILES, Op.FILE_OUT, At.COPY_OUT, strings=strings, item=item, subject=name)
