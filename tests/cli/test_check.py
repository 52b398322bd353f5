"""`--check`: the table, the JSON, the exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cli.check import render
from runner.doctor import Finding, Level, Report
from runner.guarantees import GUARANTEES
from runner.sandbox import run

Command = Callable[..., subprocess.CompletedProcess[bytes]]


def finding(name: str, level: Level, **fields: object) -> Finding:
    return Finding(name=name, level=level, value="value", **fields)  # type: ignore[arg-type]


def test_table_has_a_line_for_each_finding_and_remedies_once() -> None:
    found = Report(
        kernel="6.1.0",
        uid=1000,
        container="docker",
        systemd=False,
        guarantees=(
            finding("memory", Level.WEAK, why="no group", remedies=("do this", "or that")),
            finding("output", Level.OK),
        ),
        features=(
            finding(
                "memory_cgroup", Level.MISSING, why="no group", remedies=("do this", "or that")
            ),
            finding("pids", Level.MISSING, why="no other", remedies=("do this", "or that")),
        ),
        noise=(finding("aslr", Level.WEAK, why="it differs", remedies=("off",)),),
    )
    assert (
        render(found)
        == """\
Linux 6.1.0, uid 1000, in a container (docker)

guarantees:
  weak     memory         value
  ok       output         value

features:
  missing  memory_cgroup  value
  missing  pids           value

timing:
  weak     aslr           value

what to do:
  memory, memory_cgroup: no group
  pids: no other
    - do this
    - or that
  aslr: it differs
    - off
"""
    )


def test_table_without_anything_amiss_gives_no_advice() -> None:
    found = Report(
        kernel="6.1.0",
        uid=0,
        container=None,
        systemd=True,
        guarantees=(finding("memory", Level.OK),),
        features=(),
        noise=(),
    )
    assert render(found).startswith(
        "Linux 6.1.0, uid 0\n\nguarantees:\n  ok       memory  value\n"
    )
    assert "what to do" not in render(found)


@pytest.mark.userns
def test_check_tells_what_a_sandbox_enforces_and_exits_by_it(command: Command) -> None:
    before = time.monotonic()
    done = command("--check", "--json")
    assert time.monotonic() - before < 2
    found = json.loads(done.stdout)
    assert done.stderr == b""
    enforced = run(["true"]).enforced
    values = {each["name"]: each["value"] for each in found["guarantees"]}
    assert values == {name: enforced[name] or "nothing" for name in GUARANTEES}
    assert found["ok"] is all(each["level"] == "ok" for each in found["guarantees"])
    assert done.returncode == (0 if found["ok"] else 1)
    assert found["host"]["uid"] == os.geteuid()


@pytest.mark.userns
def test_check_tries_every_namespace(command: Command) -> None:
    found = json.loads(command("--check", "--json").stdout)
    levels = {each["name"]: each["level"] for each in found["features"]}
    kinds = ("mount", "cgroup", "uts", "ipc", "user", "pid", "network", "time")
    for kind in kinds:
        assert levels[f"{kind}_namespace"] == "ok"
    assert levels["proc_mount"] == "ok"
    assert levels["open_tree"] == levels["mount_setattr"] == levels["pidfds"] == "ok"


@pytest.mark.userns
def test_check_shows_the_table_and_writes_the_json_to_its_file(
    place: Path, command: Command
) -> None:
    done = command("--check", "--json=result")
    found = json.loads((place / "result").read_text())
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith(f"Linux {os.uname().release}, uid {os.geteuid()}")
    for section in ("guarantees", "features", "noise"):
        for each in found[section]:
            pattern = rf"  {each['level']:<7}  {each['name']} +\S"
            assert any(re.match(pattern, line) for line in lines), each["name"]
    quiet = command("--check", "-q")
    assert (quiet.stdout, quiet.returncode) == (b"", done.returncode)


@pytest.mark.userns
def test_check_where_user_namespaces_are_forbidden_is_all_missing(command: Command) -> None:
    # Root of a user namespace may forbid further ones below it; it is root there, so that the
    # sysctl is what stands in the way.
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")
    done = command("--check", "--json", prefix=prefix)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert {each["level"] for each in found["guarantees"]} == {"missing"}
    assert found["guarantees"][0]["why"] == "no sandbox can be started: user namespaces"
    remedy = "user.max_user_namespaces is 0: as root set it above 0"
    assert found["guarantees"][0]["remedies"][0] == remedy
    features = {each["name"]: each for each in found["features"]}
    assert features["user_namespace"]["level"] == "missing"
    assert features["user_namespace"]["remedies"][0] == remedy


@pytest.mark.userns
def test_check_without_proc_says_how_to_get_it(command: Command) -> None:
    script = 'mount -t tmpfs none /proc; exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    done = command("--check", "--json", prefix=prefix)
    assert (done.returncode, done.stderr) == (1, b"")
    found = json.loads(done.stdout)
    assert found["guarantees"][0]["remedies"][0] == "mount it: mount -t proc proc /proc"


def test_check_with_a_command_is_refused(command: Command) -> None:
    done = command("--check", "true")
    assert done.returncode == 125
    assert done.stderr == (
        b"run-sandboxed: --check: 'true': it runs no command; leave that out\n"
    )
