"""What happened to the program: its status, its figures, and what was enforced."""

from __future__ import annotations

import enum
import signal as signals
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from runner.quick import NamedTuple
from runner.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.errors import SandboxError
    from runner.noise import Noise
    from runner.repeated import Repeated

SCHEMA: Final = 1


class Status(str, enum.Enum):
    """How the program ended. A failure of the sandbox is an exception, not a status.

    The cause is recorded by whoever acted: our kill at the CPU limit is CPU_TIME_LIMIT, an OOM
    kill counted by the kernel is MEMORY_LIMIT, a program that kills itself is SIGNALLED.
    """

    OK = "ok"
    NONZERO_EXIT = "nonzero_exit"
    SIGNALLED = "signalled"
    CPU_TIME_LIMIT = "cpu_time_limit"
    WALL_TIME_LIMIT = "wall_time_limit"
    IDLE_TIME_LIMIT = "idle_time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    PROCESS_LIMIT = "process_limit"
    DISK_LIMIT = "disk_limit"
    DISALLOWED_SYSCALL = "disallowed_syscall"
    CANCELLED = "cancelled"

    @property
    def is_limit(self) -> bool:
        """Tell whether one of our limits ended the program."""
        return self.value.endswith("_limit")


class Violation(NamedTuple):
    """A system call that the policy ends a program for. It has not happened.

    `name` is None where `arch` has none for `number`. `args` are the six registers that may
    hold arguments, whatever the call makes of them; `instruction` is where it was called.
    """

    name: str | None
    number: int
    arch: str
    args: tuple[int, ...]
    instruction: int

    def __str__(self) -> str:
        """Give `ptrace (101 of x86_64)`, or `999 of x86_64` where there is no name."""
        number = f"{self.number} of {self.arch}"
        return number if self.name is None else f"{self.name} ({number})"


class LoggedCall(NamedTuple):
    """A kind of call that was logged: of one number, architecture and answer of the policy.

    `action` is the answer, as a policy writes it: `errno EPERM`. `args` are the first call's,
    and `pid` is the thread that made it, by its number outside.
    """

    name: str | None
    number: int
    arch: str
    action: str
    times: int
    args: tuple[int, ...]
    pid: int


class PolicyLog(NamedTuple):
    """The calls that were logged, most frequent first.

    `missed` counts calls of kinds for which there was no room: the list is not all then.
    """

    calls: tuple[LoggedCall, ...]
    missed: int = 0

    def to_dict(self) -> dict[str, object]:
        """Give its JSON form."""
        return {"calls": [call._asdict() for call in self.calls], "missed": self.missed}


class FileState(str, enum.Enum):
    """What became of a file that was to be taken out."""

    OK = "ok"
    TRUNCATED = "truncated"
    MISSING = "missing"
    REFUSED = "refused"


class OutFile(NamedTuple):
    """A file that a run has left, or what was there instead.

    `content` is all of it, or as much as was asked for where it is TRUNCATED; `size` is what it
    has, and `mode` its permissions. MISSING is what is not there; REFUSED is what is there and
    no regular file of the sandbox's own, and `why` says what it is. `artefact` is what keeps it
    where that was asked for, and has the content then.
    """

    name: str
    state: FileState
    optional: bool = False
    content: bytes = b""
    size: int | None = None
    mode: int | None = None
    why: str = ""
    artefact: object = None

    @property
    def ok(self) -> bool:
        """Tell whether it is there, and all of it here; or was optional and is missing."""
        if self.state is FileState.MISSING:
            return self.optional
        return self.state is FileState.OK

    def to_dict(self) -> dict[str, object]:
        """Give the JSON form: all but the content."""
        return {
            "state": self.state.value,
            "size": self.size,
            "mode": self.mode,
            "why": self.why,
        }


class Result(NamedTuple):
    """What happened to one program. A figure that could not be measured is None, never 0.

    Times are nanoseconds and sizes bytes. CPU time and memory are of the whole process tree,
    without our own set-up, which is `setup_ns`; `wall_ns` runs from exec to exit.
    `stdout` and `stderr` hold what was captured (b"" if nothing was asked for); `stdout_bytes`
    is what the program wrote, which is more where `stdout_truncated`.
    `memory_bytes` is the peak of what docs/accuracy.md says; of its anonymous part alone no
    kernel keeps a peak, so `memory_anon_bytes` is None. `swap_bytes` is the peak of what was
    swapped out; `throttled_…` is what Limits.cpu_quota took; `…_pressure_…` is how long some or
    all of its processes waited, where Limits.pressure asks for it.
    `violation` is the call that ended it, where `status` is DISALLOWED_SYSCALL and the kernel
    tells; `signal` is SIGSYS then, as where the kernel itself ends it. `policy_log` has the
    calls that the policy refused or logged, where the run was asked for them.
    `vm_hwm_bytes`, `at_exit`, `instructions` and `noise` are there where `measure` asked for
    them: the peak of its first process's resident memory, which `max_rss_bytes` is of whichever
    process had most; files of that process's /proc when it exited, by name; instructions
    retired in user space by the whole tree; what may have disturbed its times.
    `repeated` has all the runs where there were several, and this is one of them.
    `files` has, by their names, those that were to be taken out.
    `enforced` maps each guarantee to what held it ("cgroup", "namespace", "rlimit", …) or None.
    """

    status: Status
    exit_code: int | None = None
    signal: int | None = None
    limit: str | None = None
    violation: Violation | None = None
    policy_log: PolicyLog | None = None
    cpu_ns: int | None = None
    user_ns: int | None = None
    system_ns: int | None = None
    wall_ns: int | None = None
    setup_ns: int | None = None
    memory_bytes: int | None = None
    memory_anon_bytes: int | None = None
    swap_bytes: int | None = None
    max_rss_bytes: int | None = None
    vm_hwm_bytes: int | None = None
    oom_kills: int | None = None
    processes_peak: int | None = None
    throttled_periods: int | None = None
    throttled_ns: int | None = None
    cpu_pressure_some_ns: int | None = None
    cpu_pressure_full_ns: int | None = None
    memory_pressure_some_ns: int | None = None
    memory_pressure_full_ns: int | None = None
    io_pressure_some_ns: int | None = None
    io_pressure_full_ns: int | None = None
    page_faults_major: int | None = None
    page_faults_minor: int | None = None
    context_switches_voluntary: int | None = None
    context_switches_involuntary: int | None = None
    instructions: int | None = None
    noise: Noise | None = None
    at_exit: Mapping[str, bytes] = MappingProxyType({})
    repeated: Repeated | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_bytes: int | None = None
    stdout_truncated: bool = False
    stderr_bytes: int | None = None
    stderr_truncated: bool = False
    files: Mapping[str, OutFile] = MappingProxyType({})
    enforced: Mapping[str, str | None] = MappingProxyType({})

    def __reduce__(self) -> tuple[object, ...]:
        """Let it go to other processes: the mappings that nobody can change are dicts there."""
        values = (dict(v) if isinstance(v, MappingProxyType) else v for v in self)
        return Result._make, (tuple(values),)

    @property
    def ok(self) -> bool:
        """Tell whether the program ended by itself with exit code 0."""
        return self.status is Status.OK

    @property
    def files_ok(self) -> bool:
        """Tell whether each file is there whole that was to be taken out and not optional."""
        return all(file.ok for file in self.files.values())

    @property
    def signal_name(self) -> str | None:
        """Name the signal that ended the program: `SIGSEGV`."""
        if self.signal is None:
            return None
        try:
            return signals.Signals(self.signal).name
        except ValueError:  # a real-time signal has no name of its own
            return f"SIG{self.signal}"

    @property
    def syscall(self) -> str | None:
        """Name the system call that ended the program: `ptrace`."""
        return None if self.violation is None else self.violation.name

    def instruction_time_ns(self, per_second: float) -> int | None:
        """Give the CPU time that its instructions take at so many a second.

        The same program with the same input has all but the same, whatever else the host does.
        """
        if self.instructions is None:
            return None
        return round(self.instructions / per_second * NS_PER_S)

    def exit_sizes(self, name: str) -> dict[str, int]:
        """Give what a file of `at_exit` tells in kB, in bytes, such as VmPeak, RssAnon, Pss.

        Of `smaps` it is the sum over all mappings.
        """
        return sizes_in(self.at_exit.get(name, b""))

    def to_dict(self) -> dict[str, object]:
        """Give the JSON form, `schema` 1: every field but the captured bytes."""
        fields: dict[str, object] = {"schema": SCHEMA}
        for name, value in self._asdict().items():
            if name == "violation":
                fields["syscall"] = self.syscall
            if name not in {"stdout", "stderr"}:
                fields[name] = value
        fields["status"] = self.status.value
        if self.violation is not None:
            fields["violation"] = self.violation._asdict()
        if self.policy_log is not None:
            fields["policy_log"] = self.policy_log.to_dict()
        fields["files"] = {name: file.to_dict() for name, file in self.files.items()}
        fields["enforced"] = dict(self.enforced)
        if self.noise is not None:
            fields["noise"] = self.noise._asdict()
        if self.repeated is not None:
            fields["repeated"] = self.repeated.to_dict()
        fields["at_exit"] = {
            name: text.decode(errors="backslashreplace") for name, text in self.at_exit.items()
        }
        fields["error"] = None
        return fields

    def to_json(self) -> str:
        """Give the JSON form as one line of text."""
        import json  # not every caller wants it, and it takes a while

        return json.dumps(self.to_dict())


def sizes_in(text: bytes) -> dict[str, int]:
    """Read lines such as `VmHWM:  1234 kB`, in bytes; what is there twice is added up."""
    sizes: dict[str, int] = {}
    for line in text.split(b"\n"):
        name, _, value = line.partition(b":")
        number, _, unit = value.strip().partition(b" ")
        if unit == b"kB":
            sizes[name.decode()] = sizes.get(name.decode(), 0) + int(number) * 1024
    return sizes


def error_to_dict(error: SandboxError) -> dict[str, object]:
    """Give the JSON form of a run that the sandbox failed: every figure null."""
    fields = Result(status=Status.OK, enforced={}).to_dict()
    return fields | {"status": "sandbox_error", "error": error.to_dict()}
