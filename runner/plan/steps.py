"""What a plan is made of: operations, phases, steps. The numbers are native/wire.h's."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from runner.errors import ErrorLocation

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
    HOSTNAME = 16
    DOMAINNAME = 17
    UNSHARE = 18
    SETSID = 19
    PARENT_DEATH = 20
    UMASK = 21
    RLIMIT = 22
    ENTER_CGROUP = 23
    SECUREBITS = 24
    DROP_BOUNDING = 25
    CAPSET = 26
    SETGROUPS = 27
    SETGID = 28
    SETUID = 29
    NO_NEW_PRIVS = 30
    SESSION_KEYRING = 31
    DUMPABLE = 32
    CLEAR_FDS = 33
    PLACE_FDS = 34
    CLOSE_RANGE = 35
    SIGNALS = 36
    SYNC_WRITE = 37
    SYNC_READ = 38
    SECCOMP = 39
    ARGV = 40
    ENVP = 41
    EXEC = 42


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
