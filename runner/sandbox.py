"""`Sandbox`: started once, runs many programs; `run()`: a sandbox used once.

One run at a time in each; as many sandboxes side by side as there are threads to wait in them.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from runner import idmap, measure, plan, rlimits, rootfs, wire
from runner.cgroup import Parent
from runner.config import (
    ALL_NAMESPACES,
    Limits,
    Mount,
    Namespace,
    Runner,
    check_args,
    check_env,
)
from runner.errors import ChildError, ConfigError, ErrorLocation, HostError
from runner.helper import Keeper, sealed_memfd, signals_held
from runner.host import Host, detect
from runner.units import MiB, seconds_to_ns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from types import TracebackType

    from runner.cgroup import Groups
    from runner.result import Result


class Stream(enum.Enum):
    """What else than an fd a program's stdout or stderr can be."""

    CAPTURE = "capture"
    STDOUT = "stdout"


CAPTURE: Final = Stream.CAPTURE
STDOUT: Final = Stream.STDOUT

DEFAULT_ENV: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
}
CAPTURE_LIMIT: Final = 64 * MiB

# Every guarantee, in the order in which they are shown.
GUARANTEES: Final = (
    "cpu_time",
    "wall_time",
    "memory",
    "processes",
    "output",
    "network",
    "files",
    "user",
    "syscalls",
    "capabilities",
)

# Where a program's own set-up fails for reasons of the program; the sandbox is as it was.
_OF_THE_PROGRAM: Final = frozenset(
    {ErrorLocation.EXECVE, ErrorLocation.CHDIR, ErrorLocation.SETRLIMIT, ErrorLocation.SECCOMP}
)

_PIVOT: Final = "/tmp"


class Sandbox:
    """A place to run untrusted programs in; a context manager.

    mounts     added to the root, after it; a later one for the same target holds
    root       replaces the default root: system directories read-only, a small /etc, /proc,
               /dev, and /tmp and /dev/shm that are fresh for each run
    work_dir   the programs' directory
    env        their environment; None is DEFAULT_ENV
    limits     of each run that gives none
    policy     a stock seccomp policy's name, a BPF program, or None for no filter
    require    guarantees (see GUARANTEES) without which it must not start

    It starts at the first run, or by `start`. Raises ConfigError for what cannot be meant.
    """

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
        share_net: bool = False,
        require: Collection[str] = (),
    ) -> None:
        unknown = set(require) - set(GUARANTEES)
        if unknown:
            message = (
                f"require: {', '.join(sorted(unknown))!r}: known are {', '.join(GUARANTEES)}"
            )
            raise ConfigError(message)
        self._mounts = tuple(mounts)
        self._root = None if root is None else tuple(root)
        self._work_dir = work_dir
        self._env = dict(DEFAULT_ENV if env is None else env)
        check_env(self._env)
        self._limits = limits or Limits()
        self._filter = _load_policy(policy)
        self._host_name = host_name
        self._share_net = share_net
        self._require = frozenset(require)
        self._lock = threading.Lock()
        self._box: _Box | None = None
        self._running: tuple[Keeper, int] | None = None
        self._cancelled = False

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def enforced(self) -> Mapping[str, str | None]:
        """Each guarantee and what holds it, or None; empty before the start."""
        return {} if self._box is None else self._box.enforced

    @property
    def keeper_pid(self) -> int | None:
        """The pid of the helper process; None before the start."""
        return None if self._box is None else self._box.keeper.pid

    @property
    def init_pid(self) -> int | None:
        """The host's pid of the sandbox's pid 1; None before the start."""
        return None if self._box is None else self._box.init_pid

    def start(self) -> None:
        """Start it now. Raises HostError, ChildError, ConfigError, ProtocolError."""
        with self._lock:
            self._started()

    def run(
        self,
        args: Sequence[str],
        *,
        stdin: bytes | int | None = None,
        stdout: int | Stream | None = CAPTURE,
        stderr: int | Stream | None = CAPTURE,
        capture_limit: int = CAPTURE_LIMIT,
        env: Mapping[str, str] | None = None,
        work_dir: str | None = None,
        limits: Limits | None = None,
    ) -> Result:
        """Run one program to its end, and all that it started.

        args[0] is looked up in the environment's PATH, inside. stdin is bytes, an fd, or None
        for /dev/null. stdout and stderr are CAPTURE (the first `capture_limit` bytes of each in
        the result), an fd, None for /dev/null; stderr also STDOUT. Fds stay the caller's.

        Raises SandboxError when the sandbox failed; the next run starts it anew.
        """
        check_args(args)
        chosen_env = self._env if env is None else dict(env)
        limits = self._limits if limits is None else limits
        with self._lock:
            self._cancelled = False
            box = self._started()
            runner = box.runner_for(
                args, chosen_env, self._work_dir if work_dir is None else work_dir, limits
            )
            with _Streams(stdin, stdout, stderr, capture_limit) as streams:
                try:
                    result = self._supervise(box, runner, streams, limits)
                except BaseException as error:
                    # Ours or an interrupt: whatever state it is in, it is not used again; but a
                    # program that could not be set up has left nothing behind.
                    if not (
                        isinstance(error, ChildError) and error.location in _OF_THE_PROGRAM
                    ):
                        self._discard()
                    raise
            if not box.reusable:
                self._discard()
            return result

    def cancel(self) -> None:
        """End the run in progress with Status.CANCELLED; from any thread."""
        self._cancelled = True
        running = self._running
        if running is not None:
            keeper, run_id = running
            keeper.send_kill(run_id)

    def close(self) -> None:
        """Kill and remove all of it; idempotent. A run in progress is cancelled first."""
        self.cancel()
        with self._lock:
            self._discard()

    def _started(self) -> _Box:
        if self._box is None:
            with signals_held():
                self._box = _Box(self)
        return self._box

    def _discard(self) -> None:
        if self._box is None:
            return
        with signals_held():
            box, self._box = self._box, None
            box.close()

    def _supervise(
        self, box: _Box, runner: Runner, streams: _Streams, limits: Limits
    ) -> Result:
        groups = box.groups
        if groups is not None:
            groups.prepare(limits)
        frame = _Frame(streams, groups)
        steps = plan.program(
            runner,
            candidates=_candidates(os.fsencode(runner.args[0]), runner.env.get("PATH", "")),
            files=frame.files,
            cgroups=frame.cgroups,
        )
        watch = frame.watch(limits, streams, box.host.cpus)
        flags = wire.FOLLOW if groups is None else 0
        run_id = box.keeper.send_run(steps, fds=frame.fds, watch=watch, flags=flags)
        self._running = (box.keeper, run_id)
        try:
            if self._cancelled:  # before `_running` was there to see
                box.keeper.send_kill(run_id)
            reply = box.keeper.receive(steps)
        finally:
            self._running = None
        return measure.result_of(
            reply,
            None if groups is None else groups.usage(),
            limits,
            stdout=streams.captured(0, reply.stdout_bytes),
            stderr=streams.captured(1, reply.stderr_bytes),
            enforced=box.enforced,
            filtered=bool(runner.seccomp),
        )


def run(args: Sequence[str], **options: Any) -> Result:  # noqa: ANN401 - both functions' options
    """Run one program in a sandbox of its own.

    Takes the options of `Sandbox` and of `Sandbox.run`; raises as they do.
    """
    once = {name: options.pop(name) for name in _RUN_OPTIONS & options.keys()}
    with Sandbox(**options) as sandbox:
        return sandbox.run(args, **once)


_RUN_OPTIONS: Final = frozenset({"stdin", "stdout", "stderr", "capture_limit"})


class _Box:
    """A started sandbox: keeper, init and cgroups; owned by a Sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.host = detect()
        self._undo = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            # Entered first and so left last: the keeper ends what is in the groups.
            parent = Parent.find(self.host)
            self.groups: Groups | None = None
            if parent is not None and not parent.why_not:
                self.groups = undo.enter_context(parent.create())
            self.keeper = undo.enter_context(contextlib.closing(Keeper()))
            self._runner, self._ids = _runner(sandbox, self.host, self.keeper.pid)
            steps = plan.box(self._runner, privileged=self.host.privileged)
            flags = int(plan.clone_flags(self._runner))
            self.init_pid = self.keeper.start(steps, clone_flags=flags)
            self.reusable = not rootfs.below_fresh_places(self._runner.mounts)
            self.enforced = _enforced(self._runner, self.groups, separate=self._ids.separate)
            _require(sandbox._require, self.enforced, self.host)  # noqa: SLF001 - its own part
            self._undo = undo.pop_all()

    def runner_for(
        self, args: Sequence[str], env: Mapping[str, str], work_dir: str, limits: Limits
    ) -> Runner:
        held: Collection[str] = () if self.groups is None else self.groups.enforces
        return Runner(
            args=args,
            env=env,
            rlimits=rlimits.rlimits_of(
                limits, cgroup_memory="memory" in held, cgroup_processes="processes" in held
            ),
            work_dir=work_dir,
            namespaces=self._runner.namespaces,
            credential=self._ids.credential,
            seccomp=self._runner.seccomp,
            no_new_privs=True,
            drop_caps=True,
        )

    def close(self) -> None:
        self._undo.pop_all().close()


def _runner(sandbox: Sandbox, host: Host, keeper: int) -> tuple[Runner, idmap.Ids]:
    """Give the sandbox as a `Runner`, of which only the part around a program matters."""
    if not host.user_namespaces:
        missing = "user namespaces"
        raise HostError(missing, host.no_user_namespaces)
    ids = idmap.sandbox_ids(
        privileged=host.privileged,
        euid=host.euid,
        egid=os.getegid(),
        keeper=keeper,
        uid_map=host.uid_map,
        gid_map=host.gid_map,
    )
    root = sandbox._root  # noqa: SLF001 - its own part
    if root is None:
        root = tuple(rootfs.default_root(host.root_entries))
    share_net = sandbox._share_net  # noqa: SLF001
    runner = Runner(
        args=("sandbox",),
        namespaces=ALL_NAMESPACES & ~Namespace.NETWORK if share_net else ALL_NAMESPACES,
        mounts=rootfs.combine(root, sandbox._mounts),  # noqa: SLF001
        pivot_root=_PIVOT,
        host_name=sandbox._host_name,  # noqa: SLF001
        uid_mappings=ids.uid_mappings,
        gid_mappings=ids.gid_mappings,
        seccomp=sandbox._filter,  # noqa: SLF001
        drop_caps=True,
    )
    return runner, ids


def _enforced(
    runner: Runner, groups: Groups | None, *, separate: bool
) -> Mapping[str, str | None]:
    by_group: Mapping[str, str] = {} if groups is None else groups.enforces
    network = "namespace" if Namespace.NETWORK in runner.namespaces else None
    held: dict[str, str | None] = {
        "cpu_time": by_group.get("cpu_time", "proc"),
        "wall_time": "keeper",
        "memory": by_group.get("memory", "proc"),
        "processes": by_group.get("processes", "rlimit"),
        "output": "keeper",
        "network": network,
        "files": "namespace",
        "user": "namespace" if separate else None,
        "syscalls": "seccomp" if runner.seccomp else None,
        "capabilities": "dropped",
    }
    return {name: held[name] for name in GUARANTEES}


_REMEDIES: Final = {
    "user": "start as root, or with newuidmap and a range in /etc/subuid",
    "network": "do not share the network",
    "syscalls": "give a seccomp policy",
}


def _require(wanted: Collection[str], enforced: Mapping[str, str | None], host: Host) -> None:
    """Refuse to run with less; memory, CPU time and processes must be held by a cgroup."""
    by_cgroup = {"cpu_time", "memory", "processes"}
    for name in GUARANTEES:
        if name not in wanted or enforced[name] == "cgroup":
            continue
        if name in by_cgroup:
            Parent.require(host)  # raises, with the remedy
        if name in by_cgroup or enforced[name] is None:
            missing = f"the guarantee {name!r} cannot be given here"
            raise HostError(missing, _REMEDIES.get(name))


def _load_policy(policy: str | bytes | None) -> bytes:
    if policy is None:
        return b""
    if isinstance(policy, bytes):
        return policy
    from runner.seccomp import load

    return load(policy)


def _candidates(name: bytes, path: str) -> list[bytes]:
    """Give the files that execvp(3) would try; an empty entry of PATH is the directory."""
    if b"/" in name:
        return [name]
    places = [os.fsencode(place) for place in path.split(":")] if path else []
    return [(place or b".") + b"/" + name for place in places] or [b"./" + name]


class _Streams:
    """The program's stdin, stdout and stderr for one run: fds that are ours or borrowed."""

    def __init__(
        self,
        stdin: bytes | int | None,
        stdout: int | Stream | None,
        stderr: int | Stream | None,
        capture_limit: int,
    ) -> None:
        if stdout is STDOUT:
            message = "stdout: it cannot be joined to itself"
            raise ConfigError(message)
        if capture_limit < 0:
            message = f"capture_limit: {capture_limit}: give 0 bytes or more"
            raise ConfigError(message)
        self.capture_limit: Final = capture_limit
        self._given = (stdin, stdout, stderr)
        self._owned = contextlib.ExitStack()

    def __enter__(self) -> _Streams:
        stdin, *outputs = self._given
        with contextlib.ExitStack() as undo:
            null = _owned(undo, os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            if isinstance(stdin, bytes):
                self.stdin = _owned(undo, sealed_memfd("stdin", stdin))
            else:
                self.stdin = null if stdin is None else _checked("stdin", stdin)
            # For each output: an fd of the program's, or None where we carry it to `sinks`.
            self.outputs: list[int | Stream | None] = []
            self.sinks: list[int | None] = []
            for name, output in zip(("stdout", "stderr"), outputs, strict=True):
                sink = None
                if output is CAPTURE:
                    sink = _owned(undo, os.memfd_create(name, os.MFD_CLOEXEC))
                elif output is None:
                    output = null  # noqa: PLW2901
                elif isinstance(output, int):
                    _checked(name, output)
                self.outputs.append(output)
                self.sinks.append(sink)
            self._owned = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    def captured(self, number: int, total: int) -> measure.Captured:
        """Give what the keeper has put into a sink."""
        sink = self.sinks[number]
        if sink is None:
            return measure.Captured(b"", None)
        kept = min(total, self.capture_limit)
        return measure.Captured(os.pread(sink, kept, 0) if kept else b"", total)


def _owned(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _checked(name: str, fd: int) -> int:
    try:
        os.fstat(fd)
    except OSError as error:
        message = f"{name}: {fd}: not an open file descriptor"
        raise ConfigError(message) from error
    return fd


class _Frame:
    """The fds that go with a run, and where in the list each one is."""

    def __init__(self, streams: _Streams, groups: Groups | None) -> None:
        self.fds: list[int] = [streams.stdin]
        self.files = [0, *self._outputs(streams)]
        self.sinks = [-1 if sink is None else self._add(sink) for sink in streams.sinks]
        self.cgroups: list[int] = []
        self._cpu, self._format, self._procs = -1, 0, -1
        if groups is not None:
            self.cgroups = [self._add(fd) for fd in groups.placement]
            if groups.cpu is not None:
                self._cpu, self._format = self._add(groups.cpu[0]), groups.cpu[1]
            if groups.pids_current is not None:
                self._procs = self._add(groups.pids_current)

    def _add(self, fd: int) -> int:
        self.fds.append(fd)
        return len(self.fds) - 1

    def _outputs(self, streams: _Streams) -> Iterator[int]:
        pipes = (plan.FD_STDOUT_PIPE, plan.FD_STDERR_PIPE)
        first: int | None = None
        for output, pipe in zip(streams.outputs, pipes, strict=True):
            if output is STDOUT and first is not None:
                index = first
            else:
                index = self._add(output) if isinstance(output, int) else pipe
            first = index
            yield index

    def watch(self, limits: Limits, streams: _Streams, cpus: int) -> wire.Watch:
        """Say what the keeper is to watch."""
        cpu = None if limits.cpu_time is None else limits.cpu_time + limits.extra_time
        grouped = bool(self.cgroups)
        return wire.Watch(
            wall_ns=_ns(limits.wall_time),
            cpu_ns=_ns(cpu),
            idle_ns=_ns(limits.idle_time),
            memory_bytes=0 if grouped else limits.memory or 0,
            output_bytes=limits.output or 0,
            keep_stdout=streams.capture_limit,
            keep_stderr=streams.capture_limit,
            sink_stdout=self.sinks[0],
            sink_stderr=self.sinks[1],
            cpu_fd=self._cpu,
            cpu_format=self._format,
            procs_fd=self._procs,
            cpus=cpus,
        )


def _ns(seconds: float | None) -> int:
    return 0 if seconds is None else seconds_to_ns(seconds)
