"""The options as data, and the parser that reads a command line by them.

One row is an option: where its value goes, its flags, what stands for its value, its parser and
the help. `--help` and run-sandboxed(1) are written from the same rows (manual.py).

The parser is our own because argparse cannot say `--json[=FILE]`, would look for options in the
command's arguments, and takes 6 ms to build these rows: half as long as Python's own start.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Final, NoReturn

from runner.cli import mounts, values
from runner.errors import ConfigError
from runner.quick import NamedTuple


class Section(enum.Enum):
    """Heading in the help; what is in LIMITS are fields of `Limits`, by the same name."""

    LIMITS = "Limits"
    STREAMS = "Input and output"
    ENVIRONMENT = "Environment"
    FILES = "Files"
    PROCESS = "Process"
    ISOLATION = "Isolation"
    REPORT = "Report"


class Option(NamedTuple):
    """One row. Without `parse` it is a switch; with `repeat` its values make a list.

    With `bare` the value may be left out, which reads as ""; it is written `--option=VALUE`.
    """

    section: Section
    dest: str
    flags: tuple[str, ...]
    metavar: str
    parse: Callable[[str], object] | None
    help: str
    repeat: bool = False
    bare: bool = False

    @property
    def name(self) -> str:
        """The long flag, as messages name the option."""
        return self.flags[-1]


_L, _S, _E = Section.LIMITS, Section.STREAMS, Section.ENVIRONMENT
_F, _P, _I, _R = Section.FILES, Section.PROCESS, Section.ISOLATION, Section.REPORT

# fmt: off
OPTIONS: Final = (
    Option(_L, "cpu_time", ("-t", "--time"), "SECONDS", values.seconds,
           "CPU time of all its processes and threads together"),
    Option(_L, "wall_time", ("-w", "--wall-time"), "SECONDS", values.seconds,
           "time by the clock, from start to end"),
    Option(_L, "idle_time", ("--idle-time",), "SECONDS", values.seconds,
           "time by the clock in which it uses no CPU"),
    Option(_L, "extra_time", ("--extra-time",), "SECONDS", values.seconds,
           "let it go on so long past --time, to see how long it would have taken"),
    Option(_L, "memory", ("-m", "--memory"), "SIZE", values.size,
           "memory really used, of all its processes together"),
    Option(_L, "stack", ("--stack",), "SIZE", values.stack_size,
           "stack of each process, or unlimited"),
    Option(_L, "address_space", ("--address-space",), "SIZE", values.size,
           "address space of each process; Java, Go, sanitizers reserve more than they use"),
    Option(_L, "output", ("--output",), "SIZE", values.size,
           "size of each file written, standard output and error too where they are files"),
    Option(_L, "file_size", ("--file-size",), "SIZE", values.size,
           "size of each file written"),
    Option(_L, "processes", ("-p", "--processes"), "N", values.count,
           "processes and threads at a time"),
    Option(_L, "open_files", ("--open-files",), "N", values.count,
           "open files of each process"),
    Option(_L, "rlimits", ("--rlimit",), "NAME=SOFT[:HARD]", values.rlimit,
           "any limit of setrlimit(2), such as CORE=0 or MEMLOCK=64K; unlimited is a value too",
           repeat=True),
    Option(_L, "disk", ("--disk",), "SIZE[,INODES]", values.disk,
           "bytes in each writable place that is its own, such as /tmp; and files, INODES"),
    Option(_L, "swap", ("--swap",), "SIZE", values.size,
           "of its memory, what may be swapped out; nothing is otherwise, where that can be"),
    Option(_L, "cpu_quota", ("--cpu-quota",), "CPUS", values.fraction,
           "so many CPUs' time, such as 0.5, however many threads it has"),
    Option(_L, "cpu_weight", ("--cpu-weight",), "N", values.count,
           "its share where CPUs are contended, 1 to 10000; others have 100"),
    Option(_L, "cpus", ("--cpuset",), "LIST", values.cpu_list,
           "CPUs that it runs on, such as 0-3,7; it cannot choose others"),
    Option(_L, "io", ("--io",), "DEVICE:WHAT=N[,...]", values.io_limit,
           "of a disk, by MAJOR:MINOR or the path of a file on it, in a second; WHAT is "
           "read_bytes, write_bytes, read_ops or write_ops",
           repeat=True),
    Option(_L, "devices", ("--allow-device",), "DEVICE[=ACCESS]", values.device_access,
           "a device that it may use, and no other; ACCESS is some of r, w, m",
           repeat=True),
    Option(_L, "pressure", ("--pressure",), "", None,
           "no limit: tell how long it waited for CPU, memory and disks"),

    Option(_S, "stdin", ("--stdin",), "FILE", values.file_name,
           "read standard input from FILE; inherited otherwise, as the other two are"),
    Option(_S, "stdout", ("--stdout",), "FILE", values.file_name,
           "write standard output to FILE"),
    Option(_S, "stderr", ("--stderr",), "FILE", values.file_name,
           "write standard error to FILE"),
    Option(_S, "join_stderr", ("--stderr-to-stdout",), "", None,
           "send standard error where standard output goes"),

    Option(_E, "env", ("-E", "--env"), "NAME[=VALUE]", values.environment,
           "set a variable, or pass on your own; otherwise there are PATH, HOME and LANG only",
           repeat=True),
    Option(_E, "full_env", ("--full-env",), "", None,
           "pass on your whole environment"),
    Option(_E, "work_dir", ("-C", "--chdir"), "DIR", values.file_name,
           "start in DIR, a path in the sandbox"),

    Option(_F, "binds", ("-b", "--bind"), "SRC[:DST][:FLAG,...]", values.bind,
           "show SRC, read-only, at DST (or at its own path); flags: rw writable, dev with its "
           "device files, optional may be missing",
           repeat=True),
    Option(_F, "tmpfs", ("--tmpfs",), "DST[:SIZE]", values.tmpfs,
           "an empty writable directory in memory, of at most SIZE",
           repeat=True),
    Option(_F, "root", ("--root",), "DIR", values.root_directory,
           "DIR, read-only, in place of this system's directories and the current one"),
    Option(_F, "writable", ("--writable",), "", None,
           "let it write in the current directory, which is shown read-only otherwise"),

    Option(_F, "overlays", ("--overlay",), "DST=LOWER[:LOWER...]", mounts.overlay,
           "directories laid over each other; what is written is lost, or with "
           ",upper=DIR,work=DIR behind it, kept in upper",
           repeat=True),
    Option(_F, "staged", ("--stage",), "FILE[:DST]", mounts.staged,
           "in an otherwise empty root FILE, with the loader and libraries that it names",
           repeat=True),
    Option(_F, "host_root", ("--host-root",), "", None,
           "all of this system's root, read-only, but /etc, /mnt and /sys, and with its own "
           "/proc, /dev and /tmp"),
    Option(_F, "files", ("--file",), "DST=FILE", mounts.file,
           "a copy of FILE",
           repeat=True),
    Option(_F, "directories", ("--dir",), "DST[:MODE]", mounts.directory,
           "an empty directory",
           repeat=True),
    Option(_F, "symlinks", ("--symlink",), "TEXT:DST", mounts.symlink,
           "a symbolic link",
           repeat=True),
    Option(_F, "device_files", ("--device",), "FILE", mounts.device,
           "a device file of this host, such as /dev/fuse",
           repeat=True),
    Option(_F, "sysfs", ("--sysfs",), "", None,
           "/sys, read-only, with the devices of its own network"),
    Option(_F, "mqueue", ("--mqueue",), "", None,
           "/dev/mqueue, with the message queues of its own"),
    Option(_F, "masks", ("--mask",), "PATH", mounts.mask,
           "hide what is at PATH in the sandbox",
           repeat=True),
    Option(_F, "read_only", ("--read-only",), "PATH", mounts.read_only,
           "make PATH in the sandbox read-only, with all that is mounted below",
           repeat=True),
    Option(_F, "copy_in", ("--copy-in",), "FILE[:NAME]", values.copy_in,
           "copy FILE into the directory that it starts in, as NAME; it may do with it what it "
           "wants. With --chdir /tmp that is a place of its own",
           repeat=True),
    Option(_F, "copy_out", ("--copy-out",), "NAME[:FILE][?]", values.copy_out,
           "when all has ended, copy NAME from the directory that it starts in to FILE; with ? "
           "it may be missing",
           repeat=True),
    Option(_F, "copy_limit", ("--copy-limit",), "SIZE", values.size,
           "of each file, what --copy-out copies at most; 64M otherwise"),

    Option(_P, "umask", ("--umask",), "MODE", values.mode,
           "bits that no new file has, in octal"),
    Option(_P, "nice", ("--nice",), "N", values.number,
           "nice value, -20 to 19; below your own it needs privileges"),
    Option(_P, "affinity", ("--affinity",), "LIST", values.cpu_list,
           "CPUs that it starts on, such as 0-3,7"),
    Option(_P, "no_aslr", ("--no-aslr",), "", None,
           "the same addresses each time"),
    Option(_P, "oom_score_adj", ("--oom-score-adj",), "N", values.number,
           "-1000 to 1000: how readily the kernel ends it when memory is short"),
    Option(_P, "console", ("--console",), "", None,
           "a terminal of its own, joined to yours or to your standard input and output"),

    Option(_I, "network", ("--net",), "none|host|pasta", values.network,
           "its network: none, this host's own, or one by pasta that reaches the outside"),
    Option(_I, "share_net", ("--share-net",), "", None,
           "the same as --net host"),
    Option(_I, "policy", ("--seccomp", "--policy"), "NAME|FILE", values.file_name,
           "which system calls it may make: a stock policy, such as strict; presets and one, "
           "such as no-exec+default; or a file, written with a slash: of rules, or, if it ends "
           "in .json, an OCI profile"),
    Option(_I, "no_seccomp", ("--no-seccomp",), "", None,
           "allow every system call"),
    Option(_I, "policy_log", ("--policy-log",), "", None,
           "tell which calls the policy has refused or logged, how often, and what it said"),
    Option(_I, "landlock", ("--landlock",), "RULE", values.landlock,
           "what it may do by Landlock's rules, which add to all else: read=PATH, write=PATH, "
           "execute=PATH; bind=PORT, connect=PORT or =none; scope=signal, "
           "scope=abstract_unix_socket; best-effort for what the kernel can",
           repeat=True),
    Option(_I, "supervise", ("--supervise",), "RULE", values.supervise,
           "a rule by which calls are decided: CALL=kill, CALL=ERRNO, CALL=N for N times; "
           "stat:PATH, read:PATH, write:PATH for paths that it may use, ban:PATH, where DIR/* "
           "is all in it and DIR/ all below; refuse:ERRNO for other paths instead of its end",
           repeat=True),
    Option(_I, "name", ("--name",), "NAME", values.file_name,
           "a name by which run-sandboxed inject finds it"),
    Option(_I, "loopback", ("--loopback",), "", None,
           "set up the loopback interface of its own network"),
    Option(_I, "sysctls", ("--sysctl",), "NAME=VALUE", values.assignment,
           "a sysctl of its own network or IPC namespace, such as net.ipv4.ip_forward=1",
           repeat=True),
    Option(_I, "time_offsets", ("--time-offset",), "CLOCK=SECONDS", values.time_offset,
           "what its clock is ahead of this host's; the clock is monotonic or boottime",
           repeat=True),
    Option(_I, "hooks_outside", ("--hook-outside",), "COMMAND", values.file_name,
           "run COMMAND by sh, as you, when the sandbox exists and before it is filled",
           repeat=True),
    Option(_I, "hooks_inside", ("--hook-inside",), "COMMAND", values.file_name,
           "run COMMAND by sh, as its root, in its new root directory, with your environment",
           repeat=True),
    Option(_I, "domain_name", ("--domainname",), "NAME", values.host_name,
           "NIS domain name that it sees"),
    Option(_I, "host_name", ("--hostname",), "NAME", values.host_name,
           "host name that it sees"),
    Option(_I, "user", ("--user",), "UID[:GID]|NAME", values.ids,
           "ids that it has inside; by name, as the sandbox's /etc/passwd says"),
    Option(_I, "require", ("--require",), "GUARANTEE,...", values.guarantees,
           "refuse to run where one of these cannot be enforced, such as memory,network"),

    Option(_R, "json", ("--json",), "FILE", values.output_file,
           "write the result as JSON to FILE, or to stderr in place of the summary",
           bare=True),
    Option(_R, "meta", ("--meta",), "FILE", values.output_file,
           "write the result to FILE as isolate's meta file"),
    Option(_R, "measure", ("--measure",), "WHAT,...", values.measures,
           "tell also noise: what may have disturbed its times; instructions, where the CPU "
           "counts them; status, smaps_rollup, smaps: files of its /proc when it exits"),
    Option(_R, "instruction_rate", ("--instruction-rate",), "N", values.per_second,
           "count instructions, and tell the CPU time that they take at N in a second, which "
           "is the same each time"),
    Option(_R, "repeat", ("--repeat",), "N", values.count,
           "run it N times, until one is not ok: that is the result, otherwise the run with "
           "the median CPU time, and how the figures spread; its output comes each time"),
    Option(_R, "check", ("--check",), "", None,
           "run nothing: say what can be enforced here for you, what is missing and how to get "
           "it, and what makes timing noisy; with --json as JSON, to FILE or standard output; "
           "exit status 0 if every guarantee can be enforced by its strong means, else 1"),
    Option(_R, "quiet", ("-q", "--quiet"), "", None,
           "no summary and no notes; failures are still told"),
    Option(_R, "verbose", ("-v", "--verbose"), "", None,
           "say also what enforced each guarantee"),
    Option(_R, "help", ("-h", "--help"), "", None,
           "show this help"),
    Option(_R, "version", ("--version",), "", None,
           "show the version"),
)
# fmt: on

# The first word may be one of these: what follows is theirs (subcommand.py).
SUBCOMMANDS: Final = ("contain", "inject", "policy", "pseudo")

_BY_FLAG: Final = {flag: option for option in OPTIONS for flag in option.flags}


def parse(words: Sequence[str]) -> tuple[SimpleNamespace, list[str]]:
    """Split the words into the options' values, by `Option.dest`, and the command.

    What was not given is None, False or []. Options end at the first word that is none, or at
    `--`. Raises ConfigError that names the option, the value and what would be right.
    """
    options = SimpleNamespace(**{option.dest: _default(option) for option in OPTIONS})
    left = list(reversed(words))
    while left and left[-1].startswith("-") and left[-1] != "-":
        word = left.pop()
        if word == "--":
            break
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            _take(options, flag, value if equals else None, left)
        else:
            _take_cluster(options, word, left)
        if options.help or options.version:
            return options, []
    if not left and not options.check:
        message = "there is no command to run"
        raise ConfigError(message)
    return options, left[::-1]


def name_of(dest: str) -> str:
    """Give the long flag of the option whose value goes to `dest`."""
    return next(option.name for option in OPTIONS if option.dest == dest)


def _default(option: Option) -> list[object] | bool | None:
    if option.repeat:
        return []
    return False if option.parse is None else None


def _take_cluster(options: SimpleNamespace, word: str, left: list[str]) -> None:
    """Take short flags written together, such as `-qt1`: the first with a value ends them."""
    for place, letter in enumerate(word[1:], 2):
        option = _BY_FLAG.get("-" + letter)
        if option is not None and option.parse is not None:
            _take(options, "-" + letter, word[place:] or None, left)
            return
        _take(options, "-" + letter, None, left)


def _take(options: SimpleNamespace, flag: str, value: str | None, left: list[str]) -> None:
    """Store one option; its value is `value`, or where that is None the next word of `left`."""
    option = _BY_FLAG.get(flag)
    if option is None:
        _refuse_flag(flag)
    if option.parse is None:
        if value is not None:
            _refuse(option, f"{value!r}: it takes no value")
        setattr(options, option.dest, True)
        return
    if value is None and not option.bare:
        if not left:
            _refuse(option, f"its value is missing: write {option.name} {option.metavar}")
        value = left.pop()
    try:
        parsed = "" if value is None else option.parse(value)
    except ConfigError as error:
        _refuse(option, str(error))
    except OSError as error:  # also of any relative path where the directory was removed
        _refuse(option, f"{value!r}: {error.strerror}")
    _store(options, option, parsed, value)


def _store(options: SimpleNamespace, option: Option, parsed: object, value: str | None) -> None:
    if option.repeat:
        getattr(options, option.dest).append(parsed)
    elif getattr(options, option.dest) is None:
        setattr(options, option.dest, parsed)
    else:
        _refuse(option, f"{value or ''!r}: a second value; give one")


def _refuse(option: Option, why: str) -> NoReturn:
    message = f"{option.name}: {why}"
    raise ConfigError(message)


def _refuse_flag(flag: str) -> NoReturn:
    import difflib

    near = difflib.get_close_matches(flag, _BY_FLAG, n=1)
    message = f"{flag}: there is no such option" + (f"; is it {near[0]}?" if near else "")
    raise ConfigError(message)
