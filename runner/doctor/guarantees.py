"""What holds each guarantee in a sandbox that was really started here, or what is missing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from runner.doctor.finding import Finding, Level
from runner.errors import HostError, SandboxError
from runner.guarantees import GUARANTEES, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.cgroup import Resource, WhyNot
    from runner.doctor.surroundings import Surroundings
    from runner.host import Host


def examine(
    sandbox: Mapping[str, str | None] | SandboxError,
    host: Host,
    why_not: Mapping[Resource, WhyNot],
    around: Surroundings,
) -> tuple[Finding, ...]:
    """Give a finding for each guarantee.

    `sandbox` is what was enforced in one, or why none could be started: then nothing is.
    """
    if isinstance(sandbox, SandboxError):
        own = () if sandbox.hint is None else (sandbox.hint,)
        remedies = (*own, *around.confinement_remedies())
        why = f"no sandbox can be started: {sandbox}"
        return tuple(
            Finding(name=name, level=Level.MISSING, value="nothing", why=why, remedies=remedies)
            for name in GUARANTEES
        )
    return tuple(_examine(name, sandbox, host, why_not, around) for name in GUARANTEES)


def _examine(
    name: str,
    held: Mapping[str, str | None],
    host: Host,
    why_not: Mapping[Resource, WhyNot],
    around: Surroundings,
) -> Finding:
    try:
        require((name,), held, host)
    except HostError as error:
        group = _obstacle(name, error, why_not)
        own = () if error.hint is None else (error.hint,)
        return Finding(
            name=name,
            level=Level.MISSING if held[name] is None else Level.WEAK,
            value=held[name] or "nothing",
            why=error.missing if group is None else group.missing,
            remedies=own if group is None else around.cgroup_remedies(group),
        )
    return Finding(name=name, level=Level.OK, value=held[name] or "")


def _obstacle(name: str, error: HostError, why_not: Mapping[Resource, WhyNot]) -> WhyNot | None:
    """Find what keeps us from the cgroup that this wants: its own obstacle, or that named."""
    own = (why for resource, why in why_not.items() if resource.value == name)
    named = (why for why in why_not.values() if error.missing.endswith(why.missing))
    return next(itertools.chain(own, named), None)
