"""What there is no more of where a call of ours has failed, and how to get more."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Final

from runner.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator


# By errno: of what, and what to do.
KNOWN: Final = {
    errno.EMFILE: (
        "files that we may open",
        (
            "raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE= of a service), or have fewer "
            "sandboxes and files open: a sandbox takes up to 40"
        ),
    ),
    errno.ENFILE: ("files that the host may open", "as root, raise fs.file-max"),
    errno.ENOMEM: ("memory", "free some, or raise the limit of the group that we are in"),
    errno.EAGAIN: ("processes", "raise RLIMIT_NPROC, or pids.max of the caller"),
}


def of(error: Exception) -> HostError | None:
    """Say what we lack, where a call has failed for that."""
    scarce = KNOWN.get(error.errno or 0) if isinstance(error, OSError) else None
    if scarce is None:
        return None
    what, remedy = scarce
    lack = HostError(f"no more {what}: {error}", remedy)
    lack.__cause__ = error
    return lack


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Let what there is no more of be a HostError, and no OSError."""
    try:
        yield
    except OSError as error:
        lack = of(error)
        if lack is None:
            raise
        raise lack from error
