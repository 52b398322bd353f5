"""What a plan is made of: operations, phases, steps. The numbers are native/wire.h's."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from runner.config import Namespace
from runner.errors import ErrorLocation
from runner.quick import NamedTuple

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
    OPEN_PATH = 4
    BIND = 5
    MOVE_PATH = 6
    REMOUNT = 7
    MASK = 8
    MOUNT = 9
    UMOUNT = 10
    PIVOT_ROOT = 11
    CHROOT = 12
    CHDIR = 13
    MKDIR = 14
    MKNOD = 15
    RMDIR = 16
    SYMLINK = 17
    WRITE_FILE = 18
    KEEP_FRESH = 19
    FRESH_IPC = 20
    ID_MAP = 21
    HOOK = 22
    HOSTNAME = 23
    DOMAINNAME = 24
    SYSCTL = 25
    LOOPBACK = 26
    SETNS = 27
    UNSHARE = 28
    HOST_PROC = 29
    TIME_OFFSETS = 30
    GETPID = 31
    SETSID = 32
    CTTY = 33
    PARENT_DEATH = 34
    UMASK = 35
    NICE = 36
    AFFINITY = 37
    PERSONALITY = 38
    OOM_SCORE_ADJ = 39
    RLIMIT = 40
    ENTER_CGROUP = 41
    KEEP_CAPS = 42
    SECUREBITS = 43
    DROP_BOUNDING = 44
    CAPSET = 45
    AMBIENT = 46
    SETGROUPS = 47
    SETGID = 48
    SETUID = 49
    NO_NEW_PRIVS = 50
    SESSION_KEYRING = 51
    DUMPABLE = 52
    CLEAR_FDS = 53
    PLACE_FDS = 54
    CLOSE_RANGE = 55
    SIGNALS = 56
    CLOSE_SYNC = 57
    SYNC_WRITE = 58
    SYNC_READ = 59
    STOP = 60
    PTRACE_ME = 61
    SECCOMP = 62
    ARGV = 63
    ENVP = 64
    EXEC = 65
    EXEC_FD = 66
    LANDLOCK = 67
    LANDLOCK_PATH = 68
    LANDLOCK_PORT = 69
    LANDLOCK_RESTRICT = 70
    RULE_CALL = 71
    RULE_PATH = 72
    RULE_REFUSE = 73
    FILE_OWNER = 74
    FILE_IN = 75
    FILE_OUT = 76
    FILE_LINK = 77
    FILE_REMOVE = 78
    QUIET_NETWORK = 79
    UNCHANGED = 80
    USER_KEYRINGS = 81
    INIT_LIMITS = 82


class Phase(enum.IntEnum):
    """Who executes a step, and when; numbered as PHASES(X) of native/wire.h."""

    EARLY = 0
    MAPS = 1
    SETUP = 2
    JOINED = 3
    READY = 4
    PROGRAM = 5
    CLEAN = 6
    SUPERVISE = 7
    FILES = 8


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
