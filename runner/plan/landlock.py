"""The steps of a `Landlock` ruleset: made, filled and entered by the program's own process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.errors import ErrorLocation as At
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.landlock import Ruleset


def steps(ruleset: Ruleset) -> Iterator[Step]:
    """Restrict the process, as the last but its filter: its own set-up is behind it."""
    if ruleset.empty:
        return
    masks = (ruleset.files, ruleset.ports_held, ruleset.scopes)
    yield Step(Phase.PROGRAM, Op.LANDLOCK, At.LANDLOCK, masks)
    for number, path, rights in ruleset.paths:
        yield Step(
            Phase.PROGRAM,
            Op.LANDLOCK_PATH,
            At.LANDLOCK,
            (rights,),
            (os.fsencode(path),),
            item=number,
            subject=path,
        )
    for number, (port, rights) in enumerate(ruleset.ports):
        yield Step(
            Phase.PROGRAM,
            Op.LANDLOCK_PORT,
            At.LANDLOCK,
            (port, rights),
            item=number,
            subject=f"port {port}",
        )
    yield Step(Phase.PROGRAM, Op.LANDLOCK_RESTRICT, At.LANDLOCK)
