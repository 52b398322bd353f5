"""Steps, requests and replies ↔ bytes, as native/wire.h lays them out. Pure."""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Final

from runner.errors import ConfigError, Detail, ErrorLocation, ProtocolError
from runner.quick import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.plan import Step

MAGIC: Final = 0x31585352
VERSION: Final = 3
FRAME_MAX: Final = 48 * 1024
FDS_MAX: Final = 253
PLAN_MAX: Final = 16 * 1024 * 1024
STEPS_MAX: Final = 1024

_PLAN: Final = struct.Struct("=4I")
_STEP: Final = struct.Struct("=4Hi3I4q")
_REQUEST: Final = struct.Struct("=I2HQ2IQ")
_WATCH: Final = struct.Struct("=7q8i4I")
_LEDGER: Final = struct.Struct("=2IQ")
_LEDGER_ENTRY: Final = struct.Struct("=i2Ii7Q")
_REPLY: Final = struct.Struct("=I2HQ8i14q2i2I7Qq")
_NOTE: Final = struct.Struct("=2I")

REQUEST_SIZE: Final = _REQUEST.size + _WATCH.size
REPLY_SIZE: Final = _REPLY.size
REPLY_MAX: Final = REPLY_SIZE + 8192  # READINGS_MAX of native/kept.h

PLAN_IN_FD: Final = 1
NOTIFY_EXEC: Final = 2
ABORT: Final = 4
FOLLOW: Final = 8
SAY_FULL: Final = 16
COUNT: Final = 32
MUST_COUNT: Final = 64
CLEAN_LATER: Final = 128
OVERFLOW: Final = 256

# Of a reply, `full`: a place in which the run has left no byte, or no inode.
FULL_BYTES: Final = 1
FULL_INODES: Final = 2


class RequestKind(enum.IntEnum):
    """What the grader asks for."""

    START = 1
    RUN = 2
    KILL = 3
    SYNC = 4
    KEEP = 5
    FILES = 6
    CLEAN = 7
    PING = 8
    ANSWER = 9


class KeptUse(enum.IntFlag):
    """What is done with a kept fd in each run, numbered as enum kept_use of native/wire.h."""

    RESET = 1
    READ_BEFORE = 2
    READ_AFTER = 4


class ReplyKind(enum.IntEnum):
    """What the keeper answers."""

    STARTED = 1
    FAILED = 2
    SYNC = 3
    RUNNING = 4
    EXITED = 5
    ABORTED = 6
    REFUSED = 7
    STOPPED = 8
    DONE = 9
    ASKED = 10


class Cause(enum.IntEnum):
    """Why the keeper ended the program, numbered as CAUSES(X) of native/wire.h."""

    NONE = 0
    CPU_TIME = 1
    WALL_TIME = 2
    IDLE_TIME = 3
    MEMORY = 4
    OUTPUT = 5
    CANCELLED = 6
    SYSCALL = 7


_KINDS: Final = frozenset(ReplyKind)
_CAUSES: Final = frozenset(Cause)
_LOCATIONS: Final = frozenset({0, *ErrorLocation})
_DETAILS: Final = frozenset(Detail)


class Note(enum.IntEnum):
    """A file of the program's /proc, numbered as NOTES(X) of native/wire.h."""

    STATUS = 0
    SMAPS_ROLLUP = 1
    SMAPS = 2
    SCHED = 3
    SCHEDSTAT = 4


class Hearing(enum.IntFlag):
    """Of which calls the keeper hears, numbered as native/wire.h's."""

    NOTHING = 0
    KILLS = 1
    REFUSALS = 2
    ALL = 3
    PERMISSIVE = 8


class LedgerEntry(NamedTuple):
    """A kind of call that was noticed; `args` and `pid` are the first one's."""

    number: int
    arch: int
    answer: int
    pid: int
    times: int
    args: tuple[int, ...]


class Watch(NamedTuple):
    """What the keeper watches; 0 is no limit, -1 no fd. Times ns, sizes bytes."""

    wall_ns: int = 0
    cpu_ns: int = 0
    idle_ns: int = 0
    memory_bytes: int = 0
    output_bytes: int = 0
    keep_stdout: int = 0
    keep_stderr: int = 0
    sink_stdout: int = -1
    sink_stderr: int = -1
    cpu_fd: int = -1
    cpu_format: int = 0
    procs_fd: int = -1
    cpus: int = 1
    ledger: int = -1
    notes_fd: int = -1
    notes: int = 0
    event_type: int = 0
    event_config: int = 0
    reserved: int = 0


NO_WATCH: Final = _WATCH.pack(*Watch())


class Reply(NamedTuple):
    """A reply of the keeper, field by field; see native/wire.h."""

    kind: int
    run_id: int
    pid: int
    status: int
    cause: int
    location: int
    error: int
    item: int
    step: int
    detail: int
    setup_ns: int
    setup_cpu_ns: int
    wall_ns: int
    user_ns: int
    system_ns: int
    memory_bytes: int
    max_rss_bytes: int
    page_faults_major: int
    page_faults_minor: int
    switches_voluntary: int
    switches_involuntary: int
    stdout_bytes: int
    stderr_bytes: int
    full: int
    kills_heard: int
    call_number: int
    call_arch: int
    reserved: int
    call_instruction: int
    call_0: int
    call_1: int
    call_2: int
    call_3: int
    call_4: int
    call_5: int
    events: int
    readings: tuple[bytes, ...] = ()

    @property
    def call_arguments(self) -> tuple[int, ...]:
        """Give the six arguments of the call that a filter has killed for."""
        return self[-8:-2]


def encode_plan(steps: Sequence[Step]) -> bytes:
    """Encode a plan. Raises ConfigError if it is longer than the helper accepts."""
    records, payloads, offset = [], [], 0
    for step in steps:
        payload = step.data
        if step.strings:
            payload = b"\0".join(step.strings) + b"\0" + payload
        args = step.args + (0,) * (4 - len(step.args))
        records.append(
            _STEP.pack(
                step.op,
                step.location,
                step.phase,
                0,
                step.item,
                len(step.strings),
                offset,
                len(payload),
                *args,
            )
        )
        payloads.append(payload)
        offset += len(payload)
    if len(steps) > STEPS_MAX:
        message = (
            f"mounts, paths with rules and the rest take {len(steps)} steps: "
            f"at most {STEPS_MAX}: name directories that hold several of them"
        )
        raise ConfigError(message)
    plan = b"".join((_PLAN.pack(MAGIC, len(steps), offset, 0), *records, *payloads))
    if len(plan) > PLAN_MAX:
        message = f"arguments, environment and files take {len(plan)} bytes: at most {PLAN_MAX}"
        raise ConfigError(message)
    return plan


def encode_request(
    kind: RequestKind,
    run_id: int,
    *,
    flags: int = 0,
    plan_bytes: int = 0,
    clone_flags: int = 0,
    watch: bytes = NO_WATCH,
) -> bytes:
    """Encode a request without its plan."""
    head = _REQUEST.pack(MAGIC, VERSION, kind, run_id, flags, plan_bytes, clone_flags)
    return head + watch


def encode_watch(watch: Watch) -> bytes:
    """Encode what a run's request ends with."""
    return _WATCH.pack(*watch)


def decode_notes(text: bytes) -> dict[Note, bytes]:
    """Decode what the keeper wrote into the memfd for notes."""
    notes, at = {}, 0
    while at < len(text):
        number, length = _NOTE.unpack_from(text, at)
        at += _NOTE.size
        notes[Note(number)] = text[at : at + length]
        at += length
    return notes


def decode_reply(frame: bytes) -> Reply:
    """Decode a reply. Raises ProtocolError for anything else."""
    if len(frame) < REPLY_SIZE or (len(frame) > REPLY_SIZE and frame[-1]):
        message = f"the keeper sent {len(frame)} bytes where a reply has {REPLY_SIZE}"
        raise ProtocolError(message)
    magic, version, kind, run_id, *rest = _REPLY.unpack_from(frame)
    if (magic, version) != (MAGIC, VERSION):
        message = f"the keeper speaks version {version}, this package {VERSION}: reinstall it"
        raise ProtocolError(message)
    reply = Reply._make((kind, run_id, *rest, tuple(frame[REPLY_SIZE:].split(b"\0")[:-1])))
    if (
        kind not in _KINDS
        or reply.cause not in _CAUSES
        or reply.location not in _LOCATIONS
        or (kind == ReplyKind.FAILED and reply.detail not in _DETAILS)
    ):
        raise ProtocolError("the keeper sent a reply that says nothing that we know")
    return reply


def decode_ledger(content: bytes) -> tuple[list[LedgerEntry], int]:
    """Decode the calls that were noticed, and how many more of other kinds there were."""
    if len(content) < _LEDGER.size:
        return [], 0
    count, _, missed = _LEDGER.unpack_from(content)
    size = _LEDGER_ENTRY.size
    places = range(_LEDGER.size, _LEDGER.size + count * size, size)
    entries = (_LEDGER_ENTRY.unpack_from(content, at) for at in places)
    return [LedgerEntry._make((*entry[:5], entry[5:])) for entry in entries], missed
