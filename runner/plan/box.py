"""The plan of a sandbox: its namespaces, and what the keeper does once for all programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.config import Namespace
from runner.errors import ConfigError
from runner.errors import ErrorLocation as At
from runner.plan import root
from runner.plan.steps import Op, Phase, Step, in_user_namespace
from runner.quick import NamedTuple
from runner.units import NS_PER_S, seconds_to_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.config import Hook, IdMap, Runner

# capabilities(7): no privilege by uid 0, none kept or regained by a change of uid, and all of
# it locked.
_SECUREBITS: Final = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80

_MAP_HELPER_NS: Final = 10 * NS_PER_S  # it writes one file


def box(
    runner: Runner,
    *,
    privileged: bool,
    drop_groups: bool | None = None,
    owner: tuple[bytes, bytes] | None = None,
    join: Sequence[int] = (),
    map_helpers: Mapping[str, Sequence[str]] | None = None,
    hooks: Sequence[HookFiles] = (),
    old_mounts: bool = False,
    keep_files: bool = False,
) -> list[Step]:
    """Plan the sandbox of a `Runner`: its namespaces' inside, and what the keeper does once.

    `privileged`: the caller has CAP_SYS_ADMIN in its own namespaces, so the keeper opens what
    is bound before they are left; otherwise init does, inside, with the caller's own rights.
    `drop_groups`: it may, and does (None: if privileged); inside, setgroups is denied.
    `owner`: the maps of mounts whose files are to be the program's; see `idmap.owner_maps`.
    `join`: for each of `runner.join` the index in the frame of its namespace.
    `map_helpers`: the commands that write "uid_map" and "gid_map", where the keeper may not;
    in them "{pid}" is the process whose map it is.
    `hooks`: for each of `runner.hooks` the indexes in the frame of its stdout and stderr.
    `old_mounts`: with mount(2) alone, by init, where the kernel has no detached trees.
    `keep_files`: fresh places are not emptied after a run, and what they are like is noted.
    """
    if runner.hooks and not clone_flags(runner):
        # The two others are made when no set-up runs any more.
        message = (
            f"Runner.hooks: {runner.hooks[0].args!r}: without a namespace but CGROUP and TIME "
            "there is no set-up: make another"
        )
        raise ConfigError(message)
    return [
        *_drop_groups(runner, may=privileged if drop_groups is None else drop_groups),
        *_keep_proc(runner),
        *(root.sources(runner, Phase.EARLY, owner) if privileged and not old_mounts else ()),
        *_join(runner, join),
        *_maps(runner, map_helpers or {}),
        *_hooks(runner, hooks, inside=False),
        *_setup(runner, privileged=privileged, owner=owner, hooks=hooks, old_mounts=old_mounts),
        *_joined(runner),
        *root.fresh_places(runner.mounts, Phase.JOINED if keep_files else Phase.CLEAN),
        *_fresh_ipc(runner),
    ]


def with_ids(
    steps: Sequence[Step],
    *,
    uids: Sequence[IdMap],
    gids: Sequence[IdMap],
    owner: tuple[bytes, bytes] | None,
) -> list[Step]:
    """Give the plan of a sandbox that differs from a planned one in its host ids alone."""
    maps = {b"uid_map": _map_text(uids), b"gid_map": _map_text(gids)}
    return [_with_ids(step, maps, owner) for step in steps]


def _with_ids(
    step: Step, maps: Mapping[bytes, bytes], owner: tuple[bytes, bytes] | None
) -> Step:
    if step.op is Op.MOUNT_IDMAP and owner is not None:
        return step._replace(strings=owner)
    if step.op is Op.ID_MAP and step.strings[0] in maps:
        name = step.strings[0]
        return _map(name.decode(), maps[name], {})
    return step


def clone_flags(runner: Runner) -> Namespace:
    """Give the namespaces to make with init.

    The cgroup namespace is made by the program itself after it has entered its cgroups, or its
    root would be the caller's (cgroup_namespaces(7)). The time namespace is made by the keeper,
    for its children: clone(2) reads its bit as part of the exit signal.
    """
    return runner.namespaces & ~(Namespace.CGROUP | Namespace.TIME)


def _fresh_ipc(runner: Runner) -> Iterator[Step]:
    if Namespace.IPC in runner.namespaces:
        yield Step(Phase.CLEAN, Op.FRESH_IPC, At.CLEAN)


def _drop_groups(runner: Runner, *, may: bool) -> Iterator[Step]:
    if may and in_user_namespace(runner):
        yield Step(Phase.EARLY, Op.SETGROUPS, At.SETGROUPS)


def _keep_proc(runner: Runner) -> Iterator[Step]:
    # Programs write to it, or the keeper looks at theirs.
    later = runner.oom_score_adj is not None or runner.supervision is not None
    if later or Namespace.TIME in runner.namespaces:
        yield Step(Phase.EARLY, Op.HOST_PROC, At.INIT, (later,), subject="/proc")


def _join(runner: Runner, fds: Sequence[int]) -> Iterator[Step]:
    """Enter what exists, user namespaces first: their capabilities allow the others.

    Who has capabilities in one could trace the keeper from when it is there: not if it is not
    dumpable, for its memory is the caller's user namespace's (ptrace(2)).
    """
    if any(join.namespace is Namespace.USER for join in runner.join):
        yield Step(Phase.EARLY, Op.DUMPABLE, At.INIT, (0,))
    numbered = enumerate(zip(runner.join, fds, strict=True))
    for index, (join, fd) in sorted(
        numbered, key=lambda item: item[1][0].namespace is not Namespace.USER
    ):
        yield Step(
            Phase.EARLY,
            Op.SETNS,
            At.SETNS,
            (fd, int(join.namespace)),
            item=index,
            subject=join.path or f"/proc/{join.pid}/ns",
        )


def _maps(runner: Runner, helpers: Mapping[str, Sequence[str]]) -> Iterator[Step]:
    """Write the maps, and before that of the gids, setgroups: later is too late."""
    if Namespace.USER not in runner.namespaces:
        return
    setgroups = b"allow" if runner.gid_mappings_enable_setgroups else b"deny"
    yield _map("uid_map", _map_text(runner.uid_mappings), helpers)
    yield _map("setgroups", setgroups, {})
    yield _map("gid_map", _map_text(runner.gid_mappings), helpers)


def _map(name: str, text: bytes, helpers: Mapping[str, Sequence[str]]) -> Step:
    command = helpers.get(name)
    if command is None:
        return Step(
            Phase.MAPS,
            Op.ID_MAP,
            At.UNSHARE_USER_READ,
            strings=(name.encode(), text),
            subject=f"{name} {text.decode().strip()}",
        )
    return Step(
        Phase.MAPS,
        Op.HOOK,
        At.UNSHARE_USER_READ,
        (_MAP_HELPER_NS, len(command), -1, -1),
        tuple(map(os.fsencode, command)),
        subject=" ".join(command),
    )


class HookFiles(NamedTuple):
    """A hook's program, found on the host, and where its output goes: indexes in the frame."""

    path: bytes
    stdout: int
    stderr: int


def _hooks(runner: Runner, files: Sequence[HookFiles], *, inside: bool) -> Iterator[Step]:
    for index, (hook, file) in enumerate(zip(runner.hooks, files, strict=True)):
        if hook.inside is inside:
            yield _hook(hook, index, file)


def _hook(hook: Hook, index: int, file: HookFiles) -> Step:
    words = (file.path, *map(os.fsencode, hook.args[1:]))
    env = (os.fsencode(f"{name}={value}") for name, value in hook.env.items())
    return Step(
        Phase.SETUP if hook.inside else Phase.MAPS,
        Op.HOOK,
        At.HOOK,
        (seconds_to_ns(hook.timeout), len(words), file.stdout, file.stderr),
        (*words, *env),
        item=index,
        subject=hook.args[0],
    )


def _map_text(maps: Sequence[IdMap]) -> bytes:
    return "".join(f"{m.inside} {m.outside} {m.count}\n" for m in maps).encode()


def _become_root(runner: Runner, phase: Phase) -> Iterator[Step]:
    """Take id 0 of the user namespace where it has one, so that what we make belongs to it."""
    if any(m.inside == 0 for m in runner.gid_mappings):
        yield Step(phase, Op.SETGID, At.SETGID, (0,))
    if any(m.inside == 0 for m in runner.uid_mappings):
        yield Step(phase, Op.SETUID, At.SETUID, (0,))


def _setup(
    runner: Runner,
    *,
    privileged: bool,
    owner: tuple[bytes, bytes] | None,
    hooks: Sequence[HookFiles],
    old_mounts: bool,
) -> Iterator[Step]:
    yield from _become_root(runner, Phase.SETUP)
    if runner.loopback:
        yield Step(Phase.SETUP, Op.LOOPBACK, At.NETWORK, subject="lo")
    for index, (name, value) in enumerate(runner.sysctls.items()):
        # Through the host's /proc/sys, which shows what belongs to whoever looks.
        path = name.replace(".", "/")
        strings = (os.fsencode(path), os.fsencode(value))
        yield Step(Phase.SETUP, Op.SYSCTL, At.SYSCTL, strings=strings, item=index, subject=name)
    if Namespace.MOUNT in runner.namespaces:
        yield root.private_mounts()
    if runner.pivot_root:
        if old_mounts or not privileged:
            yield from root.sources(runner, Phase.SETUP, old=old_mounts)
        inside = tuple(_hooks(runner, hooks, inside=True))
        yield from root.new_root(
            runner, hooks=inside, privileged=privileged, owner=owner, old=old_mounts
        )
    else:
        yield from _hooks(runner, hooks, inside=True)
    if runner.host_name:
        yield _name(Op.HOSTNAME, runner.host_name)
    if runner.domain_name:
        yield _name(Op.DOMAINNAME, runner.domain_name)


def _name(op: Op, name: str) -> Step:
    return Step(Phase.SETUP, op, At.HOSTNAME, strings=(os.fsencode(name),), subject=name)


def _joined(runner: Runner) -> Iterator[Step]:
    """Do once in the keeper what every program inherits."""
    if Namespace.TIME in runner.namespaces:
        yield from _time(runner)
    yield from _become_root(runner, Phase.JOINED)
    if runner.drop_caps:
        yield Step(Phase.JOINED, Op.SECUREBITS, At.DROP_CAPABILITY, (_SECUREBITS,))
        yield Step(Phase.JOINED, Op.DROP_BOUNDING, At.BOUNDING)
    yield Step(Phase.JOINED, Op.DUMPABLE, At.INIT, (0,))


def _time(runner: Runner) -> Iterator[Step]:
    yield Step(Phase.JOINED, Op.UNSHARE, At.UNSHARE, (int(Namespace.TIME),))
    offsets = runner.time_offsets
    monotonic, boottime = (offsets.monotonic, offsets.boottime) if offsets else (0.0, 0.0)
    args = (
        *divmod(round(monotonic * NS_PER_S), NS_PER_S),
        *divmod(round(boottime * NS_PER_S), NS_PER_S),
    )
    subject = f"monotonic {monotonic:g} boottime {boottime:g}"
    yield Step(Phase.JOINED, Op.TIME_OFFSETS, At.TIME, args, subject=subject)
