"""The plan of a sandbox: its namespaces, and what the keeper does once for all programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.config import Namespace
from runner.errors import ErrorLocation as At
from runner.plan import root
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.config import IdMap, Runner

# capabilities(7): no privilege by uid 0, none kept or regained by a change of uid, and all of
# it locked.
_SECUREBITS: Final = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80


def box(
    runner: Runner,
    *,
    privileged: bool,
    drop_groups: bool | None = None,
    owner: tuple[bytes, bytes] | None = None,
) -> list[Step]:
    """Plan the sandbox of a `Runner`: its namespaces' inside, and what the keeper does once.

    `privileged`: the caller has CAP_SYS_ADMIN in its own namespaces, so the keeper opens what
    is bound before they are left; otherwise init does, inside, with the caller's own rights.
    `drop_groups`: it may, and does (None: if privileged); inside, setgroups is denied.
    `owner`: the maps of mounts whose files are to be the program's; see `idmap.owner_maps`.
    """
    return [
        *_drop_groups(runner, may=privileged if drop_groups is None else drop_groups),
        *(root.sources(runner.mounts, Phase.EARLY, owner) if privileged else ()),
        *_maps(runner),
        *_setup(runner, privileged=privileged),
        *_joined(runner),
        *root.fresh_places(runner.mounts),
        *_fresh_ipc(runner),
    ]


def clone_flags(runner: Runner) -> Namespace:
    """Give the namespaces to make with init.

    The cgroup namespace is made by the program itself after it has entered its cgroups, or its
    root would be the caller's (cgroup_namespaces(7)).
    """
    return runner.namespaces & ~Namespace.CGROUP


def _fresh_ipc(runner: Runner) -> Iterator[Step]:
    if Namespace.IPC in runner.namespaces:
        yield Step(Phase.CLEAN, Op.FRESH_IPC, At.CLEAN)


def _drop_groups(runner: Runner, *, may: bool) -> Iterator[Step]:
    if may and Namespace.USER in runner.namespaces:
        yield Step(Phase.EARLY, Op.SETGROUPS, At.SETGROUPS)


def _maps(runner: Runner) -> Iterator[Step]:
    if Namespace.USER not in runner.namespaces:
        return
    setgroups = b"allow" if runner.gid_mappings_enable_setgroups else b"deny"
    uid_map, gid_map = runner.uid_mappings, runner.gid_mappings
    for name, text in (
        (b"uid_map", _map_text(uid_map)),
        (b"setgroups", setgroups),
        (b"gid_map", _map_text(gid_map)),
    ):
        yield Step(
            Phase.MAPS,
            Op.ID_MAP,
            At.UNSHARE_USER_READ,
            strings=(name, text),
            subject=f"{name.decode()} {text.decode().strip()}",
        )


def _map_text(maps: Sequence[IdMap]) -> bytes:
    return "".join(f"{m.inside} {m.outside} {m.count}\n" for m in maps).encode()


def _become_root(runner: Runner, phase: Phase) -> Iterator[Step]:
    """Take id 0 of the user namespace where it has one, so that what we make belongs to it."""
    if any(m.inside == 0 for m in runner.gid_mappings):
        yield Step(phase, Op.SETGID, At.SETGID, (0,))
    if any(m.inside == 0 for m in runner.uid_mappings):
        yield Step(phase, Op.SETUID, At.SETUID, (0,))


def _setup(runner: Runner, *, privileged: bool) -> Iterator[Step]:
    yield from _become_root(runner, Phase.SETUP)
    if Namespace.MOUNT in runner.namespaces:
        yield root.private_mounts()
    if runner.pivot_root:
        if not privileged:
            yield from root.sources(runner.mounts, Phase.SETUP)
        yield from root.new_root(runner.pivot_root, runner.mounts)
    if runner.host_name:
        yield _name(Op.HOSTNAME, runner.host_name)
    if runner.domain_name:
        yield _name(Op.DOMAINNAME, runner.domain_name)


def _name(op: Op, name: str) -> Step:
    return Step(Phase.SETUP, op, At.HOSTNAME, strings=(name.encode(),), subject=name)


def _joined(runner: Runner) -> Iterator[Step]:
    """Do once in the keeper what every program inherits."""
    yield from _become_root(runner, Phase.JOINED)
    if runner.drop_caps:
        yield Step(Phase.JOINED, Op.SECUREBITS, At.DROP_CAPABILITY, (_SECUREBITS,))
        yield Step(Phase.JOINED, Op.DROP_BOUNDING, At.BOUNDING)
    yield Step(Phase.JOINED, Op.DUMPABLE, At.INIT, (0,))
