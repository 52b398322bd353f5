"""Who is compared: each runs a program again and again, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.compare import others
from bench.compare.ours import PLACE
from bench.compare.programs import Program
from bench.measure import Coprocess

BARE = "bare C loop"
LIVE = "live sandbox"
ONCE = "sandbox used once"


class Contestant(NamedTuple):
    """A way to run programs: its name, what is missing for it, and the loop's command."""

    name: str
    missing: str | None
    command: Callable[[Path, Program, int], list[str]]


class Loop(Coprocess):
    """A contestant at work on one program; several at a time have different numbers."""

    def __init__(
        self, contestant: Contestant, place: Path, program: Program, number: int = 0
    ) -> None:
        super().__init__(contestant.command(place, program, number))
        self.batch(1)  # neither its start is counted nor its first run

    def batch(self, count: int) -> list[int]:
        self.send(count)
        return self.answer()

    def answer(self) -> list[int]:
        return [int(word) for word in self.receive().split()]


def bare(place: Path, program: Program, _: int) -> list[str]:
    return [str(place / "baseline"), *program.at(place)]


def python(how: str) -> Callable[[Path, Program, int], list[str]]:
    """Give what runs it by Python, in our sandbox or in none."""

    def command(place: Path, program: Program, _: int) -> list[str]:
        inside = place if how == "subprocess" else PLACE
        words = [sys.executable, "-m", "bench.compare.ours", how, str(place)]
        return [*words, *program.at(inside)]

    return command


def bwrap(place: Path, program: Program, _: int) -> list[str]:
    with_filter = ["sh", "-c", 'exec "$@" 3<"$0"', str(place / "filter")]
    inside = program.at(others.PLACE)
    return [*with_filter, str(place / "baseline"), *others.bwrap(place, inside)]


def firejail(place: Path, program: Program, _: int) -> list[str]:
    return [str(place / "baseline"), *others.firejail(place, program.at(place))]


def crun(place: Path, program: Program, number: int) -> list[str]:
    bundled = others.crun(place, program.at(others.PLACE), number)
    return [*others.without_hybrid(), str(place / "baseline"), *bundled]


CONTESTANTS = (
    Contestant(BARE, None, bare),
    Contestant("subprocess.run", None, python("subprocess")),
    Contestant(LIVE, None, python("live")),
    Contestant(ONCE, None, python("once")),
    Contestant("sandbox built ahead", None, python("ahead")),
    Contestant("bwrap", others.missing("bwrap", "bubblewrap"), bwrap),
    Contestant("crun", others.missing("crun", "crun"), crun),
    Contestant("firejail", others.missing("firejail", "firejail"), firejail),
)
