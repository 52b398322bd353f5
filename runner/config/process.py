"""Capabilities of a program, and hooks: programs that are run while it is set up."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

from runner.config.checks import check_bytes, check_env, check_text, check_time, refuse
from runner.quick import dataclass, field

# capabilities(7), numbered from 0 as <linux/capability.h> does; 40 is Linux 5.9's.
CAPABILITIES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID"),
    *("SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST"),
    *("NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO"),
    *("SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE"),
    *("AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM"),
    *("BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
_NUMBERS: Final = {name: number for number, name in enumerate(CAPABILITIES)}
_SETS: Final = ("effective", "permitted", "inheritable", "bounding", "ambient")


@dataclass(frozen=True)
class Capabilities:
    """The five capability sets when the program's exec begins, by name, such as "NET_ADMIN".

    exec(2) then makes the program's own of them: it keeps of `permitted` what is ambient too,
    or all that is in `bounding` if its uid is 0 (capabilities(7)).
    """

    effective: frozenset[str] = frozenset()
    permitted: frozenset[str] = frozenset()
    inheritable: frozenset[str] = frozenset()
    bounding: frozenset[str] = frozenset()
    ambient: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in _SETS:
            value = _names(name, getattr(self, name))
            object.__setattr__(self, name, value)
        if extra := self.effective - self.permitted:
            refuse("Capabilities.effective", sorted(extra), "permitted has to have it too")
        if extra := self.ambient - (self.permitted & self.inheritable):
            refuse(
                "Capabilities.ambient",
                sorted(extra),
                "permitted and inheritable have to have it too",
            )

    @classmethod
    def all_of(cls, names: Iterable[str]) -> Capabilities:
        """Give these in all five sets, so that the program has them whatever its uid."""
        chosen = frozenset(names)
        return cls(chosen, chosen, chosen, chosen, chosen)

    def mask(self, name: str) -> int:
        """Give a set as the kernel's bits."""
        chosen: frozenset[str] = getattr(self, name)
        return sum(1 << _NUMBERS[capability] for capability in chosen)


def _names(field: str, names: Iterable[str]) -> frozenset[str]:
    if isinstance(names, str):
        refuse(f"Capabilities.{field}", names, "give a set of names, not one text")
    chosen = frozenset(name.upper().removeprefix("CAP_") for name in names)
    for name in sorted(chosen - _NUMBERS.keys()):
        refuse(f"Capabilities.{field}", name, "known are " + ", ".join(CAPABILITIES))
    return chosen


class Where(enum.Enum):
    """Where a hook runs."""

    OUTSIDE = "outside"
    INSIDE = "inside"


@dataclass(frozen=True, kw_only=True)
class Hook:
    """A program run while the sandbox is made; unless it exits with 0, nothing is started.

    OUTSIDE it runs as the caller, when the namespaces exist and before anything is mounted.
    INSIDE it runs as the namespaces' root, in the new root directory, while the host's tree is
    still there: what it mounts below its directory is in the sandbox.
    An argument that is "{pid}" is replaced by the host's pid of the sandbox's first process;
    SANDBOX_PID in its environment has it too.

    args      a path and its arguments; looked up in `env`'s PATH, on the host
    timeout   seconds; it is killed then
    stdout, stderr   the caller's fds, or None for /dev/null
    """

    args: tuple[str, ...]
    where: Where = Where.OUTSIDE
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 30.0
    stdout: int | None = None
    stderr: int | None = 2

    @property
    def inside(self) -> bool:
        """Tell whether it runs inside."""
        return self.where is Where.INSIDE

    def __post_init__(self) -> None:
        object.__setattr__(self, "args", tuple(self.args))
        if not self.args:
            refuse("Hook.args", self.args, "there is no command")
        check_text("Hook.args", self.args[0])
        for word in self.args:
            check_bytes("Hook.args", word)
        check_env(self.env)
        check_time("Hook.timeout", self.timeout, zero=False)
