"""The steps of a `Supervision`: rules that the keeper reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.errors import ErrorLocation as At
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.supervision import Rules


def steps(rules: Rules) -> Iterator[Step]:
    """Say the rules, which nobody executes."""
    yield _rule(Op.RULE_REFUSE, rules.refuse, rules.by_notice)
    for rule in rules.calls:
        key = rules.arch << 32 | rule.number
        key -= 2**64 if key >= 2**63 else 0  # signed: AUDIT_ARCH_* has its top bit set
        yield _rule(Op.RULE_CALL, key, int(rule.kind), rule.value, rule.where)
    for path_set, match, path in rules.paths:
        yield _rule(Op.RULE_PATH, int(path_set), int(match), path=path)


def _rule(op: Op, *args: int, path: str = "") -> Step:
    strings = (os.fsencode(path),) if path else ()
    return Step(Phase.SUPERVISE, op, At.PTRACE_ME, args, strings, subject=path)
