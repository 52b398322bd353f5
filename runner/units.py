"""Sizes and times as people write them: "256M", "500ms" ↔ bytes, nanoseconds."""

from __future__ import annotations

import math
import re
from typing import Final

from runner.errors import ConfigError

KiB: Final = 1024
MiB: Final = 1024 * KiB
GiB: Final = 1024 * MiB

NS_PER_S: Final = 1_000_000_000

# 2**63 - 1 would wrap in the kernel's arithmetic; 2**53 bytes are 8 PiB and exact in every JSON
# reader.
MAX_BYTES: Final = 2**53
MAX_SECONDS: Final = 10 * 365 * 86400

_SIZE: Final = r"([0-9]+(?:\.[0-9]+)?)(K|M|G|T|KiB|MiB|GiB|TiB|B)?"
_FACTORS: Final = {"B": 1, "K": KiB, "M": MiB, "G": GiB, "T": 1024 * GiB}
_TIME: Final = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(us|ms|s|m|h)?"
_TIME_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Read a size such as `256M` or `1.5GiB` as bytes; K, M, G, T are powers of 1024.

    Raises ConfigError for anything else; a bare number too, because some tools mean KB by it.
    """
    match = re.fullmatch(_SIZE, text, re.ASCII)
    if match is None:
        message = f"{text!r} is not a size: write a number and a unit, such as 256M or 1.5G"
        raise ConfigError(message)
    number, unit = match.groups()
    if unit is None:
        message = f"{text!r} has no unit: write {text}B, {text}K or {text}M (1M is 1024K)"
        raise ConfigError(message)
    size = float(number) * _FACTORS[unit[0]]
    if size > MAX_BYTES:
        message = f"{text!r} is larger than the largest size, 8192T"
        raise ConfigError(message)
    return int(size)


def parse_time(text: str) -> float:
    """Read a time such as `0.5`, `500ms` or `2m` as seconds; a bare number is seconds.

    Raises ConfigError for anything else.
    """
    match = re.fullmatch(_TIME, text, re.ASCII)
    if match is None:
        message = f"{text!r} is not a time: write seconds, such as 2 or 0.5, or 500ms"
        raise ConfigError(message)
    number, unit = match.groups()
    seconds = float(number) * _TIME_UNITS[unit or "s"]
    if seconds > MAX_SECONDS:
        message = f"{text!r} is longer than the longest time, ten years"
        raise ConfigError(message)
    return seconds


def seconds_to_ns(seconds: float) -> int:
    """Round up to whole nanoseconds, so that a limit is never shorter than asked for."""
    return math.ceil(seconds * NS_PER_S)


def format_size(size: int) -> str:
    """Write bytes for a person: `512 B`, `1.5 MiB`."""
    if size < KiB:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, 4)
    unit = ("KiB", "MiB", "GiB", "TiB")[power - 1]
    return f"{size / KiB**power:.1f} {unit}"


def format_ns(time_ns: int) -> str:
    """Write nanoseconds for a person: `12 ms`, `1.234 s`."""
    if time_ns < NS_PER_S:
        return f"{time_ns / 1e6:.1f} ms"
    return f"{time_ns / NS_PER_S:.3f} s"
