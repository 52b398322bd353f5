"""Texts of the command line → values. Each parser takes the text and raises ConfigError.

A message names the value and what would be right; the option's name is put before it by the
caller. Nothing here looks at other options.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NoReturn

from runner.config import RLIM_INFINITY, RLIMITS, Mount, Rlimit
from runner.errors import ConfigError
from runner.units import parse_size, parse_time

if TYPE_CHECKING:
    from runner.config import DeviceAccess, IoLimit

# The rlimits whose unit is bytes, getrlimit(2); these need a suffix, as every size does.
_BYTES: Final = frozenset(
    ("FSIZE", "DATA", "STACK", "CORE", "RSS", "MEMLOCK", "AS", "MSGQUEUE"),
)
_MAX_COUNT: Final = 2**22
_MAX_RATE: Final = 10**12
_BIND_FLAGS: Final = ("ro", "rw", "dev", "optional")
_LANDLOCK_PORTS: Final = ("bind", "connect")
_LANDLOCK_TEXTS: Final = {
    "read": "read",
    "write": "write",
    "execute": "execute",
    "scope": "scopes",
}
_SUPERVISED: Final = ("stat", "read", "write", "ban", "refuse")
_RATES: Final = ("read_bytes", "write_bytes", "read_ops", "write_ops")


def size(text: str) -> int:
    """Read a size above zero."""
    value = parse_size(text)
    if value == 0:
        _refuse(text, "give more than 0; for no limit leave the option out")
    return value


def stack_size(text: str) -> int:
    """Read a size above zero, or `unlimited` as RLIM_INFINITY."""
    return RLIM_INFINITY if text == "unlimited" else size(text)


def seconds(text: str) -> float:
    """Read a time of at least a nanosecond, in seconds."""
    value = parse_time(text)
    if value < 1e-9:
        _refuse(text, "give more than 0; for no limit leave the option out")
    return value


def count(text: str) -> int:
    """Read a whole number of things, 1 or more."""
    if not _is_digits(text) or not 1 <= int(text) <= _MAX_COUNT:
        _refuse(text, f"give a whole number, 1 to {_MAX_COUNT}")
    return int(text)


def landlock(text: str) -> tuple[str, tuple[str | int, ...] | bool]:
    """Read one rule as a field of `Landlock`, and what it adds to it."""
    if text == "best-effort":
        return "best_effort", True
    name, _, value = text.partition("=")
    if name in _LANDLOCK_TEXTS and value:
        return _LANDLOCK_TEXTS[name], (value,)
    if name in _LANDLOCK_PORTS and value == "none":
        return name, ()
    if name not in _LANDLOCK_PORTS or not _is_digits(value) or int(value) >= 2**16:
        _refuse(text, "give read=, write= or execute=PATH, bind= or connect=PORT, scope=NAME")
    return name, (int(value),)


def disk(text: str) -> tuple[int, int | None]:
    """Read `SIZE[,INODES]`."""
    limit, comma, inodes = text.partition(",")
    return size(limit), count(inodes) if comma else None


def supervise(text: str) -> tuple[str, str, str | int]:
    """Read one rule as a field of `Supervision`, and what it adds: a path, or a call's rule."""
    field, colon, value = text.partition(":")
    if colon and value and field in _SUPERVISED:
        return field, value, ""
    name, _, rule = text.partition("=")
    if colon or not name or not rule:
        _refuse(text, "give CALL=RULE, or stat:, read:, write: or ban:PATH, or refuse:ERRNO")
    return "calls", name, int(rule) if _is_digits(rule) else rule


def fraction(text: str) -> float:
    """Read a number above zero, which may have decimals."""
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) or float(text) == 0:
        _refuse(text, "give a number above 0, such as 0.5 or 2")
    return float(text)


def io_limit(text: str) -> IoLimit:
    """Read `DEVICE:WHAT=N,…`; byte counts need a unit, operations are plain numbers."""
    device, colon, rates = text.rpartition(":")
    found: dict[str, int] = {}
    for rate in rates.split(","):
        what, equals, amount = rate.partition("=")
        if not colon or not equals or what not in _RATES:
            _refuse(text, "write DEVICE:WHAT=N; WHAT is " + ", ".join(_RATES))
        found[what] = size(amount) if what.endswith("bytes") else count(amount)
    from runner.config import IoLimit

    return IoLimit(device=device, **found)


def device_access(text: str) -> DeviceAccess:
    """Read `DEVICE[=ACCESS]`."""
    from runner.config import DeviceAccess

    device, equals, access = text.partition("=")
    return DeviceAccess(device, access) if equals else DeviceAccess(device)


def rlimit(text: str) -> Rlimit:
    """Read `NAME=SOFT[:HARD]`; byte counts need a unit, the others are plain numbers."""
    name, equals, limits = text.partition("=")
    name = name.upper().removeprefix("RLIMIT_")
    if not equals:
        _refuse(text, "write NAME=SOFT or NAME=SOFT:HARD, such as NOFILE=64")
    if name not in RLIMITS:
        _refuse(text, "known names are " + ", ".join(RLIMITS))
    soft_text, colon, hard_text = limits.partition(":")
    soft = _rlimit_value(name, soft_text, text)
    hard = _rlimit_value(name, hard_text, text) if colon else soft
    if _above(soft, hard):
        _refuse(text, f"the soft limit {soft_text} is above the hard limit {hard_text}")
    return Rlimit(RLIMITS[name], soft, hard)


def environment(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`, or `NAME` for the caller's own value."""
    name, equals, value = text.partition("=")
    if not name:
        _refuse(text, "the name is empty: write NAME=VALUE, or NAME to pass on your own")
    if not equals:
        if name not in os.environ:
            _refuse(text, f"it is not set in your environment: write {name}=VALUE")
        value = os.environ[name]
    return name, value


def bind(text: str) -> Mount:
    """Read `SRC[:DST][:FLAG,…]`; SRC must exist unless `optional` is among the flags."""
    source, *rest = text.split(":")
    target = rest.pop(0) if rest and (not rest[0] or rest[0].startswith("/")) else ""
    flags = rest.pop(0).split(",") if rest else []
    if not source or rest:
        _refuse(text, "write SRC, SRC:DST, SRC:FLAGS or SRC:DST:FLAGS")
    for flag in flags:
        if flag not in _BIND_FLAGS:
            what = "neither an absolute path in the sandbox nor a flag"
            _refuse(text, f"{flag!r} is {what}; flags are {', '.join(_BIND_FLAGS)}")
    if "ro" in flags and "rw" in flags:
        _refuse(text, "ro and rw exclude each other")
    if "optional" not in flags:
        _check_exists(source, text)
    return Mount.bind(
        os.path.realpath(source),
        inside(target or os.path.abspath(source), text),
        readonly="rw" not in flags,
        owned="rw" in flags,
        devices="dev" in flags,
        optional="optional" in flags,
    )


def tmpfs(text: str) -> Mount:
    """Read `DST[:SIZE]`."""
    target, colon, limit = text.partition(":")
    return Mount.tmpfs(inside(target, text), size=size(limit) if colon else None)


def root_directory(text: str) -> str:
    """Read the host's directory that serves as the root."""
    _check_exists(text, text)
    path = os.path.realpath(text)
    if not os.path.isdir(path):
        _refuse(text, "it is not a directory")
    return path


def ids(text: str) -> tuple[int, int] | str:
    """Read `UID[:GID]`, where the group is the user's number if none is given, or a name."""
    uid, colon, gid = text.partition(":")
    if re.fullmatch("[A-Za-z_][A-Za-z0-9_.-]*", text):
        return text
    numbers = (uid, gid) if colon else (uid, uid)
    if not all(_is_digits(number) and int(number) < 2**32 - 1 for number in numbers):
        _refuse(text, "write a name, or numbers, UID or UID:GID, each 0 to 4294967294")
    return int(numbers[0]), int(numbers[1])


def host_name(text: str) -> str:
    """Read a host name that sethostname(2) takes: 1 to 64 bytes."""
    if not 1 <= len(os.fsencode(text)) <= 64:
        _refuse(text, "a host name has 1 to 64 bytes")
    return text


def network(text: str) -> str:
    """Read what a sandbox has for a network."""
    if text not in {"none", "host", "pasta"}:
        _refuse(text, "known are none, host, pasta")
    return text


def mode(text: str) -> int:
    """Read the bits of a mode or of a umask, in octal."""
    if not re.fullmatch("[0-7]{1,4}", text):
        _refuse(text, "write it in octal, such as 755")
    return int(text, 8)


def number(text: str) -> int:
    """Read a whole number, which may be below 0; what it may be is checked with its use."""
    if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        _refuse(text, "write a whole number")
    return int(text)


def cpu_list(text: str) -> tuple[int, ...]:
    """Read CPUs as taskset(1) has them, such as 0-3,7."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (_is_digits(first) and _is_digits(last) and int(first) <= int(last) < 8192):
            _refuse(text, "write numbers and ranges, such as 0-3,7")
        found.update(range(int(first), int(last) + 1))
    return tuple(sorted(found))


def assignment(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        _refuse(text, "write NAME=VALUE")
    return name, value


def time_offset(text: str) -> tuple[str, float]:
    """Read `CLOCK=SECONDS`, which may be below 0."""
    clock, _, amount = text.partition("=")
    if clock not in {"monotonic", "boottime"} or not re.fullmatch(
        r"[+-]?[0-9]+(\.[0-9]+)?", amount
    ):
        _refuse(text, "write monotonic=SECONDS or boottime=SECONDS")
    return clock, float(amount)


def file_name(text: str) -> str:
    """Read a path to open; whether it opens shows when it is opened."""
    if not text:
        _refuse(text, "the name is empty")
    return text


def output_file(text: str) -> str:
    """Read a path to write to after the run; its directory is looked at now."""
    if not os.path.isdir(os.path.dirname(file_name(text)) or "."):
        _refuse(text, f"there is no directory {os.path.dirname(text)}")
    return text


def copy_in(text: str) -> object:
    """Read FILE[:NAME]."""
    from runner.cli import copies  # few copy anything

    return copies.copy_in(text)


def copy_out(text: str) -> object:
    """Read NAME[:FILE][?]."""
    from runner.cli import copies  # few copy anything

    return copies.copy_out(text)


def guarantees(text: str) -> tuple[str, ...]:
    """Read names with commas between; whether they are known is the sandbox's to say."""
    names = tuple(text.split(","))
    if not all(re.fullmatch("[a-z_]+", name) for name in names):
        _refuse(text, "write names with commas between, such as memory,network")
    return names


def measures(text: str) -> tuple[str, ...]:
    """Read names of what is to be told besides, with commas between."""
    from runner.observe import MEASURES  # few ask for anything

    names = tuple(text.split(","))
    if not set(names) <= set(MEASURES):
        _refuse(text, f"write some of {', '.join(MEASURES)}, with commas between")
    return names


def per_second(text: str) -> int:
    """Read how many instructions a CPU is taken to retire in a second."""
    if not _is_digits(text) or not 1 <= int(text) <= _MAX_RATE:
        _refuse(text, f"give a whole number, 1 to {_MAX_RATE}, such as 1000000000")
    return int(text)


def _rlimit_value(name: str, value: str, text: str) -> int:
    if value == "unlimited":
        return RLIM_INFINITY
    if name in _BYTES and value != "0":
        return parse_size(value)
    if not _is_digits(value) or int(value) >= 2**63:
        _refuse(text, "a limit is a whole number, or unlimited")
    return int(value)


def _above(soft: int, hard: int) -> bool:
    return hard != RLIM_INFINITY and (soft == RLIM_INFINITY or soft > hard)


def _is_digits(text: str) -> bool:
    # None of the numbers here is longer, and of thousands of digits int() makes none.
    return text.isascii() and text.isdigit() and len(text) <= 20


def inside(target: str, text: str) -> str:
    """Give the normal form of a path in the sandbox, below its root."""
    if not target.startswith("/"):
        _refuse(text, "the place in the sandbox is an absolute path")
    if ".." in target.split("/"):
        _refuse(text, "the place in the sandbox is a path without ..")
    path = "/" + os.path.normpath(target).lstrip("/")
    if path == "/":
        _refuse(text, "this would hide the whole sandbox; to choose its root use --root")
    return path


def _check_exists(path: str, text: str) -> None:
    try:
        os.stat(path)
    except OSError as error:
        _refuse(text, str(error.strerror))


def _refuse(text: str, why: str) -> NoReturn:
    message = f"{text!r}: {why}"
    raise ConfigError(message)
