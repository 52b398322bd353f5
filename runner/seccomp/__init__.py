"""Which system calls a program may make: policy text → rules → BPF.

A stock policy is loaded as it was compiled for the package; `python -m runner.seccomp` compiles
them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from runner.errors import ConfigError
from runner.seccomp import syscalls

if TYPE_CHECKING:
    from runner.seccomp.rules import Policy

# Found beside this file, for the import of importlib.resources takes longer than a run.
COMPILED: Final = os.path.join(os.path.dirname(__file__), "compiled")

_ARCH_OF_MACHINE: Final = {"amd64": "x86_64", "arm64": "aarch64"}


def compile_policy(
    text: str, *, name: str, arch: str, sources: Mapping[str, str] | None = None
) -> bytes:
    """Compile a policy to struct sock_filter[], little-endian, as seccomp(2) takes it.

    `name` stands in messages; `sources` are the texts that it may include, by name. Raises
    ConfigError with one line for each fault.
    """
    # Not needed for a stock policy, so not on the way of every start.
    from runner.seccomp.bpf import compile_rules
    from runner.seccomp.parse import parse_policy

    syscalls.check_arch(arch)
    policy = parse_policy(text, name=name, sources=sources or {})
    return compile_rules(policy, arch, syscalls.numbers(arch))


def load(policy: str | bytes, arch: str | None = None) -> bytes:
    """Give the filter of a policy for this machine's architecture, or another.

    `policy` is a stock policy's name; presets and one of them, as in "no-exec+default"; a path,
    which has a slash, of a policy's text or, if it ends in .json, of an OCI profile; or a
    filter, which is given back. Raises ConfigError with one line for each fault.
    """
    if isinstance(policy, bytes):
        return policy
    arch = native(arch)
    if "/" in policy or "+" in policy:
        from runner.seccomp import files

        return files.compiled(policy, arch)
    if policy not in stock():
        raise ConfigError(_unknown(policy))
    with open(os.path.join(COMPILED, f"{policy}.{arch}.bpf"), "rb") as file:
        return file.read()


def read(policy: str, arch: str | None = None) -> Policy:
    """Give the rules of a policy that `load` takes by its name or path."""
    from runner.seccomp import files

    return files.read(policy, native(arch))


def native(arch: str | None) -> str:
    """Give the name that we use for an architecture, or for this machine's.

    Raises ConfigError for one that we have no tables for.
    """
    machine = os.uname().machine if arch is None else arch
    arch = _ARCH_OF_MACHINE.get(machine, machine)
    syscalls.check_arch(arch)
    return arch


def stock() -> list[str]:
    """Give the names of the stock policies."""
    return sorted({name.partition(".")[0] for name in os.listdir(COMPILED)})


def _unknown(policy: str) -> str:
    return (
        f"policy: {policy!r} is not a stock policy{syscalls.nearest(policy, stock())}; known: "
        f"{', '.join(stock())}; a file's path has a slash"
    )
