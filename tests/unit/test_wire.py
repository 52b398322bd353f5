"""The wire: what Python encodes is what the helper's own C decodes, and the other way round.

`dump_wire` is compiled from native/tests/dump_wire.c and the helper's decoder.
"""

from __future__ import annotations

import shlex
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from runner import wire
from runner.errors import ConfigError, ErrorLocation, ProtocolError
from runner.plan import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    Dump = Callable[..., subprocess.CompletedProcess[bytes]]

NATIVE = Path(__file__).parents[2] / "runner" / "native"
FD_COUNT = 7
HEADER_SIZE, STEP_SIZE = 16, 56  # native/wire.h asserts them

STRINGS = {Op.MOUNT: 4, Op.PIVOT_ROOT: 2, Op.SYMLINK: 2, Op.KEEP_FRESH: 2, Op.ID_MAP: 2}
STRINGS |= {
    Op.OPEN_PATH: 1,
    Op.BIND: 2,
    Op.MOVE_PATH: 2,
    Op.REMOUNT: 1,
    Op.MASK: 3,
    Op.CHROOT: 1,
    Op.LANDLOCK_PATH: 1,
    Op.RULE_PATH: 1,
    Op.FILE_IN: 2,
    Op.FILE_OUT: 2,
    Op.FILE_LINK: 3,
    Op.FILE_REMOVE: 2,
    Op.UNCHANGED: 1,
}
STRINGS |= {Op.MOUNT_IDMAP: 2, Op.SYSCTL: 2, Op.OOM_SCORE_ADJ: 1}
STRINGS |= dict.fromkeys((Op.OPEN_TREE, Op.MOVE_MOUNT, Op.UMOUNT, Op.CHDIR, Op.MKDIR), 1)
STRINGS |= dict.fromkeys((Op.MKNOD, Op.RMDIR, Op.HOSTNAME, Op.DOMAINNAME, Op.WRITE_FILE), 1)
ANY_STRINGS = (Op.ARGV, Op.ENVP, Op.EXEC, Op.HOOK)
FD_ARGS = {Op.ENTER_CGROUP: (0,), Op.SETNS: (0,), Op.EXEC_FD: (0,), Op.HOOK: (2, 3)}
FD_ARGS |= {Op.FILE_IN: (0,)}

int64s = st.integers(-(2**63), 2**63 - 1)
texts = st.binary(max_size=40).map(lambda text: text.replace(b"\0", b""))


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Dump:
    program = tmp_path_factory.mktemp("native") / "dump_wire"
    sources = [NATIVE / "tests" / "dump_wire.c", NATIVE / "plan.c"]
    flags = shlex.split((NATIVE / "cflags").read_text())
    command = ["gcc", *flags, "-O1", f"-I{NATIVE}", *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True, timeout=60)

    def run(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [str(program), *args]
        return subprocess.run(command, input=stdin, capture_output=True, check=False)

    return run


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Draw any step that the helper accepts from a frame with FD_COUNT fds."""
    op = draw(st.sampled_from(Op))
    count = STRINGS.get(op, 0)
    if op in ANY_STRINGS:
        strings = draw(st.lists(texts, max_size=6))
    else:
        strings = draw(st.lists(texts, min_size=count, max_size=count))
    data = b""
    if op is Op.PLACE_FDS:
        files = draw(st.lists(st.integers(-3, FD_COUNT - 1), max_size=6))
        data = struct.pack(f"={len(files)}i", *files)
    elif op in {Op.SETGROUPS, Op.SECCOMP, Op.WRITE_FILE, Op.FILE_IN, Op.AFFINITY}:
        data = draw(st.binary(max_size=64))
    args = draw(st.lists(int64s, max_size=4))
    for place in FD_ARGS.get(op, ()):
        args += [0] * (place + 1 - len(args))
        args[place] = draw(st.integers(-1, FD_COUNT - 1))
    return Step(
        draw(st.sampled_from(Phase)),
        op,
        draw(st.sampled_from(ErrorLocation)),
        tuple(args),
        tuple(strings),
        data,
        draw(st.integers(-1, 2**31 - 1)),
    )


def expected(step: Step) -> str:
    """Give the line that dump_wire prints for a step."""
    args = " ".join(str(arg) for arg in (*step.args, 0, 0, 0, 0)[:4])
    strings = "".join(f":{text.hex()}" for text in step.strings)
    head = f"{step.op.name.lower()} {step.location.name} {step.phase.name} {step.item}"
    return f"{head} {args} {strings} :{step.data.hex()}"


@settings(max_examples=200, deadline=None)
@given(plan=st.lists(steps(), min_size=1, max_size=12))
@example(plan=[Step(Phase.EARLY, Op.SETSID, ErrorLocation.SETSID)] * 1024)
@example(plan=[Step(Phase.PROGRAM, Op.ARGV, ErrorLocation.EXECVE, strings=(b"", b"", b""))])
@example(plan=[Step(Phase.PROGRAM, Op.ARGV, ErrorLocation.EXECVE)])
def test_plan_is_decoded_by_the_helper_as_it_was_built(dump: Dump, plan: list[Step]) -> None:
    done = dump("plan", str(FD_COUNT), stdin=wire.encode_plan(plan))
    assert done.stdout.decode().splitlines() == [expected(step) for step in plan]
    assert done.returncode == 0


@settings(max_examples=100, deadline=None)
@given(plan=st.lists(steps(), min_size=1, max_size=4), data=st.data())
def test_plan_cut_anywhere_is_refused(
    dump: Dump, plan: list[Step], data: st.DataObject
) -> None:
    encoded = wire.encode_plan(plan)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    done = dump("plan", str(FD_COUNT), stdin=encoded[:cut])
    assert (done.returncode, done.stdout) == (1, b"refused -1\n")


@settings(max_examples=100, deadline=None)
@given(before=st.lists(steps(), max_size=4), after=st.lists(steps(), max_size=2))
def test_plan_with_a_faulty_step_names_its_number(
    dump: Dump, before: list[Step], after: list[Step]
) -> None:
    faulty = Step(Phase.PROGRAM, Op.ENTER_CGROUP, ErrorLocation.CGROUP, (FD_COUNT,))
    encoded = wire.encode_plan([*before, faulty, *after])
    done = dump("plan", str(FD_COUNT), stdin=encoded)
    assert (done.returncode, done.stdout.decode()) == (1, f"refused {len(before)}\n")


def test_plan_of_the_largest_size_is_encoded_and_one_byte_more_is_refused(dump: Dump) -> None:
    step = Step(Phase.PROGRAM, Op.SETGROUPS, ErrorLocation.SETGROUPS)
    room = wire.PLAN_MAX - HEADER_SIZE - STEP_SIZE
    largest = wire.encode_plan([step._replace(data=bytes(room))])
    assert dump("plan", "0", stdin=largest).returncode == 0
    with pytest.raises(ConfigError) as caught:
        wire.encode_plan([step._replace(data=bytes(room + 1))])
    assert str(caught.value) == (
        "arguments, environment and files take 16777217 bytes: at most 16777216"
    )


def test_plan_of_the_most_steps_is_encoded_and_one_more_is_refused(dump: Dump) -> None:
    step = Step(Phase.PROGRAM, Op.SETGROUPS, ErrorLocation.SETGROUPS)
    most = wire.encode_plan([step] * wire.STEPS_MAX)
    assert dump("plan", "0", stdin=most).returncode == 0
    with pytest.raises(ConfigError, match="take 1025 steps: at most 1024: name directories"):
        wire.encode_plan([step] * (wire.STEPS_MAX + 1))


def test_plan_with_more_arguments_than_a_step_has_is_an_error() -> None:
    with pytest.raises(struct.error):
        wire.encode_plan([Step(Phase.PROGRAM, Op.UMASK, ErrorLocation.CHDIR, (1, 2, 3, 4, 5))])


uint32s = st.integers(0, 2**32 - 1)
uint64s = st.integers(0, 2**64 - 1)
int32s = st.integers(-(2**31), 2**31 - 1)
watches = (
    st.builds(
        wire.Watch,
        *(int64s for _ in range(7)),
        *(int32s for _ in range(8)),
        *(uint32s for _ in range(4)),
    )
    | st.none()
)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(wire.RequestKind),
    run_id=uint64s,
    flags=uint32s,
    plan_bytes=uint32s,
    clone_flags=uint64s,
    watch=watches,
)
def test_request_is_decoded_by_the_helper_as_it_was_built(
    dump: Dump,
    kind: wire.RequestKind,
    run_id: int,
    flags: int,
    plan_bytes: int,
    clone_flags: int,
    watch: wire.Watch | None,
) -> None:
    encoded = wire.encode_request(
        kind,
        run_id,
        flags=flags,
        plan_bytes=plan_bytes,
        clone_flags=clone_flags,
        watch=wire.NO_WATCH if watch is None else wire.encode_watch(watch),
    )
    done = dump("request", stdin=encoded)
    head, tail = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    version = (wire.MAGIC, wire.VERSION)
    assert head == (*version, kind, run_id, flags, plan_bytes, clone_flags)
    assert tail == (watch or wire.Watch())


def test_request_without_a_watch_limits_nothing_and_names_no_fd() -> None:
    watch = wire.Watch()
    assert watch[:7] == (0,) * 7
    fds = (watch.sink_stdout, watch.sink_stderr, watch.cpu_fd, watch.procs_fd, watch.notes_fd)
    assert fds == (-1,) * 5
    assert watch.ledger == -1


def test_reply_of_the_helper_is_decoded_field_by_field(dump: Dump) -> None:
    reply = wire.decode_reply(dump("reply").stdout)
    assert tuple(reply[:-1]) == tuple(range(1, len(wire.Reply._fields)))
    assert reply.readings == ()


def test_readings_after_a_reply_are_texts_ended_by_nul(reply: bytes) -> None:
    assert wire.decode_reply(reply + b"12\n\0\0max 3\n\0").readings == (
        b"12\n",
        b"",
        b"max 3\n",
    )


@given(notes=st.dictionaries(st.sampled_from(wire.Note), st.binary(max_size=60)))
def test_notes_are_decoded_by_their_file(notes: dict[wire.Note, bytes]) -> None:
    text = b"".join(struct.pack("=2I", note, len(text)) + text for note, text in notes.items())
    assert wire.decode_notes(text) == notes


@pytest.fixture
def reply(dump: Dump) -> bytes:
    return dump("reply").stdout


@pytest.mark.parametrize("change", [-wire.REPLY_SIZE, -1, 1], ids=["nothing", "short", "long"])
def test_reply_of_another_size_is_refused(reply: bytes, change: int) -> None:
    frame = (reply + b"7")[: len(reply) + change]  # no reading either, which a NUL would end
    with pytest.raises(ProtocolError) as caught:
        wire.decode_reply(frame)
    assert str(caught.value) == (
        f"the keeper sent {wire.REPLY_SIZE + change} bytes where a reply has {wire.REPLY_SIZE}"
    )


@pytest.mark.parametrize("at", [0, 3, 4, 5], ids=["magic", "magic", "version", "version"])
def test_reply_of_another_magic_or_version_is_refused(reply: bytes, at: int) -> None:
    frame = reply[:at] + bytes([reply[at] ^ 1]) + reply[at + 1 :]
    version = int.from_bytes(frame[4:6], sys.byteorder)
    with pytest.raises(ProtocolError) as caught:
        wire.decode_reply(frame)
    assert str(caught.value) == (
        f"the keeper speaks version {version}, this package {wire.VERSION}: reinstall it"
    )


@settings(max_examples=200)
@given(frame=st.binary(min_size=wire.REPLY_SIZE, max_size=wire.REPLY_SIZE))
def test_reply_of_noise_is_refused(frame: bytes) -> None:
    assume(frame[:6] != struct.pack("=IH", wire.MAGIC, wire.VERSION))
    with pytest.raises(ProtocolError):
        wire.decode_reply(frame)
