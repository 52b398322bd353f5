"""Output while the program runs: by a function, and by fds of the caller's. Demand 18, M110."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from runner import (
    CAPTURE,
    STDOUT,
    ConfigError,
    Limits,
    MiB,
    ProtocolError,
    Sandbox,
    Status,
    run,
)

pytestmark = pytest.mark.userns


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(wall_time=30)) as made:
        yield made


def shell(code: str) -> list[str]:
    return ["/bin/sh", "-euc", code]


def test_function_gets_output_while_the_program_runs(sandbox: Sandbox) -> None:
    """It answers what it hears: the program waits for that."""
    read, write = os.pipe()
    heard: list[bytes] = []

    def take(chunk: bytes) -> None:
        heard.append(chunk)
        if chunk == b"ready\n":
            os.write(write, b"go\n")

    try:
        code = 'echo ready; read answer; echo "$answer on"; echo hidden >&2'
        result = sandbox.run(shell(code), stdin=read, stdout=take)
    finally:
        os.close(read)
        os.close(write)
    assert result.status is Status.OK
    assert b"".join(heard) == b"ready\ngo on\n"
    assert (result.stdout, result.stdout_bytes, result.stdout_truncated) == (b"", 12, False)
    assert (result.stderr, result.stderr_bytes) == (b"hidden\n", 7)


def test_function_gets_all_that_was_written_before_the_end(sandbox: Sandbox) -> None:
    heard = bytearray()
    result = sandbox.run(["head", "-c", "3000000", "/dev/zero"], stdout=heard.extend)
    assert heard == bytes(3_000_000)
    assert result.stdout_bytes == 3_000_000


def test_both_streams_have_a_function_of_their_own_or_one(sandbox: Sandbox) -> None:
    out, err = bytearray(), bytearray()
    sandbox.run(shell("echo out; echo err >&2"), stdout=out.extend, stderr=err.extend)
    assert (out, err) == (b"out\n", b"err\n")
    both = bytearray()
    sandbox.run(shell("echo out; echo err >&2"), stdout=both.extend, stderr=STDOUT)
    assert both == b"out\nerr\n"
    err.clear()
    result = sandbox.run(shell("echo out; echo err >&2"), stdout=CAPTURE, stderr=err.extend)
    assert (result.stdout, err) == (b"out\n", b"err\n")


@pytest.mark.parametrize("code", ["yes", "head -c 100000 /dev/zero"])
def test_output_limit_holds_for_what_a_function_gets(sandbox: Sandbox, code: str) -> None:
    heard = bytearray()
    limits = Limits(output=70_000, wall_time=30)
    result = sandbox.run(shell(code), stdout=heard.extend, limits=limits)
    assert result.status is Status.OUTPUT_LIMIT
    assert len(heard) == 70_000
    assert result.stdout_bytes is not None
    assert result.stdout_bytes > 70_000
    assert result.stdout_truncated
    assert sandbox.run(["true"]).ok


def test_output_limit_is_of_both_streams_together(sandbox: Sandbox) -> None:
    code = "head -c 40000 /dev/zero; head -c 40000 /dev/zero >&2; sleep 20"
    heard = bytearray()
    limits = Limits(output=70_000, wall_time=30)
    result = sandbox.run(shell(code), stdout=heard.extend, limits=limits)
    assert result.status is Status.OUTPUT_LIMIT
    assert len(heard) + len(result.stderr) == 70_000


def test_slow_function_makes_the_program_wait_and_nothing_pile_up(sandbox: Sandbox) -> None:
    chunks: list[int] = []

    def take(chunk: bytes) -> None:
        chunks.append(len(chunk))
        time.sleep(0.01)

    result = sandbox.run(["head", "-c", str(2 * MiB), "/dev/zero"], stdout=take)
    assert result.ok
    assert sum(chunks) == 2 * MiB
    assert max(chunks) <= 64 * 1024


def test_limits_hold_while_a_function_takes_its_time(sandbox: Sandbox) -> None:
    before = time.monotonic()
    limits = Limits(wall_time=0.2)
    result = sandbox.run(["yes"], stdout=lambda _: time.sleep(0.5), limits=limits)
    assert result.status is Status.WALL_TIME_LIMIT
    assert result.wall_ns is not None
    assert result.wall_ns < 5e9
    assert time.monotonic() - before < 20


def test_error_of_a_function_ends_the_run_and_is_raised(sandbox: Sandbox) -> None:
    def take(chunk: bytes) -> None:
        raise LookupError(chunk)

    with pytest.raises(LookupError):
        sandbox.run(shell("echo a; sleep 60"), stdout=take)
    assert sandbox.run(["true"]).ok


def test_cancel_ends_a_run_whose_output_is_taken(sandbox: Sandbox) -> None:
    threading.Timer(0.2, sandbox.cancel).start()
    assert sandbox.run(["sleep", "60"], stdout=lambda _: None).status is Status.CANCELLED


@pytest.mark.parametrize("code", ["sleep 500", "yes"], ids=["silent", "busy"])
def test_keeper_that_is_stopped_while_output_is_taken_is_an_exception(
    sandbox: Sandbox, code: str
) -> None:
    """It holds no limit then, whatever comes from the program."""
    sandbox.start()
    keeper = sandbox.keeper_pid
    assert keeper is not None
    timer = threading.Timer(0.2, os.kill, (keeper, signal.SIGSTOP))
    timer.start()
    with pytest.raises(ProtocolError, match=r"^the keeper was stopped"):
        sandbox.run(shell(code), stdout=lambda _: None, limits=Limits(wall_time=1))
    timer.join()
    assert sandbox.run(["true"]).ok


def test_output_of_what_survives_the_program_is_given_and_the_run_ends(
    sandbox: Sandbox,
) -> None:
    heard = bytearray()
    code = "(while :; do echo x; sleep 0.01; done) & sleep 0.1; echo end"
    result = sandbox.run(shell(code), stdout=heard.extend)
    assert result.ok
    assert b"end\n" in heard


def test_program_opens_its_output_anew(sandbox: Sandbox) -> None:
    heard = bytearray()
    assert sandbox.run(shell("echo again >/dev/stdout"), stdout=heard.extend).ok
    assert heard == b"again\n"


def test_run_in_a_sandbox_of_its_own_streams_too() -> None:
    heard = bytearray()
    assert run(["echo", "hello"], stdout=heard.extend).ok
    assert heard == b"hello\n"


def test_program_that_is_not_there_leaves_no_pipe(sandbox: Sandbox) -> None:
    with pytest.raises(Exception, match="ENOENT"):
        sandbox.run(["/no/such"], stdout=lambda _: None)
    assert sandbox.run(["true"]).ok


@pytest.mark.parametrize("stdin", [len, print])
def test_function_is_no_input(sandbox: Sandbox, stdin: Any) -> None:  # noqa: ANN401 - as it says
    with pytest.raises(ConfigError, match=r"^stdin: "):
        sandbox.run(["true"], stdin=stdin)


def test_two_programs_talk_through_pipes_of_the_callers() -> None:
    """An interactor and a solution: fds are enough, in a sandbox and a thread each."""
    to_solution, from_judge = os.pipe()
    to_judge, from_solution = os.pipe()
    results: dict[str, Any] = {}

    def play(name: str, code: str, stdin: int, stdout: int) -> None:
        with Sandbox(limits=Limits(wall_time=30)) as box:
            results[name] = box.run(shell(code), stdin=stdin, stdout=stdout)
        os.close(stdin)
        os.close(stdout)

    ask = 'echo 20; read answer; test "$answer" = 41'
    answer = "read number; echo $((2 * number + 1))"
    threads = [
        threading.Thread(target=play, args=("judge", ask, to_judge, from_judge)),
        threading.Thread(target=play, args=("solution", answer, to_solution, from_solution)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: result.status for name, result in results.items()} == {
        "judge": Status.OK,
        "solution": Status.OK,
    }
