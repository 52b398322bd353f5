"""What is looked at after each run, since it cannot be put back: see docs/freshness.md.

Where something is not as it was, a step fails, and the sandbox is replaced.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.config import Mount, MountKind, Namespace, in_order
from runner.errors import ErrorLocation as At
from runner.plan import mounting, places
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.config import Runner

_NET_OPEN, _NET_LOOK = 0, 1  # args of QUIET_NETWORK


def traces(runner: Runner, *, rules_init: bool) -> Iterator[Step]:
    """Plan the looks at a live sandbox, and what they need from its start on.

    `rules_init`: a program has the uid of pid 1, and so may set its limits.
    """
    yield from _network(runner)
    for number, mount in in_order(runner.mounts):
        yield from _of_mount(mount, number)
    if rules_init:
        yield Step(Phase.CLEAN, Op.INIT_LIMITS, At.CLEAN, subject="pid 1")


def _network(runner: Runner) -> Iterator[Step]:
    """Look at one that nothing reaches; with an outside, what a run has sent is there."""
    if Namespace.NETWORK not in runner.namespaces or runner.hooks:
        return
    yield Step(Phase.EARLY, Op.QUIET_NETWORK, At.CLEAN, (_NET_OPEN,), subject="/proc/self/net")
    yield Step(Phase.CLEAN, Op.QUIET_NETWORK, At.CLEAN, (_NET_LOOK,), subject="network")


def _of_mount(mount: Mount, number: int) -> Iterator[Step]:
    if mount.kind is MountKind.PROC:
        # Its files have the time at which somebody first looked for them, for as long as the
        # kernel remembers that. It forgets at a remount, which changes nothing else.
        again = places.kernel_mount(mount, number, mount.target)
        flags = mounting.MS_REMOUNT | again.args[0]
        strings = (b"", os.fsencode(mount.target), b"", b"")
        yield again._replace(
            phase=Phase.CLEAN, location=At.CLEAN, args=(flags,), strings=strings
        )
    elif mount.kind is MountKind.DEV and mount.pts:
        terminals = f"{mount.target}/pts"
        yield Step(
            Phase.CLEAN,
            Op.UNCHANGED,
            At.CLEAN,
            (number,),
            (os.fsencode(terminals),),
            item=number,
            subject=terminals,
        )
