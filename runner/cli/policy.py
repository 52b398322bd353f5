"""`run-sandboxed policy`: lists, shows, compiles, checks and explains policies."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import Final

from runner import seccomp
from runner.cli import learn, report
from runner.cli.subcommand import Subcommand, Values, refuse
from runner.errors import ConfigError
from runner.seccomp import explain, files, syscalls
from runner.seccomp.rules import Policy, Rule

_STATUSES: Final = """The exit status is 0; 1 when something is wrong with a policy, all of \
which is told on standard error; and 64 for a usage error."""
_POLICY: Final = """POLICY is a stock policy's or preset's name, or several with + between; or \
a file, written with a slash: of rules, or, if it ends in .json, an OCI profile."""
_ARCH: Final = ("--arch=ARCH", "for x86_64 or aarch64, in place of this machine's")


def _list(_values: Values, _words: list[str]) -> int:
    lines = [*_entries(files.POLICIES), "", "To be included by others:"]
    report.write(1, "\n".join([*lines, *_entries(files.PRESETS)]) + "\n")
    return 0


def _entries(directory: str) -> Iterator[str]:
    import textwrap

    for name, path in files.directory_of(directory):
        about = textwrap.wrap(files.about(files.read_text(path)), 66)
        yield f"{name:<22}{about[0]}"
        yield from (" " * 22 + line for line in about[1:])


def _show(values: Values, words: list[str]) -> int:
    arch = seccomp.native(values.get("--arch"))
    for policy in words:
        if "--pfc" in values:
            from runner.seccomp.listing import listing

            program = files.compile_anew(policy, arch)
            report.write(1, f"# {policy}, {arch}: {len(program) // 8} instructions\n")
            report.write(1, "".join(f"{line}\n" for line in listing(program, arch)))
        else:
            report.write(1, files.find(policy).text)
    return 0


def _compile(values: Values, words: list[str]) -> int:
    if len(words) > 1:
        raise refuse(words[1], "compile one policy at a time")
    program = files.compile_anew(words[0], seccomp.native(values.get("--arch")))
    path = values.get("-o")
    if path is not None:
        with open(path, "wb") as file:
            file.write(program)
    elif os.isatty(1):
        raise refuse(words[0], "a filter is no text: give -o FILE, or a pipe; see show --pfc")
    else:
        sys.stdout.buffer.write(program)
        sys.stdout.buffer.flush()
    return 0


def _check(_values: Values, words: list[str]) -> int:
    # Each is told of, whatever is wrong with the others.
    return max([_check_one(word) for word in words])


def _check_one(policy: str) -> int:
    try:
        sizes = ", ".join(
            f"{len(files.compile_anew(policy, arch)) // 8} on {arch}"
            for arch in syscalls.AUDIT_ARCHS
        )
    except ConfigError as error:
        report.say(str(error))
        return 1
    report.write(1, f"{policy}: ok, instructions: {sizes}\n")
    if files.is_profile(policy):
        for note in files.profile(policy, seccomp.native(None)).notes:
            report.write(1, f"note: {note}\n")
    return 0


def _explain(values: Values, words: list[str]) -> int:
    arch = seccomp.native(values.get("--arch"))
    policy = seccomp.read(words[0], arch)
    texts = files.find(words[0])
    for word in words[1:]:
        call = explain.parse_call(word, policy.constants)
        if call.name not in syscalls.numbers(arch):
            report.write(1, f"{word}: {arch} has no such call\n")
            continue
        for line in _answer(policy, texts, word, call):
            report.write(1, f"{line}\n")
    return 0


def _answer(
    policy: Policy, texts: files.Source, word: str, call: explain.Call
) -> Iterator[str]:
    default = f"  {policy.name}: no line is left to decide: default {policy.default}"
    if call.arguments is None:
        rules = list(explain.rules_of(policy, call.name))
        yield f"{word}: {'it depends' if any(rule.when for rule in rules) else 'always'}"
        yield from (_quote(rule, texts, call.name) for rule in rules)
        if not rules or rules[-1].when:
            yield default
        return
    rule = policy.decider(call.name, call.arguments)
    yield f"{word}: {policy.default if rule is None else rule.action}"
    yield default if rule is None else _quote(rule, texts, call.name)


def _quote(rule: Rule, texts: files.Source, name: str) -> str:
    """Give a rule's line as it is written, with its place and its reason."""
    if files.is_profile(texts.name):
        return f"  {rule.place}: {dataclasses.replace(rule, names=(name,))}"
    own = len(rule.origin) == 1
    text = texts.text if own else texts.others[rule.origin[-1]]
    return f"  {rule.place}: {text.split(chr(10))[rule.line - 1].strip()}"


SUBCOMMANDS: Final = {
    "policy list": Subcommand(
        synopsis="policy list",
        about=(
            "List the stock policies, and the presets that a policy of one's own includes.",
        ),
        options=(),
        letters="",
        long=(),
        least=0,
        run=_list,
        statuses=_STATUSES,
    ),
    "policy show": Subcommand(
        synopsis="policy show [--pfc] [--arch=ARCH] POLICY...",
        about=(f"Print the text of a policy, or what it is compiled to. {_POLICY}",),
        options=(("--pfc", "the compiled filter, an instruction a line, with names"), _ARCH),
        letters="",
        long=("pfc", "arch="),
        least=1,
        run=_show,
        statuses=_STATUSES,
    ),
    "policy compile": Subcommand(
        synopsis="policy compile [-o FILE] [--arch=ARCH] POLICY",
        about=(
            f"""Write the filter as seccomp(2) takes it, struct sock_filter[]. {_POLICY} Where \
it compares with START, the filter has a mark, for which run-sandboxed puts a secret at each \
start; a loader of your own has to do the same.""",
        ),
        options=(("-o FILE", "write to FILE, in place of standard output"), _ARCH),
        letters="o:",
        long=("arch=",),
        least=1,
        run=_compile,
        statuses=_STATUSES,
    ),
    "policy check": Subcommand(
        synopsis="policy check POLICY...",
        about=(
            f"""Compile each for every architecture, and tell all that is wrong, each fault \
with its file and line. {_POLICY}""",
        ),
        options=(),
        letters="",
        long=(),
        least=1,
        run=_check,
        statuses=_STATUSES,
    ),
    "policy explain": Subcommand(
        synopsis="policy explain [--arch=ARCH] POLICY CALL...",
        about=(
            f"""Tell which line decides a system call, written as socket(AF_INET, 1, 0): with \
numbers, names that the policy defines or Python knows, and A|B; arguments left out are 0. Of \
a CALL without parentheses, tell each line that may decide. {_POLICY}""",
        ),
        options=(_ARCH,),
        letters="",
        long=("arch=",),
        least=2,
        run=_explain,
        statuses=_STATUSES,
    ),
    **learn.SUBCOMMANDS,
}
