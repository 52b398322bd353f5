"""What Python and the helper must agree on: `keeper --describe` prints native/wire.h."""

from __future__ import annotations

import json
import subprocess
from typing import TypedDict, cast

import pytest

from runner import wire
from runner.errors import Detail, ErrorLocation
from runner.helper import keeper_path
from runner.plan import FD_CLOSED, FD_STDERR_PIPE, FD_STDOUT_PIPE, Op, Phase, Step

# Payload and number of strings (0: any) of each operation, as the plan's modules use them.
PAYLOADS: dict[Op, tuple[str, int]] = {
    Op.SETGROUPS: ("BLOB", 0),
    Op.PLACE_FDS: ("BLOB", 0),
    Op.SECCOMP: ("BLOB", 0),
    Op.AFFINITY: ("BLOB", 0),
    Op.WRITE_FILE: ("STRING_BLOB", 1),
    Op.FILE_IN: ("STRING_BLOB", 2),
    Op.FILE_OUT: ("STRINGS", 2),
    Op.FILE_LINK: ("STRINGS", 3),
    Op.FILE_REMOVE: ("STRINGS", 2),
    Op.OPEN_TREE: ("STRINGS", 1),
    Op.MOUNT_IDMAP: ("STRINGS", 2),
    Op.OPEN_PATH: ("STRINGS", 1),
    Op.CHROOT: ("STRINGS", 1),
    Op.BIND: ("STRINGS", 2),
    Op.MOVE_PATH: ("STRINGS", 2),
    Op.REMOUNT: ("STRINGS", 1),
    Op.MASK: ("STRINGS", 3),
    Op.MOVE_MOUNT: ("STRINGS", 1),
    Op.UMOUNT: ("STRINGS", 1),
    Op.CHDIR: ("STRINGS", 1),
    Op.MKDIR: ("STRINGS", 1),
    Op.MKNOD: ("STRINGS", 1),
    Op.RMDIR: ("STRINGS", 1),
    Op.HOSTNAME: ("STRINGS", 1),
    Op.DOMAINNAME: ("STRINGS", 1),
    Op.OOM_SCORE_ADJ: ("STRINGS", 1),
    Op.SYSCTL: ("STRINGS", 2),
    Op.HOOK: ("STRINGS", 0),
    Op.PIVOT_ROOT: ("STRINGS", 2),
    Op.SYMLINK: ("STRINGS", 2),
    Op.KEEP_FRESH: ("STRINGS", 2),
    Op.ID_MAP: ("STRINGS", 2),
    Op.MOUNT: ("STRINGS", 4),
    Op.ARGV: ("STRINGS", 0),
    Op.ENVP: ("STRINGS", 0),
    Op.EXEC: ("STRINGS", 0),
    Op.LANDLOCK_PATH: ("STRINGS", 1),
    Op.RULE_PATH: ("STRINGS", 1),
    Op.UNCHANGED: ("STRINGS", 1),
}
NO_PAYLOAD = ("NONE", 0)
FD_ARGS = {
    Op.ENTER_CGROUP: 0b0001,
    Op.SETNS: 0b0001,
    Op.EXEC_FD: 0b0001,
    Op.HOOK: 0b1100,
    Op.FILE_IN: 0b0001,
}


class Native(TypedDict):
    """What `keeper --describe` prints."""

    version: int
    magic: int
    locations: dict[str, int]
    ops: list[tuple[str, str, int, int]]  # name, payload, strings, fd arguments
    phases: list[str]
    causes: list[str]
    details: list[str]
    notes: list[str]
    sizes: dict[str, int]


@pytest.fixture(scope="module")
def native() -> Native:
    done = subprocess.run(
        [keeper_path(), "--describe"], check=True, capture_output=True, timeout=10
    )
    assert done.stderr == b""
    return cast("Native", json.loads(done.stdout))


def test_protocol_version_and_magic_are_the_helpers(native: Native) -> None:
    assert (native["version"], native["magic"]) == (wire.VERSION, wire.MAGIC)


def test_locations_have_the_helpers_names_and_numbers(native: Native) -> None:
    assert native["locations"] == {at.name: at.value for at in ErrorLocation}


def test_locations_are_numbered_without_a_gap(native: Native) -> None:
    assert sorted(native["locations"].values()) == list(range(1, len(ErrorLocation) + 1))


def test_ops_have_the_helpers_order(native: Native) -> None:
    assert [op.name.lower() for op in Op] == [op[0] for op in native["ops"]]
    assert [op.value for op in Op] == list(range(len(native["ops"])))


@pytest.mark.parametrize("op", Op, ids=lambda op: op.name.lower())
def test_op_takes_the_payload_that_plans_give_it(op: Op, native: Native) -> None:
    _, *shape = native["ops"][op]
    assert shape == [*PAYLOADS.get(op, NO_PAYLOAD), FD_ARGS.get(op, 0)]


def test_phases_have_the_helpers_order(native: Native) -> None:
    assert [phase.name for phase in Phase] == native["phases"]
    assert [phase.value for phase in Phase] == list(range(len(Phase)))


def test_causes_have_the_helpers_order(native: Native) -> None:
    assert [cause.name for cause in wire.Cause] == native["causes"]
    assert [cause.value for cause in wire.Cause] == list(range(len(wire.Cause)))


def test_details_have_the_helpers_order(native: Native) -> None:
    assert [detail.name for detail in Detail] == native["details"]
    assert [detail.value for detail in Detail] == list(range(len(Detail)))


def test_notes_have_the_helpers_order(native: Native) -> None:
    assert [note.name for note in wire.Note] == native["notes"]
    assert [note.value for note in wire.Note] == list(range(len(wire.Note)))


def test_structs_have_the_helpers_sizes(native: Native) -> None:
    step = Step(Phase.PROGRAM, Op.SETSID, ErrorLocation.SETSID)
    one, two = (len(wire.encode_plan([step] * count)) for count in (1, 2))
    sizes = {
        "plan": one - (two - one),
        "step": two - one,
        "request": len(wire.encode_request(wire.RequestKind.RUN, 1)),
        "reply": wire.REPLY_SIZE,
    }
    assert sizes == native["sizes"]
    assert sizes["request"] == wire.REQUEST_SIZE


def test_fds_of_no_frame_are_those_of_the_header() -> None:
    # wire.h: FD_CLOSED, FD_STDOUT_PIPE, FD_STDERR_PIPE; test_wire.py has C decode them.
    assert (FD_CLOSED, FD_STDOUT_PIPE, FD_STDERR_PIPE) == (-1, -2, -3)
