"""Rules between options: what excludes, needs or repeats another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from runner.cli.options import name_of
from runner.config import RLIMITS, Mount
from runner.errors import ConfigError

if TYPE_CHECKING:
    from runner.config import Landlock, Supervision

# Only one of the two can be given.
_EXCLUSIVE: Final = (
    ("stderr", "join_stderr"),
    ("policy", "no_seccomp"),
    ("policy_log", "no_seccomp"),
    ("policy_log", "oom_score_adj"),
    ("policy_log", "supervise"),
    ("quiet", "verbose"),
    ("root", "writable"),
    ("root", "staged"),
    ("root", "host_root"),
    ("staged", "host_root"),
    ("staged", "writable"),
    ("host_root", "writable"),
    ("network", "share_net"),
    *(("console", other) for other in ("stdin", "stdout", "stderr", "join_stderr")),
    ("console", "policy_log"),
    *(("console", other) for other in ("measure", "instruction_rate", "repeat")),
    *(("console", other) for other in ("copy_in", "copy_out")),
)
# The options that are a setrlimit(2) of their own.
_OWN_OPTION: Final = {
    "STACK": "stack",
    "AS": "address_space",
    "FSIZE": "file_size",
    "NOFILE": "open_files",
}


def check(options: SimpleNamespace) -> None:
    """Refuse options that contradict each other, with a ConfigError that names both."""
    for one, other in _EXCLUSIVE:
        if getattr(options, one) and getattr(options, other):
            _refuse(f"{name_of(one)} and {name_of(other)} exclude each other; give one")
    if options.extra_time is not None and options.cpu_time is None:
        _refuse(f"--extra-time: {options.extra_time:g} s: it needs a --time to go beyond")
    if None not in (options.wall_time, options.cpu_time) and (
        options.wall_time < options.cpu_time
    ):
        _refuse(
            f"--wall-time: {options.wall_time:g} s: it is below --time {options.cpu_time:g} s, "
            "which could then never be reached"
        )
    if options.meta is not None and options.meta == options.json:
        _refuse(f"--meta: {options.meta!r}: --json has this file; give another")
    if options.stdout is not None and options.stdout == options.stderr:
        _refuse(f"--stderr: {options.stderr!r}: for the same file write --stderr-to-stdout")
    _check_rlimits(options)
    _check_once("--env", (name for name, _value in options.env))
    _check_once("--sysctl", (name for name, _value in options.sysctls))
    _check_once("--time-offset", (clock for clock, _amount in options.time_offsets))
    _check_once("--copy-in", (copy.name for copy in options.copy_in))
    _check_once("--copy-out", (copy.name for copy in options.copy_out))
    _check_once("the file of --copy-out", (copy.path for copy in options.copy_out))
    _check_once("the place", (mount.target for mount in _placed(options)))


def landlock(given: Sequence[tuple[str, tuple[str | int, ...] | bool]]) -> Landlock:
    """Put the rules of --landlock together."""
    from runner.config import Landlock

    fields: dict[str, Any] = {}
    for name, value in given:
        fields[name] = value if isinstance(value, bool) else fields.get(name, ()) + value
    return Landlock(**fields)


def supervision(given: Sequence[tuple[str, str, str | int]]) -> Supervision:
    """Put the rules of --supervise together."""
    from runner.config import Supervision

    _check_once("--supervise", (value for field, value, _ in given if field == "calls"))
    fields: dict[str, Any] = {"calls": {v: rule for f, v, rule in given if f == "calls"}}
    for field, value, _ in given:
        if field == "refuse":
            fields[field] = value
        elif field != "calls":
            fields[field] = (*fields.get(field, ()), value)
    return Supervision(**fields)


def _placed(options: SimpleNamespace) -> list[Mount]:
    made = options.overlays + options.files + options.directories + options.symlinks
    placed: list[Mount] = options.binds + options.tmpfs + options.device_files + made
    return placed


def _check_rlimits(options: SimpleNamespace) -> None:
    names = {number: name for name, number in RLIMITS.items()}
    given = [names[limit.resource] for limit in options.rlimits]
    _check_once("--rlimit", given)
    for name in given:
        dest = _OWN_OPTION.get(name)
        if dest is not None and getattr(options, dest) is not None:
            _refuse(f"--rlimit: {name!r}: it is set by {name_of(dest)} too; give one")


def _check_once(option: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            _refuse(f"{option}: {name!r}: it is given twice; give it once")
        seen.add(name)


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)
