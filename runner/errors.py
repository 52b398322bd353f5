"""What can go wrong on our side, as exceptions.

What the *program* did (crash, limit, bad output) is data in `Result`, never an exception here.
"""

from __future__ import annotations

import enum
import errno as errno_names
import os
from typing import Final


class ErrorLocation(enum.IntEnum):
    """The step at which the set-up of a program failed.

    The numbers are those of LOCATIONS(X) in native/wire.h; `keeper --describe` prints them and
    a test compares. 1 to 32 are go-sandbox's; `text` is how each reads in a message.
    """

    CLONE = 1
    CLOSE_WRITE = 2
    UNSHARE_USER_READ = 3
    GETPID = 4
    KEEP_CAPABILITY = 5
    SETGROUPS = 6
    SETGID = 7
    SETUID = 8
    DUP3 = 9
    FCNTL = 10
    SETSID = 11
    IOCTL = 12
    MOUNT_ROOT = 13
    MOUNT_TMPFS = 14
    MOUNT_CHDIR = 15
    MOUNT = 16
    MOUNT_MKDIR = 17
    PIVOT_ROOT = 18
    UMOUNT = 19
    UNLINK = 20
    MOUNT_READONLY = 21
    CHDIR = 22
    SETRLIMIT = 23
    SET_NO_NEW_PRIVS = 24
    DROP_CAPABILITY = 25
    SET_CAP = 26
    PTRACE_ME = 27
    STOP = 28
    SECCOMP = 29
    SYNC_WRITE = 30
    SYNC_READ = 31
    EXECVE = 32
    UNSHARE = 33
    SETNS = 34
    CGROUP = 35
    HOSTNAME = 36
    SYMLINK = 37
    FILE = 38
    MOUNT_SOURCE = 39
    MOUNT_ATTRIBUTES = 40
    PARENT_DEATH = 41
    CLOSE_RANGE = 42
    SIGNALS = 43
    BOUNDING = 44
    INIT = 45
    CLEAN = 46
    PIPE = 47
    WATCH = 48
    KEYRING = 49
    TIME = 50
    NETWORK = 51
    HOOK = 52
    SYSCTL = 53
    MKNOD = 54
    UMASK = 55
    OOM_SCORE = 56
    NICE = 57
    AFFINITY = 58
    PERSONALITY = 59
    AMBIENT = 60
    LANDLOCK = 61
    MOUNT_LIMIT = 62
    COPY_IN = 63
    COPY_OUT = 64

    @property
    def text(self) -> str:
        """The name as messages show it: `mount(tmpfs)`, `pivot_root`."""
        name = self.name.lower()
        head, _, tail = name.partition("_")
        return f"mount({tail})" if head == "mount" and tail else name


class Detail(enum.IntEnum):
    """What no errno or signal tells, numbered as DETAILS(X) of native/wire.h."""

    NONE = 0
    LOADER_MISSING = 1
    MOUNTED_NOEXEC = 2
    BEYOND_ADDRESS_SPACE = 3
    BEYOND_DATA = 4


class SandboxError(Exception):
    """The sandbox failed; nothing is known about the program. Base of all that we raise."""

    @property
    def hint(self) -> str | None:
        """What to do about it, where we know."""
        return None

    def to_dict(self) -> dict[str, object]:
        """Give the `error` object of the JSON result."""
        return {"type": type(self).__name__, "message": str(self), "hint": self.hint}


class ConfigError(SandboxError, ValueError):
    """The caller asked for something impossible; raised before any process exists."""


class HostError(SandboxError):
    """This kernel or host lacks something; `missing` names it, `hint` says how to get it."""

    def __init__(self, missing: str, remedy: str | None = None) -> None:
        super().__init__(missing)
        self.missing: Final = missing
        self._remedy = remedy

    @property
    def hint(self) -> str | None:
        return self._remedy


class ProtocolError(SandboxError):
    """The keeper died or answered nonsense: our bug, or somebody killed it."""


class PoolError(SandboxError):
    """A pool lends no sandbox; nothing has run. Base of the four that follow."""


class PoolFull(PoolError):  # noqa: N818 (a state, no error)
    """As many wait as may: `waiting`. Come back later, or let more wait."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"the pool is busy, and {waiting} wait already")
        self.waiting: Final = waiting

    @property
    def hint(self) -> str | None:
        return "come back later, or give the pool a greater queue_limit"


class PoolTimeout(PoolError):  # noqa: N818 (a state, no error)
    """No sandbox was free for as long as the caller wanted to wait."""


class PoolClosed(PoolError):  # noqa: N818 (a state, no error)
    """The pool takes no more requests."""


class PoolCancelled(PoolError):  # noqa: N818 (a state, no error)
    """Somebody has cancelled the request, by its id, while it waited."""


class ChildError(SandboxError):
    """A step of the set-up failed: where, with which errno, and for which item of its list.

    `index` is the 0-based position in the list that the step belongs to (mounts, rlimits, …) or
    None; `subject` is the path or name that the step worked on, "" where there is none;
    `status` is how a hook ended, as waitpid(2) gives it, where that is what failed.
    """

    def __init__(
        self,
        location: ErrorLocation,
        errno: int,
        index: int | None = None,
        *,
        subject: str = "",
        status: int | None = None,
        detail: Detail = Detail.NONE,
    ) -> None:
        super().__init__(location, errno, index)
        self.location: Final = location
        self.errno: Final = errno
        self.index: Final = index
        self.subject: Final = subject
        self.status: Final = status
        self.detail: Final = detail

    @property
    def of_the_program(self) -> bool:
        """Tell whether the program's own set-up failed for reasons of the program.

        The sandbox is then as it was.
        """
        return self.location in _OF_THE_PROGRAM

    @property
    def before_exec(self) -> bool:
        """Tell whether it is sure that the program has not run, not even a little."""
        return self.location not in _PERHAPS_LATER

    @property
    def errno_name(self) -> str:
        """Give the errno's symbol, such as `ENOENT`."""
        return errno_names.errorcode.get(self.errno, f"errno {self.errno}")

    @property
    def hint(self) -> str | None:
        from runner import scarcity  # few ask

        known = _DETAILS.get(self.detail) or _HINTS.get((self.location, self.errno))
        scarce = scarcity.KNOWN.get(self.errno)
        return known or (None if scarce is None else scarce[1])

    def __str__(self) -> str:
        where = self.location.text
        if self.index is not None:
            where += f"[{self.index}]"
        if self.subject:
            where += f" {self.subject}"
        if self.status:
            code = os.waitstatus_to_exitcode(self.status)
            return f"{where}: " + (f"exit status {code}" if code > 0 else f"signal {-code}")
        return f"{where}: {os.strerror(self.errno)} ({self.errno_name})"

    def to_dict(self) -> dict[str, object]:
        return super().to_dict() | {
            "location": self.location.text,
            "index": self.index,
            "errno": self.errno_name,
        }


_OF_THE_PROGRAM: Final = frozenset(
    {
        *(ErrorLocation.EXECVE, ErrorLocation.CHDIR, ErrorLocation.SETRLIMIT),
        *(ErrorLocation.SECCOMP, ErrorLocation.UNSHARE, ErrorLocation.LANDLOCK),
        *(ErrorLocation.MOUNT_LIMIT, ErrorLocation.COPY_IN),
    }
)

# Where the keeper may fail while the program runs, too.
_PERHAPS_LATER: Final = frozenset({ErrorLocation.INIT, ErrorLocation.PIPE, ErrorLocation.WATCH})

_NO_USER_NAMESPACE = (
    "user namespaces are not available here: as root set user.max_user_namespaces > 0 and, "
    "where they exist, kernel.unprivileged_userns_clone=1 and "
    "kernel.apparmor_restrict_unprivileged_userns=0; in a container also give it a seccomp "
    "profile that allows clone, unshare, setns, mount and pivot_root"
)

_NO_NAMESPACES = (
    "a filter around us refuses it: give the container a seccomp profile that allows clone, "
    "unshare, setns, mount and pivot_root"
)

_LEADS_TO_ROOT = "the target is a symbolic link to the root itself, or one of a circle of links"

_NO_MOUNTS = (
    "mounting is refused in the new user namespace: in a container allow it; on Ubuntu, as "
    "root, set kernel.apparmor_restrict_unprivileged_userns=0, or give runner/keeper an "
    "AppArmor profile that allows userns"
)

_MEMORY_TOO_SMALL = "the memory limit is too small to start any program: give 1 MiB or more"

_GROUP_GONE = "somebody removed the program's cgroup: keep others off the run-sandboxed groups"

_NOT_WRITABLE = (
    "files go into the working directory, which the program's user has to be able to write to: "
    "start in one of the sandbox's own, such as /tmp"
)

_DETAILS: Final[dict[Detail, str]] = {
    Detail.LOADER_MISSING: (
        "the file exists, its loader does not: bind what `ldd` or the first line of the script "
        "names, or let it be staged"
    ),
    Detail.MOUNTED_NOEXEC: (
        "the file is on a file system that is mounted noexec: put it on another, or mount that "
        "one exec"
    ),
}

_HINTS: Final[dict[tuple[ErrorLocation, int], str]] = {
    (ErrorLocation.CLONE, errno_names.EPERM): _NO_USER_NAMESPACE,
    (ErrorLocation.CLONE, errno_names.ENOSPC): _NO_USER_NAMESPACE,
    (ErrorLocation.CLONE, errno_names.EUSERS): _NO_USER_NAMESPACE,
    (ErrorLocation.UNSHARE, errno_names.EPERM): _NO_NAMESPACES,
    (ErrorLocation.SETNS, errno_names.EPERM): _NO_NAMESPACES,
    (ErrorLocation.PIVOT_ROOT, errno_names.EPERM): _NO_NAMESPACES,
    (ErrorLocation.CLONE, errno_names.EAGAIN): (
        "a limit on processes was reached: raise RLIMIT_NPROC or pids.max of the caller"
    ),
    (ErrorLocation.UNSHARE_USER_READ, errno_names.EPERM): (
        "the id map names ids that are not yours to give: map your own id, or delegated ones"
    ),
    (ErrorLocation.MOUNT, errno_names.EPERM): (
        "a container may cover parts of /proc, and then no new one can be mounted: run it with "
        "--security-opt systempaths=unmasked"
    ),
    (ErrorLocation.MOUNT_SOURCE, errno_names.ENOENT): "the path to bind does not exist",
    (ErrorLocation.MOUNT, errno_names.EROFS): (
        "upper and work of an overlay have to be writable for the sandbox's id 0"
    ),
    (ErrorLocation.MOUNT_SOURCE, errno_names.EINVAL): (
        "what is mounted below it may not be left out here: bind it recursively, or take the "
        "mounts away from below an overlay's layer"
    ),
    (ErrorLocation.MOUNT_MKDIR, errno_names.ENOENT): (
        "the target is in a directory of yours, in which nothing is made: make it there first"
    ),
    (ErrorLocation.MOUNT_MKDIR, errno_names.ELOOP): _LEADS_TO_ROOT,
    (ErrorLocation.MOUNT, errno_names.ELOOP): _LEADS_TO_ROOT,
    (ErrorLocation.SYMLINK, errno_names.ENOENT): (
        "the link is in a directory of yours, in which nothing is made: make it there first"
    ),
    (ErrorLocation.MKNOD, errno_names.EPERM): (
        "no user namespace may make device nodes: show one of the host's, by Mount.device"
    ),
    (ErrorLocation.MOUNT_ATTRIBUTES, errno_names.EINVAL): (
        "nothing is mounted just there: restrict a path that is no mount by Mount.read_only"
    ),
    (ErrorLocation.WATCH, errno_names.ENODEV): _GROUP_GONE,
    (ErrorLocation.WATCH, errno_names.EIO): _GROUP_GONE,
    (ErrorLocation.MOUNT_LIMIT, errno_names.EINVAL): (
        "a place that is kept holds more than the limit already: raise it, or start anew"
    ),
    (ErrorLocation.MOUNT_ROOT, errno_names.EPERM): _NO_MOUNTS,
    (ErrorLocation.MOUNT_ROOT, errno_names.EACCES): _NO_MOUNTS,
    (ErrorLocation.EXECVE, errno_names.ENOENT): "no such program in the sandbox",
    (ErrorLocation.EXECVE, errno_names.EACCES): (
        "not executable: it is no regular file, or has no x bit for the program's user"
    ),
    (ErrorLocation.EXECVE, errno_names.E2BIG): (
        "arguments and environment take more than a quarter of the stack limit, or do not fit "
        "into the memory limit"
    ),
    (ErrorLocation.SECCOMP, errno_names.ENOMEM): _MEMORY_TOO_SMALL,
    (ErrorLocation.UNSHARE, errno_names.ENOMEM): _MEMORY_TOO_SMALL,
    (ErrorLocation.EXECVE, errno_names.ENOEXEC): (
        "neither a binary for this machine nor a script that begins with #!"
    ),
    (
        ErrorLocation.EXECVE,
        errno_names.ETXTBSY,
    ): "somebody still holds the file open for writing",
    (ErrorLocation.CHDIR, errno_names.ENOENT): "this directory does not exist in the sandbox",
    (ErrorLocation.CHDIR, errno_names.EACCES): (
        "the program's user may not enter this directory: let others search it (chmod o+x)"
    ),
    (ErrorLocation.COPY_IN, errno_names.EROFS): _NOT_WRITABLE,
    (ErrorLocation.COPY_IN, errno_names.EACCES): _NOT_WRITABLE,
    (ErrorLocation.COPY_IN, errno_names.ENOSPC): (
        "what goes in counts for Limits.disk and Limits.inodes, and for the size of its place"
    ),
    (ErrorLocation.SETRLIMIT, errno_names.EPERM): (
        "the hard limit is above the caller's own: lower it, or raise the caller's"
    ),
}
