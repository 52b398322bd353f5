"""Files into a sandbox and out of it, and what is kept between runs. FC9–FC11, FJ4, M121."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import (
    Artefact,
    ArtefactCache,
    ChildError,
    ConfigError,
    ErrorLocation,
    FileIn,
    FileOut,
    FileState,
    Limits,
    LinkIn,
    MiB,
    Mount,
    OutFile,
    Sandbox,
    Status,
    run,
)

pytestmark = pytest.mark.userns


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(wall_time=20, processes=20)) as made:
        yield made


def shell(code: str) -> list[str]:
    return ["/bin/sh", "-euc", code]


# In


def test_files_of_every_source_are_there_with_their_content(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "path"
    path.write_bytes(b"of a path")
    large = bytes(range(256)) * 4096
    fd = os.memfd_create("source")
    try:
        os.write(fd, b"of an fd")  # and its position is at the end
        files = {
            "bytes": b"of bytes\0",
            "path": path,
            "fd": fd,
            "large": large,
            "empty": b"",
            "artefact": ArtefactCache().add(b"of an artefact"),
            "deep/er/file": b"below",
        }
        result = sandbox.run(
            shell("cat bytes path fd artefact deep/er/file; wc -c <empty; cksum <large"),
            files_in=files,
        )
        assert os.lseek(fd, 0, os.SEEK_CUR) == len(b"of an fd"), "its position is the caller's"
    finally:
        os.close(fd)
    sums = subprocess.run(["cksum"], input=large, capture_output=True, check=True).stdout
    assert result.stderr == b""
    text = b"of bytes\0of a pathof an fdof an artefactbelow"
    assert result.stdout == text + b"0\n" + sums


def test_files_belong_to_the_program_with_the_mode_that_was_given(sandbox: Sandbox) -> None:
    files = {
        "plain": b"",
        "tool": FileIn(b"#!/bin/sh\necho it runs\n", 0o700),
        "none": FileIn(b"", 0),
        "in/side": b"",
    }
    result = sandbox.run(
        shell("stat -c '%n %a %u:%g' plain tool none in in/side; ./tool; rm -r in"),
        files_in=files,
    )
    assert result.stderr == b""
    assert result.stdout.decode().splitlines() == [
        "plain 644 1000:1000",
        "tool 700 1000:1000",
        "none 0 1000:1000",
        "in 777 1000:1000",
        "in/side 644 1000:1000",
        "it runs",
    ]


def test_files_of_one_run_are_gone_in_the_next(sandbox: Sandbox) -> None:
    sandbox.run(["true"], files_in={"a": b"a", "b/c": b"c"})
    assert sandbox.run(["find", ".", "-mindepth", "1"]).stdout == b""


def test_files_put_in_for_a_program_that_is_not_there_are_gone_too(sandbox: Sandbox) -> None:
    sandbox.start()
    keeper = sandbox.keeper_pid
    for files_out in ([], ["a"]):
        with pytest.raises(ChildError) as caught:
            sandbox.run(["/no/such"], files_in={"a": b"a"}, files_out=files_out)
        assert caught.value.location is ErrorLocation.EXECVE
        assert sandbox.run(["ls", "-A"]).stdout == b""
    assert sandbox.keeper_pid == keeper, "it is the same sandbox"


def test_links_are_put_in_with_any_target(sandbox: Sandbox) -> None:
    files = {"link": LinkIn("../etc/passwd"), "in/link": LinkIn("gone")}
    result = sandbox.run(shell("readlink link in/link"), files_in=files)
    assert result.stdout == b"../etc/passwd\ngone\n"


def test_more_files_than_fit_into_a_request_are_all_there(sandbox: Sandbox) -> None:
    files = {f"{number}": b"%d" % number * 3000 for number in range(300)}
    result = sandbox.run(shell("ls | wc -l; cat $(seq 0 299) | wc -c"), files_in=files)
    size = sum(len(content) for content in files.values())
    assert result.stdout == f"300\n{size}\n".encode()


def test_later_name_replaces_an_earlier_and_none_removes(tmp_path: Path) -> None:
    """In a directory of the caller's they meet what is there: it is replaced, not written."""
    tmp_path.chmod(0o777)
    kept = tmp_path / "kept"
    for name in ("replaced", "removed", "kept"):
        (tmp_path / name).write_text("old")
    os.link(tmp_path / "replaced", tmp_path / "other")
    work = Mount.bind(str(tmp_path), "/work", readonly=False, owned=os.geteuid() == 0)
    files = {"replaced": b"new", "removed": None, "not-there": None, "no/dir": None}
    with Sandbox(mounts=[work], work_dir="/work") as box:
        result = box.run(shell("cat replaced other kept; ls"), files_in=files)
    assert result.stdout == b"newoldoldkept\nother\nreplaced\n"
    assert kept.read_text() == "old"


@pytest.mark.cgroup
def test_files_put_in_are_not_the_programs_memory(sandbox: Sandbox) -> None:
    limits = Limits(memory=16 * MiB, wall_time=20)
    content = b"\0" * (64 * MiB)
    result = sandbox.run(["cksum", "a"], files_in={"a": content}, limits=limits)
    assert result.status is Status.OK
    assert result.memory_bytes is not None
    assert result.memory_bytes < 16 * MiB


def test_files_put_in_are_held_to_the_disk_limit_of_their_run(sandbox: Sandbox) -> None:
    small, large = Limits(disk=MiB), Limits(disk=64 * MiB)
    assert sandbox.run(["true"], limits=small).ok
    files = {"a": b"\1" * (8 * MiB)}
    assert sandbox.run(["true"], limits=large, files_in=files).ok, "not to the last one's"
    assert sandbox.run(["true"], files_in=files).ok, "which ends with its run"
    with pytest.raises(ChildError) as caught:
        sandbox.run(["true"], limits=small, files_in=files)
    error = caught.value
    assert (error.location, error.errno) == (ErrorLocation.COPY_IN, errno.ENOSPC)
    assert sandbox.run(["ls"], limits=large, files_in=files).stdout == b"a\n"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"/a": b""}, "files_in: '/a': give a name relative"),
        ({"../a": b""}, "files_in: '../a': give a name without"),
        ({"a/../../b": b""}, "without"),
        ({"a//b": b""}, "without"),
        ({"a/": b""}, "without"),
        ({".": b""}, "without"),
        ({"": b""}, "empty"),
        ({"a\0b": b""}, "NUL"),
        ({"a" * 256: b""}, "at most 255 bytes"),
        ({"a/" * 2047 + "bb": b""}, "at most 255 bytes"),
        ({"a": "text"}, "give bytes, a pathlib.Path"),
        ({"a": True}, "give bytes, a pathlib.Path"),
        ({"a": Path("/nonexistent/file")}, "/nonexistent/file: No such file"),
        ({"a": Path("/dev/zero")}, "no regular file"),
        ({"a": Path("/tmp")}, "no regular file"),
        ({"a": 12345}, "fd 12345: Bad file descriptor"),
        ({1: b""}, "a name is text"),
    ],
)
def test_file_that_cannot_go_in_is_refused(
    sandbox: Sandbox, files: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=f"^(files_in: .*)?{text}"):
        sandbox.run(["true"], files_in=files)


def test_fifo_as_a_source_is_refused_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="no regular file"):
        sandbox.run(["true"], files_in={"a": tmp_path / "fifo"})


@pytest.mark.parametrize("mode", [0o4755, -1, True, "755"])
def test_mode_that_is_none_is_refused(mode: Any) -> None:  # noqa: ANN401 - any is wrong
    with pytest.raises(ConfigError, match="a mode is"):
        FileIn(b"", mode)


# Out


def test_files_are_taken_out_before_they_are_gone(sandbox: Sandbox) -> None:
    code = "printf content >a; mkdir d; printf below >d/b; chmod 000 a; : >empty"
    result = sandbox.run(shell(code), files_out=["a", "d/b", "empty"])
    assert result.status is Status.OK
    assert result.files_ok
    assert result.files == {
        "a": OutFile(name="a", state=FileState.OK, content=b"content", size=7, mode=0),
        "d/b": OutFile(name="d/b", state=FileState.OK, content=b"below", size=5, mode=0o644),
        "empty": OutFile(name="empty", state=FileState.OK, size=0, mode=0o644),
    }
    assert sandbox.run(["ls", "-A"]).stdout == b""


def test_files_are_taken_out_however_the_program_has_ended(sandbox: Sandbox) -> None:
    limits = Limits(wall_time=0.3)
    result = sandbox.run(shell("echo yes >a; sleep 60"), limits=limits, files_out=["a"])
    assert result.status is Status.WALL_TIME_LIMIT
    assert result.files["a"].content == b"yes\n"


@pytest.mark.parametrize("optional", [False, True])
def test_missing_file_is_an_error_unless_optional(sandbox: Sandbox, optional: bool) -> None:
    files_out = [FileOut("none", optional=optional), FileOut("none/at/all", optional=optional)]
    result = sandbox.run(["true"], files_out=files_out)
    assert [file.state for file in result.files.values()] == [FileState.MISSING] * 2
    assert result.files["none"].why == "it is not there"
    assert result.files_ok is optional
    assert result.ok, "how the program has ended is another matter"


def test_file_below_a_file_is_missing(sandbox: Sandbox) -> None:
    result = sandbox.run(shell(": >a"), files_out=["a/b"])
    assert result.files["a/b"].state is FileState.MISSING


@pytest.mark.parametrize(("limit", "state"), [(9, FileState.TRUNCATED), (10, FileState.OK)])
def test_file_above_its_limit_is_truncated_and_said_to_be(
    sandbox: Sandbox, limit: int, state: FileState
) -> None:
    result = sandbox.run(shell("printf 0123456789 >a"), files_out=[FileOut("a", limit)])
    file = result.files["a"]
    assert (file.state, file.content, file.size) == (state, b"0123456789"[:limit], 10)
    assert result.files_ok is (state is FileState.OK)


def test_file_that_was_put_in_comes_out_as_it_was_left(sandbox: Sandbox) -> None:
    result = sandbox.run(
        shell("printf more >>a"), files_in={"a": b"some"}, files_out=["a", "b"]
    )
    assert result.files["a"].content == b"somemore"


def test_result_in_json_has_the_files_without_their_content(sandbox: Sandbox) -> None:
    result = sandbox.run(shell("printf x >a; ln -s a b"), files_out=["a", "b"])
    link = {"state": "refused", "size": None, "mode": None, "why": "it is a symbolic link"}
    plain = {"state": "ok", "size": 1, "mode": 0o644, "why": ""}
    assert result.to_dict()["files"] == {"a": plain, "b": link}


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["/a"], "files_out: '/a': give a name relative"),
        (["a/.."], "files_out: 'a/..': give a name without"),
        (["a", FileOut("a", 1)], "files_out: 'a': it is named twice"),
        ("ab", "files_out: 'ab': give a list of names"),
        ([b"a"], "files_out: b'a': give a name or a FileOut"),
    ],
)
def test_file_that_cannot_come_out_is_refused(
    sandbox: Sandbox,
    files: Any,  # noqa: ANN401 - any is wrong
    text: str,
) -> None:
    with pytest.raises(ConfigError) as caught:
        sandbox.run(["true"], files_out=files)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("limit", [-1, True, 1.5])
def test_limit_that_is_none_is_refused(limit: Any) -> None:  # noqa: ANN401 - any is wrong
    with pytest.raises(ConfigError, match=r"^files_out: .*: max_bytes is a number"):
        FileOut("a", limit)


def test_run_in_a_sandbox_of_its_own_takes_files_in_and_out() -> None:
    result = run(["cp", "a", "b"], files_in={"a": b"x"}, files_out=["b"])
    assert result.files["b"].content == b"x"


# Kept


def test_artefact_is_kept_once_for_the_same_content() -> None:
    with ArtefactCache() as cache:
        first = cache.add(b"content")
        assert cache.add(b"content") is first
        assert cache.get(first.digest) is first
        assert cache.get("0" * 64) is None
        assert first.read() == b"content"
        stats = cache.stats()
        assert (stats.artefacts, stats.bytes_kept, stats.hits, stats.misses) == (1, 7, 2, 2)


def test_artefact_cannot_be_changed_by_anybody() -> None:
    cache = ArtefactCache()
    artefact = cache.add(b"content")
    flags = fcntl.fcntl(artefact.fileno(), fcntl.F_GETFL)
    assert flags & os.O_ACCMODE == os.O_RDONLY
    with pytest.raises(PermissionError):
        os.open(f"/proc/self/fd/{artefact.fileno()}", os.O_RDWR | os.O_TRUNC)
    seals = fcntl.fcntl(artefact.fileno(), fcntl.F_GET_SEALS)
    everything = (
        fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    )
    assert seals == everything


def test_cache_drops_what_was_not_used_for_longest() -> None:
    cache = ArtefactCache(max_bytes=10)
    one, two = cache.add(b"1111"), cache.add(b"2222")
    assert cache.get(one.digest) is one
    cache.add(b"3333")
    assert cache.get(two.digest) is None
    assert two.read() == b"2222", "it lives while it is held"
    stats = cache.stats()
    assert (stats.artefacts, stats.bytes_kept, stats.evicted) == (2, 8, 1)
    assert cache.add(b"4" * 11).size == 11, "given, and not kept"
    assert cache.stats().artefacts == 2
    assert cache.discard(one.digest)
    assert not cache.discard(one.digest)
    cache.clear()
    assert cache.stats().bytes_kept == 0


def test_artefact_that_nobody_holds_is_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    cache = ArtefactCache(max_bytes=10)
    for number in range(50):
        cache.add(b"%8d" % number)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    cache.clear()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("size", [0, -1, True, 1.5])
def test_cache_of_an_impossible_size_is_refused(size: Any) -> None:  # noqa: ANN401 - as it says
    with pytest.raises(ConfigError, match=r"^max_bytes: "):
        ArtefactCache(size)


def test_program_is_compiled_once_and_run_from_the_cache(sandbox: Sandbox) -> None:
    """Demand 14: the artefact of one run is put into another."""
    with ArtefactCache() as cache:
        built = sandbox.run(
            shell("printf '#!/bin/sh\\necho built\\n' >program; chmod +x program"),
            files_out=[FileOut("program", store=cache)],
        )
        artefact = built.files["program"].artefact
        assert isinstance(artefact, Artefact)
        result = sandbox.run(["./program"], files_in={"program": FileIn(artefact, 0o755)})
    assert result.stdout == b"built\n"


def test_truncated_file_is_not_kept(sandbox: Sandbox) -> None:
    with ArtefactCache() as cache:
        result = sandbox.run(shell("echo long >a"), files_out=[FileOut("a", 1, store=cache)])
        assert result.files["a"].artefact is None
        assert cache.stats().artefacts == 0


# Alive


def test_sandbox_that_is_alive_answers(sandbox: Sandbox) -> None:
    sandbox.start()
    keeper = sandbox.keeper_pid
    assert sandbox.ping()
    assert sandbox.keeper_pid == keeper


def test_sandbox_whose_init_has_stopped_is_dead_in_time() -> None:
    """FC7. Nobody inside can do that; a debugger outside can."""
    with Sandbox() as box:
        assert box.ping(), "nothing is there that could be dead"
        box.start()
        assert box.init_pid is not None
        os.kill(box.init_pid, signal.SIGSTOP)
        before = time.monotonic()
        assert not box.ping(timeout=0.5)
        assert time.monotonic() - before < 5
        assert box.init_pid is None
        assert box.run(["true"]).ok


@pytest.mark.parametrize("who", ["keeper", "init"])
def test_sandbox_whose_processes_are_killed_is_dead_and_starts_anew(who: str) -> None:
    with Sandbox() as box:
        box.start()
        pid = box.keeper_pid if who == "keeper" else box.init_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert not box.ping()
        assert box.run(["true"]).ok
