"""The first line of a script: who the kernel starts for it, and whom env(1) then starts."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from typing import TYPE_CHECKING, Final

from runner.config.checks import refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD: Final = 256  # BINPRM_BUF_SIZE: the kernel reads no more (since 5.1; 128 before)
PATH: Final = ("/usr/local/bin", "/usr/bin", "/bin")  # in which env looks, as in a sandbox

_SPLIT: Final = re.compile(r"-\w*S\s*|--split-string[=\s]\s*")


def interpreters(path: str, head: bytes, search: Sequence[str] = PATH) -> list[str]:
    """Give the interpreter in the first line, and after an env what env starts.

    `head` is the first HEAD bytes of the file, or all of it. Of a line that is longer the rest
    is lost, as for the kernel (binfmt_script), which refuses it only if that cuts the path.
    """
    text, end, _ = head[2:].replace(b"\0", b"\n").partition(b"\n")
    name, space, argument = os.fsdecode(text).strip(" \t").replace("\t", " ").partition(" ")
    if not name:
        refuse("stage", path, "its first line is #! without an interpreter: name one")
    if not (end or space or len(head) < HEAD):
        refuse("stage", path, f"its #! line is longer than {HEAD} bytes: shorten it")
    names = [name]
    if posixpath.basename(name) == "env":
        names += _started_by_env(path, argument.strip(), search)
    for each in names:
        if not each.startswith("/"):
            refuse("stage", path, f"its interpreter {each!r} is no absolute path: give one")
    return names


def _started_by_env(path: str, argument: str, search: Sequence[str]) -> list[str]:
    """Give the command of env; without -S the kernel's one argument is all of it."""
    words = [argument]
    if split := _SPLIT.match(argument):
        words = argument[split.end() :].split()
    command = next((word for word in words if word[:1] != "-" and "=" not in word), "")
    if not command or "/" in command:
        return [command] if command else []
    candidates = (posixpath.join(directory, command) for directory in search)
    found = next(filter(_is_executable, candidates), None)
    if found is None:
        where = ", ".join(search)
        refuse(
            "stage", path, f"env finds no {command!r} in {where}: install it, or name its path"
        )
    return [found]


def _is_executable(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:  # execvp(3) goes on too
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)
