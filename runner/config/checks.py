"""The checks that the values of a configuration share. Pure."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from runner.errors import ConfigError
from runner.units import MAX_SECONDS, NS_PER_S

Text = str | bytes | os.PathLike[str]

_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"


def check_name(field: str, name: str) -> None:
    """Refuse a sandbox's name that reads as a pid, an option or a path; "" is no name."""
    if name and (name.isdigit() or not re.fullmatch(_NAME, name)):
        refuse(field, name, "use letters, digits, _ . -, at most 64; begin with a letter")


def check_path(field: str, path: str) -> None:
    """Refuse what is no absolute path, or leads upwards."""
    if not path.startswith("/"):
        refuse(field, path, "give an absolute path")
    check_bytes(field, path)
    if ".." in path.split("/"):
        refuse(field, path, "give a path without ..")


def check_text(field: str, value: str) -> None:
    """Refuse what is empty or holds a NUL byte."""
    if not value:
        refuse(field, value, "it is empty")
    check_bytes(field, value)


def check_bytes(field: str, value: str) -> int:
    """Refuse what the kernel cannot be told: NUL ends its texts. Give the number of bytes."""
    try:
        size = len(os.fsencode(value))
    except UnicodeEncodeError:
        refuse(field, value, f"some of it is no text of {sys.getfilesystemencoding()}")
    if "\0" in value:
        refuse(field, value, "it holds a NUL byte")
    return size


def check_time(field: str, value: float | None, *, zero: bool) -> None:
    """Refuse what is no time in seconds; None is no limit."""
    if value is None:
        return
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
    ):
        refuse(field, value, "give seconds as a number, or None for no limit")
    if value < 0 or (value == 0 and not zero):
        refuse(field, value, "give a positive number of seconds, or None for no limit")
    if value > MAX_SECONDS:
        refuse(field, value, f"the longest time is {MAX_SECONDS} seconds")
    if 0 < value * NS_PER_S < 1:
        refuse(field, value, "the shortest time is a nanosecond")


def check_count(field: str, value: int | None, largest: int) -> None:
    """Refuse what is no whole number from 1 to `largest`; None is no limit."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(field, value, "give a whole number, or None for no limit")
    if not 0 < value <= largest:
        refuse(field, value, f"give 1 to {largest}, or None for no limit")


def check_args(args: Sequence[Text]) -> None:
    """Refuse an empty command and NUL bytes, which no argv can hold."""
    if isinstance(args, str | bytes):
        refuse("args", args, "give a list of words, not one text")
    if not args:
        refuse("args", args, "there is no command")
    for word in args:
        if not isinstance(word, str | bytes | os.PathLike):
            refuse("args", word, "an argument is text")
        check_bytes("args", os.fsdecode(word))


def check_env(env: Mapping[str, str]) -> None:
    """Refuse names and values that no environment can hold."""
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            refuse("env", f"{name!r}: {value!r}", "names and values are text")
        if not name or "=" in name or "\0" in name:
            refuse("env", name, "a name is not empty and holds neither = nor NUL")
        check_bytes("env", f"{name}={value}")


def refuse(field: str, value: object, why: str) -> NoReturn:
    """Raise ConfigError, which names the field, the value, and why or what to do."""
    message = f"{field}: {value!r}: {why}"
    raise ConfigError(message)
