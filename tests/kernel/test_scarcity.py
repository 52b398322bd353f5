"""A grader that has no more of something: it is told of what, and how to get more."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner import ChildError, ErrorLocation, HostError, Runner, Sandbox, start
from runner.scarcity import KNOWN

pytestmark = pytest.mark.userns

ROOT = Path(__file__).parents[2]

# With no fd open but 0 to 2, so that the limit says how many there may be.
GRADER = """
import json, os, resource, sys
os.closerange(3, 1000)
from runner import Runner, Sandbox, SandboxError, start

def sandbox():
    with Sandbox() as sandbox:
        result = sandbox.run(["echo", "x"], stdin=b"x")
        return [result.stdout.decode(), sandbox.enforced]

def one_run():
    result = used.run(["echo", "x"], stdin=b"x")
    return [result.stdout.decode(), used.enforced]

def process():
    with start(Runner(args=["/bin/true"])) as process:
        return [process.wait().exit_code]

call = globals()[sys.argv[1]]
with Sandbox() as used:
    print(json.dumps(["ok", *call()]))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fds = len(os.listdir("/proc/self/fd"))
    for limit in range(3, 80):
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            told = ["ok", *call()]
        except SandboxError as error:
            told = [type(error).__name__, str(error), error.hint, repr(error.__cause__)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if call is not one_run:
            assert len(os.listdir("/proc/self/fd")) == fds
        print(json.dumps(told))
"""


@pytest.mark.parametrize("call", ["sandbox", "one_run", "process"])
def test_grader_with_too_few_fds_is_told_so_and_no_guarantee_is_lost(call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GRADER, call], capture_output=True, check=True, cwd=ROOT
    )
    whole, *told = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [outcome for outcome in told if outcome != whole]
    assert "ok" not in {outcome[0] for outcome in failed}
    assert "HostError" in {outcome[0] for outcome in failed}
    assert told[-1] == whole
    for kind, message, hint, cause in failed:
        if kind == "HostError":
            assert message.startswith("no more files that we may open: [Errno 24]")
            assert cause.startswith("OSError(24,")
        # The helper has the same limit. Where not even what we send it can come in, it ends.
        assert kind == "ProtocolError" or hint == KNOWN[errno.EMFILE][1]


CALLS = [
    "os.posix_spawn",
    "os.pidfd_open",
    "os.memfd_create",
    "runner.helper.socket.socketpair",
]


@pytest.mark.parametrize("number", KNOWN, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
def test_call_of_the_grader_that_finds_nothing_left_is_told_with_the_remedy(
    call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Any:  # noqa: ANN401 - as what it replaces
        raise OSError(number, os.strerror(number))

    sandbox = Sandbox()
    with monkeypatch.context() as patch:
        patch.setattr(call, fail)
        with pytest.raises(HostError, match=re.escape(os.strerror(number))) as caught:
            sandbox.start()
        assert caught.value.hint == KNOWN[number][1]
        if call != "os.memfd_create":
            with pytest.raises(HostError, match=re.escape(os.strerror(number))) as caught:
                start(Runner(args=["/bin/true"]))
            assert caught.value.hint == KNOWN[number][1]
    with sandbox:
        assert sandbox.run(["true"]).ok


def test_helper_that_cannot_be_executed_has_another_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("os.posix_spawn", fail)
    with Sandbox() as sandbox, pytest.raises(HostError, match="does not start") as caught:
        sandbox.start()
    assert caught.value.hint == "is it mounted noexec, or built for another machine?"


def test_step_that_finds_nothing_left_says_what_to_raise_where_it_knows_no_better() -> None:
    assert ChildError(ErrorLocation.PIPE, errno.EMFILE).hint == KNOWN[errno.EMFILE][1]
    too_small = ChildError(ErrorLocation.SECCOMP, errno.ENOMEM).hint
    assert too_small is not None
    assert too_small.startswith("the memory limit is too small")
    assert ChildError(ErrorLocation.PIPE, errno.EIO).hint is None
