"""What a plan is made of: operations, phases, steps. The numbers are native/wire.h's."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from runner.config import Namespace
from runner.errors import ErrorLocation

if TYPE_CHECKING:
    from runner.config import Runner

# Fds of a program that are no index into the frame's fds.
FD_CLOSED: Final = -1
FD_STDOUT_PIPE: Final = -2
FD_STDERR_PIPE: Final = -3


class Op(enum.IntEnum):
    """The operations, numbered as OPS(X) of native/wire.h; a test compares the two."""

    OPEN_TREE = 0
    MOVE_MOUNT = 1
    MOUNT_SETATTR = 2
    MOUNT_IDMAP = 3
    MOUNT = 4
    UMOUNT = 5
    PIVOT_ROOT = 6
    CHDIR = 7
    MKDIR = 8
    MKNOD = 9
    RMDIR = 10
    SYMLINK = 11
    WRITE_FILE = 12
    KEEP_FRESH = 13
    FRESH_IPC = 14
    ID_MAP = 15
    HOOK = 16
    HOSTNAME = 17
    DOMAINNAME = 18
    SYSCTL = 19
    LOOPBACK = 20
    SETNS = 21
    UNSHARE = 22
    HOST_PROC = 23
    TIME_OFFSETS = 24
    GETPID = 25
    SETSID = 26
    CTTY = 27
    PARENT_DEATH = 28
    UMASK = 29
    NICE = 30
    AFFINITY = 31
    PERSONALITY = 32
    OOM_SCORE_ADJ = 33
    RLIMIT = 34
    ENTER_CGROUP = 35
    KEEP_CAPS = 36
    SECUREBITS = 37
    DROP_BOUNDING = 38
    CAPSET = 39
    AMBIENT = 40
    SETGROUPS = 41
    SETGID = 42
    SETUID = 43
    NO_NEW_PRIVS = 44
    SESSION_KEYRING = 45
    DUMPABLE = 46
    CLEAR_FDS = 47
    PLACE_FDS = 48
    CLOSE_RANGE = 49
    SIGNALS = 50
    CLOSE_SYNC = 51
    SYNC_WRITE = 52
    SYNC_READ = 53
    STOP = 54
    PTRACE_ME = 55
    SECCOMP = 56
    ARGV = 57
    ENVP = 58
    EXEC = 59
    EXEC_FD = 60


class Phase(enum.IntEnum):
    """Who executes a step, and when; numbered as PHASES(X) of native/wire.h."""

    EARLY = 0
    MAPS = 1
    SETUP = 2
    JOINED = 3
    PROGRAM = 4
    CLEAN = 5


class Step(NamedTuple):
    """One operation, where it counts as failed, and what it works on.

    `strings` and `data` are the payload as native/wire.h gives it for each operation; `subject`
    is what an error message names, and stays on this side. `item` is the position in the list
    that the step belongs to, or -1: the `index` of a ChildError.
    """

    phase: Phase
    op: Op
    location: ErrorLocation
    args: tuple[int, ...] = ()
    strings: tuple[bytes, ...] = ()
    data: bytes = b""
    item: int = -1
    subject: str = ""


def in_user_namespace(runner: Runner) -> bool:
    """Tell whether the program is in another user namespace than the caller."""
    joined = any(join.namespace is Namespace.USER for join in runner.join)
    return joined or Namespace.USER in runner.namespaces
