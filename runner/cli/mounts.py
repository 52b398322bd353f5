"""Values of the options that put something into the sandbox's file system."""

from __future__ import annotations

import os
import posixpath
from typing import NoReturn

from runner.cli.values import inside, mode
from runner.config import Mount
from runner.errors import ConfigError
from runner.wire import PLAN_MAX


def overlay(text: str) -> Mount:
    """Read `DST=LOWER[:LOWER…]`, or with `,upper=DIR,work=DIR` behind it."""
    target, equals, rest = text.partition("=")
    lower, *more = rest.split(",")
    if not equals or not lower:
        _refuse(text, "write DST=LOWER, DST=LOWER:LOWER, or DST=LOWER,upper=DIR,work=DIR")
    kept = dict(word.partition("=")[::2] for word in more)
    if kept and set(kept) != {"upper", "work"}:
        _refuse(text, "what is written is kept with upper=DIR and work=DIR, both")
    directories = tuple(os.path.abspath(path) for path in lower.split(":"))
    upper, work = (os.path.abspath(kept[name]) if kept else "" for name in ("upper", "work"))
    place = inside(target, text)
    if kept:
        return Mount.overlay(place, lower=directories, upper=upper, work=work)
    # Writable for the program, as a --tmpfs is.
    return Mount.overlay(place, lower=directories, ephemeral=True, mode=0o1777)


def mask(text: str) -> Mount:
    """Read a path whose content is hidden."""
    return Mount.mask(inside(text, text))


def read_only(text: str) -> Mount:
    """Read a path that becomes read-only, and all below it."""
    return Mount.read_only(inside(text, text))


def device(text: str) -> Mount:
    """Read the path of a device file of the host's."""
    return Mount.device(os.path.abspath(text))


def symlink(text: str) -> Mount:
    """Read `TEXT:DST`."""
    points_to, colon, target = text.rpartition(":")
    if not colon or not points_to:
        _refuse(text, "write TEXT:DST, such as /usr/bin:/bin")
    return Mount.symlink(points_to, inside(target, text))


def directory(text: str) -> Mount:
    """Read `DST[:MODE]`."""
    target, colon, bits = text.partition(":")
    return Mount.directory(inside(target, text), mode=mode(bits) if colon else 0o755)


def file(text: str) -> Mount:
    """Read `DST=FILE`, whose content is copied."""
    target, equals, source = text.partition("=")
    if not equals or not source:
        _refuse(text, "write DST=FILE")
    with open(source, "rb") as stream:
        content = stream.read(PLAN_MAX + 1)  # /dev/zero has no end
    if len(content) > PLAN_MAX:
        _refuse(text, "a copy has at most 16 MiB: show a larger file by --bind")
    return Mount.file(inside(target, text), content)


def staged(text: str) -> tuple[str, str]:
    """Read `FILE[:DST]`."""
    source, colon, target = text.partition(":")
    path = os.path.abspath(source)
    return path, inside(target, text) if colon else posixpath.normpath(path)


def _refuse(text: str, why: str) -> NoReturn:
    message = f"{text!r}: {why}"
    raise ConfigError(message)
