"""Exit statuses and the summary line, from results made by hand."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from runner.cli import report
from runner.errors import ChildError, ConfigError, ErrorLocation, HostError, ProtocolError
from runner.noise import Noise
from runner.repeated import together
from runner.result import LoggedCall, PolicyLog, Result, Status, Violation


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (Result(status=Status.OK, exit_code=0), 0),
        (Result(status=Status.NONZERO_EXIT, exit_code=7), 7),
        (Result(status=Status.NONZERO_EXIT, exit_code=255), 255),
        (Result(status=Status.SIGNALLED, signal=11), 139),
        (Result(status=Status.SIGNALLED, signal=64), 192),
        (Result(status=Status.DISALLOWED_SYSCALL, signal=31), 159),
        (Result(status=Status.CANCELLED, signal=9), 137),
        *[
            (Result(status=status, signal=9), 124)
            for status in Status
            if status.value.endswith("_limit")
        ],
        (Result(status=Status.MEMORY_LIMIT, exit_code=0), 124),
        (Result(status=Status.CANCELLED), 125),
    ],
)
def test_exit_status_of_result_is_that_of_timeout_and_env(result: Result, status: int) -> None:
    assert report.exit_status(result) == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ChildError(ErrorLocation.EXECVE, errno.ENOENT), 127),
        (ChildError(ErrorLocation.EXECVE, errno.EACCES), 126),
        (ChildError(ErrorLocation.EXECVE, errno.ENOEXEC), 126),
        (ChildError(ErrorLocation.EXECVE, errno.ELOOP), 126),
        (ChildError(ErrorLocation.CHDIR, errno.ENOENT), 125),
        (ChildError(ErrorLocation.MOUNT, errno.EACCES, 3), 125),
        (ConfigError("x"), 125),
        (HostError("x"), 125),
        (ProtocolError("x"), 125),
    ],
)
def test_exit_status_of_error_is_125_unless_only_exec_failed(
    error: ConfigError, status: int
) -> None:
    assert report.exit_status_of_error(error) == status


PTRACE = Violation(
    name="ptrace", number=101, arch="x86_64", args=(0, 1, 2, 3, 4, 5), instruction=4096
)
_USED = {"cpu_ns": 12_345_678, "wall_ns": 1_500_000_000, "memory_bytes": 1_468_006}
_USED_TEXT = "cpu 0.012 s, wall 1.500 s, memory 1.4 MiB"


@pytest.mark.parametrize(
    ("result", "limit", "text"),
    [
        (Result(status=Status.OK, exit_code=0, **_USED), None, f"ok, exit 0, {_USED_TEXT}"),
        (
            Result(status=Status.NONZERO_EXIT, exit_code=7, **_USED),
            None,
            f"nonzero_exit, exit 7, {_USED_TEXT}",
        ),
        (
            Result(status=Status.SIGNALLED, signal=signal.SIGSEGV, **_USED),
            None,
            f"signalled, signal 11 (SIGSEGV), {_USED_TEXT}",
        ),
        (
            Result(status=Status.CPU_TIME_LIMIT, limit="cpu_time", signal=9, **_USED),
            0.5,
            f"cpu_time_limit, limit 0.500 s, {_USED_TEXT}",
        ),
        (
            Result(status=Status.MEMORY_LIMIT, limit="memory", signal=9, **_USED),
            64 * 2**20,
            f"memory_limit, limit 64.0 MiB, {_USED_TEXT}",
        ),
        (
            Result(status=Status.PROCESS_LIMIT, limit="processes", exit_code=1, **_USED),
            64,
            f"process_limit, limit 64, {_USED_TEXT}",
        ),
        (
            Result(status=Status.DISALLOWED_SYSCALL, violation=PTRACE, signal=31, **_USED),
            None,
            f"disallowed_syscall, system call ptrace (101 of x86_64), {_USED_TEXT}",
        ),
        (
            Result(status=Status.DISALLOWED_SYSCALL, signal=31, **_USED),
            None,
            f"disallowed_syscall, system call unknown, {_USED_TEXT}",
        ),
        (
            Result(status=Status.OK, exit_code=0),
            None,
            "ok, exit 0, cpu unknown, wall unknown, memory unknown",
        ),
    ],
)
def test_summary_says_how_it_ended_and_what_it_used(
    result: Result, limit: float | None, text: str
) -> None:
    assert report.summary(result, limit) == text


def test_guarantees_tell_held_and_missing_apart() -> None:
    enforced = {"cpu_time": "cgroup", "memory": None, "network": "namespace", "files": None}
    assert report.guarantees(Result(status=Status.OK, enforced=enforced)) == (
        "enforced: cpu_time (cgroup), network (namespace)\nnot enforced: memory, files"
    )


_RUNS = together([Result(status=Status.OK, **_USED), Result(status=Status.OK, **_USED)])


@pytest.mark.parametrize(
    ("result", "measures", "rate", "text"),
    [
        (Result(status=Status.OK), (), None, ""),
        (
            Result(status=Status.OK, noise=Noise()),
            ("noise",),
            None,
            "nothing seen that disturbed its times",
        ),
        (
            Result(status=Status.OK, noise=Noise(suspect=("it waited", "it moved"))),
            ("noise",),
            None,
            "suspect: it waited; it moved",
        ),
        (
            Result(status=Status.OK, instructions=1_500_000_000),
            ("instructions",),
            1_000_000_000,
            "instructions: 1500000000, which take 1.500 s at 1000000000 a second",
        ),
        (
            Result(status=Status.OK, instructions=7),
            ("instructions",),
            None,
            "instructions: 7",
        ),
        (
            Result(status=Status.OK),
            ("instructions",),
            1,
            "instructions: not counted here; run-sandboxed --check says why",
        ),
        (
            Result(status=Status.OK, vm_hwm_bytes=2**20),
            ("status",),
            None,
            "its first process: peak 1.0 MiB",
        ),
        (
            _RUNS,
            (),
            None,
            (
                "of 2 runs: cpu 0.012 s to 0.012 s, median 0.012 s, "
                "wall 1.500 s to 1.500 s, median 1.500 s, "
                "memory 1.4 MiB to 1.4 MiB, median 1.4 MiB"
            ),
        ),
        (
            together([Result(status=Status.CANCELLED)]),
            (),
            None,
            "of 1 runs: cpu unknown, wall unknown, memory unknown",
        ),
    ],
)
def test_what_was_asked_for_has_a_line_each(
    result: Result, measures: tuple[str, ...], rate: int | None, text: str
) -> None:
    assert report.asked_for(result, measures, rate) == text


def test_explain_puts_the_hint_on_its_own_line() -> None:
    assert report.explain(HostError("no cgroup", "delegate one")) == "no cgroup\ndelegate one"
    assert report.explain(ConfigError("bad")) == "bad"


def test_say_names_us_on_each_line(capfd: pytest.CaptureFixture[str]) -> None:
    report.say("one\ntwo")
    assert capfd.readouterr().err == "run-sandboxed: one\nrun-sandboxed: two\n"


def test_write_keeps_bytes_that_are_not_utf8(tmp_path: str) -> None:
    fd = os.open(f"{tmp_path}/x", os.O_RDWR | os.O_CREAT)
    report.write(fd, os.fsdecode(b"a\xffb"))
    assert os.pread(fd, 9, 0) == b"a\xffb"
    os.close(fd)


def test_write_when_the_reader_has_gone_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    report.write(writer, "x")
    os.close(writer)
    report.write(writer, "closed")


def test_logged_calls_are_a_line_each_and_what_was_missed_the_last() -> None:
    args = (1, 2**64 - 1, 0, 0, 0, 16)
    calls = (
        LoggedCall("ptrace", 101, "x86_64", "errno EPERM", 3, args, 77),
        LoggedCall(None, 999, "i386", "kill", 1, args, 78),
    )
    words = "(0x1, 0xffffffffffffffff, 0x0, 0x0, 0x0, 0x10)"
    assert report.logged(PolicyLog(calls, 5)).split("\n") == [
        f"errno EPERM: ptrace (101 of x86_64), 3 times, first by 77: {words}",
        f"kill: 999 (999 of i386), once, first by 78: {words}",
        "at least: 5 calls more of other kinds",
    ]
    assert report.logged(PolicyLog(())) == "the policy has refused nothing"
