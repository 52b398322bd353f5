"""`Runner`: one program's whole set-up, field by field as the kernel sees it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from runner.config.checks import (
    Text,
    check_args,
    check_bytes,
    check_env,
    check_path,
    refuse,
)
from runner.config.ids import (
    NO_NAMESPACES,
    Credential,
    IdMap,
    Namespace,
)
from runner.config.limits import Rlimit
from runner.config.mount import Mount
from runner.quick import dataclass, field

if TYPE_CHECKING:
    from runner.config.landlock import Landlock
    from runner.config.named import Join, TimeOffsets, User
    from runner.config.process import Capabilities, Hook
    from runner.config.supervision import Supervision

# personality(2): no randomised addresses, so that a program behaves alike each time.
ADDR_NO_RANDOMIZE: Final = 0x0040000

# Sysctls that belong to a namespace; all others are the host's (net/sysctl_net.c,
# ipc/ipc_sysctl.c and ipc/mq_sysctl.c of the kernel).
_SYSCTLS: Final = (
    (r"net\..+", Namespace.NETWORK),
    (r"kernel\.(shm|msg|sem)\w*|fs\.mqueue\.\w+", Namespace.IPC),
)


@dataclass(frozen=True, kw_only=True)
class Runner:
    """The whole set-up of one program, field by field as the kernel sees it.

    args            argv; args[0] is also the path given to execve, without a search in PATH
    env             the exact environment
    exec_file       an fd to execute instead of args[0], which is then only a name: execveat(2).
                    A script needs its interpreter to open it: give a binary
    files           fd i of the program is files[i], closed for -1; all others are closed
    rlimits         setrlimit(2), in this order
    work_dir        chdir(2), inside the new root
    umask           umask(2); None keeps the caller's
    ctty            make fd 0, a terminal, the controlling one of the program's session
    retain_session  stay in the caller's session, with its terminal and its signals
    ignored_signals, blocked_signals    all others are at their default, and unblocked
    oom_score_adj   -1000 to 1000; lowering it needs privileges (proc(5))
    nice            -20 to 19; lowering it needs privileges
    cpus            the CPUs it may use; empty keeps the caller's
    personality     personality(2), such as ADDR_NO_RANDOMIZE; None keeps the caller's
    namespaces      unshared together; with PID the program is not pid 1
    join            namespaces entered instead; USER first
    time_offsets    needs TIME
    sysctls         net.*, kernel.{shm,msg,sem}*, fs.mqueue.* of its own NETWORK, IPC namespace
    loopback        set the interface lo up; needs NETWORK
    hooks           programs run at set-up, outside and inside
    root            an existing directory that becomes the root, with `mounts` in it; else it is
                    a fresh tmpfs
    root_readonly   whether the root, in the end, is read-only
    mounts          below the new root, parents first; needs MOUNT and `pivot_root`
    pivot_root      an existing directory: the new root is mounted there, then entered
    host_name, domain_name       need UTS
    uid_mappings, gid_mappings   default: inside 0 is the caller's effective id
    gid_mappings_enable_setgroups   False writes "deny" to setgroups (user_namespaces(7)); of a
                    namespace that is joined, whether it has "allow"
    credential      ids to change to, after all set-up that needs privileges; or a User, found
                    in the passwd and group that the sandbox will have
    capabilities    the five sets; None leaves them to the kernel's rules
    securebits      SECBIT_* of capabilities(7), with their locks; None leaves them
    landlock        rules for files, ports and scopes; implies no_new_privs
    supervision     calls that the keeper decides, one by one, and paths that it checks, as the
                    program's tracer; implies no_new_privs
    seccomp         a BPF program, struct sock_filter[]; loaded last, implies no_new_privs
    no_new_privs    prctl(PR_SET_NO_NEW_PRIVS, 1)
    drop_caps       empty all five capability sets and lock the securebits
    sync_func       called with the host's pid when all but the filter is set up; the program
                    starts when it returns, and is killed if it raises
    stop_before_exec     `start` returns when all but the filter is set up; `Process.resume`
    stop_before_seccomp  it stops itself (SIGSTOP) before the filter is loaded, for a tracer
    ptrace          it is stopped (SIGSTOP) when its exec has happened, before its first
                    instruction, for a tracer; with a filter, as stop_before_seccomp
    """

    args: Sequence[Text]
    env: Mapping[str, str] = field(default_factory=dict)
    exec_file: int | None = None
    files: Sequence[int] = (0, 1, 2)
    rlimits: Sequence[Rlimit] = ()
    work_dir: str = ""
    umask: int | None = None
    ctty: bool = False
    retain_session: bool = False
    ignored_signals: Collection[int] = ()
    blocked_signals: Collection[int] = ()
    oom_score_adj: int | None = None
    nice: int | None = None
    cpus: Collection[int] = ()
    personality: int | None = None
    namespaces: Namespace = NO_NAMESPACES
    join: Sequence[Join] = ()
    time_offsets: TimeOffsets | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    loopback: bool = False
    hooks: Sequence[Hook] = ()
    root: str = ""
    root_readonly: bool = True
    mounts: Sequence[Mount] = ()
    pivot_root: str = ""
    host_name: str = ""
    domain_name: str = ""
    uid_mappings: Sequence[IdMap] = ()
    gid_mappings: Sequence[IdMap] = ()
    gid_mappings_enable_setgroups: bool = False
    credential: Credential | User | None = None
    capabilities: Capabilities | None = None
    securebits: int | None = None
    landlock: Landlock | None = None
    supervision: Supervision | None = None
    seccomp: bytes = b""
    no_new_privs: bool = False
    drop_caps: bool = False
    sync_func: Callable[[int], None] | None = None
    stop_before_exec: bool = False
    stop_before_seccomp: bool = False
    ptrace: bool = False

    def __post_init__(self) -> None:
        check_args(self.args)
        check_env(self.env)
        self._check_process()
        self._check_namespaces()
        self._check_root()
        self._check_privileges()

    def _check_process(self) -> None:
        for fd in self.files:
            if fd < -1:
                refuse("Runner.files", fd, "an fd is 0 or more, or -1 for closed")
        if self.exec_file is not None and self.exec_file < 0:
            refuse("Runner.exec_file", self.exec_file, "an fd is 0 or more")
        if self.ctty and (not self.files or self.files[0] < 0):
            refuse("Runner.ctty", self.ctty, "fd 0 of the program has to be a terminal")
        if self.ctty and self.retain_session:
            refuse("Runner.ctty", self.ctty, "it needs a new session: drop retain_session")
        for name in ("ignored_signals", "blocked_signals"):
            for number in getattr(self, name):
                if not 1 <= number <= 64 or number in {signal.SIGKILL, signal.SIGSTOP}:
                    refuse(f"Runner.{name}", number, "1 to 64, but for SIGKILL and SIGSTOP")
        for cpu in self.cpus:
            if not 0 <= cpu < 8192:
                refuse("Runner.cpus", cpu, "a CPU is 0 to 8191")
        self._check_range("umask", 0, 0o777)
        self._check_range("nice", -20, 19)
        self._check_range("oom_score_adj", -1000, 1000)
        self._check_range("personality", 0, 2**32 - 1)
        stops = [n for n in ("stop_before_exec", "stop_before_seccomp") if getattr(self, n)]
        if self.sync_func is not None and stops:
            refuse("Runner.sync_func", stops[0], "with a sync_func, it is that which waits")
        if self.supervision is not None:
            self._check_supervision(self.supervision)
        if self.ptrace and self.stop_before_exec:
            refuse("Runner.ptrace", "stop_before_exec", "ptrace stops it too: give one of them")

    def _check_supervision(self, wanted: Supervision) -> None:
        if self.ptrace or self.stop_before_seccomp:
            refuse("Runner.supervision", "ptrace", "a process has one tracer: give one of them")
        if wanted.by == "ptrace":
            return
        # The listener comes to the keeper through fds that the two share up to the exec.
        for name in ("sync_func", "stop_before_exec", "oom_score_adj", "time_offsets"):
            if getattr(self, name) not in {None, False}:
                refuse(
                    f"Runner.{name}", getattr(self, name), 'not with supervision by "notify"'
                )
        if wanted.opens and self.landlock is not None and self.landlock.restricts_files:
            why = (
                'it does not hold for the keeper, which opens files by "notify": give "ptrace"'
            )
            refuse("Runner.landlock", self.landlock, why)

    def _check_namespaces(self) -> None:
        for name in ("host_name", "domain_name"):
            value = getattr(self, name)
            if value:
                self._need(Namespace.UTS, name, value)
                if check_bytes(f"Runner.{name}", value) > 64:
                    refuse(f"Runner.{name}", value, "at most 64 bytes")
        for name in ("uid_mappings", "gid_mappings"):
            if getattr(self, name):
                self._need(Namespace.USER, name, getattr(self, name))
        if self.time_offsets is not None:
            self._need(Namespace.TIME, "time_offsets", self.time_offsets)
        if self.loopback:
            self._need(Namespace.NETWORK, "loopback", self.loopback)
        seen = self.namespaces
        for join in self.join:
            if join.namespace is Namespace.USER and (
                self.oom_score_adj is not None or self.time_offsets is not None
            ):
                # They are written while we may be traced, by whoever is in there.
                refuse("Runner.join", join, "not with oom_score_adj or time_offsets")
            if join.namespace in seen:
                refuse("Runner.join", join, "this namespace is made or joined already")
            seen |= join.namespace
        for name, value in self.sysctls.items():
            self._check_sysctl(name, value)
        if self.hooks and not self.namespaces:
            refuse("Runner.hooks", self.hooks[0].args, "without namespaces there is no set-up")

    def _check_sysctl(self, name: str, value: str) -> None:
        own = next((needed for names, needed in _SYSCTLS if re.fullmatch(names, name)), None)
        if own is None or "/" in name or ".." in name:
            refuse("Runner.sysctls", name, "only net.*, kernel.{shm,msg,sem}*, fs.mqueue.*")
        check_bytes("Runner.sysctls", f"{name}={value}")
        self._need(own, "sysctls", name)

    def _check_root(self) -> None:
        if self.mounts and not self.pivot_root:
            refuse("Runner.mounts", self.mounts[0].target, "mounts need a pivot_root")
        if self.root:
            check_path("Runner.root", self.root)
            if not self.pivot_root:
                refuse("Runner.root", self.root, "a root needs a pivot_root to be mounted at")
        if self.pivot_root:
            check_path("Runner.pivot_root", self.pivot_root)
            self._need(Namespace.MOUNT, "pivot_root", self.pivot_root)
        check_bytes("Runner.work_dir", self.work_dir)

    def _check_privileges(self) -> None:
        if len(self.seccomp) % 8:
            refuse("Runner.seccomp", len(self.seccomp), "a filter is a multiple of 8 bytes")
        if self.drop_caps and self.capabilities is not None:
            refuse("Runner.capabilities", self.capabilities, "drop_caps empties them all")
        if self.drop_caps and self.securebits is not None:
            refuse("Runner.securebits", self.securebits, "drop_caps sets and locks them all")
        self._check_range("securebits", 0, 0xFF)

    def _check_range(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if value is not None and not least <= value <= most:
            refuse(f"Runner.{name}", value, f"it is {least} to {most}, or None")

    def _need(self, namespace: Namespace, field: str, value: object) -> None:
        if namespace not in self.namespaces:
            refuse(f"Runner.{field}", value, f"it needs Namespace.{namespace.name}")
