"""Programs that one run makes and the next executes, by their fd alone. M5, M121; demand 14."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import (
    Artefact,
    ArtefactCache,
    ArtefactDirectory,
    ChildError,
    ConfigError,
    ErrorLocation,
    FileOut,
    FileState,
    KiB,
    Limits,
    MiB,
    Rlimit,
    Sandbox,
    Status,
)

pytestmark = pytest.mark.userns

LIMITS = Limits(wall_time=20, processes=20)
SOURCE = b"""
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char buffer[100];
    long size = read(0, buffer, sizeof buffer);
    printf("%s %d %.*s", argv[0], argc, (int)size, buffer);
    return 7;
}
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=LIMITS) as made:
        yield made


def program(name: str) -> bytes:
    return Path("/usr/bin", name).resolve().read_bytes()


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_program_is_compiled_in_one_run_and_executed_in_others_without_a_copy(
    tmp_path: Path, kind: str
) -> None:
    store = ArtefactCache() if kind == "memory" else ArtefactDirectory(tmp_path / "kept")
    with store, Sandbox(policy="compiler", limits=LIMITS) as compiler:
        built = compiler.run(
            ["gcc", "-o", "program", "main.c"],
            files_in={"main.c": SOURCE},
            files_out=[FileOut("program", store=store)],
        )
        out = built.files["program"]
        assert (built.status, out.state, out.content) == (Status.OK, FileState.OK, b"")
        assert isinstance(out.artefact, Artefact)
        assert out.artefact.size == out.size
        for policy in ("strict", "default", None):
            with Sandbox(policy=policy, limits=LIMITS) as box:
                for number in (b"1", b"2"):
                    result = box.run(["any", "words"], stdin=number, exec_file=out.artefact)
                    assert (result.stdout, result.exit_code) == (b"any 2 " + number, 7)
                    assert result.stderr == b""


def test_program_by_fd_sees_no_file_of_it_and_no_other_fd(sandbox: Sandbox) -> None:
    python = Artefact(program("python3"))
    code = "import os; print(sorted(os.listdir('/proc/self/fd')), os.listdir('/tmp'))"
    result = sandbox.run(["python3", "-S", "-c", code], exec_file=python)
    assert result.stdout == b"['0', '1', '2', '3'] []\n", "3 is the listing's own"


def test_program_by_fd_and_by_path_take_turns_in_a_sandbox(sandbox: Sandbox) -> None:
    echo = Artefact(program("echo"))
    for _ in range(2):
        assert sandbox.run(["echo", "by fd"], exec_file=echo).stdout == b"by fd\n"
        assert sandbox.run(["echo", "by path"]).stdout == b"by path\n"


@pytest.mark.parametrize(
    "options",
    [
        {"policy_log": True},
        {"policy_log": "all"},
        {"measure": ["status"]},
        {"measure": ["noise"]},
        {"repeat": 3},
        {"stdout": lambda _: None},
        {"files_in": {"a": b"x"}, "files_out": ["a"]},
    ],
    ids="-".join,
)
def test_program_by_fd_goes_with_every_other_option(
    sandbox: Sandbox, options: dict[str, Any]
) -> None:
    result = sandbox.run(["true"], exec_file=Artefact(program("true")), **options)
    assert (result.status, result.exit_code) == (Status.OK, 0)


def test_file_of_the_callers_is_executed_by_its_fd(sandbox: Sandbox) -> None:
    with Path("/usr/bin/echo").open("rb") as file:
        assert sandbox.run(["echo", "x"], exec_file=file.fileno()).stdout == b"x\n"
        assert sandbox.run(["echo", "x"], exec_file=file).stdout == b"x\n"


# What a program may do to the file that it is executed from

TOUCH = """
import ctypes, os, sys
def tried(act, *args):
    try: return act(*args) or 'done'
    except OSError as error: return error.strerror
exe = '/proc/self/exe'
print(tried(os.utime, exe, (1, 1)), tried(os.setxattr, exe, 'user.a', b'left'),
      tried(os.chmod, exe, 0), tried(os.truncate, exe, 0), sep='\\n')
fd = os.open(exe, os.O_PATH)
for flags in (os.O_WRONLY, os.O_RDWR):
    try: print(os.write(os.open(f'/proc/self/fd/{fd}', flags), b'x'))
    except OSError as error: print('EXPECTED')
"""
LOOK = """
import os
found = os.stat('/proc/self/exe')
print(oct(found.st_mode), found.st_mtime_ns, found.st_ctime_ns, os.listxattr('/proc/self/exe'))
"""


def test_program_leaves_nothing_at_the_artefact_for_the_next() -> None:
    """Of another uid it may set nothing; of our own it can, and the next has another file."""
    content = program("python3")
    python = Artefact(content)
    with Sandbox(policy=None, limits=LIMITS) as one, Sandbox(limits=LIMITS) as other:
        before = one.run(["python3", "-S", "-c", LOOK], exec_file=python)
        touched = one.run(["python3", "-S", "-c", TOUCH], exec_file=python)
        assert touched.stderr == b""
        assert touched.stdout.splitlines()[-2:] == [b"EXPECTED"] * 2, "nobody can write to it"
        assert b"done" not in touched.stdout or one.enforced["user"] is None
        for box in (one, other):
            after = box.run(["python3", "-S", "-c", LOOK], exec_file=python)
            assert after.exit_code == 0
            if one.enforced["user"] is None:  # its times are those of a new file
                assert after.stdout.split()[0] == before.stdout.split()[0] == b"0o100555"
                assert after.stdout.split()[3:] == before.stdout.split()[3:] == [b"[]"]
                assert int(after.stdout.split()[1]) >= int(before.stdout.split()[1])
            else:
                assert after.stdout == before.stdout
    assert python.read() == content


def test_artefact_is_executed_by_many_at_once_while_its_cache_drops_it() -> None:
    with ArtefactCache(max_bytes=MiB) as cache, Sandbox(limits=LIMITS) as box:
        sleep = cache.add(program("sleep"))
        cache.clear()
        results = [box.run(["sleep", "0"], exec_file=sleep) for _ in range(3)]
    assert [result.status for result in results] == [Status.OK] * 3


# What cannot be


def failure(sandbox: Sandbox, content: bytes) -> tuple[ErrorLocation, int | None, str]:
    """Say how the start of an artefact fails; the exception, which holds it, is gone then."""
    try:
        sandbox.run(["x"], exec_file=Artefact(content))
    except ChildError as error:
        return error.location, error.errno, error.hint or ""
    raise AssertionError(content)


def test_script_is_refused_with_what_to_do_instead(sandbox: Sandbox) -> None:
    with pytest.raises(
        ConfigError, match=r"^exec_file: .*: a script, .* put it in by files_in"
    ):
        sandbox.run(["x"], exec_file=Artefact(b"#!/bin/sh\nexit 0\n"))


@pytest.mark.parametrize(
    ("what", "why"),
    [(True, "give an fd or"), ("path", "give an fd or"), (999, "999: not an open file")],
)
def test_exec_file_that_is_none_is_refused(
    sandbox: Sandbox,
    what: Any,  # noqa: ANN401 - any is wrong
    why: str,
) -> None:
    with pytest.raises(ConfigError, match=f"^exec_file: .*{why}"):
        sandbox.run(["x"], exec_file=what)


def test_exec_file_that_is_a_pipe_is_refused(sandbox: Sandbox) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(ConfigError, match=f"^exec_file: {reading}: not a regular file"):
            sandbox.run(["x"], exec_file=reading)
    finally:
        os.close(reading)
        os.close(writing)


def test_artefact_that_is_no_program_is_the_programs_failure(sandbox: Sandbox) -> None:
    sandbox.start()
    keeper = sandbox.keeper_pid
    assert failure(sandbox, b"text")[:2] == (ErrorLocation.EXECVE, errno.ENOEXEC)
    assert sandbox.run(["true"]).ok
    assert sandbox.keeper_pid == keeper, "it is the same sandbox"


def test_program_by_fd_whose_loader_is_missing_says_so(tmp_path: Path) -> None:
    path = tmp_path / "dynamic"
    code = b"int main(void) { return 0; }"
    loader = "-Wl,--dynamic-linker=/no/such/loader"
    command = ["gcc", "-x", "c", "-", loader, "-o", str(path)]
    subprocess.run(command, input=code, check=True)
    with Sandbox(limits=LIMITS) as box:
        location, number, hint = failure(box, path.read_bytes())
    assert (location, number) == (ErrorLocation.EXECVE, errno.ENOENT)
    assert "its loader does not" in hint


@pytest.mark.parametrize("resource", ["AS", "DATA"])
def test_program_by_fd_too_large_to_be_loaded_is_memory_limit(
    tmp_path: Path, resource: str
) -> None:
    path = tmp_path / "large"
    code = b"char a[1 << 30]; int main(void) { return 0; }"
    subprocess.run(["gcc", "-x", "c", "-", "-o", str(path)], input=code, check=True)
    limits = Limits(wall_time=20, rlimits=(Rlimit.named(resource, 256 * MiB),))
    with Sandbox(limits=limits) as box:
        result = box.run(["x"], exec_file=Artefact(path.read_bytes()))
    assert (result.status, result.limit) == (Status.MEMORY_LIMIT, "rlimits")


@pytest.mark.parametrize("store", ["memory", "disk"])
def test_file_that_is_kept_is_taken_whole_or_not_at_all(
    sandbox: Sandbox, tmp_path: Path, store: str
) -> None:
    kept = ArtefactCache() if store == "memory" else ArtefactDirectory(tmp_path / "kept")
    with kept:
        code = ["sh", "-c", "printf 0123456789 >a; ln -s a b"]
        for limit, state in ((10, FileState.OK), (9, FileState.TRUNCATED)):
            files = [FileOut("a", limit, store=kept), FileOut("b", store=kept)]
            out = sandbox.run(code, files_out=files).files
            assert (out["a"].state, out["b"].state) == (state, FileState.REFUSED)
            assert out["a"].content == (b"" if state is FileState.OK else b"012345678")
            assert (out["a"].artefact is not None, out["b"].artefact) == (
                state is FileState.OK,
                None,
            )
        assert kept.stats().artefacts == 1


FULL = f"""
import sys
from runner import ArtefactDirectory, HostError
with ArtefactDirectory(sys.argv[1] + "/kept") as kept:
    kept.add(b"small")
    try:
        kept.add(b"x" * {256 * KiB})
    except HostError as error:
        print(error, error.hint, kept.stats().artefacts, sep="; ")
    print(kept.get(kept.add(b"small").digest).read())
"""


def test_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=64k full {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    command = ["unshare", "-Urm", "sh", "-c", mount, sys.executable, FULL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    why = f"the file system of {tmp_path}/kept is full"
    hint = "make room there, or keep less by max_bytes"
    assert (done.stdout, done.stderr) == (f"{why}; {hint}; 1\nb'small'\n", "")
