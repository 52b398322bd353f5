"""`--check`: what the doctor found, as a table with remedies or as JSON.

The exit status is 0 if every guarantee can be enforced by its strong means, else 1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

from runner.cli import report
from runner.cli.output import OutputFile
from runner.errors import ConfigError, HostError

if TYPE_CHECKING:
    from runner.doctor import Finding, Report
    from runner.host import Host

_WEAKER: Final = 1


def main(options: SimpleNamespace, command: Sequence[str]) -> int:
    """Examine this host, show it on standard output, give the exit status."""
    if command:
        report.say(f"--check: {command[0]!r}: it runs no command; leave that out")
        return report.SANDBOX_FAILED
    from runner import doctor
    from runner.cli import trials

    host = _host()
    found = doctor.examine(host, trials.try_all(host), environ=os.environ)
    text = json.dumps(found.to_dict(), indent=2) + "\n"
    if options.json:
        try:
            with OutputFile("--json", options.json) as file:
                file.write(text)
        except ConfigError as error:
            report.say(str(error))
            return report.SANDBOX_FAILED
    elif options.json is not None:
        report.write(1, text)
    if options.json != "" and not options.quiet:
        report.write(1, render(found))
    return 0 if found.ok else _WEAKER


def _host() -> Host:
    from runner.host import Host, detect

    try:
        return detect()
    except HostError:  # without /proc; the sandbox that is tried fails with the reason
        return Host(kernel=(0, 0), euid=os.geteuid())


def render(found: Report) -> str:
    """Give the text for people: one line a finding, then what to do about each."""
    sections = (
        ("guarantees", found.guarantees),
        ("features", found.features),
        ("timing", found.noise),
    )
    where = f", in a container ({found.container})" if found.container else ""
    lines = [f"Linux {found.kernel}, uid {found.uid}{where}"]
    width = max((len(f.name) for _, findings in sections for f in findings), default=0)
    for title, findings in sections:
        lines += ["", f"{title}:"]
        lines += [f"  {f.level.value:<7}  {f.name:<{width}}  {f.value}" for f in findings]
    advice = [*_advice([finding for _, findings in sections for finding in findings])]
    if advice:
        lines += ["", "what to do:", *advice]
    return "\n".join(lines) + "\n"


def _advice(findings: Iterable[Finding]) -> Iterator[str]:
    """Give why and the remedies: once for all findings that have the same."""
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for finding in findings:
        if finding.why:
            reasons = groups.setdefault(finding.remedies, {})
            reasons.setdefault(finding.why, []).append(finding.name)
    for remedies, reasons in groups.items():
        yield from (f"  {', '.join(names)}: {why}" for why, names in reasons.items())
        yield from (f"    - {remedy}" for remedy in remedies)
