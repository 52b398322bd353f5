"""What the command asks of a sandbox, recorded by one that runs nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from typing import ClassVar

import pytest

from runner.cli.main import main
from runner.config import ADDR_NO_RANDOMIZE, DeviceAccess, IoLimit, Limits, Mount, TimeOffsets
from runner.errors import ChildError, ErrorLocation, SandboxError
from runner.result import Result, Status, error_to_dict
from runner.sandbox import DEFAULT_ENV
from runner.seccomp import compile_policy, files

_RESULT = Result(
    status=Status.OK,
    exit_code=0,
    cpu_ns=1_000_000,
    wall_ns=2_000_000,
    memory_bytes=4096,
    enforced={"memory": None, "network": "namespace"},
)
_SUMMARY = "run-sandboxed: ok, exit 0, cpu 0.001 s, wall 0.002 s, memory 4.0 KiB\n"


class _Recorder:
    """Stands in for Sandbox: keeps what it was asked, and answers with `outcome`."""

    asked: dict[str, object]
    ran: tuple[list[str], dict[str, object]]
    outcome: Result | SandboxError = _RESULT

    def __init__(self, **asked: object) -> None:
        type(self).asked = asked

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        pass

    def run(self, args: list[str], **streams: object) -> Result:
        type(self).ran = (args, streams)
        if isinstance(self.outcome, SandboxError):
            raise self.outcome
        return self.outcome


@pytest.fixture
def recorder(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> type[_Recorder]:
    module = types.ModuleType("runner.sandbox")
    recorder = type("Recorder", (_Recorder,), {})
    module.Sandbox = module.SandboxOfOne = recorder  # type: ignore[attr-defined]
    module.DEFAULT_ENV = DEFAULT_ENV  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "runner.sandbox", module)
    monkeypatch.chdir(tmp_path)
    return recorder


@pytest.mark.parametrize(("options", "one"), [([], True), (["--repeat", "3"], False)])
def test_sandbox_is_for_one_program_unless_it_is_repeated(
    recorder: type[_Recorder], *, options: list[str], one: bool
) -> None:
    class OfOne(recorder):  # type: ignore[misc,valid-type]
        asked: ClassVar[dict[str, object]] = {}

    sys.modules["runner.sandbox"].SandboxOfOne = OfOne  # type: ignore[attr-defined]
    assert main(["-q", *options, "prog"]) == 0
    assert bool(OfOne.asked) is one


def test_settings_without_options_are_the_defaults(
    recorder: type[_Recorder], tmp_path: str
) -> None:
    assert main(["-q", "prog", "-x"]) == 0
    assert recorder.asked == {
        "mounts": [Mount.bind(str(tmp_path))],
        "root": None,
        "work_dir": str(tmp_path),
        "limits": Limits(),
    }
    streams = {"stdin": 0, "stdout": 1, "stderr": 2}
    assert recorder.ran == (
        ["prog", "-x"],
        streams | {"policy_log": False, "measure": (), "repeat": 1},
    )


def test_policy_log_is_asked_of_the_run(recorder: type[_Recorder]) -> None:
    assert main(["-q", "--policy-log", "prog"]) == 0
    assert recorder.ran[1]["policy_log"] is True


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--share-net"], "network", "host"),
        (["--net", "pasta"], "network", "pasta"),
        (["--hostname", "box"], "host_name", "box"),
        (["--user", "5"], "user", (5, 5)),
        (["--user", "5:0"], "user", (5, 0)),
        (["--user", "nobody"], "user", "nobody"),
        (["--domainname", "d"], "domain_name", "d"),
        (["--umask", "27"], "umask", 0o27),
        (["--nice", "-3"], "nice", -3),
        (["--oom-score-adj=5"], "oom_score_adj", 5),
        (["--affinity", "0-2,5"], "cpus", (0, 1, 2, 5)),
        (["--no-aslr"], "personality", ADDR_NO_RANDOMIZE),
        (["--loopback"], "loopback", True),
        (
            ["--sysctl", "net.a=1", "--sysctl", "net.b=x=y"],
            "sysctls",
            {"net.a": "1", "net.b": "x=y"},
        ),
        (
            ["--time-offset", "monotonic=-1.5", "--time-offset", "boottime=60"],
            "time_offsets",
            TimeOffsets(monotonic=-1.5, boottime=60),
        ),
        (["--no-seccomp"], "policy", None),
        (["--policy", "strict"], "policy", "strict"),
        (["--require", "memory,network"], "require", ("memory", "network")),
        (["-C", "/usr"], "work_dir", "/usr"),
        (["-m", "1M"], "limits", Limits(memory=2**20)),
        (["--disk", "1M"], "limits", Limits(disk=2**20)),
        (["--disk", "1M,7"], "limits", Limits(disk=2**20, inodes=7)),
        (["--swap", "1M"], "limits", Limits(swap=2**20)),
        (
            ["--cpu-quota", "0.5", "--cpuset", "0-1"],
            "limits",
            Limits(cpu_quota=0.5, cpus=(0, 1)),
        ),
        (["--cpu-weight", "7", "--pressure"], "limits", Limits(cpu_weight=7, pressure=True)),
        (
            ["--io", "8:0:read_bytes=1M,write_ops=5"],
            "limits",
            Limits(io=(IoLimit(device="8:0", read_bytes=2**20, write_ops=5),)),
        ),
        (
            ["--allow-device", "/dev/null", "--allow-device", "c 1:*=r"],
            "limits",
            Limits(devices=(DeviceAccess("/dev/null"), DeviceAccess("c 1:*", "r"))),
        ),
        (
            ["-E", "A=1", "-E", "PATH=/x"],
            "env",
            {"PATH": "/x", "HOME": "/tmp", "LANG": "C.UTF-8", "A": "1"},
        ),
    ],
)
def test_option_reaches_its_setting(
    words: list[str], name: str, value: object, recorder: type[_Recorder]
) -> None:
    assert main(["-q", *words, "prog"]) == 0
    assert recorder.asked[name] == value


def test_full_env_is_the_callers_with_changes(
    recorder: type[_Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", os.fsdecode(b"\xff"))
    monkeypatch.setenv("A", "1")
    assert main(["-q", "--full-env", "-E", "A=2", "prog"]) == 0
    assert recorder.asked["env"] == dict(os.environ) | {"A": "2"}


def test_policy_file_is_compiled_with_what_it_includes(
    recorder: type[_Recorder], tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mine = "kill read\ninclude other"
    other = "errno EPERM mount\ninclude strict"
    for name, text in (("mine", mine), ("other", other)):
        with open(f"{tmp_path}/{name}.policy", "w", encoding="utf-8") as file:
            file.write(text)
    assert main(["-q", "--policy", "./mine.policy", "prog"]) == 0
    sources = files.stock_texts() | {"other": other}
    assert recorder.asked["policy"] == compile_policy(
        mine, name="mine", arch=os.uname().machine, sources=sources
    )


def test_policy_file_with_faults_is_refused_with_all_of_them(
    recorder: type[_Recorder], tmp_path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = f"{tmp_path}/mine.policy"
    with open(path, "w", encoding="utf-8") as file:
        file.write("default alow\nkill raed\n")
    assert main(["--policy", path, "prog"]) == 125
    assert capfd.readouterr().err == (
        f"run-sandboxed: {path}:1: 'alow' is not an action: did you mean 'allow'?\n"
        f"run-sandboxed: {path}:2: 'raed' is not a system call: did you mean 'read'?\n"
        f"run-sandboxed: {path}: no 'default' line: say what a call that is not named gets, "
        "such as 'default errno ENOSYS'\n"
    )


def test_oci_profile_is_compiled_and_what_has_no_effect_is_told(
    recorder: type[_Recorder], tmp_path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = f"{tmp_path}/p.json"
    text = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [\n%s]}'
    entry = '{"names": ["raed", "mount"], "action": "SCMP_ACT_ERRNO"}'
    with open(path, "w", encoding="utf-8") as file:
        file.write(text % entry)
    assert main(["--policy", path, "prog"]) == 0
    assert recorder.asked["policy"] == compile_policy(
        "default allow\nerrno EPERM mount", name="x", arch=os.uname().machine
    )
    note = f"note: {path}:2: 'raed' is not a system call: did you mean 'read'?: it is left out"
    assert capfd.readouterr().err.splitlines()[0] == f"run-sandboxed: {note}"


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file or directory"), (b"\xff", "it is not UTF-8 text")]
)
def test_policy_file_that_cannot_be_read_is_refused(
    content: bytes | None,
    why: str,
    recorder: type[_Recorder],
    tmp_path: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = f"{tmp_path}/x"
    if content is not None:
        with open(path, "wb") as file:
            file.write(content)
    assert main(["--policy", path, "prog"]) == 125
    assert capfd.readouterr().err == f"run-sandboxed: --policy: {path!r}: {why}\n"


@pytest.mark.parametrize("option", ["--stdin", "--stdout", "--stderr"])
def test_redirection_that_cannot_be_opened_is_refused(
    option: str, recorder: type[_Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([option, "/nowhere/x", "prog"]) == 125
    assert capfd.readouterr().err == (
        f"run-sandboxed: {option}: '/nowhere/x': No such file or directory\n"
    )


def test_stderr_to_stdout_is_the_same_file(recorder: type[_Recorder]) -> None:
    assert main(["-q", "--stderr-to-stdout", "--stdout", "out", "prog"]) == 0
    streams = recorder.ran[1]
    assert streams["stderr"] == streams["stdout"]
    assert streams["stdout"] not in {0, 1, 2}


def test_summary_is_one_line_on_stderr(
    recorder: type[_Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["prog"]) == 0
    assert capfd.readouterr() == ("", _SUMMARY)


def test_verbose_adds_what_was_enforced(
    recorder: type[_Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["-v", "prog"]) == 0
    assert capfd.readouterr().err == (
        f"{_SUMMARY}run-sandboxed: enforced: network (namespace)\n"
        "run-sandboxed: not enforced: memory\n"
    )


def test_limit_that_was_not_enforced_is_told(
    recorder: type[_Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m1M", "-t1", "prog"]) == 0
    note = "run-sandboxed: note: nothing here can enforce --memory\n"
    assert capfd.readouterr().err == _SUMMARY + note


def test_limit_reached_is_told_with_its_value(
    recorder: type[_Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    recorder.outcome = Result(status=Status.CPU_TIME_LIMIT, limit="cpu_time", signal=9)
    assert main(["-t", "1.5", "prog"]) == 124
    assert capfd.readouterr().err == (
        "run-sandboxed: cpu_time_limit, limit 1.500 s, cpu unknown, wall unknown, "
        "memory unknown\n"
    )


def test_json_takes_the_summarys_place(
    recorder: type[_Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--json", "prog"]) == 0
    out, err = capfd.readouterr()
    assert (out, json.loads(err)) == ("", _RESULT.to_dict())


def test_json_file_is_written_beside_the_summary(
    recorder: type[_Recorder], tmp_path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--json=result", "prog"]) == 0
    with open(f"{tmp_path}/result", encoding="ascii") as file:
        assert json.load(file) == _RESULT.to_dict()
    assert capfd.readouterr().err == _SUMMARY


def test_json_file_that_cannot_be_written_is_a_failure(
    recorder: type[_Recorder], tmp_path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    os.mkdir(f"{tmp_path}/directory")
    assert main(["--json=directory", "prog"]) == 125
    assert capfd.readouterr().err == "run-sandboxed: --json: 'directory': Is a directory\n"


_NOT_FOUND = ChildError(ErrorLocation.EXECVE, 2, subject="prog")


def test_failure_is_told_with_its_hint(
    recorder: type[_Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    recorder.outcome = _NOT_FOUND
    assert main(["-q", "prog"]) == 127
    assert capfd.readouterr().err == (
        "run-sandboxed: execve prog: No such file or directory (ENOENT)\n"
        f"run-sandboxed: {_NOT_FOUND.hint}\n"
    )


def test_failure_is_json_too(
    recorder: type[_Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    recorder.outcome = ChildError(ErrorLocation.MOUNT, 13, 3, subject="/x")
    assert main(["--json", "prog"]) == 125
    assert json.loads(capfd.readouterr().err) == error_to_dict(recorder.outcome)


def test_quiet_says_nothing(
    recorder: type[_Recorder],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/")
    assert main(["-q", "prog"]) == 0
    assert capfd.readouterr() == ("", "")


def test_interrupt_that_became_another_exception_is_still_one(
    recorder: type[_Recorder],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def run(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RuntimeError from error

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(recorder, "run", run)
    assert main(["prog"]) == 143
    assert capfd.readouterr().err == "run-sandboxed: cancelled by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_mistake_of_ours_is_not_the_programs_exit_status(
    recorder: type[_Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    recorder.outcome = "no result"  # type: ignore[assignment]
    assert main(["prog"]) == 125
    assert capfd.readouterr().err.startswith("Traceback (most recent call last):\n")


def test_interrupt_during_the_start_comes_after_it(
    recorder: type[_Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def start(_self: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        events.append("started")

    monkeypatch.setattr(recorder, "start", start)
    monkeypatch.setattr(recorder, "run", lambda *_, **__: events.append("ran"))
    monkeypatch.setattr(recorder, "__exit__", lambda *_: events.append("closed"))
    assert main(["-q", "prog"]) == 143
    assert events == ["started", "closed"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
