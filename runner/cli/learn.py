"""`run-sandboxed policy learn` and `policy audit`: a run, and what it says of policies."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from runner.cli import report
from runner.cli.main import run_as
from runner.cli.subcommand import Subcommand, Values, refuse
from runner.errors import ConfigError
from runner.seccomp import compile_policy, files, learn, native

if TYPE_CHECKING:
    from runner.result import Result

_STATUSES: Final = """The exit status is as of run-sandboxed, of which it also takes the \
options; 1 when the file is none that was learned, and 64 for a usage error."""


def _learn(values: Values, words: list[str]) -> int:
    base = values.get("--within", "default")
    path, *rest = words
    if "/" not in path:
        raise refuse(path, f"write it with a slash: ./{path}")
    _known(base, path)  # before anything runs
    return run_as(rest, _learner(base, path), policy=base, policy_log="all")


def _known(base: str, path: str) -> learn.Learned:
    """Read what is learned already. Raises ConfigError for another file, or another base."""
    if not os.path.exists(path):
        return learn.Learned(base, 0, {})
    known = learn.read(files.read_text(path), path)
    if known.base != base:
        raise ConfigError(f"{path}: it was learned within {known.base}, not {base}")
    return known


def _learner(base: str, path: str) -> Callable[[Result], Result]:
    def learned(result: Result) -> Result:
        log, arch = result.policy_log, native(None)
        if log is None:
            return result
        calls: dict[str, int] = {}
        for call in log.calls:
            if call.name is not None and call.arch == arch:
                calls[call.name] = calls.get(call.name, 0) + call.times
        found = _known(base, path) + learn.Learned(base, 1, calls)
        text = learn.write(found, files.read(base, arch))
        compile_policy(text, name=path, arch=arch)  # it is what it says, or nothing is written
        _replace(path, text)
        report.say(f"{path}: {len(found.calls)} calls, in {found.runs} runs")
        return result._replace(policy_log=None)

    return learned


def _replace(path: str, text: str) -> None:
    partly = f"{path}.{os.getpid()}"
    try:
        with open(partly, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(partly, path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _audit(_values: Values, words: list[str]) -> int:
    policy, *rest = words
    return run_as(rest, None, policy=policy, policy_log="permissive")


SUBCOMMANDS: Final = {
    "policy learn": Subcommand(
        synopsis="policy learn [--within=POLICY] FILE [OPTION...] [--] COMMAND [ARGUMENT...]",
        about=(
            """Run a command, count its system calls and those of all that it starts, and \
write the policy that has these alone, the most frequent first, each as POLICY has it. A call \
takes much longer than without, which limits on time have to allow for. What was learned \
before is read from FILE, and this run added to it.""",
        ),
        options=(("--within=POLICY", "a policy that allows what may be learned: default"),),
        letters="",
        long=("within=",),
        least=2,
        run=_learn,
        statuses=_STATUSES,
    ),
    "policy audit": Subcommand(
        synopsis="policy audit POLICY [OPTION...] [--] COMMAND [ARGUMENT...]",
        about=(
            """Run a command, and tell which system calls POLICY would refuse or log. All are \
let through, so that the whole run is seen: what else holds a program in its sandbox does so \
still, but take no policy for untrusted programs that was never held.""",
        ),
        options=(),
        letters="",
        long=(),
        least=2,
        run=_audit,
        statuses=_STATUSES,
    ),
}
