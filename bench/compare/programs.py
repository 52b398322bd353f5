"""What is run: programs that do nothing, of four kinds; and one that writes a file in /tmp."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from runner import seccomp

SOURCES = Path(__file__).parents[1]
JAVA = "class Nothing { public static void main(String[] words) {} }\n"
PLACE = "{place}"  # in a command: where its files are, which depends on who runs it


class Program(NamedTuple):
    """A kind of program; `batch` is how many of them are run in a turn."""

    name: str
    command: tuple[str, ...]
    batch: int
    needs: str = ""
    package: str = ""

    def missing(self) -> str | None:
        if not self.needs or shutil.which(self.needs):
            return None
        return f"{self.needs} (apt-get install {self.package})"

    def at(self, place: str | Path) -> list[str]:
        """Give the command where the files are at `place`."""
        return [word.replace(PLACE, str(place)) for word in self.command]


STATIC = Program("static C", ("{place}/static",), 20)
DYNAMIC = Program("dynamic C", ("{place}/dynamic",), 20)
PYTHON = Program("Python", ("/usr/bin/python3", "-c", "pass"), 4, "/usr/bin/python3", "python3")
JAVA_PROGRAM = Program(
    "Java", ("/usr/bin/java", "-cp", PLACE, "Nothing"), 2, "javac", "default-jdk-headless"
)
PROGRAMS = (STATIC, DYNAMIC, PYTHON, JAVA_PROGRAM)
WRITER = Program("static C that writes a file in /tmp", ("{place}/writer",), 20)


def build(place: Path) -> None:
    """Put what they need into a directory, the loop that runs them bare, and our filter."""
    static = ["musl-gcc", "-O2", "-static"]
    for compiler, source, name in (
        (static, "true.c", "static"),
        (["gcc", "-O2"], "true.c", "dynamic"),
        (static, "compare/writer.c", "writer"),
        (static, "baseline.c", "baseline"),
    ):
        subprocess.run([*compiler, "-o", f"{place}/{name}", SOURCES / source], check=True)
    (place / "filter").write_bytes(seccomp.load("default"))
    if JAVA_PROGRAM.missing() is None:
        (place / "Nothing.java").write_text(JAVA)
        subprocess.run(["javac", "-d", place, place / "Nothing.java"], check=True)
