"""Write the tables of names, compile the stock policies: `python -m runner.seccomp [DIR]`.

Needs pyseccomp and libseccomp, which nothing else does.
"""

from __future__ import annotations

import os
import sys

from runner.errors import SandboxError
from runner.seccomp import COMPILED, compile_policy, files, library, syscalls
from runner.seccomp.names import CALLS, ELSEWHERE, TABLES


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


def call_tables() -> dict[str, str]:
    """Give the names of each architecture's calls, a line each; file name → text."""
    tables = {arch: library.numbers(arch) for arch in TABLES}
    ours = {name for arch in syscalls.AUDIT_ARCHS for name in tables[arch]}
    texts = {
        f"{arch}.txt": "".join(
            f"{number} {name}\n"
            for name, number in sorted(numbers.items(), key=lambda pair: pair[1])
        )
        for arch, numbers in tables.items()
    }
    elsewhere = sorted(library.all_names() - ours)
    return texts | {ELSEWHERE: "".join(f"{name}\n" for name in elsewhere)}


def main() -> int:
    """Write the tables, and the filters by them, beside this module.

    With a directory of other policies, their filters alone.
    """
    others = sys.argv[1:]
    for file_name, text in () if others else call_tables().items():
        with open(os.path.join(CALLS, file_name), "w", encoding="ascii") as file:
            file.write(text)
    try:
        filters = compile_all(others[0] if others else files.POLICIES)
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for file_name, program in filters.items():
        with open(os.path.join(COMPILED, file_name), "wb") as binary:
            binary.write(program)
        sys.stdout.write(f"{file_name}: {len(program) // 8} instructions\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
