"""`run-sandboxed contain`: a command in a container whose root is a directory of the caller's.

Root inside is an ordinary user of the host's, or nobody (ids.py). No limits hold in it, and no
filter; what it may do is what its ids may.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final, NoReturn

from runner.cli import ids, report, subcommand
from runner.config import ALL_NAMESPACES, Hook, Mount, Namespace, Runner, Where
from runner.console import Console
from runner.process import start
from runner.seccomp.terminal import no_typing

_PIVOT: Final = "/tmp"  # any directory that exists everywhere; it is covered inside only
_ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_HELPER_TIMEOUT_S: Final = 86400.0  # a helper program may ask somebody


def run(values: subcommand.Values, words: list[str]) -> int:
    """Run the command in the container; give its exit status."""
    chosen = ids.choose(values)
    fields: dict[str, Any] = {
        "args": words[1:] or ["/bin/sh"],
        "env": {"container": "contain"},
        "namespaces": ALL_NAMESPACES | Namespace.TIME,
        "hooks": _helpers(values),
        "pivot_root": _PIVOT,
        **chosen._asdict(),
    }
    if "-n" in values:
        fields["namespaces"] &= ~Namespace.NETWORK
    name = values.get("--name", "")
    if "-c" in values:
        fields |= _root(words[0], values, console="")
        fields |= {"retain_session": True, "ignored_signals": subcommand.ignored_signals()}
        fields["seccomp"] = no_typing()  # into our terminal, which it has
        return subcommand.run(Runner(**fields), path=None, name=name)
    with ExitStack() as stack:
        stack.enter_context(_ended_in_order())
        console = stack.enter_context(Console())
        _give_away(console, chosen)
        fields |= _root(words[0], values, console=console.path)
        fields |= {"files": console.files, "ctty": True, "stop_before_exec": True}
        return _run_in_console(Runner(**fields), console, name)


def _run_in_console(config: Runner, console: Console, name: str) -> int:
    with start(config, name=name) as process:
        # It waits, so that this is its own pid still.
        ended = os.pidfd_open(process.pid)
        before = signal.signal(signal.SIGWINCH, lambda *_: console.follow_size())
        try:
            process.resume()
            console.relay(ended=ended)
            return subcommand.exit_status(process.wait())
        except BrokenPipeError:
            return 128 + signal.SIGPIPE  # nobody reads what it writes
        finally:
            signal.signal(signal.SIGWINCH, before)
            os.close(ended)


def _helpers(values: Mapping[str, str]) -> tuple[Hook, ...]:
    """Give the helper programs, with the caller's environment, stdout and stderr."""
    return tuple(
        Hook(
            args=("sh", "-c", values[option]),
            where=where,
            env=dict(os.environ),
            timeout=_HELPER_TIMEOUT_S,
            stdout=1,
        )
        for option, where in (("-o", Where.OUTSIDE), ("-i", Where.INSIDE))
        if option in values
    )


def _root(directory: str, values: Mapping[str, str], *, console: str) -> dict[str, object]:
    """Give the fields of a Runner for a root that is a directory, with what the kernel has.

    Nothing is made in the directory. If it lacks places for that, the root is a new one, with
    all that is in the directory.
    """
    try:
        path = os.path.realpath(directory, strict=True)
    except OSError as error:
        raise subcommand.refuse(directory, str(error.strerror)) from None
    if not directory or not os.path.isdir(path):
        raise subcommand.refuse(directory, "it is no directory")
    own = [Mount.dev(pts=True, console=console, readonly=False), Mount.proc(readonly=False)]
    if "-n" not in values:
        # The kernel shows the devices of a network only to who owns it.
        own.append(Mount.sysfs(readonly=False))
    missing = [mount.target[1:] for mount in own if not _is_directory(path + mount.target)]
    if not missing:
        return {"root": path, "root_readonly": False, "mounts": own}
    if "-i" in values:
        why = f"for -i it needs what it lacks: mkdir {' '.join(missing)} in it"
        raise subcommand.refuse(directory, why)
    report.say(
        f"contain: note: {directory} has no {', '.join(missing)}: what is made in the root "
        "directory itself is lost"
    )
    names = {mount.target for mount in own}
    entries = [mount for mount in _entries(path) if mount.target not in names]
    return {"root_readonly": False, "mounts": [*entries, *own]}


def _entries(path: str) -> Iterator[Mount]:
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            target = f"/{entry.name}"
            if entry.is_symlink():
                yield Mount.symlink(os.readlink(entry.path), target)
            else:
                yield Mount.bind(entry.path, target, readonly=False, follow=False)


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _give_away(console: Console, chosen: ids.Ids) -> None:
    """Have root inside own its terminal, as far as we may."""
    if os.geteuid() == 0 and chosen.credential is not None:
        uid, gid = (
            next(m.outside for m in maps if m.inside == 0)
            for maps in (chosen.uid_mappings, chosen.gid_mappings)
        )
        os.fchown(console.files[0], uid, gid)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have signals that end us do so by way of each `with`, which restores the terminal."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        for each in _ENDING:  # a second one shall not cut this short
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    previous = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in previous.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


SUBCOMMAND: Final = subcommand.Subcommand(
    synopsis=(
        "contain [-c] [-g MAP] [-i CMD] [-n] [-o CMD] [-u MAP] [--name NAME] DIR "
        "[COMMAND [ARG...]]"
    ),
    about=(
        """Run COMMAND, by default /bin/sh, in a container: as root of namespaces of its own, \
in which DIR, writable, is the root directory. COMMAND is a path inside, and not looked up; \
its environment is container=contain. The container ends with COMMAND or run-sandboxed.""",
        """The container has its own /dev, with pseudo-terminals, /proc, and with a network of \
its own /sys; /proc/sys is read-only. Nothing is made in DIR: if it lacks directories for \
these, the root is a new one that has all that DIR has, writable; what is made in the root \
directory itself is lost then. Set-user-ID programs in DIR run without that.""",
        ids.ABOUT,
        """A helper program is run by sh -c in the caller's environment; $SANDBOX_PID is the \
container's first process as the helper sees it. Unless it exits with 0, nothing is started, \
and its status is that of run-sandboxed.""",
        """COMMAND has a terminal of its own, as large as the caller's, which input and output \
are copied to and from.""",
    ),
    options=(
        ("-c", "no terminal of its own: it inherits input, output, error, and the session"),
        *ids.OPTIONS,
        (
            "-i CMD",
            """helper program inside: as root of the container, in the new root, while the \
host's files are still there. /dev, /proc and /sys are mounted after it, on directories that \
DIR has to have""",
        ),
        ("-n", "the host's network, and no /sys"),
        ("-o CMD", "helper program outside: as the caller, when the namespaces exist"),
        ("--name NAME", "a name by which run-sandboxed inject finds it"),
    ),
    letters="cg:i:no:u:",
    long=("name=",),
    least=1,
    run=run,
)
