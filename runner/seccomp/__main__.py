"""Compile policies/*.policy into the package: `python -m runner.seccomp [DIRECTORY]`."""

from __future__ import annotations

import glob
import os
import sys

from runner.errors import SandboxError
from runner.seccomp import COMPILED, compile_policy, syscalls


def compile_all(directory: str) -> dict[str, bytes]:
    """Compile each policy of the directory for each architecture; `name.arch.bpf` → filter."""
    sources = {}
    for path in sorted(glob.glob(os.path.join(directory, "*.policy"))):
        with open(path, encoding="utf-8") as file:
            sources[os.path.basename(path).removesuffix(".policy")] = file.read()
    return {
        f"{name}.{arch}.bpf": compile_policy(text, name=name, arch=arch, sources=sources)
        for name, text in sources.items()
        for arch in syscalls.AUDIT_ARCHS
    }


def main() -> int:
    """Write the filters beside this module."""
    try:
        filters = compile_all(sys.argv[1] if len(sys.argv) > 1 else "policies")
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
