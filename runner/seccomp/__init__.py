"""Which system calls a program may make: policy text → rules → BPF.

A stock policy is loaded as it was compiled for the package; `python -m runner.seccomp` compiles
them. Only compiling needs pyseccomp, and only for the names and numbers of system calls.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from runner.errors import ConfigError
from runner.seccomp import syscalls

# Found beside this file, for the import of importlib.resources takes longer than a run.
COMPILED: Final = os.path.join(os.path.dirname(__file__), "compiled")

_ARCH_OF_MACHINE: Final = {"amd64": "x86_64", "arm64": "aarch64"}


def compile_policy(
    text: str, *, name: str, arch: str, sources: Mapping[str, str] | None = None
) -> bytes:
    """Compile a policy to struct sock_filter[], little-endian, as seccomp(2) takes it.

    `name` stands in messages; `sources` are the texts that it may include, by name. Raises
    ConfigError with one line for each fault, HostError without pyseccomp or libseccomp.
    """
    # Not needed for a stock policy, so not on the way of every start.
    from runner.seccomp.bpf import compile_rules
    from runner.seccomp.parse import parse_policy

    syscalls.check_arch(arch)
    policy = parse_policy(text, name=name, sources=sources or {})
    return compile_rules(policy, arch, syscalls.numbers(arch))


def load(policy: str, arch: str | None = None) -> bytes:
    """Read a stock policy's filter for this machine's architecture, or another.

    Raises ConfigError, which lists the known ones, for a name or an architecture without one.
    """
    machine = os.uname().machine if arch is None else arch
    arch = _ARCH_OF_MACHINE.get(machine, machine)
    syscalls.check_arch(arch)
    if policy not in stock():
        known = ", ".join(stock())
        raise ConfigError(f"policy: {policy!r} is not a stock policy; known: {known}")
    with open(os.path.join(COMPILED, f"{policy}.{arch}.bpf"), "rb") as file:
        return file.read()


def stock() -> list[str]:
    """Give the names of the stock policies."""
    return sorted({name.partition(".")[0] for name in os.listdir(COMPILED)})
