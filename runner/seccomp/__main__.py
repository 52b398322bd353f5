"""Compile the stock policies into the package: `python -m runner.seccomp [DIRECTORY]`."""

from __future__ import annotations

import os
import sys

from runner.errors import SandboxError
from runner.seccomp import COMPILED, compile_policy, files, syscalls


def compile_all(directory: str) -> dict[str, bytes]:
    """Compile each policy of the directory for each architecture; `name.arch.bpf` → filter."""
    sources = files.stock_texts() | {
        name: files.read_text(path) for name, path in files.directory_of(directory)
    }
    return {
        f"{name}.{arch}.bpf": compile_policy(
            sources[name], name=name, arch=arch, sources=sources
        )
        for name, _ in files.directory_of(directory)
        for arch in syscalls.AUDIT_ARCHS
    }


def main() -> int:
    """Write the filters beside this module."""
    try:
        filters = compile_all(sys.argv[1] if len(sys.argv) > 1 else files.POLICIES)
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for file_name, program in filters.items():
        with open(os.path.join(COMPILED, file_name), "wb") as file:
            file.write(program)
        sys.stdout.write(f"{file_name}: {len(program) // 8} instructions\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
