"""What a program leaves for whoever takes its files out. X28, X29, FJ7, M121; demands 25, 28.

Each layout is made by a program in the sandbox, and each must end as data about the run: never
in a file of the host's, never in a wait, never in an exception.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import (
    Artefact,
    ArtefactCache,
    ChildError,
    ErrorLocation,
    FileOut,
    FileState,
    Limits,
    LinkIn,
    MiB,
    Mount,
    OutFile,
    Result,
    Sandbox,
    Status,
)

pytestmark = pytest.mark.userns

PYTHON = "/usr/bin/python3"
SECRET = "what only the host has"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(wall_time=30, processes=50)) as made:
        yield made


@pytest.fixture
def unfiltered() -> Iterator[Sandbox]:
    with Sandbox(policy=None, limits=Limits(wall_time=30, processes=50)) as made:
        yield made


def python(code: str) -> list[str]:
    return [PYTHON, "-S", "-c", f"import os, socket, stat, time\n{code}"]


def left(sandbox: Sandbox, code: str, *names: str | FileOut) -> dict[str, OutFile]:
    """Let a program make a layout, and take what it has left."""
    result = sandbox.run(python(code), files_out=list(names))
    assert (result.status, result.stderr) == (Status.OK, b"")
    assert sandbox.run(["ls", "-A"]).stdout == b"", "and the next run sees nothing of it"
    return dict(result.files)


LAYOUTS = {
    "link to a file of the root": ("os.symlink('/etc/passwd', 'a')", "it is a symbolic link"),
    "link to itself": ("os.symlink('a', 'a')", "it is a symbolic link"),
    "link upwards": ("os.symlink('../' * 20 + 'etc/passwd', 'a')", "it is a symbolic link"),
    "link to nothing": ("os.symlink('/none', 'a')", "it is a symbolic link"),
    "link to a plain file": ("open('b', 'w'); os.symlink('b', 'a')", "it is a symbolic link"),
    "link to /proc/self/fd": (
        "os.symlink('/proc/self/fd/0', 'a')",
        "it is a symbolic link",
    ),
    "fifo": ("os.mkfifo('a')", "it is a fifo"),
    "socket": ("socket.socket(socket.AF_UNIX).bind('a')", "it is a socket"),
    "directory": ("os.mkdir('a')", "it is a directory"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_no_regular_file_is_refused_by_what_it_is(
    sandbox: Sandbox, layout: str
) -> None:
    code, why = LAYOUTS[layout]
    file = left(sandbox, code, "a")["a"]
    assert (file.state, file.why, file.content) == (FileState.REFUSED, why, b"")
    assert not file.ok


PARENTS = {
    "root": "os.symlink('/etc', 'd')",
    "own root by proc": "os.symlink('/proc/self/root/etc', 'd')",
    "upwards": "os.symlink('../etc', 'd')",
    "place beside": "os.mkdir('e'); open('e/passwd', 'w'); os.symlink('e', 'd')",
    "circle": "os.symlink('d', 'd')",
}


@pytest.mark.parametrize("parent", PARENTS)
def test_directory_that_is_a_link_is_not_followed(sandbox: Sandbox, parent: str) -> None:
    file = left(sandbox, PARENTS[parent], "d/passwd")["d/passwd"]
    assert file.state is FileState.REFUSED
    assert file.why == "a directory of its path is a symbolic link"
    assert file.content == b""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of the host's in which programs may write, and a secret beside it."""
    place = tmp_path / "shared"
    place.mkdir()
    for path in (tmp_path, place):
        path.chmod(0o777)
    (tmp_path / "secret").write_text(SECRET)
    return place


def on(place: Path) -> Mount:
    return Mount.bind(str(place), "/work", readonly=False, owned=os.geteuid() == 0)


def test_working_directory_that_was_replaced_by_a_link_is_not_followed(shared: Path) -> None:
    (shared / "w").mkdir(mode=0o777)
    with Sandbox(mounts=[on(shared)], limits=Limits(wall_time=30)) as box:
        box.run(python("os.rename('/work/w', '/work/x'); os.symlink('/etc', '/work/w')"))
        result = box.run(["true"], work_dir="/work/w", files_out=["passwd"])
        assert result.files["passwd"].state is FileState.REFUSED
        with pytest.raises(ChildError) as caught:
            box.run(["true"], work_dir="/work/w", files_in={"a": b""})
    assert caught.value.location is ErrorLocation.COPY_IN
    assert caught.value.errno_name == "ELOOP"


def test_file_on_which_another_sandbox_holds_a_lease_is_refused(shared: Path) -> None:
    code = """
import fcntl, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open('a', os.O_RDWR | os.O_CREAT, 0o666)
fcntl.fcntl(fd, 1024, fcntl.F_WRLCK)
os.mkdir('ready')
os.read(0, 1)
"""
    options: dict[str, Any] = {"mounts": [on(shared)], "work_dir": "/work"}
    waits, lets_go = os.pipe()
    with Sandbox(policy=None, **options) as other, Sandbox(**options) as box:
        holder = threading.Thread(
            target=other.run, args=(python(code),), kwargs={"stdin": waits}
        )
        holder.start()
        try:
            while holder.is_alive() and not (shared / "ready").exists():
                time.sleep(0.01)
            file = box.run(["true"], files_out=["a"]).files["a"]
        finally:
            os.close(lets_go)
            holder.join()
            os.close(waits)
    assert (file.state, file.why) == (FileState.REFUSED, "somebody holds a lease on it")


def test_stdout_that_another_sandbox_was_given_does_not_outlast_the_run(shared: Path) -> None:
    """Through a socket in a directory that both write to."""
    take = """
here = socket.socket(socket.AF_UNIX)
here.bind('s')
os.chmod('s', 0o777)
here.listen()
one, _ = here.accept()
_, fds, _, _ = socket.recv_fds(one, 1, 1)
one.send(b'k')
while True:
    os.write(fds[0], bytes(65536))
"""
    give = """
one = socket.socket(socket.AF_UNIX)
while one.connect_ex('s'):
    time.sleep(0.01)
socket.send_fds(one, [b'x'], [1])
one.recv(1)
time.sleep(0.2)
"""
    options: dict[str, Any] = {"mounts": [on(shared)], "work_dir": "/work"}
    taken: list[Result] = []
    with (
        Sandbox(limits=Limits(wall_time=20), **options) as other,
        Sandbox(limits=Limits(wall_time=20), **options) as box,
    ):
        thread = threading.Thread(target=lambda: taken.append(other.run(python(take))))
        thread.start()
        result = box.run(python(give), stdout=lambda _: time.sleep(0.02))
        thread.join()
    assert (result.status, taken[0].status) == (Status.OK, Status.NONZERO_EXIT)
    assert b"BrokenPipeError" in taken[0].stderr, "and not its limit of time"


class Raced(ArtefactCache):
    """One whose file grows just before it is copied."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def add(self, content: bytes | int, size: int | None = None) -> Artefact:
        os.truncate(self._path, 2**26)
        return super().add(content, size)


def test_file_that_another_lets_grow_is_kept_no_larger_than_it_was_seen(shared: Path) -> None:
    with (
        Raced(shared / "a") as cache,
        Sandbox(mounts=[on(shared)], work_dir="/work") as box,
    ):
        out = FileOut("a", max_bytes=100, store=cache)
        result = box.run(python("open('a', 'w').write('seen')"), files_out=[out])
    file = result.files["a"]
    assert isinstance(file.artefact, Artefact)
    assert (file.state, file.size, file.artefact.read()) == (FileState.OK, 4, b"seen")


def test_link_that_an_earlier_run_has_planted_is_replaced_and_not_written_through(
    shared: Path,
) -> None:
    """Where files stay, what goes in meets what programs have left."""
    (shared / "kept").write_text("kept")
    plant = """
os.symlink('kept', '/work/a')
os.link('/work/kept', '/work/b')
os.mkfifo('/work/c')
os.symlink('/work', '/work/d')
os.mkdir('/work/e')
"""
    with Sandbox(mounts=[on(shared)], work_dir="/work", limits=Limits(wall_time=30)) as box:
        assert box.run(python(plant)).ok
        files = dict.fromkeys("abc", b"new")
        assert box.run(["cat", "a", "b", "c"], files_in=files).stdout == b"newnewnew"
        assert (shared / "kept").read_text() == "kept"
        for name, errno_name in (("d/x", "ELOOP"), ("e", "EISDIR"), ("kept/x", "ENOTDIR")):
            with pytest.raises(ChildError) as caught:
                box.run(["true"], files_in={name: b"new"})
            error = caught.value
            assert (error.location, error.errno_name) == (ErrorLocation.COPY_IN, errno_name)
            assert error.subject == name
        link = {"l": LinkIn("/etc")}
        box.run(["true"], files_in=link)
        with pytest.raises(ChildError, match=r"copy_in\[0\] l/x: .*ELOOP"):
            box.run(["true"], files_in={"l/x": b"new"})


def test_file_of_the_host_that_a_program_cannot_read_is_not_read_for_it(shared: Path) -> None:
    """The keeper opens with the sandbox's own ids: what root has for itself stays so."""
    hidden = shared / "hidden"
    hidden.write_text(SECRET)
    hidden.chmod(0o600)
    mount = Mount.bind(str(shared), "/work", readonly=False)
    with Sandbox(mounts=[mount], work_dir="/work", limits=Limits(wall_time=30)) as box:
        result = box.run(["cat", "hidden"], files_out=["hidden"])
        own_ids = box.enforced["user"] is not None
    file = result.files["hidden"]
    if own_ids:
        assert (file.state, file.content) == (FileState.REFUSED, b"")
        assert file.why == "the sandbox's own ids may not read it"
    else:  # the program is the caller
        assert result.stdout == file.content == SECRET.encode()


def test_hard_link_is_what_it_is_and_none_leads_out(shared: Path) -> None:
    code = """
open('b', 'w').write('own')
os.link('b', 'a')
for source in ('/etc/passwd', '/usr/bin/env'):
    try:
        os.link(source, 'c')
    except OSError:
        pass
"""
    with Sandbox(limits=Limits(wall_time=30)) as box:
        files = left(box, code, "a", "c")
    assert (files["a"].state, files["a"].content) == (FileState.OK, b"own")
    assert files["c"].state is FileState.MISSING


def test_file_of_another_mount_is_refused(sandbox: Sandbox) -> None:
    """What is mounted below the working directory is not of it."""
    result = sandbox.run(
        ["true"], work_dir="/", files_out=["proc/version", "etc/passwd", "dev/null", "tmp/a"]
    )
    why = {name: (file.state, file.why) for name, file in result.files.items()}
    elsewhere = (FileState.REFUSED, "it is on another file system")
    assert why["proc/version"] == why["tmp/a"] == elsewhere
    assert why["dev/null"] == elsewhere
    assert why["etc/passwd"][0] in {FileState.OK, FileState.REFUSED}


def test_huge_sparse_file_costs_no_more_than_was_asked_for(sandbox: Sandbox) -> None:
    before = time.monotonic()
    file = left(sandbox, "open('a', 'w').truncate(2**46)", FileOut("a", 100))["a"]
    assert (file.state, file.size) == (FileState.TRUNCATED, 2**46)
    assert file.content == bytes(100)
    assert time.monotonic() - before < 10


def test_million_entries_and_a_deep_tree_do_not_matter_to_one_name(sandbox: Sandbox) -> None:
    """As many as fit; names are looked up and directories never read."""
    code = """
open('wanted', 'w').write('yes')
os.mkdir('d')
os.chdir('d')
try:
    for number in range(1000000):
        os.close(os.open(f'{number}', os.O_CREAT))
        if number % 1000 == 0:
            os.mkdir(f'd{number}')
            os.chdir(f'd{number}')
except OSError:
    pass
"""
    limits = Limits(wall_time=60, cpu_time=60, inodes=200_000)
    result = sandbox.run(python(code), limits=limits, files_out=["wanted"])
    assert result.files["wanted"].content == b"yes"
    assert sandbox.run(["ls", "-A"]).stdout == b""


def test_tree_that_is_deeper_than_a_path_is_refused_in_time(sandbox: Sandbox) -> None:
    code = "for _ in range(3000): os.mkdir('d'); os.chdir('d')\nopen('a', 'w')"
    name = "d/" * 2040 + "a"
    assert left(sandbox, code, name)[name].state is FileState.MISSING


@pytest.mark.parametrize("name", ["a\nb", " ", "-rf", "*", "a\\b", "\udcff", "…", "\x1b[2J"])
def test_name_of_any_bytes_is_taken_as_it_is(sandbox: Sandbox, name: str) -> None:
    code = f"open({os.fsencode(name)!r}, 'w').write('content')"
    assert left(sandbox, code, name)[name].content == b"content"
    result = sandbox.run(["ls", "-A"], files_in={name: b"x"}, files_out=[name])
    assert result.files[name].content == b"x"


def test_file_that_survivors_would_change_is_read_when_they_are_dead(
    sandbox: Sandbox,
) -> None:
    """A daemon replaces the file with a link, and back, as long as it lives."""
    code = """
open('a', 'w').write('plain')
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in (1, 2):
            os.close(fd)
        while True:
            os.symlink('/etc/passwd', 'l')
            os.rename('l', 'a')
            open('f', 'w').write('plain')
            os.rename('f', 'a')
    os._exit(0)
time.sleep(0.05)
"""
    for _ in range(20):
        file = sandbox.run(python(code), files_out=["a"]).files["a"]
        assert (file.state, file.content) in {
            (FileState.OK, b"plain"),
            (FileState.OK, b""),
            (FileState.REFUSED, b""),
        }
        assert file.why in {"", "it is a symbolic link"}


def test_file_under_a_lease_or_lock_is_read_without_waiting(unfiltered: Sandbox) -> None:
    code = """
import fcntl
fd = os.open('a', os.O_RDWR | os.O_CREAT, 0o666)
os.write(fd, b'content')
fcntl.flock(fd, fcntl.LOCK_EX)
try:
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
except OSError:
    pass
if os.fork():
    os._exit(0)
time.sleep(60)
"""
    before = time.monotonic()
    result = unfiltered.run(python(code), files_out=["a"])
    assert result.files["a"].content == b"content"
    assert time.monotonic() - before < 20


def test_file_that_is_taken_out_cannot_be_changed_by_a_later_run(sandbox: Sandbox) -> None:
    first = left(sandbox, "open('a', 'w').write('first')", "a")["a"]
    second = left(sandbox, "open('a', 'w').write('second')", "a")["a"]
    assert (first.content, second.content) == (b"first", b"second")


def test_full_place_fails_the_copy_and_not_the_sandbox() -> None:
    mounts = [Mount.tmpfs("/tmp", size=MiB, inodes=10, fresh=True)]
    with Sandbox(mounts=mounts, limits=Limits(wall_time=30)) as box:
        box.start()
        keeper = box.keeper_pid
        for files in ({"a": b"x" * 2 * MiB}, {f"{number}": b"" for number in range(20)}):
            with pytest.raises(ChildError) as caught:
                box.run(["true"], files_in=files)
            error = caught.value
            assert (error.location, error.errno_name) == (ErrorLocation.COPY_IN, "ENOSPC")
            assert box.run(["ls", "-A"]).stdout == b"", "nothing of it is left"
        assert box.keeper_pid == keeper


def test_files_of_two_sandboxes_at_once_are_each_its_own() -> None:
    """X30."""
    wrong: list[object] = []

    def work(own: bytes) -> None:
        with Sandbox(limits=Limits(wall_time=30)) as box:
            for number in range(30):
                content = own + b"%d" % number
                result = box.run(["cp", "a", "b"], files_in={"a": content}, files_out=["b"])
                if result.files["b"].content != content:
                    wrong.append(result)

    threads = [threading.Thread(target=work, args=(own,)) for own in (b"x", b"y", b"z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_of_ours_is_open_in_the_program_that_gets_files(sandbox: Sandbox) -> None:
    files = {"large": b"x" * 100_000, "small": b"x"}
    result = sandbox.run(["ls", "/proc/self/fd"], files_in=files, files_out=["small"])
    assert result.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is of ls itself
