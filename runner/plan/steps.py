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
    MOUNT = 3
    UMOUNT = 4
    PIVOT_ROOT = 5
    CHDIR = 6
    MKDIR = 7
    MKNOD = 8
    RMDIR = 9
    SYMLINK = 10
    WRITE_FILE = 11
    KEEP_FRESH = 12
    FRESH_IPC = 13
    ID_MAP = 14
    HOSTNAME = 15
    DOMAINNAME = 16
    UNSHARE = 17
    SETSID = 18
    PARENT_DEATH = 19
    UMASK = 20
    RLIMIT = 21
    ENTER_CGROUP = 22
    SECUREBITS = 23
    DROP_BOUNDING = 24
    CAPSET = 25
    SETGROUPS = 26
    SETGID = 27
    SETUID = 28
    NO_NEW_PRIVS = 29
    SESSION_KEYRING = 30
    DUMPABLE = 31
    CLEAR_FDS = 32
    PLACE_FDS = 33
    CLOSE_RANGE = 34
    SIGNALS = 35
    SYNC_WRITE = 36
    SYNC_READ = 37
    SECCOMP = 38
    ARGV = 39
    ENVP = 40
    EXEC = 41


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
