"""The plan of one program: from the fork to its exec."""

from __future__ import annotations

import os
import signal
import struct
from typing import TYPE_CHECKING

from runner.config import Namespace
from runner.errors import ErrorLocation as At
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runner.config import Rlimit, Runner


def program(
    runner: Runner,
    *,
    candidates: Sequence[bytes],
    files: Sequence[int],
    cgroups: Sequence[int] = (),
) -> list[Step]:
    """Plan one program: from the fork to its exec.

    `candidates` are the paths to try, `files[i]` is the index in the frame of the program's fd
    i (or an FD_*), `cgroups` the indexes of what it writes "0" to.
    """
    return [
        *_process(files),
        *_places(runner, cgroups),
        *_rlimits(runner.rlimits),
        *_identity(runner),
        *_exec(runner, candidates, len(files)),
    ]


def _process(files: Sequence[int]) -> Iterator[Step]:
    program = Phase.PROGRAM
    yield Step(program, Op.SIGNALS, At.SIGNALS)
    yield Step(program, Op.CLEAR_FDS, At.FCNTL, (len(files),))
    yield Step(program, Op.PLACE_FDS, At.DUP3, data=struct.pack(f"={len(files)}i", *files))
    yield Step(program, Op.SETSID, At.SETSID)
    yield Step(program, Op.SESSION_KEYRING, At.KEYRING)


def _places(runner: Runner, cgroups: Sequence[int]) -> Iterator[Step]:
    """Enter the cgroups and directories, while we still have the rights to."""
    for index, fd in enumerate(cgroups):
        yield Step(Phase.PROGRAM, Op.ENTER_CGROUP, At.CGROUP, (fd,), item=index)
    if Namespace.CGROUP in runner.namespaces:
        # Now, so that the namespace's root is where the program is (cgroup_namespaces(7)).
        yield Step(Phase.PROGRAM, Op.UNSHARE, At.UNSHARE, (int(Namespace.CGROUP),))
    if runner.work_dir:
        directory = (os.fsencode(runner.work_dir),)
        yield Step(
            Phase.PROGRAM, Op.CHDIR, At.CHDIR, strings=directory, subject=runner.work_dir
        )


def _rlimits(rlimits: Iterable[Rlimit]) -> Iterator[Step]:
    for index, limit in enumerate(rlimits):
        # RLIM_INFINITY is -1 here and all ones in the kernel: the same 64 bits.
        args = (limit.resource, limit.soft, limit.hard)
        yield Step(
            Phase.PROGRAM,
            Op.RLIMIT,
            At.SETRLIMIT,
            args,
            item=index,
            subject=limit.name,
        )


def _identity(runner: Runner) -> Iterator[Step]:
    """Change the ids, then give up what they allowed."""
    program = Phase.PROGRAM
    credential = runner.credential
    if credential is not None:
        denied = (
            Namespace.USER in runner.namespaces and not runner.gid_mappings_enable_setgroups
        )
        if credential.groups or not denied:
            groups = struct.pack(f"={len(credential.groups)}I", *credential.groups)
            yield Step(program, Op.SETGROUPS, At.SETGROUPS, data=groups)
        yield Step(program, Op.SETGID, At.SETGID, (credential.gid,))
        yield Step(program, Op.SETUID, At.SETUID, (credential.uid,))
        # fs.suid_dumpable may have made the memory that it borrows dumpable; exec sets it anew.
        yield Step(program, Op.DUMPABLE, At.SETUID, (0,))
    yield Step(program, Op.PARENT_DEATH, At.PARENT_DEATH, (int(signal.SIGKILL),))
    if runner.drop_caps:
        yield Step(program, Op.CAPSET, At.SET_CAP, (0,))
    if runner.no_new_privs or runner.seccomp:
        yield Step(program, Op.NO_NEW_PRIVS, At.SET_NO_NEW_PRIVS)


def _exec(runner: Runner, candidates: Sequence[bytes], fd_count: int) -> Iterator[Step]:
    program = Phase.PROGRAM
    argv = tuple(os.fsencode(word) for word in runner.args)
    envp = tuple(os.fsencode(f"{name}={value}") for name, value in runner.env.items())
    yield Step(program, Op.CLOSE_RANGE, At.CLOSE_RANGE, (fd_count,))
    yield Step(program, Op.ARGV, At.EXECVE, strings=argv)
    yield Step(program, Op.ENVP, At.EXECVE, strings=envp)
    if runner.sync_func is not None:
        yield Step(program, Op.SYNC_WRITE, At.SYNC_WRITE)
        yield Step(program, Op.SYNC_READ, At.SYNC_READ)
    if runner.seccomp:
        # The last but one: it need allow nothing but what the program needs.
        yield Step(program, Op.SECCOMP, At.SECCOMP, (0,), data=runner.seccomp)
    yield Step(
        program,
        Op.EXEC,
        At.EXECVE,
        strings=tuple(candidates),
        subject=os.fsdecode(argv[0]),
    )
