"""`Box`: a started sandbox: its keeper, its cgroups, and one run after the other in it."""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from typing import TYPE_CHECKING, Final

from runner import (
    guarantees,
    measure,
    plan,
    resolve,
    rlimits,
    rootfs,
    streams,
    watching,
    wire,
)
from runner.blueprint import of_a_program
from runner.cgroup import Groups, refuse_without_groups
from runner.config import (
    Credential,
    Limits,
    Runner,
)
from runner.config.checks import refuse
from runner.errors import ProtocolError, SandboxError
from runner.helper import START_TIMEOUT_S, Keeper
from runner.quick import NamedTuple
from runner.result import Status

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from runner.blueprint import Blueprint
    from runner.cgroup.groups import Files
    from runner.config.files import FileOut
    from runner.observe import Observation
    from runner.plan import Step
    from runner.relay import Relay
    from runner.result import Result

# A program that fails so may have met a full disk.
_BY_ITSELF: Final = frozenset({Status.NONZERO_EXIT, Status.SIGNALLED})

# Test after test runs the same program with the same limits: its plan is made once.
_REQUESTS_KEPT: Final = 64


class Program(NamedTuple):
    """What to run: a key too, so all of it is hashable."""

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    work_dir: str
    limits: Limits
    measures: frozenset[str] = frozenset()


class _Request(NamedTuple):
    steps: list[Step]
    plan: bytes
    watch: bytes


class Pending(NamedTuple):
    """A run that was sent to the keeper, and what its reply is read with."""

    run_id: int
    request: _Request
    limits: Limits
    wanted: streams.Wanted
    enforced: Mapping[str, str | None]
    observation: Observation | None
    work_dir: str
    files_out: tuple[FileOut, ...]
    relay: Relay | None


class Box:
    """A started sandbox. Not thread-safe; closed by its owner.

    enforced    each guarantee and what holds it
    reusable    whether what one run leaves can be put back for the next
    """

    def __init__(self, blueprint: Blueprint, *, once: bool = False) -> None:
        """Begin to start it; `await_start` ends that. `once`: another takes its groups."""
        config = blueprint.config
        self._host = blueprint.host
        self._require = config.require
        self._allows_keys = config.allows_keys
        self._extras = of_a_program(config.extras)
        self._ruleset = resolve.ruleset(self._extras.get("landlock"))
        self._rules = resolve.rules(self._extras.get("supervision"))
        self._requests: dict[tuple[object, ...], _Request] = blueprint.requests
        self._disk: tuple[int | None, int | None] = (None, None)
        self._kept: Files | None = None
        self._notes: int | None = None
        with contextlib.ExitStack() as undo:
            # Entered first and so left last: the keeper ends what is in the groups.
            self._groups = groups = blueprint.groups()
            if groups is not None:
                undo.callback(
                    functools.partial(blueprint.give_back, groups) if once else groups.close
                )
            self._streams = undo.enter_context(contextlib.closing(streams.Streams()))
            self.keeper = undo.enter_context(contextlib.closing(Keeper(name=config.name)))
            made = blueprint.plan(self.keeper.pid, undo)
            self._runner = made.runner
            self._credential = made.ids.credential
            self._steps = made.steps
            # Whose the files are that go in: the program's, which is the last that is mapped.
            maps = made.ids.uid_mappings, made.ids.gid_mappings
            self._owner = Credential(maps[0][-1].inside, maps[1][-1].inside)
            self.reusable = rootfs.can_be_put_back(
                self._runner.mounts, keep_files=config.keep_files
            )
            self.enforced = guarantees.enforced(
                self._runner, self._groups, own_user=made.ids.separate, host=self._host
            )
            guarantees.require(config.require, self.enforced, self._host)
            flags = int(plan.clone_flags(self._runner))
            self.keeper.send_start(made.steps, clone_flags=flags, fds=made.fds)
            self.init_pid = -1
            # When it is closed, or collected, or the interpreter ends: whichever is first.
            self._undo = undo.pop_all()
            self._end = weakref.finalize(self, _end, self._undo, os.getpid())

    def await_start(self) -> None:
        """Wait until it is there. If this raises, it is to be closed."""
        timeout = START_TIMEOUT_S + sum(hook.timeout for hook in self._runner.hooks)
        self.init_pid = self.keeper.await_start(self._steps, timeout=timeout)

    def end(self) -> None:
        """Let it end, without waiting; `close` waits."""
        self.keeper.end()

    @property
    def is_open(self) -> bool:
        """Whether it has not been ended, as all are when the interpreter ends."""
        return self._end.alive

    def close(self) -> None:
        """End everything in it; idempotent. In a fork of the grader it does nothing."""
        self._end()

    def begin(self, program: Program, wanted: streams.Wanted) -> Pending:
        """Put files in and send a program to the keeper. If this raises, it has not started."""
        transfers = wanted.transfers
        if transfers is None:
            return self._begin(program, wanted, ())
        if transfers.given:
            from runner.files import transfer  # few runs have any

            before = self._before_files(program.limits)
            transfer.put(
                self.keeper, program.work_dir, transfers.given, self._owner, before=before
            )
        try:
            return self._begin(program, wanted, transfers.wanted)
        except BaseException:
            if transfers.given:
                self.keeper.send_clean()
            raise

    def _begin(
        self, program: Program, wanted: streams.Wanted, files_out: tuple[FileOut, ...]
    ) -> Pending:
        enforced = guarantees.for_run(self.enforced, self._require, wanted.output_held_by)
        groups, limits = self._groups, program.limits
        if groups is None:
            refuse_without_groups(limits, self._host)
        else:
            groups.prepare(limits, begin=False)
            self._keep(groups)
        request = self._request(program, wanted)
        flags = wire.FOLLOW if groups is None else 0
        if self._disk != (None, None):
            flags |= wire.SAY_FULL
        if files_out:
            flags |= wire.CLEAN_LATER
        observation = None
        if program.measures:
            observation = self._observation(program.measures)
            flags |= observation.flags
        relay = self._relay(wanted, limits)
        ends = (None, None) if relay is None else relay.ends
        with self._streams.fds(wanted, ends) as fds, contextlib.ExitStack() as failed:
            if relay is not None:
                failed.callback(relay.close)
            run_id = self.keeper.send_run(
                request.plan,
                fds=fds if observation is None else [*fds, observation.fd],
                watch=request.watch,
                flags=flags,
            )
            failed.pop_all()
        if relay is not None:
            relay.started()
            relay.watch(self.keeper.fileno())
        return Pending(
            run_id,
            request,
            limits,
            wanted,
            enforced,
            observation,
            program.work_dir,
            files_out,
            relay,
        )

    def _relay(self, wanted: streams.Wanted, limits: Limits) -> Relay | None:
        takers = wanted.takers
        if takers == (None, None):
            return None
        from runner.relay import Relay  # few take output as it comes

        return Relay(takers, limit=limits.output)

    def output(self, pending: Pending) -> Generator[int, bool | None]:
        """Give output to its takers until `hear` will not wait; gives fds to wait for.

        Where one was waited for in vain, a keeper that is stopped is ended, and that raised.
        """
        relay = pending.relay
        if relay is None:
            while (yield self.keeper.fileno()) is False:
                self.keeper.look()
            return
        while True:
            if (yield relay.fileno()) is False:
                self.keeper.look()
                continue
            was_over = relay.over
            heard = relay.step()
            if relay.over and not was_over:
                self.keeper.send_kill(pending.run_id, overflow=True)
            if heard:
                return
            self.keeper.look()

    def hear(self, pending: Pending) -> wire.Reply | None:
        """Hear what the keeper says, where its fd is readable; None: it was not yet the end.

        It has asked what becomes of a call then, and got an answer.
        """
        receive, steps = self.keeper.receive, pending.request.steps
        if pending.observation is None:
            reply = receive(steps)
        else:
            with pending.observation.explained():
                reply = receive(steps)
        if reply.kind != wire.ReplyKind.ASKED:
            return reply
        from runner import asking  # few ask

        verdict = asking.answer(reply, self._extras["supervision"])
        self.keeper.send_answer(reply.item, verdict)
        return None

    def finish(self, pending: Pending, reply: wire.Reply) -> Result:
        """Say what happened to a program, by the reply that is its end."""
        if pending.relay is not None:
            pending.relay.drain()
        if not pending.files_out:
            return self._finish(pending, reply)
        from runner.files import transfer  # few runs have any

        try:
            result = self._finish(pending, reply)
            taken = transfer.take(self.keeper, pending.work_dir, pending.files_out, self._owner)
        finally:
            self.keeper.send_clean()
        return result._replace(files=taken)

    def reset(self) -> bool:
        """Empty the places of files that stay; False: only a new sandbox has nothing of them.

        What hooks have set up, and who may write to it since, we do not know.
        """
        if self._runner.hooks or not rootfs.can_be_reset(self._runner.mounts):
            return False
        try:
            self.keeper.files(list(plan.fresh_places(self._runner.mounts, plan.Phase.FILES)))
        except SandboxError:  # it is damaged, or dead: which a new one need not be
            return False
        return True

    def ping(self, timeout: float) -> None:
        """Ask whether it is alive; SandboxError if not."""
        self.keeper.ping(timeout)

    def _finish(self, pending: Pending, reply: wire.Reply) -> Result:
        result = self._result(pending, reply)
        if pending.observation is None:
            return result
        return pending.observation.added_to(result, reply)

    def _captured(self, pending: Pending, number: int, total: int) -> measure.Captured:
        if pending.relay is not None:
            return pending.relay.captured(number)
        return self._streams.take(number, total, pending.wanted.capture_limit)

    def _result(self, pending: Pending, reply: wire.Reply) -> Result:
        groups, wanted, relay = self._groups, pending.wanted, pending.relay
        if reply.kind != wire.ReplyKind.EXITED:
            message = f"the keeper answered {reply.kind} where the program should have ended"
            raise ProtocolError(message)
        if relay is not None and relay.over and reply.cause == wire.Cause.NONE:
            reply = reply._replace(cause=wire.Cause.OUTPUT)  # it ended before it was told
        result = measure.result_of(
            reply,
            None if groups is None else groups.usage(reply.readings),
            pending.limits,
            stdout=self._captured(pending, 0, reply.stdout_bytes),
            stderr=self._captured(pending, 1, reply.stderr_bytes),
            enforced=pending.enforced,
            filtered=bool(self._runner.seccomp),
            output_full=reply.status != 0 and wanted.is_full(pending.limits),
            calls=self._streams.take_ledger() if wanted.calls_at >= 0 else None,
        )
        if relay is not None:
            result = result._replace(
                stdout_truncated=relay.truncated(0), stderr_truncated=relay.truncated(1)
            )
        if result.status in _BY_ITSELF:
            wanted.check_room(rootfs.written_outside(self._runner.mounts))
        return result

    def _keep(self, groups: Groups) -> None:
        """Give the keeper the files of the groups, if it has others."""
        files = groups.files
        if files is self._kept:
            return
        if files != self._kept:
            self._kept = None
            fds = watching.group_fds(groups)
            uses = (
                wire.KeptUse.RESET * (fd in files.reset)
                | wire.KeptUse.READ_BEFORE * (fd in files.read_before)
                | wire.KeptUse.READ_AFTER
                for fd in files.read_after
            )
            unused = len(fds) - len(files.read_after)
            self.keeper.send_kept(fds, bytes(unused) + bytes(uses))
        self._kept = files

    def _observation(self, measures: frozenset[str]) -> Observation:
        from runner import observe  # few ask for anything

        if self._notes is None:
            self._notes = os.memfd_create("notes", os.MFD_CLOEXEC)
            self._undo.callback(os.close, self._notes)
        return observe.Observation(
            measures,
            self._notes,
            required="instructions" in self._require,
            host=self._host,
            unified=None if self._groups is None else self._groups.unified,
        )

    def _request(self, program: Program, wanted: streams.Wanted) -> _Request:
        disk = (program.limits.disk, program.limits.inodes)
        # The places are as the last run had them, or as they were mounted.
        ready = disk != (None, None) or self._disk != disk
        self._disk = disk
        streams_key = (wanted.files, wanted.capture_limit, wanted.hearing, wanted.exec_at)
        key = (program, *streams_key, ready)
        request = self._requests.get(key)
        if request is None:
            request = self._make_request(program, wanted, ready=ready)
            if len(self._requests) >= _REQUESTS_KEPT:
                self._requests.clear()
            if len(request.plan) <= wire.FRAME_MAX:
                self._requests[key] = request
        return request

    def _make_request(
        self, program: Program, wanted: streams.Wanted, *, ready: bool
    ) -> _Request:
        groups = self._groups
        placements = 0 if groups is None else len(groups.placement)
        supervision = self._extras.get("supervision")
        if supervision is not None and supervision.opens and program.limits.devices is not None:
            why = (
                'they do not hold for the keeper, which opens files by "notify": give "ptrace"'
            )
            refuse("Limits.devices", program.limits.devices, why)
        env = dict(program.env)
        first, traced = wanted.fd_count, False
        if program.measures:
            from runner import observe

            first, traced = first + 1, observe.is_traced(program.measures)
            if traced and self._rules:
                why = "a supervised program has one tracer already: leave the one or the other"
                refuse("measure", sorted(program.measures), why)
            if traced and wanted.hearing > wire.Hearing.KILLS:
                why = "policy_log tells nothing of a traced program: leave the one or the other"
                refuse("measure", sorted(program.measures), why)
        steps = plan.program(
            self._runner_for(program, env),
            candidates=plan.candidates(os.fsencode(program.args[0]), env.get("PATH", "")),
            files=wanted.files,
            cgroups=range(first, first + placements),
            exec_file=wanted.exec_at,
            ruleset=self._ruleset,
            hearing=wanted.hearing,
            rules=self._rules,
            traced=traced,
            keyrings=self._allows_keys,
        )
        if ready:
            steps = [*self._ready(program.limits), *steps]
        watch = watching.watch_of(program.limits, wanted, groups, self._host.cpus, first)
        if program.measures:
            watch = observe.watch(watch, program.measures, notes_fd=first - 1)
        return _Request(steps, wire.encode_plan(steps), wire.encode_watch(watch))

    def _before_files(self, limits: Limits) -> list[Step]:
        """Let what goes in meet the limits of its run, and not those of the last one."""
        if (limits.disk, limits.inodes) == self._disk == (None, None):
            return []
        return [step._replace(phase=plan.Phase.FILES) for step in self._ready(limits)]

    def _ready(self, limits: Limits) -> Iterator[Step]:
        """Hold the fresh places to the limits of a run."""
        beyond = rootfs.beyond_disk_limit(self._runner.mounts)
        for name in ("disk", "inodes"):
            value = getattr(limits, name)
            if value is not None and beyond is not None:
                why = (
                    f"{beyond} is writable and no limit of ours holds there: show it "
                    "read-only, or give a tmpfs that is new for each run"
                )
                refuse(f"Limits.{name}", value, why)
        return plan.ready_places(self._runner.mounts, disk=limits.disk, inodes=limits.inodes)

    def _runner_for(self, program: Program, env: Mapping[str, str]) -> Runner:
        held = () if self._groups is None else self._groups.enforces
        return Runner(
            args=program.args,
            env=env,
            rlimits=rlimits.rlimits_of(
                program.limits,
                cgroup_memory="memory" in held,
                cgroup_processes="processes" in held,
            ),
            work_dir=program.work_dir,
            namespaces=self._runner.namespaces,
            credential=self._credential,
            seccomp=self._runner.seccomp,
            no_new_privs=True,
            drop_caps=True,
            **self._extras,
        )


def _end(undo: contextlib.ExitStack, owner: int) -> None:
    """End a box, but not its grader's from a fork that has inherited a copy."""
    if os.getpid() == owner:
        undo.close()
