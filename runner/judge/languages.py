"""The languages that submissions may be written in: `languages.toml`, typed and checked."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from runner.config import Limits
from runner.errors import ConfigError
from runner.units import MiB, parse_size

if TYPE_CHECKING:
    from runner.judge.problem import Problem

FILE: Final = Path(__file__).with_name("languages.toml")

# The directories that the default root has; the caller's own PATH may name others.
PATH: Final = "/usr/local/bin:/usr/bin:/bin"
BASE_ENV: Final[Mapping[str, str]] = {"PATH": PATH, "HOME": "/tmp", "LANG": "C.UTF-8"}


class CompileLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the compiler may use; `output` is also the largest file that it may write.

    `disk` is what all its files may have; they lie in memory, and count for `memory` too.
    """

    cpu_time: float = 10.0
    wall_time: float = 30.0
    memory: str = "512M"
    output: str = "64M"
    disk: str = "256M"
    processes: int = 32

    def to_limits(self) -> Limits:
        """Give them as the sandbox wants them."""
        return Limits(
            cpu_time=self.cpu_time,
            wall_time=self.wall_time,
            memory=parse_size(self.memory),
            output=parse_size(self.output),
            disk=parse_size(self.disk),
            processes=self.processes,
        )


class Language(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of languages.toml.

    source         what the source file is called
    programs       what must be installed, and `remedy` how to get it
    compile, run   commands, in a directory with the source, or with the artefacts;
                   {memory_mib} in `run` is the problem's memory limit in MiB
    artefacts      patterns of the files that the compile step leaves and the program needs
    executes       which of them is what `run` runs, by an fd: it is no file then
    policy         which system calls the program may make
    env            on top of BASE_ENV
    time_factor, time_add, memory_add   what a limit of the problem is for this language
    processes      processes and threads at a time
    out_of_memory  what stderr holds when the program failed because its own heap was full
    """

    name: str
    extensions: list[str]
    source: str
    programs: list[str]
    remedy: str
    compile: list[str]
    artefacts: list[str]
    run: list[str]
    policy: str
    executes: str = ""
    env: dict[str, str] = {}
    time_factor: float = 1.0
    time_add: float = 0.0
    memory_add: str = "0B"
    processes: int = 64
    out_of_memory: str = ""
    compile_limits: CompileLimits = CompileLimits()

    @property
    def environment(self) -> dict[str, str]:
        """Give the exact environment of compiler and program."""
        return {**BASE_ENV, **self.env}

    def missing_programs(self) -> list[str]:
        """Name the programs that are not installed, now."""
        path = self.environment["PATH"]
        return [
            program for program in self.programs if shutil.which(program, path=path) is None
        ]

    def run_args(self, problem: Problem) -> list[str]:
        """Give the command that runs a compiled submission."""
        heap = str(max(1, problem.memory_limit // MiB))
        return [word.replace("{memory_mib}", heap) for word in self.run]

    def run_limits(self, problem: Problem) -> Limits:
        """Scale the problem's limits to this language; the stack may use all of the memory."""
        cpu_time = problem.time_limit * self.time_factor + self.time_add
        memory = problem.memory_limit + parse_size(self.memory_add)
        return Limits(
            cpu_time=cpu_time,
            wall_time=problem.wall_limit or 2 * cpu_time + 1,
            memory=memory,
            stack=memory,
            output=problem.output_limit,
            processes=self.processes,
        )


def load(path: Path = FILE) -> dict[str, Language]:
    """Read the languages, by the name of their table; raises ConfigError naming the key."""
    try:
        languages = msgspec.toml.decode(path.read_bytes(), type=dict[str, Language])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    for name, language in languages.items():
        if not (language.compile and language.artefacts and language.run):
            raise ConfigError(f"{path}: {name}: compile, artefacts and run may not be empty")
        language.compile_limits.to_limits()
    return languages


def find(languages: Mapping[str, Language], name: str) -> Language:
    """Look a language up by its name; raises ConfigError that lists the known ones."""
    language = languages.get(name)
    if language is None:
        raise ConfigError(
            f"language {name!r} is not known: write one of {', '.join(languages)}"
        )
    return language


def of_file(languages: Mapping[str, Language], path: Path) -> str:
    """Name the language of a file by its extension; raises ConfigError for an unknown one."""
    for name, language in languages.items():
        if path.suffix in language.extensions:
            return name
    known = ", ".join(e for language in languages.values() for e in language.extensions)
    raise ConfigError(
        f"{path}: no language has the extension {path.suffix!r}: known are {known}"
    )
