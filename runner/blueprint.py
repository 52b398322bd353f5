"""`Blueprint`: what a sandbox is made of, worked out once for those that take its place."""

from __future__ import annotations

import contextlib
import enum
import os
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from runner import idmap, plan, resolve, rootfs
from runner.cgroup import Parent
from runner.config import (
    ALL_NAMESPACES,
    Credential,
    Mount,
    Namespace,
    Network,
    Runner,
)
from runner.errors import HostError
from runner.host import Host, detect
from runner.quick import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.cgroup import Groups
    from runner.config import User
    from runner.plan import Step

_PIVOT: Final = "/tmp"  # any directory that exists everywhere; it is covered inside only

# A host changes seldom: what was seen of it holds for the sandboxes of so many seconds.
_LIFETIME_S: Final = 1.0
_IDLE_MOST: Final = 2
_RECENT_MOST: Final = 4


class Uses(enum.Enum):
    """How many programs a sandbox is for.

    MANY       what one leaves is put back for the next
    ONE_EACH   one, and the sandbox of the next is made ahead
    ONE        one, and there is no next
    """

    MANY = enum.auto()
    ONE_EACH = enum.auto()
    ONE = enum.auto()


@dataclass(frozen=True, kw_only=True)
class BoxConfig:
    """What a sandbox is made of; see `Sandbox`. `root` None is the default one."""

    mounts: tuple[Mount, ...]
    root: tuple[Mount, ...] | None
    seccomp: bytes
    host_name: str
    name: str
    network: Network
    require: frozenset[str]
    extras: Mapping[str, Any]
    user: Credential | User
    keep_files: bool = False
    allows_keys: bool = False
    uses: Uses = Uses.MANY


class Made(NamedTuple):
    """The plan of one sandbox. `runner` has the ids of the first of its blueprint."""

    runner: Runner
    ids: idmap.Ids
    steps: list[Step]
    fds: Sequence[int]


class Blueprint:
    """How to make the sandboxes of a `BoxConfig`, for as long as it `is_current`.

    host, parent   what was seen of the host, and where groups go
    requests       of programs: plans that were made and can be sent again
    """

    def __init__(self, config: BoxConfig, *, old_mounts: bool) -> None:
        self.config: Final = config
        self.host: Final = detect()
        self.parent: Final = Parent.find(self.host)
        self.requests: Final[dict[tuple[object, ...], Any]] = {}
        self._old_mounts = old_mounts
        self._pid = os.getpid()
        self._until = time.monotonic() + _LIFETIME_S
        self._idle: list[Groups] = []
        # Only while groups are kept: it is called wherever we are collected, and there an
        # interrupt would be lost.
        self._end: weakref.finalize[..., Blueprint] | None = None
        self._first: Made | None = None

    def groups(self) -> Groups | None:
        """Give the groups for a sandbox: those of one that has ended, if there are any."""
        if self._idle:
            return self._idle.pop()
        if self.parent is None or self.parent.why_not:
            return None
        return self.parent.create()

    def give_back(self, groups: Groups) -> None:
        """Keep the groups of a sandbox that has ended for another: making them takes longer."""
        if groups.are_empty and len(self._idle) < _IDLE_MOST:
            self._idle.append(groups)
            if self._end is None:
                self._end = weakref.finalize(self, _close_all, self._idle, os.getpid())
        else:
            groups.close()

    def close(self) -> None:
        """Remove the groups that are kept."""
        if self._end is not None:
            self._end()
            self._end = None

    def renewed(self) -> Blueprint:
        """Look at the host anew."""
        return Blueprint(self.config, old_mounts=self._old_mounts)

    def serves(self, *, old_mounts: bool) -> bool:
        """Tell whether a sandbox can be made of it now, with or without mount(2) alone."""
        return self.is_current and self._old_mounts is old_mounts

    @property
    def is_current(self) -> bool:
        """Tell whether another sandbox may be made of it: the host was looked at lately."""
        same_user = self.host.euid == os.geteuid()
        same_process = self._pid == os.getpid()  # a fork may have been put elsewhere
        return same_user and same_process and time.monotonic() < self._until

    def plan(self, keeper: int, undo: contextlib.ExitStack) -> Made:
        """Plan the sandbox of a keeper, given its pid. What is opened for it is in `undo`."""
        first = self._first
        if first is None:
            runner, ids = _runner(self.config, self.host, keeper)
        else:
            runner, ids = first.runner, _ids(first.ids.inside, self.host, keeper)
        owner = idmap.owner_maps(ids, euid=self.host.euid, egid=os.getegid())
        sent = resolve.gather(runner, undo)
        if first is not None:
            steps = plan.with_ids(
                first.steps, uids=ids.uid_mappings, gids=ids.gid_mappings, owner=owner
            )
            return Made(runner, ids, steps, sent.fds)
        steps = plan.box(
            runner,
            privileged=self.host.privileged,
            drop_groups=self.host.maps_ids,
            owner=owner,
            hooks=sent.hooks,
            old_mounts=self._old_mounts,
            keep_files=self.config.keep_files,
        )
        if self.config.uses is Uses.MANY:
            own = ids.credential
            steps += plan.traces(runner, rules_init=own is None or own.uid == 0)
        else:  # nothing is put back
            steps = [step for step in steps if step.phase is not plan.Phase.CLEAN]
        self._first = Made(runner, ids, steps, ())
        return Made(runner, ids, steps, sent.fds)


# Of sandboxes for one program that have ended just now. A list's methods are atomic.
_RECENT: Final[list[Blueprint]] = []


def lend(config: BoxConfig, *, old_mounts: bool) -> Blueprint:
    """Give the blueprint of a sandbox like it that has ended just now, or a new one.

    Nobody else has it until it is given to `keep`.
    """
    for blueprint in tuple(_RECENT):
        if blueprint.serves(old_mounts=old_mounts) and blueprint.config == config:
            with contextlib.suppress(ValueError):  # another thread has it
                _RECENT.remove(blueprint)
                return blueprint
    return Blueprint(config, old_mounts=old_mounts)


def keep(blueprint: Blueprint) -> None:
    """Keep one that has been closed, for the next sandbox like it, if that comes soon."""
    _RECENT.append(blueprint)
    del _RECENT[:-_RECENT_MOST]


def _runner(config: BoxConfig, host: Host, keeper: int) -> tuple[Runner, idmap.Ids]:
    """Give the sandbox as a `Runner`, of which only the part around a program matters."""
    if not host.user_namespaces:
        missing = "user namespaces"
        raise HostError(missing, host.no_user_namespaces)
    root = list(rootfs.default_root(host.root_entries) if config.root is None else config.root)
    if config.root is None and config.network is not Network.NONE:
        root += rootfs.resolver()
    mounts = rootfs.combine(root, config.mounts)
    program = config.user
    if not isinstance(program, Credential):
        from runner import accounts  # few name one

        program = accounts.credential(program, root="", mounts=mounts)
    ids = _ids(program, host, keeper)
    extras = _of_the_box(config.extras)
    hooks = tuple(extras.pop("hooks", ()))
    if config.network is Network.PASTA:
        from runner import network  # few have one

        hooks += (network.pasta(),)
    namespaces = ALL_NAMESPACES
    if "time_offsets" in extras:
        namespaces |= Namespace.TIME
    without = Namespace.NETWORK if config.network is Network.HOST else Namespace(0)
    runner = Runner(
        args=("sandbox",),
        namespaces=namespaces & ~without,
        mounts=mounts,
        pivot_root=_PIVOT,
        host_name=config.host_name,
        uid_mappings=ids.uid_mappings,
        gid_mappings=ids.gid_mappings,
        seccomp=config.seccomp,
        drop_caps=True,
        files=(),
        hooks=hooks,
        **extras,
    )
    return runner, ids


def _close_all(groups: list[Groups], owner: int) -> None:
    """Remove groups, but not those of a process that we are a fork of."""
    while groups and os.getpid() == owner:
        groups.pop().close()


def _ids(program: Credential, host: Host, keeper: int) -> idmap.Ids:
    return idmap.sandbox_ids(
        program=program,
        privileged=host.maps_ids,
        euid=host.euid,
        egid=os.getegid(),
        keeper=keeper,
        uid_map=host.uid_map,
        gid_map=host.gid_map,
    )


# Of the extras, what is set once; all else is set in each program.
_OF_THE_BOX: Final = frozenset({"time_offsets", "sysctls", "loopback", "hooks", "domain_name"})
# Set in each program, and prepared for once.
_OF_BOTH: Final = frozenset({"oom_score_adj", "supervision"})


def of_a_program(extras: Mapping[str, Any]) -> dict[str, Any]:
    """Give the extras that are set in each program."""
    return {name: value for name, value in extras.items() if name not in _OF_THE_BOX}


def _of_the_box(extras: Mapping[str, Any]) -> dict[str, Any]:
    names = _OF_THE_BOX | _OF_BOTH
    return {name: value for name, value in extras.items() if name in names}
