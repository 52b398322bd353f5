"""The plan of one program: from the fork to its exec."""

from __future__ import annotations

import os
import signal
import struct
from typing import TYPE_CHECKING, Final

from runner.config import Credential, Namespace
from runner.errors import ConfigError
from runner.errors import ErrorLocation as At
from runner.plan.steps import Op, Phase, Step, in_user_namespace
from runner.seccomp.start import with_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from runner.config import Rlimit, Runner
    from runner.landlock import Ruleset
    from runner.supervision import Rules

_PROGRAM: Final = Phase.PROGRAM
_SETPCAP: Final = 1 << 8  # <linux/capability.h>
_SYNC_SEIZE: Final = 2  # of enum sync_word in native/steps.h


def candidates(name: bytes, path: str) -> Sequence[bytes]:
    """Give the files that execvp(3) would try; an empty entry of PATH is the directory."""
    if b"/" in name:
        return [name]
    places = [os.fsencode(place) for place in path.split(":")] if path else []
    return [(place or b".") + b"/" + name for place in places] or [b"./" + name]


def program(
    runner: Runner,
    *,
    candidates: Sequence[bytes],
    files: Sequence[int],
    cgroups: Sequence[int] = (),
    exec_file: int | None = None,
    ruleset: Ruleset | None = None,
    rules: Rules | None = None,
    hearing: int = 0,
    traced: bool = False,
    keyrings: bool = False,
) -> list[Step]:
    """Plan one program: from the fork to its exec.

    `candidates` are the paths to try, `files[i]` is the index in the frame of the program's fd
    i (or an FD_*), `cgroups` the indexes of what it writes "0" to, `exec_file` that of what is
    executed instead of a path, `ruleset` what its Landlock is on this host, `rules` what its
    supervision is. `hearing`: of which calls the keeper hears, but of none of a program that it
    traces to its end, which is `traced`. `keyrings`: those of its user are looked at, for what
    another program has left.
    """
    return [
        *_signals(runner),
        *_oom_score(runner),
        *_files(runner, files, traced=traced or (rules is not None and not rules.by_notice)),
        *_session(runner),
        *_places(runner, cgroups),
        *_scheduling(runner),
        *_rlimits(runner.rlimits),
        *_identity(runner, keyrings=keyrings),
        *_landlock(ruleset),
        *_exec(runner, candidates, len(files), exec_file, rules, hearing=hearing),
    ]


def _signals(runner: Runner) -> Iterator[Step]:
    masks = (_signal_mask(runner.ignored_signals), _signal_mask(runner.blocked_signals))
    yield Step(_PROGRAM, Op.SIGNALS, At.SIGNALS, masks)
    yield Step(_PROGRAM, Op.GETPID, At.GETPID)


def _oom_score(runner: Runner) -> Iterator[Step]:
    """Set it before any path is looked up: for it, the host's /proc is open."""
    if runner.oom_score_adj is not None:
        value = str(runner.oom_score_adj)
        strings = (value.encode(),)
        yield Step(_PROGRAM, Op.OOM_SCORE_ADJ, At.OOM_SCORE, strings=strings, subject=value)


def _signal_mask(numbers: Collection[int]) -> int:
    mask = sum(1 << (number - 1) for number in set(numbers))
    return mask - 2**64 if mask >= 2**63 else mask  # arguments are signed: signal 64


def _files(runner: Runner, files: Sequence[int], *, traced: bool) -> Iterator[Step]:
    if traced or _waits(runner) or _stops(runner):
        yield Step(_PROGRAM, Op.CLOSE_SYNC, At.CLOSE_WRITE)
    if traced:
        # While it has the keeper's ids, which nobody else has, and memory open to such.
        yield Step(_PROGRAM, Op.DUMPABLE, At.PTRACE_ME, (1,))
        yield Step(_PROGRAM, Op.SYNC_WRITE, At.PTRACE_ME, (_SYNC_SEIZE,))
        yield Step(_PROGRAM, Op.SYNC_READ, At.PTRACE_ME)
        yield Step(_PROGRAM, Op.DUMPABLE, At.PTRACE_ME, (0,))
    yield Step(_PROGRAM, Op.CLEAR_FDS, At.FCNTL, (len(files),))
    yield Step(_PROGRAM, Op.PLACE_FDS, At.DUP3, data=struct.pack(f"={len(files)}i", *files))


def _session(runner: Runner) -> Iterator[Step]:
    if not runner.retain_session:
        yield Step(_PROGRAM, Op.SETSID, At.SETSID)
    if runner.ctty:
        yield Step(_PROGRAM, Op.CTTY, At.IOCTL)
    yield Step(_PROGRAM, Op.SESSION_KEYRING, At.KEYRING)


def _places(runner: Runner, cgroups: Sequence[int]) -> Iterator[Step]:
    """Enter the cgroups and directories, while we still have the rights to."""
    for index, fd in enumerate(cgroups):
        yield Step(_PROGRAM, Op.ENTER_CGROUP, At.CGROUP, (fd,), item=index)
    if Namespace.CGROUP in runner.namespaces:
        # Now, so that the namespace's root is where the program is (cgroup_namespaces(7)).
        yield Step(_PROGRAM, Op.UNSHARE, At.UNSHARE, (int(Namespace.CGROUP),))
    if runner.work_dir:
        directory = (os.fsencode(runner.work_dir),)
        yield Step(_PROGRAM, Op.CHDIR, At.CHDIR, strings=directory, subject=runner.work_dir)


def _scheduling(runner: Runner) -> Iterator[Step]:
    """Set what exec keeps, before the ids change that some of it needs."""
    if runner.umask is not None:
        yield Step(_PROGRAM, Op.UMASK, At.UMASK, (runner.umask,))
    if runner.nice is not None:
        subject = str(runner.nice)
        yield Step(_PROGRAM, Op.NICE, At.NICE, (runner.nice,), subject=subject)
    if runner.cpus:
        cpus = frozenset(runner.cpus)
        words = max(cpus) // 64 + 1
        mask = sum(1 << cpu for cpu in cpus).to_bytes(8 * words, "little")
        subject = ",".join(map(str, sorted(cpus)))
        yield Step(_PROGRAM, Op.AFFINITY, At.AFFINITY, data=mask, subject=subject)
    if runner.personality is not None:
        flags = (runner.personality,)
        subject = hex(runner.personality)
        yield Step(_PROGRAM, Op.PERSONALITY, At.PERSONALITY, flags, subject=subject)


def _rlimits(rlimits: Iterable[Rlimit]) -> Iterator[Step]:
    for index, limit in enumerate(rlimits):
        # RLIM_INFINITY is -1 here and all ones in the kernel: the same 64 bits.
        args = (limit.resource, limit.soft, limit.hard)
        yield Step(_PROGRAM, Op.RLIMIT, At.SETRLIMIT, args, item=index, subject=limit.name)


def _identity(runner: Runner, *, keyrings: bool) -> Iterator[Step]:
    """Change the ids, then give up what they allowed."""
    capabilities = runner.capabilities
    if capabilities is None and runner.securebits is not None:
        # They say what a change of uid does, and need what it may take away.
        yield Step(_PROGRAM, Op.SECUREBITS, At.DROP_CAPABILITY, (runner.securebits,))
    if runner.credential is not None:
        if capabilities is not None:
            yield Step(_PROGRAM, Op.KEEP_CAPS, At.KEEP_CAPABILITY)
        yield from _ids(runner)
    if keyrings:
        yield Step(_PROGRAM, Op.USER_KEYRINGS, At.KEYRING)
    yield Step(_PROGRAM, Op.PARENT_DEATH, At.PARENT_DEATH, (int(signal.SIGKILL),))
    yield from _capabilities(runner)
    if runner.no_new_privs or runner.seccomp or runner.landlock or runner.supervision:
        yield Step(_PROGRAM, Op.NO_NEW_PRIVS, At.SET_NO_NEW_PRIVS)


def _ids(runner: Runner) -> Iterator[Step]:
    credential = runner.credential
    if not isinstance(credential, Credential):
        message = f"Runner.credential: {credential!r}: names are looked up before it is planned"
        raise ConfigError(message)
    denied = in_user_namespace(runner) and not runner.gid_mappings_enable_setgroups
    if credential.groups or not denied:
        groups = struct.pack(f"={len(credential.groups)}I", *credential.groups)
        yield Step(_PROGRAM, Op.SETGROUPS, At.SETGROUPS, data=groups)
    yield Step(_PROGRAM, Op.SETGID, At.SETGID, (credential.gid,))
    yield Step(_PROGRAM, Op.SETUID, At.SETUID, (credential.uid,))
    # fs.suid_dumpable may have made the memory that it borrows dumpable; exec sets it anew.
    yield Step(_PROGRAM, Op.DUMPABLE, At.SETUID, (0,))


def _capabilities(runner: Runner) -> Iterator[Step]:
    """Set the five sets and the securebits.

    The inheritable set first, as it cannot have what the bounding set has not; the last drops
    the capability that the others need.
    """
    if runner.drop_caps:
        yield Step(_PROGRAM, Op.CAPSET, At.SET_CAP)
    wanted = runner.capabilities
    if wanted is None:
        return
    effective, permitted, inheritable = (
        wanted.mask(name) for name in ("effective", "permitted", "inheritable")
    )
    more = permitted | _SETPCAP
    yield Step(_PROGRAM, Op.CAPSET, At.SET_CAP, (more, more, inheritable))
    yield Step(_PROGRAM, Op.DROP_BOUNDING, At.BOUNDING, (wanted.mask("bounding"),))
    if wanted.ambient:
        subject = ",".join(sorted(wanted.ambient))
        mask = wanted.mask("ambient")
        yield Step(_PROGRAM, Op.AMBIENT, At.AMBIENT, (mask,), subject=subject)
    if runner.securebits is not None:
        yield Step(_PROGRAM, Op.SECUREBITS, At.DROP_CAPABILITY, (runner.securebits,))
    yield Step(_PROGRAM, Op.CAPSET, At.SET_CAP, (effective, permitted, inheritable))


def _waits(runner: Runner) -> bool:
    return runner.sync_func is not None or runner.stop_before_exec


def _stops(runner: Runner) -> bool:
    """Tell whether it stops itself before its filter: with one, a tracer has to come then."""
    return runner.stop_before_seccomp or (runner.ptrace and bool(runner.seccomp))


def _landlock(ruleset: Ruleset | None) -> Iterator[Step]:
    if ruleset is not None:
        from runner.plan.landlock import steps  # few have any

        yield from steps(ruleset)


def _exec(
    runner: Runner,
    candidates: Sequence[bytes],
    fd_count: int,
    exec_file: int | None,
    rules: Rules | None,
    *,
    hearing: int,
) -> Iterator[Step]:
    argv = tuple(os.fsencode(word) for word in runner.args)
    envp = tuple(os.fsencode(f"{name}={value}") for name, value in runner.env.items())
    yield Step(_PROGRAM, Op.CLOSE_RANGE, At.CLOSE_RANGE, (fd_count,))
    yield Step(_PROGRAM, Op.ARGV, At.EXECVE, strings=argv)
    yield Step(_PROGRAM, Op.ENVP, At.EXECVE, strings=envp)
    if _waits(runner):
        yield Step(_PROGRAM, Op.SYNC_WRITE, At.SYNC_WRITE)
        yield Step(_PROGRAM, Op.SYNC_READ, At.SYNC_READ)
    if _stops(runner):
        yield Step(_PROGRAM, Op.STOP, At.STOP)
    elif runner.ptrace:
        yield Step(_PROGRAM, Op.PTRACE_ME, At.PTRACE_ME)
    seccomp = runner.seccomp
    if rules is not None:
        from runner import supervision
        from runner.plan.supervision import steps

        yield from steps(rules)
        seccomp = supervision.stopping(seccomp, rules)
    seccomp, secret = with_secret(seccomp)
    if seccomp:
        # The last but one: it need allow nothing but what the program needs.
        yield Step(_PROGRAM, Op.SECCOMP, At.SECCOMP, (0, hearing), data=seccomp)
    subject = os.fsdecode(argv[0])
    if exec_file is not None:
        yield Step(_PROGRAM, Op.EXEC_FD, At.EXECVE, (exec_file, secret), subject=subject)
    else:
        paths = tuple(candidates)
        yield Step(_PROGRAM, Op.EXEC, At.EXECVE, (secret,), strings=paths, subject=subject)
