"""Policies as files: the stock ones and their presets, the user's, and OCI profiles.

A file includes its neighbours and the stock policies by name, its neighbours first. What was
compiled is kept by its content in the user's cache directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from runner.errors import ConfigError
from runner.seccomp import bpf, cache, compile_policy, syscalls
from runner.seccomp.parse import parse_policy
from runner.seccomp.rules import Policy

if TYPE_CHECKING:
    from runner.seccomp.oci import Profile

POLICIES: Final = os.path.join(os.path.dirname(__file__), "policies")
PRESETS: Final = os.path.join(POLICIES, "presets")

SUFFIX: Final = ".policy"
_LONGEST: Final = 1 << 20
_INCLUDE: Final = re.compile(r"^[ \t]*include[ \t]+(\S+)", re.MULTILINE)


class Source(NamedTuple):
    """A policy's text, how messages call it, and what it may include, by name."""

    name: str
    text: str
    others: Mapping[str, str]


def compiled(path: str, arch: str) -> bytes:
    """Compile a policy file or an OCI profile, unless the cache has it.

    Raises ConfigError with one line for each fault.
    """
    if is_profile(path):
        return compile_anew(path, arch)
    source = find(path)
    included = sorted(pair for pair in source.others.items() if pair[1])
    return cache.kept(
        (arch, source.text, *(part for pair in included for part in pair)),
        lambda: _compile(source, arch),
    )


def compile_anew(policy: str, arch: str) -> bytes:
    """Compile a policy, by name or path, whatever is kept of it."""
    if is_profile(policy):
        rules = profile(policy, arch).policy
        return bpf.compile_rules(rules, arch, syscalls.numbers(arch))
    return _compile(find(policy), arch)


def read(policy: str, arch: str) -> Policy:
    """Give the rules for one architecture: of a name's policy, or a path's file or profile."""
    if is_profile(policy):
        return profile(policy, arch).policy
    source = find(policy)
    return parse_policy(source.text, name=source.name, sources=source.others).on(arch)


def is_profile(policy: str) -> bool:
    """Tell whether it is the path of an OCI profile."""
    return "/" in policy and policy.endswith(".json")


def profile(path: str, arch: str) -> Profile:
    """Read an OCI profile, for a program without capabilities, as all in a sandbox are."""
    from runner.seccomp.oci import parse_profile  # few have one

    return parse_profile(read_text(path), name=path, arch=arch)


def _compile(source: Source, arch: str) -> bytes:
    return compile_policy(source.text, name=source.name, arch=arch, sources=source.others)


def find(policy: str) -> Source:
    """Find a policy by its name or path. Raises ConfigError that lists those that are known."""
    own = stock_texts()
    if "/" not in policy:
        names = policy.split("+")
        for name in names:
            _check_known(name, own)
        if len(names) > 1:
            return Source(policy, "\n".join(f"include {name}" for name in names), own)
        return Source(policy, own[policy], own)
    text = read_text(policy)
    if is_profile(policy):
        return Source(policy, text, {})
    return Source(policy, text, own | _included(policy, text))


def _included(path: str, text: str) -> dict[str, str]:
    """Give the texts of the file's neighbours that it includes, and those that they do.

    Others are not opened: in a directory that is not ours alone, they may be anything. They are
    there by name, with an empty text, to be suggested for one that is misspelt.
    """
    paths = dict(directory_of(os.path.dirname(path)))
    # So that a 'default.policy' can include the stock 'default'.
    paths.pop(os.path.basename(path).removesuffix(SUFFIX), None)
    found: dict[str, str] = {}
    left = _INCLUDE.findall(text)
    while left:
        name = left.pop()
        if name in paths and name not in found:
            found[name] = read_text(paths[name])
            left += _INCLUDE.findall(found[name])
    return dict.fromkeys(paths, "") | found


def _check_known(name: str, own: Mapping[str, str]) -> None:
    if name not in own:
        near = syscalls.nearest(name, own)
        known = ", ".join(name for name, _ in directory_of(POLICIES))
        message = f"policy: {name!r} is not a stock policy{near}; known: {known}"
        raise ConfigError(message)


def stock_texts() -> dict[str, str]:
    """Give the text of each stock policy and preset, by name."""
    return {
        name: read_text(path)
        for directory in (POLICIES, PRESETS)
        for name, path in directory_of(directory)
    }


def directory_of(directory: str) -> Iterator[tuple[str, str]]:
    """Give name and path of each policy file in a directory, in order."""
    try:
        entries = sorted(os.listdir(directory))
    except OSError as error:
        raise _unreadable(directory, error.strerror) from None
    for entry in entries:
        if entry.endswith(SUFFIX):
            yield entry.removesuffix(SUFFIX), os.path.join(directory, entry)


def read_text(path: str) -> str:
    """Read a policy or profile. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise _unreadable(path, "it is longer than 1 MiB, and so no policy")
        return text.decode()
    except OSError as error:
        raise _unreadable(path, error.strerror) from None
    except UnicodeDecodeError:
        raise _unreadable(path, "it is not UTF-8 text") from None


def about(text: str) -> str:
    """Give the first sentence of a policy's opening comment."""
    lines = []
    for line in text.split("\n"):
        if not line.startswith("# "):
            break
        lines.append(line[2:])
    sentence, _, _ = " ".join(lines).partition(". ")
    return sentence.rstrip(".") + "."


def _unreadable(path: str, why: str | None) -> ConfigError:
    return ConfigError(f"policy: {path!r}: {why}")
