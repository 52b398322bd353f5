"""Files that are written after a run: whole, or not at all, and where they were to be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from runner.cli.output import OutputFile
from runner.errors import ConfigError


def write(path: Path | str, text: str) -> None:
    with OutputFile("--json", str(path)) as file:
        file.write(text)


def test_output_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "result"
    write(path, "old and longer")
    with path.open() as before:
        write(path, "new")
        assert before.read() == "old and longer"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["result"]


def test_output_of_an_earlier_run_is_gone_when_the_place_is_settled(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    with OutputFile("--json", str(path)):
        assert not path.exists()
    assert not path.exists()


def test_output_when_it_cannot_be_renamed_leaves_nothing(tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(ConfigError) as caught:
            write(tmp_path / "result", "x")
    assert str(caught.value) == f"--json: '{tmp_path}/result': broken"
    assert os.listdir(tmp_path) == []


def test_output_to_a_link_replaces_the_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "victim").write_text("untouched")
    write(tmp_path / "link", "x")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "x"
    assert (tmp_path / "victim").read_text() == "untouched"


@pytest.mark.parametrize("directory", ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"])
def test_output_to_an_open_file_is_written_into_it(directory: str, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w+") as file:
        write(f"{directory}/{file.fileno()}", "x")
        assert file.read() == "x"


def test_output_with_the_longest_name_there_is_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    write(path, "x")
    assert path.read_text() == "x"
    assert os.listdir(tmp_path) == [path.name]


def test_output_to_a_link_that_came_later_replaces_the_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    with OutputFile("--json", f"{tmp_path}/result") as file:
        (tmp_path / "result").symlink_to("victim")
        (tmp_path / f".run-sandboxed.{os.getpid()}.tmp").symlink_to("victim")
        file.write("x")
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not (tmp_path / "result").is_symlink()
    assert (tmp_path / "result").read_text() == "x"


def test_output_whose_directory_became_a_link_stays_in_the_first(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with OutputFile("--json", f"{tmp_path}/first/result") as file:
        (tmp_path / "first").rename(tmp_path / "moved")
        (tmp_path / "first").symlink_to("second")
        file.write("x")
    assert os.listdir(tmp_path / "second") == []
    assert (tmp_path / "moved/result").read_text() == "x"


def test_output_to_a_pipe_writes_into_it() -> None:
    reader, writer = os.pipe()
    write(f"/dev/fd/{writer}", "x")
    assert os.read(reader, 9) == b"x"
    os.close(reader)
    os.close(writer)


def test_output_keeps_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    write(tmp_path / "result", os.fsdecode(b"a\xff"))
    assert (tmp_path / "result").read_bytes() == b"a\xff"


def test_output_to_a_directory_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        OutputFile("--meta", str(tmp_path))
    assert str(caught.value) == f"--meta: '{tmp_path}': Is a directory"
