"""What the subcommands share: words, the wait for a command, its status.

`contain`, `inject` and `pseudo` are named, and written on the command line, as the programs
whose place they take: short options by getopt(3), statuses of sysexits.h and of the command.
"""

from __future__ import annotations

import dataclasses
import getopt
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Final

from runner.cli import report
from runner.errors import ChildError, ConfigError, ErrorLocation, SandboxError
from runner.process import start
from runner.quick import NamedTuple

if TYPE_CHECKING:
    from runner.config import Runner
    from runner.result import Result

_USAGE_ERROR: Final = 64  # EX_USAGE of sysexits.h
_FAILED: Final = 1
# What Python itself ignores is not what our caller does.
_IGNORED_BY_PYTHON: Final = frozenset({signal.SIGPIPE, signal.SIGXFSZ})

Values = dict[str, str]


OF_THE_COMMAND: Final = """The exit status is the command's own, or 128+N when signal N ended \
it; 1 when it could not be started, and 64 for a usage error."""


class Subcommand(NamedTuple):
    """One of them; `letters` and `long` as getopt(3) has them.

    about    paragraphs on what it does
    options  each option as it is written, and what it does
    least    how many words there have to be after the options
    run      is given the options' values, "" for switches, and the words; gives the status
    statuses what its exit statuses mean
    """

    synopsis: str
    about: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    letters: str
    long: tuple[str, ...]
    least: int
    run: Callable[[Values, list[str]], int]
    statuses: str = OF_THE_COMMAND


def family(word: str) -> Mapping[str, Subcommand]:
    """Give the subcommands whose first word it is, one of SUBCOMMANDS, by their whole names."""
    module = import_module(f"runner.cli.{word}")
    found: Mapping[str, Subcommand] = getattr(module, "SUBCOMMANDS", None) or {
        word: module.SUBCOMMAND
    }
    return found


def find(name: str) -> Subcommand:
    """Give the subcommand of a whole name, such as `pseudo` or `policy list`."""
    return family(name.partition(" ")[0])[name]


def main(word: str, words: Sequence[str]) -> int:
    """Run a subcommand, found by its first words, and give its exit status."""
    known = family(word)
    if word in known:
        return _run(word, known[word], words)
    second, *rest = words or [""]
    if f"{word} {second}" in known:
        return _run(f"{word} {second}", known[f"{word} {second}"], rest)
    usages = "\n".join(f"usage: run-sandboxed {one.synopsis}" for one in known.values())
    if second == "--help":
        report.write(1, f"{usages}\nEach has a --help of its own.\n")
        return 0
    report.say(f"{word}: {second!r} is none of its subcommands\n{usages}")
    return _USAGE_ERROR


def _run(name: str, subcommand: Subcommand, words: Sequence[str]) -> int:
    try:
        pairs, rest = getopt.getopt(list(words), subcommand.letters, [*subcommand.long, "help"])
    except getopt.GetoptError as error:
        return _refuse(name, subcommand, str(error))
    values = dict(pairs)
    if "--help" in values:
        from runner.cli.manual import subcommand_help

        report.write(1, subcommand_help(subcommand))
        return 0
    if len(rest) < subcommand.least:
        return _refuse(name, subcommand, "there are too few arguments")
    try:
        return subcommand.run(values, rest)
    except SandboxError as error:
        report.say(f"{name}: {report.explain(error)}")
        return _status_of(error)
    except OSError as error:  # of the caller's streams or directory, or for want of fds
        what = f"{error.filename!r}: " if error.filename else ""
        report.say(f"{name}: {what}{error.strerror}")
        return _FAILED


def command_or_shell(command: Sequence[str]) -> list[str]:
    """Give the command, and where there is none the caller's shell."""
    return list(command) or [os.environ.get("SHELL") or "/bin/sh"]


def ignored_signals() -> tuple[int, ...]:
    """Give the signals that our caller had us ignore, as nohup(1) does."""
    return tuple(
        number
        for number in signal.valid_signals() - _IGNORED_BY_PYTHON
        if signal.getsignal(number) is signal.SIG_IGN
    )


def search_path() -> str:
    """Give the directories in which execvp(3) looks for a command."""
    return os.environ.get("PATH", os.defpath)


def run(config: Runner, *, path: str | None, name: str = "", sealed: bool = False) -> int:
    """Run the command of a Runner, as `start` does; give the exit status."""
    # It waits until we leave it the terminal's signals, which till then are ours.
    config = dataclasses.replace(config, stop_before_exec=True)
    with start(config, path=path, name=name, sealed=sealed) as process, _left_to_the_command():
        process.resume()
        return exit_status(process.wait())


@contextmanager
def _left_to_the_command() -> Iterator[None]:
    """Leave it to a command that shares our terminal what its interrupt characters do."""
    numbers = (signal.SIGINT, signal.SIGQUIT)
    previous = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


def exit_status(result: Result) -> int:
    """Give the command's own status, or 128 and the signal that ended it."""
    if result.signal is not None:
        return 128 + result.signal
    return _FAILED if result.exit_code is None else result.exit_code


def refuse(value: str, why: str) -> ConfigError:
    """Give the error for a word on the command line."""
    return ConfigError(f"{value!r}: {why}")


def _refuse(name: str, subcommand: Subcommand, why: str) -> int:
    report.say(f"{name}: {why}\nusage: run-sandboxed {subcommand.synopsis}")
    return _USAGE_ERROR


def _status_of(error: SandboxError) -> int:
    """Give the status of a helper program that failed, else 1."""
    if isinstance(error, ChildError) and error.location is ErrorLocation.HOOK and error.status:
        code = os.waitstatus_to_exitcode(error.status)
        return code if code > 0 else 128 - code
    return _FAILED
