"""Fields of a `Runner` that a `Sandbox` takes over: each in every run."""

from __future__ import annotations

import os
import signal
import time

import pytest

from runner import (
    ADDR_NO_RANDOMIZE,
    ChildError,
    ConfigError,
    ErrorLocation,
    Hook,
    Limits,
    Sandbox,
    Status,
    TimeOffsets,
)

pytestmark = pytest.mark.userns

SHOW = """
umask
cut -d ' ' -f 19 /proc/self/stat
cat /proc/self/oom_score_adj /proc/sys/kernel/domainname
cat /proc/sys/net/ipv4/ip_unprivileged_port_start
"""


def test_extras_reach_each_program() -> None:
    cpu = min(os.sched_getaffinity(0))
    with Sandbox(
        umask=0o027,
        nice=7,
        ignored_signals=(signal.SIGUSR1,),
        blocked_signals=(signal.SIGUSR2,),
        oom_score_adj=600,
        cpus={cpu},
        personality=ADDR_NO_RANDOMIZE,
        sysctls={"net.ipv4.ip_unprivileged_port_start": "81"},
        domain_name="local",
        loopback=True,
    ) as sandbox:
        for _ in range(2):
            lines = sandbox.run(["sh", "-c", SHOW]).stdout.decode().split("\n")
            assert lines[:2] == ["0027", "7"]
            assert lines[2:5] == ["600", "local", "81"]
            # Not by a shell: dash unblocks all signals when it starts.
            names = "^(SigIgn|SigBlk|Cpus_allowed_list)"
            status = sandbox.run(["grep", "-E", names, "/proc/self/status"]).stdout.decode()
            assert [line.split()[1] for line in status.splitlines()] == [
                f"{1 << (signal.SIGUSR2 - 1):016x}",
                f"{1 << (signal.SIGUSR1 - 1):016x}",
                str(cpu),
            ]
        connect = "import socket; socket.create_server(('127.0.0.1', 81)); print('listens')"
        assert sandbox.run(["python3", "-c", connect]).stdout == b"listens\n"


def test_time_offsets_move_the_clock_and_no_limit() -> None:
    with Sandbox(time_offsets=TimeOffsets(monotonic=5000)) as sandbox:
        program = "import time; print(time.monotonic())"
        result = sandbox.run(["python3", "-c", program])
        assert float(result.stdout) - time.monotonic() > 4900
        assert result.wall_ns < 5_000_000_000


@pytest.mark.parametrize("offset", [5000, -20])
def test_wall_time_is_of_our_clock_whatever_the_programs_says(offset: int) -> None:
    with Sandbox(time_offsets=TimeOffsets(monotonic=offset)) as sandbox:
        ended = sandbox.run(["sleep", "40"], limits=Limits(wall_time=0.3))
        assert ended.status is Status.WALL_TIME_LIMIT
        assert ended.wall_ns is not None
        assert 300_000_000 <= ended.wall_ns < 20_000_000_000  # not the forty of the sleep
        assert sandbox.run(["sleep", "0.1"], limits=Limits(wall_time=10)).ok


def test_hook_that_fails_is_a_failure_of_the_sandbox() -> None:
    with Sandbox(hooks=[Hook(args=("false",))]) as sandbox, pytest.raises(ChildError) as caught:
        sandbox.run(["true"])
    assert caught.value.location is ErrorLocation.HOOK
    assert str(caught.value) == "hook[0] false: exit status 1"


def test_option_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="Sandbox: 'credential': no option of a sandbox"):
        Sandbox(credential=None)  # type: ignore[call-arg]
