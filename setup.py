"""Compile the C helper, runner/keeper; everything else about the build is in pyproject.toml.

The keeper is a static program, not an extension module: it needs no Python.h, and one file
serves every Python, so wheels are tagged py3-none-<platform>. `python setup.py build_ext
--inplace` puts it beside the sources, as an editable install does.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NATIVE = Path("runner/native")
KEEPER = Path("runner/keeper")

# Compiler Options Hardening Guide (OpenSSF), as far as a static, non-PIE program can have them.
# Not PIE: Debian's musl-gcc makes a dynamic program of -static-pie: twice as slow.
FLAGS = [
    "-O2",
    "-fno-pie",
    "-fno-strict-aliasing",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
]
LINK_FLAGS = ["-static", "-no-pie", "-s", "-Wl,-z,relro,-z,now,-z,noexecstack"]


def compiler() -> list[str]:
    """Choose $CC, musl-gcc or gcc: a musl program starts four times faster than a glibc one."""
    if "CC" in os.environ:
        return shlex.split(os.environ["CC"])
    for name in ("musl-gcc", "gcc", "cc"):
        if shutil.which(name):
            return [name]
    message = "no C compiler: install gcc (and musl-tools, for a helper that starts faster)"
    raise SystemExit(message)


def kernel_headers() -> list[str]:
    """Let musl-gcc, which looks only at its own headers, find <linux/*.h> after them."""
    return [
        f"-idirafter{directory}"
        for directory in (f"/usr/include/{platform.machine()}-linux-gnu", "/usr/include")
        if Path(directory).is_dir()
    ]


class BuildKeeper(build_ext):
    """Compile runner/native/*.c to one file, `runner/keeper`."""

    def get_source_files(self) -> list[str]:
        return sorted(str(path) for path in NATIVE.glob("*.c"))

    def get_output_mapping(self) -> dict[str, str]:
        if not self.inplace:
            return {}
        return {str(Path(self.build_lib) / KEEPER): str(KEEPER)}

    def get_outputs(self) -> list[str]:
        return [str(self._target())]

    def run(self) -> None:
        target = self._target()
        inputs = [*NATIVE.glob("*.[ch]"), NATIVE / "cflags", Path("setup.py")]
        newest = max(path.stat().st_mtime for path in inputs)
        if not self.force and target.exists() and target.stat().st_mtime > newest:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        # A running keeper keeps its file; writing over it would fail with ETXTBSY.
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        command = [*compiler(), f"@{NATIVE}/cflags", *FLAGS, *kernel_headers()]
        command += [*shlex.split(os.environ.get("CFLAGS", "")), *self.get_source_files()]
        command += [*LINK_FLAGS, "-o", str(fresh)]
        print(shlex.join(command), flush=True)
        try:
            subprocess.run(command, check=True)
            fresh.chmod(0o755)
            fresh.replace(target)
        except subprocess.CalledProcessError as error:
            message = f"{command[0]} failed ({error.returncode}); its messages are above"
            raise SystemExit(message) from None
        finally:
            fresh.unlink(missing_ok=True)

    def _target(self) -> Path:
        return KEEPER if self.inplace else Path(self.build_lib) / KEEPER


class PlatformWheel(bdist_wheel):
    """Tag the wheel for this platform and every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class NativeDistribution(Distribution):
    """Say that there is something to compile, though no extension module."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=NativeDistribution,
    cmdclass={"build_ext": BuildKeeper, "bdist_wheel": PlatformWheel},
)
