"""Calls with paths, as raw_call.c makes them, and places where they may do more or less."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runner import supervision
from runner.seccomp import native, syscalls
from runner.supervision import Use

NUMBERS = syscalls.numbers(native(None))
# Every path of every call that this machine has, but for those that replace the caller.
CALLS = [
    (name, at)
    for name, paths in supervision.PATHS.items()
    if name in NUMBERS and name not in {"execve", "execveat", "uselib"}
    for at in range(len(paths))
]
# Who may do more may do less: what is refused is in the next smaller set, or in none.
SMALLER = {"write": "read", "read": "stat", "stat": "none"}
PLACES = (*SMALLER, "none", "soft")


def compile_raw_call(directory: Path) -> str:
    program = directory / "raw_call"
    source = Path(__file__).parent / "raw_call.c"
    subprocess.run(["gcc", "-static", "-O1", "-o", program, source], check=True)
    return str(program)


def fill(place: Path) -> None:
    """Make directories named by what may be done in each, of the same content."""
    for name in PLACES:
        (place / name / "d").mkdir(parents=True)
        (place / name / "f").write_text(f"of {name}\n")
        (place / name / "l").symlink_to("f")


def words(name: str, at: int, path: str, place: str) -> list[str]:
    """Give the words of raw_call for a call with `path` as its path number `at`."""
    args = ["0"] * 6
    for number, each in enumerate(supervision.PATHS[name]):
        args[each.path] = f"s:{path if number == at else place + '/write/other'}"
        if each.directory is not None:
            args[each.directory] = "-100"
        if each.use is Use.OPENAT2:
            args[each.flags or 0], args[3] = "z:24", "24"
    return [str(NUMBERS[name]), *args]


def use_of(name: str, at: int) -> str:
    """Give the set that a path of a call has to be in."""
    use = supervision.PATHS[name][at].use
    return {Use.STAT: "stat", Use.WRITE: "write", Use.CREAT: "write"}.get(use, "read")
