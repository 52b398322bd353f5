"""What is enforced for each kind of caller: the whole table, and what the confined are told.

Each test is the caller of its own tier, and makes the others from root where it can: one with
groups that were delegated to it, and one whom a container's filter confines. cgroup v2 has
tests/vm/tiers.py besides.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import ErrorLocation, Limits, MiB, Sandbox
from runner.cgroup import Parent
from runner.config import ALL_NAMESPACES, Namespace
from runner.guarantees import GUARANTEES
from runner.host import detect
from runner.seccomp.syscalls import numbers

pytestmark = pytest.mark.userns

ROOT = Path(__file__).parents[2]
NOBODY = 65534
CLONE_PIDFD = 0x1000

# What is the same for everybody.
ALWAYS: dict[str, str | None] = {
    "wall_time": "keeper",
    "output": "keeper",
    "disk": "tmpfs",
    "network": "namespace",
    "files": "namespace",
    "syscalls": "seccomp",
    "capabilities": "dropped",
}
BY_GROUP: dict[str, str | None] = {
    "cpu_time": "cgroup",
    "memory": "cgroup",
    "processes": "cgroup",
}
WITHOUT: dict[str, str | None] = {
    "cpu_time": "proc",
    "memory": "proc",
    "swap": None,
    "processes": "rlimit",
}

SHOW = """
import json
from runner import Limits, MiB, Sandbox, SandboxError
try:
    with Sandbox() as sandbox:
        result = sandbox.run(["true"], limits=Limits(memory=64 * MiB))
        print(json.dumps([result.status.value, dict(result.enforced)]))
except SandboxError as error:
    print(json.dumps(error.to_dict()))
"""


def in_order(held: dict[str, str | None]) -> list[tuple[str, str | None]]:
    return [(name, held[name]) for name in GUARANTEES]


def of_us() -> dict[str, str | None]:
    """Give what this very caller is to have."""
    parent = Parent.find(detect())
    held = dict(ALWAYS)
    if parent is None or parent.why_not:
        held |= WITHOUT
        if detect().euid == 0 and not detect().maps_ids:
            held["processes"] = None  # RLIMIT_NPROC may not hold for it: setrlimit(2)
    else:
        with parent.create() as groups:
            held |= BY_GROUP | {"swap": groups.enforces.get("swap")}
    return held | {"user": "namespace" if detect().maps_ids else None}


def test_enforced_is_the_table_of_this_caller() -> None:
    with Sandbox() as sandbox:
        # On v1 swap is held where memory is limited.
        result = sandbox.run(["true"], limits=Limits(memory=64 * MiB))
        assert list(result.enforced.items()) == in_order(of_us())
        assert dict(sandbox.enforced) == dict(result.enforced)


@pytest.mark.root
def test_enforced_for_root_is_by_group_and_with_ids_of_its_own() -> None:
    with Sandbox(require=["cpu_time", "memory", "processes", "user"]) as sandbox:
        sandbox.start()
        held = dict(sandbox.enforced)
    assert {name: held[name] for name in (*BY_GROUP, "user")} == BY_GROUP | {
        "user": "namespace"
    }


def as_nobody(*before: str) -> list[object]:
    """Run SHOW as an ordinary user, and what comes before it as root."""
    inner = shlex.join([sys.executable, "-c", SHOW])
    user = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    script = "; ".join((*before, f"exec {user} {inner}"))
    done = subprocess.run(
        ["sh", "-ec", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]},
    )
    shown: list[object] = json.loads(done.stdout)
    return shown


@pytest.mark.root
def test_enforced_for_an_ordinary_user_without_groups() -> None:
    assert as_nobody() == ["ok", dict(in_order({**ALWAYS, **WITHOUT, "user": None}))]


@pytest.fixture
def delegated() -> Iterator[list[str]]:
    """Make a group in each hierarchy of v1 that is nobody's; give what joins them."""
    parent = Parent.find(detect())
    assert parent is not None
    groups = []
    with contextlib.ExitStack() as undo:
        for place in parent.places:
            if place.version != 1:
                pytest.skip("needs groups in v1 alone")
            group = Path(place.path) / f"delegated.{os.getpid()}"
            group.mkdir()
            undo.callback(group.rmdir)
            for path in (group, *group.iterdir()):
                os.chown(path, NOBODY, NOBODY)
            groups.append(group)
        yield [f"echo 0 >{group}/cgroup.procs" for group in groups]


@pytest.mark.root
@pytest.mark.cgroup
def test_enforced_for_an_ordinary_user_with_delegated_groups(delegated: list[str]) -> None:
    """The strong means are theirs too, but for other ids."""
    held = in_order(of_us() | {"user": None})
    assert as_nobody(*delegated) == ["ok", dict(held)]


# A container without the right to make namespaces or to mount


@pytest.fixture(scope="module")
def deny(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("deny")
    source = Path(__file__).parents[1] / "deny_syscall.c"
    subprocess.run(["gcc", "-O1", "-o", place / "deny", source], check=True)
    return str(place / "deny")


CLONE_FLAGS = int(ALL_NAMESPACES & ~Namespace.CGROUP) | CLONE_PIDFD | signal.SIGCHLD


@pytest.mark.parametrize(
    ("call", "words", "location", "hint"),
    [
        ("clone", ["0", hex(CLONE_FLAGS)], ErrorLocation.CLONE, "user namespaces are not"),
        ("mount", [], ErrorLocation.MOUNT_ROOT, "mounting is refused in the new user"),
        ("setns", [], ErrorLocation.SETNS, "a filter around us refuses it"),
        ("unshare", [], ErrorLocation.UNSHARE, "a filter around us refuses it"),
        ("pivot_root", [], ErrorLocation.PIVOT_ROOT, "a filter around us refuses it"),
    ],
)
def test_confined_caller_is_refused_with_the_call_and_the_remedy(
    deny: str, tmp_path: Path, call: str, words: list[str], location: ErrorLocation, hint: str
) -> None:
    """A sandbox that cannot be made as it is meant is none; nothing runs with less."""
    script = tmp_path / "show"
    script.write_text(f"#!/bin/sh\nexec {shlex.join([sys.executable, '-c', SHOW])}\n")
    script.chmod(0o755)
    command = [deny, str(numbers(os.uname().machine)[call]), "1", *words, str(script)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    error = json.loads(done.stdout)
    assert (error["type"], error["location"]) == ("ChildError", location.text)
    assert error["errno"] == "EPERM"
    assert error["hint"].startswith(hint)
    assert "container" in error["hint"]


def test_caller_without_user_namespaces_is_refused_with_the_sysctl() -> None:
    command = ["unshare", "-Ur", "sh", "-ec"]
    script = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$0" -c "$1"'
    done = subprocess.run(
        [*command, script, sys.executable, SHOW],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert json.loads(done.stdout) == {
        "type": "HostError",
        "message": "user namespaces",
        "hint": "user.max_user_namespaces is 0: as root set it above 0",
    }
