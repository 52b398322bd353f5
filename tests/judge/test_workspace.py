"""What is taken over from the build directory, and what is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.judge.workspace import ArtefactError, Workspace, remove_abandoned

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    one = Workspace()
    yield one
    one.close()


def refused(workspace: Workspace, *patterns: str, max_bytes: int = 100) -> str:
    with pytest.raises(ArtefactError) as caught:
        workspace.collect(patterns, max_bytes=max_bytes)
    return str(caught.value)


def test_workspace_lies_where_nobody_else_may_enter(workspace: Workspace) -> None:
    assert workspace.build.parent.stat().st_mode & 0o777 == 0o700
    assert workspace.build.stat().st_mode & 0o777 == 0o777
    assert workspace.run.stat().st_mode & 0o777 == 0o755


def test_close_removes_all_and_may_be_repeated(workspace: Workspace) -> None:
    workspace.put_source("main.c", b"")
    workspace.close()
    workspace.close()
    assert not workspace.build.parent.exists()


def test_workspace_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    code = "import os; from runner.judge.workspace import Workspace as W; W(); "
    code += "os.kill(os.getpid(), 9)"
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    for _ in range(2):  # the second removes the first's
        subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, check=False)
        assert len(list(tmp_path.iterdir())) == 1


def test_workspaces_in_use_and_what_is_not_ours_are_kept(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    used = Workspace()
    (tmp_path / "run-sandboxed.judge.file").touch()
    (tmp_path / "run-sandboxed.judge.link").symlink_to(workspace.build)
    (tmp_path / "other").mkdir()
    before = set(tmp_path.iterdir())
    remove_abandoned()
    assert set(tmp_path.iterdir()) == before
    assert workspace.build.exists()
    used.close()


def test_collect_copies_plain_files_and_empties_build(workspace: Workspace) -> None:
    workspace.put_source("Main.java", b"source")
    for name in ("Main.class", "Main$1.class"):
        (workspace.build / name).write_bytes(name.encode())
    (workspace.build / "more").mkdir()
    workspace.collect(["*.class"])
    assert {p.name: p.read_bytes() for p in workspace.run.iterdir()} == {
        "Main.class": b"Main.class",
        "Main$1.class": b"Main$1.class",
    }
    assert list(workspace.build.iterdir()) == []
    assert (workspace.run / "Main.class").stat().st_mode & 0o777 == 0o755


def test_collect_of_a_symlink_is_refused(workspace: Workspace) -> None:
    (workspace.build / "main").symlink_to("/etc/passwd")
    assert refused(workspace, "main") == (
        "main: no plain file: Too many levels of symbolic links"
    )
    assert list(workspace.run.iterdir()) == []


def test_collect_of_a_fifo_is_refused_at_once(workspace: Workspace) -> None:
    os.mkfifo(workspace.build / "main")
    assert refused(workspace, "main") == "main: no plain file"


def test_collect_of_a_directory_is_refused(workspace: Workspace) -> None:
    (workspace.build / "main").mkdir()
    assert refused(workspace, "main") == "main: no plain file"


def test_collect_of_a_socket_is_refused(workspace: Workspace) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(workspace.build / "main"))
        assert refused(workspace, "main") == "main: no plain file: No such device or address"


def test_collect_above_the_size_limit_is_refused(workspace: Workspace) -> None:
    (workspace.build / "a").write_bytes(b"x" * 60)
    (workspace.build / "b").write_bytes(b"x" * 41)
    assert refused(workspace, "?") == "b: the artefacts are above their size limit"


def test_collect_at_the_size_limit_is_taken(workspace: Workspace) -> None:
    (workspace.build / "a").write_bytes(b"x" * 100)
    workspace.collect(["a"], max_bytes=100)
    assert (workspace.run / "a").stat().st_size == 100


def test_collect_of_a_sparse_giant_stops_at_the_limit(workspace: Workspace) -> None:
    with (workspace.build / "main").open("wb") as file:
        file.truncate(2**40)
    assert refused(workspace, "main") == "main: the artefacts are above their size limit"


def test_collect_of_nothing_is_refused(workspace: Workspace) -> None:
    assert refused(workspace, "*.class") == "the compiler left no *.class"


def test_collect_of_too_many_is_refused(workspace: Workspace) -> None:
    for number in range(1001):
        (workspace.build / str(number)).touch()
    assert refused(workspace, "*") == "the compiler left 1001 files, above 1000"


def test_clear_does_not_follow_links(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    (workspace.build / "link").symlink_to(tmp_path)
    (workspace.build / "deep").mkdir()
    (workspace.build / "deep" / "link").symlink_to(tmp_path)
    workspace.clear()
    assert list(workspace.build.iterdir()) == []
    assert (tmp_path / "kept").exists()


def test_put_source_replaces_what_a_link_named(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.build / "main.c").symlink_to(tmp_path / "elsewhere")
    workspace.put_source("main.c", b"source")
    assert (workspace.build / "main.c").read_bytes() == b"source"
    assert not (tmp_path / "elsewhere").exists()
