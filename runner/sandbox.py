"""`Sandbox`: started once, runs many programs; `run()`: a sandbox used once.

One run at a time in each; as many sandboxes side by side as there are threads to wait in them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from runner import guarantees, scarcity, streams
from runner.blueprint import BoxConfig, Uses
from runner.box import Program
from runner.config import Credential, Limits, MountKind, Network, check_args, check_env
from runner.config.checks import check_name, refuse
from runner.life import Life, drive
from runner.quick import TypedDict
from runner.wire import Hearing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from typing_extensions import Unpack

    from runner.config import Hook, Landlock, Mount, Supervision, TimeOffsets, User
    from runner.config.files import FileIn, FileOut, HasFileno, LinkIn, Source, Transfers
    from runner.life import Work
    from runner.result import Result

CAPTURE: Final = streams.CAPTURE
STDOUT: Final = streams.STDOUT

_NO_MEASURES: Final[frozenset[str]] = frozenset()
DEFAULT_ENV: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
}


_LOGS: Final[Mapping[bool | str, Hearing]] = {
    True: Hearing.REFUSALS,
    "refusals": Hearing.REFUSALS,
    "permissive": Hearing.REFUSALS | Hearing.PERMISSIVE,
    "all": Hearing.ALL,
}


class Extras(TypedDict, total=False):
    """The fields of a `Runner` that a sandbox leaves to its caller; see there."""

    umask: int
    ctty: bool
    ignored_signals: Collection[int]
    blocked_signals: Collection[int]
    oom_score_adj: int
    nice: int
    cpus: Collection[int]
    personality: int
    landlock: Landlock
    supervision: Supervision
    time_offsets: TimeOffsets
    sysctls: Mapping[str, str]
    loopback: bool
    hooks: Sequence[Hook]
    domain_name: str


class RunOptions(TypedDict, total=False):
    """The options of a run, of every face: see `Sandbox.run`."""

    stdin: bytes | int | os.PathLike[str] | None
    stdout: streams.Output
    stderr: streams.Output
    capture_limit: int
    env: Mapping[str, str] | None
    work_dir: str | None
    limits: Limits | None
    measure: Collection[str]
    repeat: int
    policy_log: bool | str
    files_in: Mapping[str, FileIn | LinkIn | Source | None] | None
    files_out: Sequence[FileOut | str]
    exec_file: int | HasFileno | None


class SandboxBase:
    """What is common to a sandbox's faces: what it is made of, and what is known of it.

    mounts     added to the root, after it; a later one for the same target holds
    root       replaces the default root: system directories read-only, a small /etc, /proc,
               /dev, and /tmp and /dev/shm that are fresh for each run
    work_dir   the programs' directory
    env        their environment; None is DEFAULT_ENV
    limits     of each run that gives none
    policy     a stock seccomp policy's name, or presets and one, as in "no-exec+default"; the
               path of a policy or profile (with a slash); a BPF program; None for no filter
    name       by which `run-sandboxed inject` finds it
    network    "none", "host" (its abstract sockets too), or "pasta": one that reaches the
               outside, where that program is installed
    user       ids of the programs inside: (uid, gid), or a name in the sandbox's /etc/passwd.
               Outside, they are ids of nobody else's where the caller may give such
    require    guarantees (see GUARANTEES) without which it must not start
    fresh      "run": nothing of one run is there in the next. "submission": files in /tmp,
               /dev/shm and what else is writable stay until `reset`; nothing else does.
               "sandbox": each run has a sandbox that nothing has run in before; the next is
               made while a program runs
    extras     fields of a `Runner`, as in `Extras`

    Raises ConfigError for what cannot be meant.
    """

    _uses: ClassVar[Uses | None] = None

    def __init__(
        self,
        *,
        mounts: Sequence[Mount] = (),
        root: Sequence[Mount] | None = None,
        work_dir: str = "/tmp",
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        policy: str | bytes | None = "default",
        host_name: str = "sandbox",
        name: str = "",
        network: Network | str = Network.NONE,
        user: tuple[int, int] | str = (1000, 1000),
        require: Collection[str] = (),
        fresh: Literal["run", "submission", "sandbox"] = "run",
        **extras: Unpack[Extras],
    ) -> None:
        guarantees.check_known(require)
        check_name("name", name)
        for extra in extras.keys() - Extras.__annotations__.keys():
            refuse("Sandbox", extra, "no option of a sandbox: see Sandbox and Extras")
        config = BoxConfig(
            mounts=tuple(mounts),
            root=None if root is None else tuple(root),
            seccomp=_load_policy(policy),
            host_name=host_name,
            name=name,
            network=_network(network),
            user=_user(user),
            require=frozenset(require),
            extras=dict(extras),
            keep_files=_keeps_files(fresh, (*(root or ()), *mounts)),
            allows_keys=not isinstance(policy, str),  # no stock policy does
            uses=self._uses or (Uses.ONE_EACH if fresh == "sandbox" else Uses.MANY),
        )
        self._life = Life(config)
        self._work_dir = work_dir
        self._env = _env_items(DEFAULT_ENV if env is None else env)
        self._limits = limits or Limits()

    @property
    def enforced(self) -> Mapping[str, str | None]:
        """Each guarantee and what holds it, or None; empty before the start."""
        box = self._life.box
        return {} if box is None else box.enforced

    @property
    def keeper_pid(self) -> int | None:
        """The pid of the helper process; None before the start."""
        box = self._life.box
        return None if box is None else box.keeper.pid

    @property
    def init_pid(self) -> int | None:
        """The host's pid of the sandbox's pid 1; None before the start."""
        box = self._life.box
        return None if box is None else box.init_pid

    def cancel(self) -> None:
        """End the run in progress with Status.CANCELLED; from any thread."""
        self._life.cancel()

    def ends_if(self, cancelled: Callable[[], bool]) -> None:
        """End runs that are only about to start too, when this says so; for a pool."""
        self._life.cancelled_by = cancelled

    def _work(self, args: Sequence[str], options: RunOptions) -> Work[Result]:
        """Check what a run is to be; gives what runs it, when it is driven."""
        check_args(args)
        wanted = streams.Wanted(
            options.get("stdin"),
            options.get("stdout", CAPTURE),
            options.get("stderr", CAPTURE),
            options.get("capture_limit", streams.CAPTURE_LIMIT),
            self._hearing(policy_log=options.get("policy_log", False)),
            _transfers(options.get("files_in"), options.get("files_out", ())),
            options.get("exec_file"),
        )
        wanted.check()
        env, work_dir = options.get("env"), options.get("work_dir")
        limits = options.get("limits")
        program = Program(
            tuple(args),
            self._env if env is None else _env_items(env),
            self._work_dir if work_dir is None else work_dir,
            self._limits if limits is None else limits,
            self._measures(options.get("measure", ())),
        )
        return self._life.run(program, wanted, options.get("repeat", 1))

    def _measures(self, measure: Collection[str]) -> frozenset[str]:
        required = guarantees.MEASURES & self._life.config.require
        if not measure and not required:
            return _NO_MEASURES
        from runner import observe  # few ask for anything

        return observe.check(measure) | required

    def _hearing(self, *, policy_log: bool | str) -> Hearing:
        """Say which calls are to be heard of, and that they can be."""
        if policy_log is False:
            return Hearing.KILLS
        if policy_log not in _LOGS:
            refuse("policy_log", policy_log, "known are True, refusals, permissive, all")
        if not self._life.config.seccomp:
            refuse("policy_log", policy_log, "the sandbox has no policy")
        for extra in ("oom_score_adj", "supervision"):
            if self._life.config.extras.get(extra) is not None:
                why = f"not where {extra} is set, as fds cannot be shared then"
                refuse("policy_log", policy_log, why)
        return _LOGS[policy_log]


class Sandbox(SandboxBase):
    r"""A place to run untrusted programs in; a context manager.

    Takes the options of `SandboxBase`. It starts at the first run, or by `start`. Threads wait
    for each other; a fork of the process has a sandbox of its own.

    >>> with Sandbox() as sandbox:
    ...     sandbox.run(["echo", "hello"]).stdout
    b'hello\n'
    """

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it now. Raises HostError, ChildError, ConfigError, ProtocolError."""
        with self._life.lock:
            self._life.start()

    def run(
        self,
        args: Sequence[str],
        *,
        stdin: bytes | int | os.PathLike[str] | None = None,
        stdout: streams.Output = CAPTURE,
        stderr: streams.Output = CAPTURE,
        capture_limit: int = streams.CAPTURE_LIMIT,
        env: Mapping[str, str] | None = None,
        work_dir: str | None = None,
        limits: Limits | None = None,
        measure: Collection[str] = (),
        repeat: int = 1,
        policy_log: bool | str = False,
        files_in: Mapping[str, FileIn | LinkIn | Source | None] | None = None,
        files_out: Sequence[FileOut | str] = (),
        exec_file: int | HasFileno | None = None,
    ) -> Result:
        """Run one program to its end, and all that it started.

        args[0] is looked up in the environment's PATH, inside. stdin is bytes, an fd, the path
        of a file, or None for /dev/null. stdout and stderr are CAPTURE (the first
        `capture_limit` bytes of each in the result), an fd, None for /dev/null, or a function
        that is called with bytes as they come, in this thread, and what it raises ends the run;
        stderr also STDOUT. Fds stay the caller's. A program with the caller's own uid can open
        the file behind an fd anew, for writing too if the file's mode lets it: give what must
        not change as bytes.

        files_in are put into the working directory first, by their names there: bytes, the path
        of a file, an fd, an Artefact, or a FileIn that gives a mode too, a LinkIn, or None to
        remove what is there. files_out are taken out of it afterwards, however the program has
        ended: Result.files. See docs/files.md.

        exec_file   an fd or Artefact to execute, without a copy, instead of args[0], which is
                    then only a name; no script
        measure     what to tell besides, which costs a little: "noise", "instructions", and of
                    its /proc at its exit "status", "smaps_rollup", "smaps"; see Result
        repeat      run it so often, each as if it were the first, until one is not ok: that is
                    the result then, else the run with the median CPU time; `repeated` has them
                    all. An fd for output gets that of each run; stdin starts anew
        policy_log  put into the result which calls the policy refused or logs (True, or
                    "refusals"); or let them through, and say what was refused ("permissive");
                    or count all calls ("all"), which makes each of them slow

        Raises SandboxError when the sandbox failed; the next run starts it anew.
        """
        options: RunOptions = {
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "capture_limit": capture_limit,
            "env": env,
            "work_dir": work_dir,
            "limits": limits,
            "measure": measure,
            "repeat": repeat,
            "policy_log": policy_log,
            "files_in": files_in,
            "files_out": files_out,
            "exec_file": exec_file,
        }
        work = self._work(args, options)
        with self._life.lock:
            return drive(work)

    def ping(self, timeout: float = 3.0) -> bool:
        """Ask it whether it is alive, with its pid 1; waits for a run in progress.

        One that does not answer in `timeout` seconds is ended, and the next run starts it anew.
        One that is not started has nothing that could be dead.
        """
        with self._life.lock:
            return drive(self._life.ping(timeout))

    def reset(self) -> None:
        """Leave nothing of earlier runs; their files neither, where files stay."""
        with self._life.lock:
            self._life.reset()

    def close(self) -> None:
        """Kill and remove all of it; idempotent. A run in progress is cancelled first."""
        self.cancel()
        with self._life.lock:
            self._life.discard()


class SandboxOfOne(Sandbox):
    """For one program: nothing is looked at or put back after it, and none is made ahead."""

    _uses = Uses.ONE


def run(args: Sequence[str], **options: Any) -> Result:  # noqa: ANN401 - both functions' options
    """Run one program in a sandbox of its own.

    Takes the options of `Sandbox` and of `Sandbox.run`; raises as they do.
    """
    once = {name: options.pop(name) for name in _RUN_OPTIONS & options.keys()}
    kind = SandboxOfOne if once.get("repeat", 1) == 1 else Sandbox
    with kind(**options) as sandbox:
        return sandbox.run(args, **once)


# Those that are not a sandbox's too.
_RUN_OPTIONS: Final = RunOptions.__annotations__.keys() - {"env", "work_dir", "limits"}


def _transfers(
    given: Mapping[str, FileIn | LinkIn | Source | None] | None,
    wanted: Sequence[FileOut | str],
) -> Transfers | None:
    if not given and not wanted:
        return None
    from runner.config import files  # few runs have any

    return files.Transfers(files.files_in(given or {}), files.files_out(wanted))


def _keeps_files(fresh: str, mounts: Sequence[Mount]) -> bool:
    if fresh not in {"run", "submission", "sandbox"}:
        refuse("fresh", fresh, 'known are "run", "submission" and "sandbox"')
    keeps = fresh == "submission"
    for mount in mounts if keeps else ():
        if mount.kind is MountKind.MQUEUE:
            # The queues of one IPC namespace, of which each run may have its own.
            refuse("fresh", fresh, f"queues at {mount.target!r} cannot stay: leave it out")
    return keeps


def _env_items(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    check_env(env)
    return tuple(env.items())


def _user(user: tuple[int, int] | str) -> Credential | User:
    if isinstance(user, str):
        from runner.config import User  # few name one

        return User(user)
    return Credential(*user)


def _network(network: Network | str) -> Network:
    try:
        return Network(network)
    except ValueError:
        refuse("network", network, "known are none, host, pasta")


def _load_policy(policy: str | bytes | None) -> bytes:
    if policy is None:
        return b""
    if isinstance(policy, bytes):
        return policy
    from runner.seccomp import load  # only where a name or path is given

    with scarcity.named():
        return load(policy)
