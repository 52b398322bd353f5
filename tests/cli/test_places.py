"""What the sandbox shows of the host's files, worked out without one."""

from __future__ import annotations

import os
import pwd

import pytest

from runner.cli.options import parse
from runner.cli.places import Places, arrange
from runner.config import Mount
from runner.errors import ConfigError


def _arrange(*words: str) -> Places:
    return arrange(parse([*words, "prog"])[0])


@pytest.fixture(autouse=True)
def _home(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(f"{tmp_path}/home")
    monkeypatch.setenv("HOME", f"{tmp_path}/home")


def test_current_directory_is_bound_read_only_at_its_own_path(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _arrange() == Places([Mount.bind(str(tmp_path))], None, str(tmp_path), None)


def test_current_directory_is_writable_on_request(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _arrange("--writable").mounts == [
        Mount.bind(str(tmp_path), readonly=False, owned=True)
    ]


@pytest.mark.parametrize(
    "path", ["/", "/home", "/etc", "/proc", "/sys", "/dev", "/run", "/sys/fs"]
)
def test_current_directory_of_the_system_is_not_shown(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path)
    note = f"{path} belongs to the system: it is not shown in the sandbox; starting in /tmp"
    assert _arrange() == Places([], None, "/tmp", note)


def test_home_directory_by_environment_is_not_shown(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = f"{tmp_path}/home"
    os.symlink("home", f"{tmp_path}/link")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", f"{tmp_path}/link")
    note = f"{home} is a home directory: it is not shown in the sandbox; starting in /tmp"
    assert _arrange() == Places([], None, "/tmp", note)


def test_home_directory_by_user_database_is_not_shown(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = pwd.struct_passwd(("me", "x", os.getuid(), 0, "", f"{tmp_path}/db", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", {os.getuid(): entry}.__getitem__)
    os.mkdir(f"{tmp_path}/db")
    monkeypatch.chdir(f"{tmp_path}/db")
    assert _arrange().work_dir == "/tmp"


def test_current_directory_of_a_uid_without_entry_is_shown(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    monkeypatch.chdir(tmp_path)
    assert _arrange().work_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/root", "belongs to the system"),
        ("/home/someone", "is a home directory"),
    ],
)
def test_other_home_directory_is_not_shown(
    path: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getcwd", lambda: path)
    assert _arrange().note == (
        f"{path} {reason}: it is not shown in the sandbox; starting in /tmp"
    )


def test_directory_in_a_home_is_shown(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(f"{tmp_path}/home/work")
    monkeypatch.chdir(f"{tmp_path}/home/work")
    assert _arrange().note is None


def test_writable_where_nothing_is_shown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(
        ConfigError,
        match=r"^--writable: '/': it belongs to the system and is not shown; go to another$",
    ):
        _arrange("--writable")


def test_removed_current_directory_is_told(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(f"{tmp_path}/gone")
    monkeypatch.chdir(f"{tmp_path}/gone")
    os.rmdir(f"{tmp_path}/gone")
    note = "the current directory was removed; starting in /tmp"
    assert _arrange() == Places([], None, "/tmp", note)


@pytest.mark.parametrize(
    ("words", "access"), [((), "read-only"), (("--writable",), "writable")]
)
def test_tmp_as_current_directory_is_the_hosts_and_told(
    words: tuple[str], access: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/tmp")
    note = f"/tmp is the current directory: the sandbox has this host's, {access}"
    assert _arrange(*words) == Places(
        [Mount.bind("/tmp", readonly=not words, owned=bool(words))], None, "/tmp", note
    )


def test_bind_at_the_current_directory_takes_its_place(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mount = Mount.bind("/usr", str(tmp_path))
    assert _arrange("-b", f"/usr:{tmp_path}") == Places([mount], None, str(tmp_path), None)


def test_bind_that_shows_the_current_directory_already_decides(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(f"{tmp_path}/sub")
    monkeypatch.chdir(f"{tmp_path}/sub")
    places = _arrange("-b", f"{tmp_path}:rw")
    assert places.mounts == [Mount.bind(str(tmp_path), readonly=False, owned=True)]
    assert places.work_dir == f"{tmp_path}/sub"


def test_bind_of_the_root_shows_a_system_directory_as_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/etc")
    assert _arrange("-b/etc") == Places([Mount.bind("/etc")], None, "/etc", None)


@pytest.mark.parametrize(
    ("given", "work_dir"), [("/usr", "/usr"), ("sub", "{cwd}/sub"), (".", "{cwd}/.")]
)
def test_chdir_is_relative_to_the_current_directory(
    given: str, work_dir: str, tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _arrange("-C", given).work_dir == work_dir.format(cwd=tmp_path)


def test_root_shows_its_entries_and_our_own_directories(tmp_path: str) -> None:
    root = f"{tmp_path}/root"
    for name in ("proc", "usr", "dev", "tmp"):
        os.makedirs(f"{root}/{name}")
    os.symlink("usr/bin", f"{root}/bin")
    assert _arrange("--root", root) == Places(
        [],
        [
            Mount.symlink("usr/bin", "/bin"),
            Mount.bind(f"{root}/usr", "/usr", follow=False),  # it may be replaced by a link
            Mount.proc(),
            Mount.dev(),
            Mount.tmpfs("/tmp"),
            Mount.tmpfs("/dev/shm"),
        ],
        "/",
        None,
    )
