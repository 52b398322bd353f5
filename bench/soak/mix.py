"""What the soak runs, in which order, and how each of it has to end."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Sequence
from typing import NamedTuple

from runner.config import Limits
from runner.errors import ChildError
from runner.result import Status
from runner.sandbox import Sandbox
from runner.units import KiB, MiB

LIMITS = Limits(
    cpu_time=5,
    wall_time=20,
    memory=16 * MiB,
    processes=16,
    output=256 * KiB,
    disk=256 * KiB,
    inodes=64,
)
INPUT = b"x" * 1000
CANCEL_AFTER = 0.005


class Kind(NamedTuple):
    """One kind of run: the word for soak.c, and how it may end."""

    word: str
    ends: frozenset[Status]
    limits: Limits = LIMITS
    cancelled: bool = False


def _ends(*statuses: Status) -> frozenset[Status]:
    return frozenset(statuses)


# The first is that by which latencies are compared.
TAME: Sequence[Kind] = (
    Kind("succeed", _ends(Status.OK)),
    Kind("echo", _ends(Status.OK)),
    Kind("fail", _ends(Status.NONZERO_EXIT)),
    Kind("compute", _ends(Status.OK)),
    Kind("family", _ends(Status.OK)),
)
HOSTILE: Sequence[Kind] = (
    Kind("bomb", _ends(Status.OK)),
    # Without a group, memory is seen every few ms only: an address space is a limit too.
    Kind("hog", _ends(Status.MEMORY_LIMIT, Status.NONZERO_EXIT)),
    Kind("spin", _ends(Status.CPU_TIME_LIMIT), LIMITS.replace(cpu_time=0.005)),
    Kind("fill", _ends(Status.OK, Status.DISK_LIMIT)),
    Kind("orphan", _ends(Status.OK)),
    Kind("die", _ends(Status.SIGNALLED)),
    Kind("objects", _ends(Status.OK)),
    Kind("rules", _ends(Status.DISALLOWED_SYSCALL, Status.NONZERO_EXIT)),
    Kind("flood", _ends(Status.OUTPUT_LIMIT)),
    Kind(
        "sleep",
        _ends(Status.WALL_TIME_LIMIT),
        LIMITS.replace(cpu_time=0.005, wall_time=0.005),
    ),
    Kind("sleep", _ends(Status.CANCELLED), cancelled=True),
    Kind("missing", _ends()),
)


def choose(number: int, seed: int) -> Kind:
    """Give the kind of a run, by its number: every other one is hostile."""
    kinds = HOSTILE if number % 2 else TAME
    return random.Random(number * 1_000_003 + seed).choice(kinds)


def run(sandbox: Sandbox, kind: Kind, place: str) -> str | None:
    """Run it; gives what is wrong with how it ended, if anything."""
    name = "/nonexistent" if kind.word == "missing" else place
    ended = threading.Event()
    canceller = threading.Thread(target=_cancel, args=(sandbox, ended))
    if kind.cancelled:
        canceller.start()
    try:
        result = sandbox.run([name, kind.word], limits=kind.limits, stdin=INPUT)
    except ChildError as error:
        absent = kind.word == "missing" and error.errno == errno.ENOENT
        return None if absent else f"{kind.word}: {error}"
    finally:
        ended.set()
        if kind.cancelled:
            canceller.join()
    if result.status not in kind.ends:
        return f"{kind.word}: {result.status.value}, signal {result.signal}"
    if kind.word == "echo" and result.stdout != INPUT:
        return f"echo: {len(result.stdout or b'')} bytes of output"
    return None


def _cancel(sandbox: Sandbox, ended: threading.Event) -> None:
    """More than once: a cancel that comes before the run is none."""
    while not ended.wait(CANCEL_AFTER):
        sandbox.cancel()
