"""The calibrated programs: what builds each, how it is started, and what it can do."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).with_name("programs")
PLACE = "/calibrated"  # of the built programs, in the sandbox

# A fixed number of threads: the machine's own, too, must be there when it adds up their time.
JAVA = (
    *("java", "-XX:-UseDynamicNumberOfCompilerThreads", "-XX:-UseDynamicNumberOfGCThreads"),
    *("-Xmx512m", "-cp", PLACE, "Calibrated"),
)
BURNERS = ("spin", "threads", "children", "orphans", "system")
ALLOCATORS = ("touch", "tmpfs", "memfd", "shm", "sysv", "stack", "many")


@dataclasses.dataclass(frozen=True, slots=True)
class Language:
    """How to get a calibrated program in one language.

    compile     the compiler's words; {} are the source and where the result is to be
    command     in the sandbox; what is "{}" in `compile` is in PLACE
    needs       a program without which there is none, and Debian's package of it
    cannot      kinds that its library has no call for
    runtime     it brings one: megabytes of its own, and milliseconds at its end
    """

    name: str
    source: str
    compile: tuple[str, ...]
    command: tuple[str, ...]
    needs: dict[str, str]
    cannot: tuple[str, ...] = ()
    runtime: bool = True

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in (*BURNERS, *ALLOCATORS) if kind not in self.cannot]

    def missing(self) -> str | None:
        """Say what is not installed and how to get it, or None."""
        absent = [
            f"{program} (apt-get install {package})"
            for program, package in self.needs.items()
            if find(program) is None
        ]
        return ", ".join(absent) or None

    def build(self, place: Path) -> None:
        """Put what is run into a directory; raises CalledProcessError."""
        source = SOURCES / self.source
        if not self.compile:
            shutil.copy(source, place)
            return
        words = [word.format(source=source, place=place) for word in self.compile]
        compiler = find(words[0])
        assert compiler is not None, words[0]
        subprocess.run([compiler, *words[1:]], check=True)


def find(program: str) -> str | None:
    """Look where distributions, and rustup, put programs."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:{Path.home()}/.cargo/bin")


def compile_c(name: str, place: Path) -> None:
    """Compile a C program that is none of the calibrated; raises CalledProcessError."""
    words = ["musl-gcc", "-O2", "-static", "-o", f"{place}/{name}", f"{SOURCES}/{name}.c"]
    subprocess.run(words, check=True)


C = Language(
    "C",
    "calibrated.c",
    ("musl-gcc", "-O2", "-static", "-pthread", "-o", "{place}/c", "{source}"),
    (f"{PLACE}/c",),
    {"musl-gcc": "musl-tools"},
    runtime=False,
)
RUST = Language(
    "Rust",
    "calibrated.rs",
    ("rustc", "--edition=2021", "-O", "-o", "{place}/rust", "{source}"),
    (f"{PLACE}/rust",),
    {"rustc": "rustc"},
    runtime=False,
)
PYTHON = Language(
    "Python",
    "calibrated.py",
    (),
    ("/usr/bin/python3", f"{PLACE}/calibrated.py"),
    {"/usr/bin/python3": "python3"},
    ("stack",),
)
NODE = Language(
    "Node",
    "calibrated.js",
    (),
    ("node", f"{PLACE}/calibrated.js"),
    {"node": "nodejs"},
    ("memfd", "sysv", "stack"),
)
JAVA_LANGUAGE = Language(
    "Java",
    "Calibrated.java",
    ("javac", "-d", "{place}", "{source}"),
    JAVA,
    {"javac": "default-jdk-headless", "java": "default-jre-headless"},
    ("memfd", "sysv"),
)
LANGUAGES = (C, RUST, PYTHON, NODE, JAVA_LANGUAGE)
