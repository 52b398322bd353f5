"""The command `run-sandboxed`: one run in a sandbox made for it, then the report.

Only what a run needs is imported, as the command shall cost little more than Python's start.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from runner.cli import places, report, rules
from runner.cli.options import OPTIONS, SUBCOMMANDS, Section, name_of, parse
from runner.cli.output import Outputs
from runner.config import (
    ADDR_NO_RANDOMIZE,
    RLIM_INFINITY,
    Limits,
    Rlimit,
)
from runner.errors import ConfigError, SandboxError

if TYPE_CHECKING:
    from runner.cli.copies import CopiesOut
    from runner.config import Hook
    from runner.result import Result
    from runner.sandbox import Sandbox

_ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and give the exit status."""
    _fill_standard_fds()
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in SUBCOMMANDS:
        from runner.cli import subcommand

        return subcommand.main(words[0], words[1:])
    try:
        options, command = parse(words)
        rules.check(options)
    except ConfigError as error:
        report.say(f"{error}\nrun-sandboxed --help lists the options")
        return report.SANDBOX_FAILED
    if options.help or options.version:
        report.write(1, _answer(options))
        return 0
    if options.check:
        from runner.cli import check

        return check.main(options, command)
    return _run_and_report(options, command)


def run_as(
    words: Sequence[str], then: Callable[[Result], Result] | None, **preset: object
) -> int:
    """Run as the command would, with some options preset that may not be given.

    `then` is given the result, and gives what is reported. Raises ConfigError for the words.
    """
    options, command = parse(words)
    for dest, value in preset.items():
        if getattr(options, dest):
            message = f"{name_of(dest)}: it cannot be given here"
            raise ConfigError(message)
        setattr(options, dest, value)
    rules.check(options)
    return _run_and_report(options, command, then)


def _run_and_report(
    options: SimpleNamespace,
    command: list[str],
    then: Callable[[Result], Result] | None = None,
) -> int:
    """Run and report; end early when a signal says so, with the status of its victim."""
    interrupts: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        for each in _ENDING_SIGNALS:  # a second one shall not cut the clean-up short
            signal.signal(each, signal.SIG_IGN)
        interrupts.append(number)
        raise KeyboardInterrupt(number)  # so that each `with` on the way cleans up

    previous = {number: signal.getsignal(number) for number in _ENDING_SIGNALS}
    try:
        for number, handler in previous.items():
            if handler != signal.SIG_IGN:  # nohup, and background jobs of a script
                signal.signal(number, interrupt)
        return _outcome(options, command, then)
    except BaseException as error:  # noqa: BLE001 - what is not ours is told below
        # An interrupt may have become something else, such as a RuntimeError of a class body.
        if interrupts:
            report.say(f"cancelled by {signal.Signals(interrupts[0]).name}")
            return 128 + interrupts[0]
        # Python would exit with 1, which is the program's to say.
        sys.excepthook(type(error), error, error.__traceback__)
        return report.SANDBOX_FAILED
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _outcome(
    options: SimpleNamespace, command: list[str], then: Callable[[Result], Result] | None
) -> int:
    try:
        with ExitStack() as places_to_write:
            outputs = Outputs(json=options.json, meta=options.meta)
            places_to_write.enter_context(outputs)
            copied = _copies_out(options, places_to_write)
            try:
                result = _run(options, command)
            except SandboxError as error:
                outputs.write(error)
                return _report_error(options, error)
            except KeyboardInterrupt as error:
                outputs.write(_cancelled(error))
                raise
            outputs.write(result)
            if copied is not None:
                copied.write(result)
            return _report(options, result if then is None else then(result))
    except ConfigError as error:  # of the outputs
        report.say(str(error))
        return report.SANDBOX_FAILED


def _copies_out(options: SimpleNamespace, opened: ExitStack) -> CopiesOut | None:
    if not options.copy_out:
        return None
    from runner.cli.copies import CopiesOut

    return opened.enter_context(CopiesOut(options.copy_out))


def _copied(options: SimpleNamespace) -> dict[str, Any]:
    """Give the arguments of a run that --copy-in and --copy-out are."""
    if not options.copy_in and not options.copy_out:
        return {}
    from runner.cli import copies

    return {"files_in": copies.given(options.copy_in), "files_out": copies.wanted(options)}


def _cancelled(error: KeyboardInterrupt) -> Result:
    """Give the result of a run that a signal to us has ended: nothing else is known."""
    from runner.result import Result, Status

    number = next(iter(error.args), signal.SIGINT)
    return Result(status=Status.CANCELLED, signal=int(number))


def _run(options: SimpleNamespace, command: list[str]) -> Result:
    arrangement = places.arrange(options)
    if arrangement.note is not None:
        _note(options, arrangement.note)
    with ExitStack() as files:
        if options.console:
            from runner.cli.terminal import Terminal

            terminal = files.enter_context(Terminal())
            arrangement.mounts.append(terminal.mount)
        stdin, stdout, stderr = _open_streams(options, files)
        if options.output is not None and not (_is_file(stdout) and _is_file(stderr)):
            _note(options, "--output does not count what goes to a terminal or into a pipe")
        # To be interrupted half-way through a start or an end would leave cgroups behind.
        with _mask(signal.SIG_BLOCK), _sandbox(options, arrangement) as sandbox:
            sandbox.start()
            with _mask(signal.SIG_UNBLOCK):
                if options.console:
                    return terminal.run(sandbox, command)
                return sandbox.run(
                    command,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    policy_log=options.policy_log,
                    measure=_measures(options),
                    repeat=options.repeat or 1,
                    **_copied(options),
                )


def _measures(options: SimpleNamespace) -> tuple[str, ...]:
    counted = () if options.instruction_rate is None else ("instructions",)
    return (*(options.measure or ()), *counted)


@contextmanager
def _mask(how: int) -> Iterator[None]:
    """Hold back the signals that end us, or let them come."""
    previous = signal.pthread_sigmask(how, _ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _sandbox(options: SimpleNamespace, arrangement: places.Places) -> Sandbox:
    from runner.sandbox import Sandbox, SandboxOfOne

    settings = _settings(options)
    kind = Sandbox if options.repeat else SandboxOfOne
    try:
        return kind(
            mounts=arrangement.mounts,
            root=arrangement.root,
            work_dir=arrangement.work_dir,
            limits=limits_of(options),
            **settings,
        )
    except ConfigError as error:
        # It names its parameter, which is an option's name too: policy, require.
        message = f"--{error}"
        raise ConfigError(message) from None


def limits_of(options: SimpleNamespace) -> Limits:
    """Make the limits from the options of their section."""
    dests = (option.dest for option in OPTIONS if option.section is Section.LIMITS)
    given = {dest: getattr(options, dest) for dest in dests}
    rlimits = tuple(given.pop("rlimits"))
    if given["stack"] == RLIM_INFINITY:
        del given["stack"]
        rlimits += (Rlimit.named("STACK", RLIM_INFINITY),)
    if given["disk"] is not None:
        given["disk"], given["inodes"] = given["disk"]
    named = {dest: v for dest, v in given.items() if v not in (None, [])}
    return Limits(rlimits=rlimits, **named)


def _settings(options: SimpleNamespace) -> dict[str, Any]:
    """Give the arguments of Sandbox that have an option and were given."""
    from runner.sandbox import DEFAULT_ENV

    settings: dict[str, Any] = {}
    if options.share_net or options.network is not None:
        settings["network"] = "host" if options.share_net else options.network
    if options.name is not None:
        settings["name"] = options.name
    for name in ("host_name", "domain_name", "user", "umask", "nice", "oom_score_adj"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    settings |= _extras(options)
    if options.require is not None:
        settings["require"] = options.require
    if options.no_seccomp:
        settings["policy"] = None
    elif options.policy is not None:
        settings["policy"] = _policy(options)
    if options.full_env or options.env:
        base = dict(os.environ) if options.full_env else DEFAULT_ENV
        settings["env"] = base | dict(options.env)
    return settings


def _policy(options: SimpleNamespace) -> str | bytes:
    """Give a stock policy's name as it is, and the filter of a file, which has a slash."""
    name: str = options.policy
    if "/" not in name:
        return name
    from runner.seccomp import files, load, native

    try:
        if files.is_profile(name):
            for note in files.profile(name, native(None)).notes:
                _note(options, note)
        return load(name)
    except ConfigError as error:
        if not str(error).startswith("policy: "):
            raise  # one line for each fault in the file, which names it
        message = f"--{error}"
        raise ConfigError(message) from None


def _extras(options: SimpleNamespace) -> dict[str, Any]:
    """Give what else a sandbox takes over from a Runner, of what was given."""
    given: dict[str, Any] = {}
    if options.affinity is not None:
        given["cpus"] = options.affinity
    if options.no_aslr:
        given["personality"] = ADDR_NO_RANDOMIZE
    if options.loopback:
        given["loopback"] = True
    if options.sysctls:
        given["sysctls"] = dict(options.sysctls)
    if options.time_offsets:
        from runner.config import TimeOffsets

        given["time_offsets"] = TimeOffsets(**dict(options.time_offsets))
    if options.hooks_outside or options.hooks_inside:
        given["hooks"] = _hooks(options)
    if options.landlock:
        given["landlock"] = rules.landlock(options.landlock)
    if options.supervise:
        given["supervision"] = rules.supervision(options.supervise)
    if options.console:
        given["ctty"] = True
    return given


def _hooks(options: SimpleNamespace) -> list[Hook]:
    from runner.config import Hook, Where

    commands = [(Where.OUTSIDE, command) for command in options.hooks_outside]
    commands += [(Where.INSIDE, command) for command in options.hooks_inside]
    return [
        Hook(args=("/bin/sh", "-c", command), where=where, env=os.environ)
        for where, command in commands
    ]


def _open_streams(options: SimpleNamespace, files: ExitStack) -> tuple[int, int, int]:
    """Give fds for stdin, stdout, stderr: the files that were named, our own otherwise."""
    stdin = 0 if options.stdin is None else _open("stdin", options.stdin, files)
    stdout = 1 if options.stdout is None else _open("stdout", options.stdout, files)
    if options.join_stderr:
        return stdin, stdout, stdout
    return (
        stdin,
        stdout,
        2 if options.stderr is None else _open("stderr", options.stderr, files),
    )


def _open(name: str, path: str, files: ExitStack) -> int:
    flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        message = f"--{name}: {path!r}: {error.strerror}"
        raise ConfigError(message) from None
    files.callback(os.close, fd)
    return fd


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _note(options: SimpleNamespace, text: str) -> None:
    if not options.quiet:
        report.say(f"note: {text}")


def _report(options: SimpleNamespace, result: Result) -> int:
    if options.json != "" and not options.quiet:
        report.say(report.summary(result, _limit_reached(options, result)))
        for dest in ("cpu_time", "wall_time", "memory", "processes", "output"):
            if getattr(options, dest) is not None and result.enforced.get(dest, "") is None:
                _note(options, f"nothing here can enforce {name_of(dest)}")
        if result.policy_log is not None:
            report.say(report.logged(result.policy_log))
        report.say(report.asked_for(result, _measures(options), options.instruction_rate))
        if options.verbose:
            report.say(report.guarantees(result))
    # What was to come out and is not there is the program's failure too.
    return report.exit_status(result) or (0 if result.files_ok else 1)


def _limit_reached(options: SimpleNamespace, result: Result) -> float | None:
    """Give the limit that ended it, where that is one number: an rlimit is two."""
    value = getattr(limits_of(options), result.limit or "", None)
    return value if isinstance(value, int | float) else None


def _report_error(options: SimpleNamespace, error: SandboxError) -> int:
    if options.json != "":
        report.say(report.explain(error))
    return report.exit_status_of_error(error)


def _answer(options: SimpleNamespace) -> str:
    from importlib.metadata import version

    from runner.cli.manual import help_text

    return help_text() if options.help else f"run-sandboxed {version('run-sandboxed')}\n"


def _fill_standard_fds() -> None:
    """Put /dev/null where the caller closed 0, 1 or 2, or files of ours would land there."""
    for fd in range(3):
        if not _is_open(fd):
            os.open("/dev/null", os.O_RDWR)  # gets the lowest free number, which is fd


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
