"""--copy-in and --copy-out: files of the caller's that a run gets and leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runner.cli.main import main

pytestmark = pytest.mark.userns

SANDBOX_FAILED = 125
QUIET = ["--quiet", "--chdir", "/tmp"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(*options: str, code: str) -> int:
    return main([*QUIET, *options, "/bin/sh", "-euc", code])


def test_file_is_copied_in_with_its_permissions_and_out(here: Path) -> None:
    tool = here / "tool"
    tool.write_text("#!/bin/sh\ncat data >result\n")
    tool.chmod(0o755)
    (here / "in").write_bytes(b"\0content")
    options = ["--copy-in=tool", "--copy-in=in:data", "--copy-out=result:out"]
    assert shell(*options, code="./tool") == 0
    assert (here / "out").read_bytes() == b"\0content"
    assert sorted(os.listdir(here)) == ["in", "out", "tool"]


def test_file_that_is_missing_fails_the_run_unless_optional(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert shell("--copy-out=a?", code="true") == 0
    assert capfd.readouterr().err == ""
    assert shell("--copy-out=a", code="true") == 1
    assert capfd.readouterr().err == "run-sandboxed: --copy-out: 'a': it is not there\n"
    assert shell("--copy-out=a", code="exit 7") == 7, "the program's own status is more"
    assert os.listdir(here) == []


def test_file_that_is_too_long_is_cut_and_said_to_be(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert shell("--copy-out=a", "--copy-limit=1K", code="head -c 3000 /dev/zero >a") == 1
    assert (here / "a").read_bytes() == bytes(1024)
    err = capfd.readouterr().err
    assert (
        err == "run-sandboxed: --copy-out: 'a': it has 3000 bytes, of which 1024 were copied\n"
    )


def test_link_is_not_copied(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert shell("--copy-out=a", code="ln -s /etc/passwd a") == 1
    assert capfd.readouterr().err == "run-sandboxed: --copy-out: 'a': it is a symbolic link\n"
    assert os.listdir(here) == []


def test_result_in_json_tells_of_the_files(here: Path) -> None:
    assert shell("--copy-out=a", "--json=r", code="printf x >a") == 0
    files = json.loads((here / "r").read_text())["files"]
    assert files == {"a": {"state": "ok", "size": 1, "mode": 0o644, "why": ""}}


def test_place_of_a_copy_is_settled_before_the_program_can_plant_a_link(here: Path) -> None:
    """With --writable the program may write where its file is to be."""
    victim = here / "victim"
    victim.write_text("kept")
    here.chmod(0o777)
    code = "echo mine >made; ln -s victim out"
    assert main(["-q", "--writable", "--copy-out=made:out", "sh", "-euc", code]) == 0
    assert victim.read_text() == "kept"
    assert not (here / "out").is_symlink()
    assert (here / "out").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--copy-in=none"], "--copy-in: 'none': No such file or directory"),
        (["--copy-in=/dev/null"], "--copy-in: '/dev/null': it is no regular file"),
        (["--copy-out=a:/none/b"], "--copy-out: '/none/b': No such file or directory"),
    ],
)
def test_place_that_is_not_there_is_refused(
    options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert shell(*options, code="true") == SANDBOX_FAILED
    assert message in capfd.readouterr().err


def test_copy_into_a_read_only_directory_says_what_to_do(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "a").write_text("x")
    assert main(["--copy-in=a:b", "true"]) == SANDBOX_FAILED
    err = capfd.readouterr().err
    assert "copy_in[0] b: " in err
    assert "start in one of the sandbox's own, such as /tmp" in err


@pytest.mark.parametrize(
    "options",
    [
        ["--copy-in=a:x", "--copy-in=b:x"],
        ["--copy-out=x:a", "--copy-out=x:b"],
        ["--copy-out=x:a", "--copy-out=y:a"],
        ["--console", "--copy-in=a"],
    ],
)
def test_copies_that_contradict_each_other_are_refused(
    options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert shell(*options, code="true") == SANDBOX_FAILED
    assert "--copy" in capfd.readouterr().err or "the file" in capfd.readouterr().err
