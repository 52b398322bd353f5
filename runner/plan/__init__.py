"""From a `Runner` to ordered steps: what is done, by whom, and in which order.

This is the one place where the order is written. The helper executes steps and knows only how
each is done (native/steps.c). Pure: nothing here touches the kernel.
"""

from __future__ import annotations

from runner.plan.box import HookFiles, box, clone_flags, with_ids
from runner.plan.program import candidates, program
from runner.plan.root import fresh_places, ready_places
from runner.plan.steps import FD_CLOSED, FD_STDERR_PIPE, FD_STDOUT_PIPE, Op, Phase, Step
from runner.plan.traces import traces

__all__ = [
    "FD_CLOSED",
    "FD_STDERR_PIPE",
    "FD_STDOUT_PIPE",
    "HookFiles",
    "Op",
    "Phase",
    "Step",
    "box",
    "candidates",
    "clone_flags",
    "fresh_places",
    "program",
    "ready_places",
    "traces",
    "with_ids",
]
