"""The help and the manual page, written from the option table.

`python -m runner.cli.manual` prints run-sandboxed(1); the copy in man/ is made by it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from runner.cli.options import OPTIONS, SUBCOMMANDS, Option, Section
from runner.cli.subcommand import OF_THE_COMMAND, Subcommand, family

_USAGE = "run-sandboxed [OPTIONS] [--] COMMAND [ARG...]"

_ABOUT = """Run a command in a sandbox, under limits, and say what happened to it. It sees the \
system directories and the current directory, both read-only, an empty /tmp of its own, no \
network and no other process. When the current directory is / or a home directory, or belongs \
to the system, the command starts in /tmp instead and a note says so. Standard input, output \
and error are inherited."""

_VALUES = """A SIZE has a unit: 64K, 256M, 1.5G; these are powers of 1024. A time is in \
seconds, such as 2 or 0.5, or has a unit: 500ms, 2m. An option that takes one value is given \
once."""

_SUBCOMMANDS = """A first word that names a subcommand stands for it; to run a program of that \
name, write -- before it. Each has a --help of its own."""

_EXIT = (
    ("124", "a limit was reached"),
    ("125", "the sandbox failed, or was asked for something impossible"),
    ("126", "the command is there, but cannot be executed"),
    ("127", "the command was not found"),
    ("128+N", "signal N ended it; 130 and 143 also when run-sandboxed itself was interrupted"),
    ("other", "the command's own"),
)


def help_text() -> str:
    """Give the text of `--help`."""
    lines = [f"usage: {_USAGE}", "", *_wrap(_ABOUT), "", *_wrap(_VALUES)]
    for section in Section:
        lines += ["", f"{section.value}:"]
        for option in _options_of(section):
            indent = "" if len(option.flags) > 1 else "    "
            lines += _entry(indent + _heading(option), option.help)
    lines += ["", *_wrap(_SUBCOMMANDS), ""]
    for subcommand in _each():
        lines += _usage("  run-sandboxed ", subcommand)
    lines += ["", "Exit status:"]
    for status, meaning in _EXIT:
        lines += _entry(status, meaning)
    return "\n".join(lines) + "\n"


def subcommand_help(subcommand: Subcommand) -> str:
    """Give the text of a subcommand's `--help`."""
    lines = _usage("usage: run-sandboxed ", subcommand)
    for paragraph in (*subcommand.about, subcommand.statuses):
        lines += ["", *_wrap(paragraph)]
    if subcommand.options:
        lines.append("")
    for heading, text in subcommand.options:
        lines += _entry(heading, text)
    return "\n".join(lines) + "\n"


def man_page() -> str:
    """Give run-sandboxed(1) in man(7) markup."""
    lines = [
        ".TH RUN-SANDBOXED 1",
        ".SH NAME",
        r"run-sandboxed \- run a command in a sandbox, under limits",
        ".SH SYNOPSIS",
        ".B run-sandboxed",
        "[OPTIONS] [--] COMMAND [ARG...]",
        ".SH DESCRIPTION",
        _escape(_ABOUT),
        ".PP",
        _escape(_VALUES),
        ".SH OPTIONS",
    ]
    for section in Section:
        lines.append(f".SS {section.value}")
        for option in _options_of(section):
            lines += [".TP", rf"\fB{_escape(_heading(option))}\fR", _escape(option.help)]
    lines += _man_subcommands()
    lines.append(".SH EXIT STATUS")
    for status, meaning in _EXIT:
        lines += [".TP", rf"\fB{status}\fR", _escape(meaning)]
    return "\n".join(lines) + "\n"


def _man_subcommands() -> Iterator[str]:
    yield from (".SH SUBCOMMANDS", _escape(_SUBCOMMANDS), ".PP", _escape(OF_THE_COMMAND))
    for subcommand in _each():
        about = list(subcommand.about)
        if subcommand.statuses != OF_THE_COMMAND:
            about.append(subcommand.statuses)
        yield f".SS {_escape(subcommand.synopsis)}"
        yield "\n.PP\n".join(map(_escape, about))
        for heading, text in subcommand.options:
            yield from (".TP", rf"\fB{_escape(heading)}\fR", _escape(text))


def _each() -> Iterator[Subcommand]:
    return (one for word in SUBCOMMANDS for one in family(word).values())


def _options_of(section: Section) -> Iterator[Option]:
    return (option for option in OPTIONS if option.section is section)


def _heading(option: Option) -> str:
    flags = ", ".join(option.flags)
    if option.bare:
        return f"{flags}[={option.metavar}]"
    return f"{flags} {option.metavar}".rstrip()


def _entry(heading: str, text: str) -> list[str]:
    """Put the text beside its heading, or below it where the heading is long."""
    lines = [" " * 28 + line for line in textwrap.wrap(text, 66)]
    if len(heading) > 24:
        return [f"  {heading}", *lines]
    return [f"  {heading:<26}" + lines[0].lstrip(), *lines[1:]]


def _usage(heading: str, subcommand: Subcommand) -> list[str]:
    rest = " " * (len(heading) + subcommand.synopsis.index(" ") + 1)
    return textwrap.wrap(
        heading + subcommand.synopsis, 92, subsequent_indent=rest, break_on_hyphens=False
    )


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 92)


def _escape(text: str) -> str:
    """Protect what man(7) would read as markup: backslashes, hyphens that are meant as such."""
    return text.replace("\\", "\\e").replace("-", r"\-")


if __name__ == "__main__":
    print(man_page(), end="")
