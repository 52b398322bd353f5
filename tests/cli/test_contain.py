"""`run-sandboxed contain`: C1–C14, C26, C28, M113, T25–T27."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Start = Callable[..., subprocess.Popen[bytes]]
Command = Callable[..., subprocess.CompletedProcess[bytes]]

pytestmark = pytest.mark.userns

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
PROGRAMS = ("sh", "cat", "env", "id", "ls", "readlink", "sleep", "stty", "touch", "tty")
OWN = ("dev", "proc", "sys")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a root directory with a few programs and their libraries, but none of OWN."""
    root = tmp_path_factory.mktemp("root")
    for name in PROGRAMS:
        path = shutil.which(name, path="/usr/bin:/bin")
        assert path is not None
        listed = subprocess.run(
            ["ldd", path], capture_output=True, text=True, check=True
        ).stdout
        _copy(path, root / "bin" / name)
        for library in re.findall(r"(/\S+) \(0x", listed):
            _copy(library, root / library[1:])
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o777)
    (root / "link").symlink_to("bin/sh")
    root.chmod(0o755)
    return root


def _copy(path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


@pytest.fixture
def tree(programs: Path, tmp_path: Path) -> Path:
    """Give a root directory of the test's own, with the directories that contain wants."""
    root = tmp_path / "tree"
    shutil.copytree(programs, root, symlinks=True)
    for name in OWN:
        (root / name).mkdir()
    return root


@pytest.fixture
def bare(programs: Path, tmp_path: Path) -> Path:
    """Give one without them."""
    root = tmp_path / "bare"
    shutil.copytree(programs, root, symlinks=True)
    return root


def said(done: subprocess.CompletedProcess[bytes], status: int = 1) -> str:
    """Give what it wrote to stderr, with nothing on stdout."""
    assert (done.returncode, done.stdout) == (status, b"")
    return done.stderr.decode()


def lines_of(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def listing(root: Path) -> list[tuple[str, int, int]]:
    """Give all that is in a directory, and how it is."""
    found = []
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        found.append((str(path), status.st_mode, status.st_mtime_ns))
    return found


# The command line: C1, C2


@pytest.mark.parametrize("words", [[], ["-c"], ["-z", "/"], ["-i"], ["--no-such", "/"]])
def test_usage_error_has_status_64(words: list[str], command: Command) -> None:
    refused = said(command("contain", *words), 64)
    usage = "[-c] [-g MAP] [-i CMD] [-n] [-o CMD] [-u MAP] [--name NAME] DIR [COMMAND [ARG...]]"
    assert f"usage: run-sandboxed contain {usage}\n" in refused


def test_directory_that_is_not_there_is_refused(command: Command) -> None:
    for path, why in (
        ("/no/such", "No such file or directory"),
        ("/etc/passwd", "it is no directory"),
        ("", "it is no directory"),
    ):
        refused = said(command("contain", "-c", path))
        assert refused == f"run-sandboxed: contain: {path!r}: {why}\n"


def test_directory_that_the_caller_may_not_search_is_refused(
    tmp_path: Path, command: Command
) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs a plain user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    refused = said(command("contain", "-c", str(closed)))
    assert refused == f"run-sandboxed: contain: '{closed}/dev': Permission denied\n"


def test_output_that_cannot_be_written_is_said(start: Start) -> None:
    words = ("contain", "/", "/bin/echo", "x")
    with open("/dev/full", "wb") as full, start(*words, stdout=full) as process:
        _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == b"run-sandboxed: contain: No space left on device\n"


def test_command_is_by_default_the_shell(tree: Path, command: Command) -> None:
    done = command("contain", "-c", str(tree), data=b"echo $0; exit 3\n")
    assert (done.returncode, done.stdout) == (3, b"/bin/sh\n")


def test_maps_are_those_of_pseudo(tree: Path, command: Command) -> None:
    words = ("-u", f"0:{os.geteuid()}:1", "-g", f"0:{os.getegid()}:1")
    shown = lines_of(
        command("contain", "-c", *words, str(tree), "/bin/cat", "/proc/self/uid_map")
    )
    assert shown[0].split() == ["0", str(os.geteuid()), "1"]
    assert "Invalid ID map" in said(command("contain", "-c", "-u", "x", str(tree)))


# Namespaces and ids: C3, C8, C26


@pytest.mark.parametrize("options", [(), ("-n",)])
def test_namespaces_are_all_its_own_but_the_network_with_n(
    options: tuple[str, ...], tree: Path, command: Command
) -> None:
    script = f"cd /proc/self/ns; readlink {' '.join(KINDS)}; ls /sys"
    shown = lines_of(command("contain", "-c", *options, str(tree), "/bin/sh", "-c", script))
    inside, sys = shown[: len(KINDS)], shown[len(KINDS) :]
    own = [os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS]
    shared = [kind for kind, a, b in zip(KINDS, inside, own, strict=True) if a == b]
    assert shared == (["net"] if options else [])
    # sysfs belongs to the network.
    assert ("kernel" in sys) == (not options)


def test_clocks_have_no_offsets(tree: Path, command: Command) -> None:
    done = command("contain", "-c", str(tree), "/bin/cat", "/proc/self/timens_offsets")
    assert [line.split()[1:] for line in lines_of(done)] == 2 * [["0", "0"]]


# With our terminal there is a filter: it cannot type into that. tests/cli/test_inject.py tries.
@pytest.mark.parametrize(
    ("option", "filtered"), [((), "0"), (("-c",), "1")], ids=["console", "-c"]
)
def test_command_is_root_with_all_capabilities(
    option: tuple[str, ...], filtered: str, tree: Path, command: Command
) -> None:
    done = command("contain", *option, str(tree), "/bin/cat", "/proc/self/status")
    status = dict(line.split(":", 1) for line in lines_of(done))
    assert status["Uid"].split() == status["Gid"].split() == 4 * ["0"]
    assert status["NoNewPrivs"].strip() == filtered
    assert status["Seccomp_filters"].strip() == filtered
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert int(status["CapEff"], 16) == (1 << (last + 1)) - 1


def test_root_inside_makes_files_of_its_own(tree: Path, command: Command) -> None:
    assert command("contain", "-c", str(tree), "/bin/touch", "/tmp/made").returncode == 0
    with open("/proc/self/uid_map") as file:
        top = max(int(line.split()[0]) + int(line.split()[2]) - 1 for line in file)
    assert (tree / "tmp" / "made").stat().st_uid == (os.geteuid() or top)


# Helper programs: C4–C7, T25, M113


def test_helper_outside_has_the_callers_place_and_sees_the_namespaces(
    place: Path, tree: Path, command: Command, environment: dict[str, str]
) -> None:
    environment["MARK"] = "mine"
    script = "id -u; pwd; echo $MARK; cat /proc/$SANDBOX_PID/uid_map; touch outside; "
    script += "cd /proc/self/ns; readlink mnt net user"
    done = command("contain", "-c", "-o", script, str(tree), "/bin/ls", "/")
    shown = lines_of(done)
    assert shown[:3] == [str(os.geteuid()), str(place), "mine"]
    assert shown[3].split()[0] == "0"
    rest = shown[shown.index(os.readlink("/proc/self/ns/mnt")) :]
    assert rest[:3] == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net", "user")]
    assert rest[3:] == sorted(path.name for path in tree.iterdir())
    assert (place / "outside").exists()


def test_helper_inside_mounts_in_the_new_root(tree: Path, command: Command) -> None:
    script = "id -u; ls; mount -t tmpfs none tmp && touch tmp/mark; test -e /etc/passwd && pwd"
    shown = lines_of(command("contain", "-c", "-i", script, str(tree), "/bin/ls", "/tmp"))
    names = sorted(path.name for path in tree.iterdir())
    assert shown[:-1] == ["0", *names, shown[-2]]
    assert shown[-1] == "mark"
    assert list((tree / "tmp").iterdir()) == []


@pytest.mark.parametrize("option", ["-i", "-o"])
@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_helper_that_fails_aborts_with_its_status(
    option: str, script: str, status: int, tree: Path, command: Command
) -> None:
    words = (option, script, str(tree), "/bin/sh", "-c", "echo started")
    assert "hook[0] sh: " in said(command("contain", "-c", *words), status)


# The root directory: C9, C10, C28, T27


def test_root_is_the_directory_and_writable(tree: Path, command: Command) -> None:
    words = (str(tree), "/bin/sh", "-c", "ls /; touch /new /tmp/new")
    # The caller's own ids: to root's default, the directory is another's.
    own = ("-u", f"0:{os.geteuid()}:1", "-g", f"0:{os.getegid()}:1")
    before = sorted(path.name for path in tree.iterdir())
    assert lines_of(command("contain", "-c", *own, *words)) == before
    assert (tree / "new").exists()
    assert (tree / "tmp" / "new").exists()


@pytest.mark.parametrize("console", [True, False])
def test_devices_are_few_and_the_console_is_the_terminal(
    console: bool,
    tree: Path,
    command: Command,
) -> None:
    options = () if console else ("-c",)
    shown = lines_of(command("contain", *options, str(tree), "/bin/ls", "/dev"))
    wanted = {"full", "null", "random", "tty", "urandom", "zero", "ptmx", "pts", "shm"}
    wanted |= {"fd", "stdin", "stdout", "stderr"}
    wanted |= {"console"} if console else set()
    assert {word for line in shown for word in line.split()} - {"core"} == wanted


def test_mounts_are_private_and_the_old_root_has_gone(tree: Path, command: Command) -> None:
    done = command("contain", "-c", str(tree), "/bin/cat", "/proc/self/mountinfo")
    mounts = [line.split() for line in lines_of(done)]
    places = {words[4] for words in mounts}
    assert {"/", "/dev", "/dev/pts", "/proc", "/sys"} <= places
    assert not [place for place in places if "old-root" in place or "stage" in place]
    # Optional fields end at the hyphen: shared:N, master:N.
    assert {words[6] for words in mounts} == {"-"}


def test_nothing_is_made_in_the_directory(tree: Path, bare: Path, command: Command) -> None:
    for root in (tree, bare):
        before = listing(root)
        assert command("contain", "-c", str(root), "/bin/ls", "/dev").returncode == 0
        assert listing(root) == before


def test_directory_without_places_is_shown_by_its_entries(bare: Path, command: Command) -> None:
    script = "ls /; readlink /link; cd /proc/1 && touch /tmp/kept; touch /lost"
    own = ("-u", f"0:{os.geteuid()}:1", "-g", f"0:{os.getegid()}:1")
    done = command("contain", "-c", *own, str(bare), "/bin/sh", "-c", script)
    names = sorted([path.name for path in bare.iterdir()] + list(OWN))
    assert lines_of(done) == [*names, "bin/sh"]
    assert done.stderr.decode() == (
        f"run-sandboxed: contain: note: {bare} has no dev, proc, sys: what is made in the root "
        "directory itself is lost\n"
    )
    assert (bare / "tmp" / "kept").exists()
    assert not (bare / "lost").exists()


def test_directory_without_places_is_refused_to_a_helper_inside(
    bare: Path, command: Command
) -> None:
    (bare / "dev").mkdir()
    words = ("-i", "exit 7", str(bare))
    assert "for -i it needs what it lacks: mkdir proc sys in it" in said(
        command("contain", "-c", *words)
    )
    assert "mkdir proc in it" in said(command("contain", "-c", "-n", *words))


# The command: C11, C13


def test_environment_is_one_variable(tree: Path, command: Command) -> None:
    assert lines_of(command("contain", "-c", str(tree), "/bin/env")) == ["container=contain"]


def test_command_is_not_looked_up(tree: Path, command: Command) -> None:
    for options in ((), ("-c",)):
        refused = said(command("contain", *options, str(tree), "ls"))
        assert "contain: execve ls: No such file or directory (ENOENT)" in refused


@pytest.mark.parametrize("options", [(), ("-c",)])
@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_exit_status_is_the_commands(
    script: str, status: int, options: tuple[str, ...], tree: Path, command: Command
) -> None:
    done = command("contain", *options, str(tree), "/bin/sh", "-c", script)
    assert done.returncode == status


@pytest.mark.parametrize("options", [(), ("-c",)])
def test_end_of_ours_ends_the_container(
    options: tuple[str, ...], tree: Path, start: Start
) -> None:
    script = "echo ready; sleep 60 & exec sleep 61"
    with start("contain", *options, str(tree), "/bin/sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"ready"
        inside = _below(process.pid)
        process.kill()
    deadline = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{pid}") for pid in inside):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _below(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [p for child in map(int, children) for p in (child, *_below(child))]


# The console: C12


def test_console_is_a_terminal_of_its_own_session(tree: Path, command: Command) -> None:
    script = "tty; cat /proc/self/stat; stty -a"
    terminal, stat, *modes = lines_of(command("contain", str(tree), "/bin/sh", "-c", script))
    assert terminal == "/dev/console"
    # The session is that of the command, whose pid is the first after init's.
    assert stat.split()[5] == "2"
    words = " ".join(modes).replace(";", " ").split()
    assert {"ignbrk", "iutf8", "icanon", "echo"} <= set(words)


def test_without_console_it_is_in_our_session(tree: Path, command: Command) -> None:
    done = command("contain", "-c", str(tree), "/bin/cat", "/proc/self/stat")
    assert done.stdout.split()[5] == b"0"  # one that is not in its pid namespace


def test_console_gives_all_output_of_what_is_piped_in(tree: Path, command: Command) -> None:
    script = "read word; i=0; while [ $i -lt 20000 ]; do echo $word $i; i=$((i+1)); done"
    done = command("contain", str(tree), "/bin/sh", "-c", script, data=b"row\n")
    # The terminal echoes what it is given, and ends lines as terminals do.
    shown = done.stdout.decode().split("\r\n")
    assert [line for line in shown if line.startswith("row ")] == [
        f"row {i}" for i in range(20000)
    ]


def test_console_that_nobody_reads_ends_the_container(tree: Path, start: Start) -> None:
    with start("contain", str(tree), "/bin/sh", "-c", "while echo row; do :; done") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        assert process.wait(20) == 128 + signal.SIGPIPE


def test_closed_streams_are_the_null_device(tree: Path, command: Command) -> None:
    prefix = ("sh", "-c", 'exec "$@" <&- >&-', "sh")
    done = command("contain", "-c", str(tree), "/bin/sh", "-c", "cat; echo x", prefix=prefix)
    assert (done.returncode, done.stderr) == (0, b"")


@contextmanager
def in_terminal(
    start: Start, *words: str
) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Start it in a terminal; give the process, and both of the terminal's ends."""
    master, slave = pty.openpty()
    try:
        with start(*words, stdin=slave, stdout=slave, stderr=slave) as process:
            try:
                yield process, master, slave
            finally:
                process.kill()
    finally:
        os.close(master)
        os.close(slave)


def read_until(fd: int, text: bytes) -> bytes:
    got = b""
    while text not in got:
        got += os.read(fd, 1000)
    return got


def test_our_terminal_is_raw_meanwhile_and_then_restored(tree: Path, start: Start) -> None:
    words = ("contain", str(tree), "/bin/sh", "-c", "echo ready; read x; exit 5")
    with in_terminal(start, *words) as (process, master, slave):
        read_until(master, b"ready")
        assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ISIG)
        os.write(master, b"x\r")
        assert process.wait(20) == 5
        assert termios.tcgetattr(slave)[3] & termios.ICANON


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_that_ends_us_restores_the_terminal(
    number: int, tree: Path, start: Start
) -> None:
    words = ("contain", str(tree), "/bin/sh", "-c", "echo ready; sleep 60")
    with in_terminal(start, *words) as (process, master, slave):
        read_until(master, b"ready")
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        assert termios.tcgetattr(slave)[3] & termios.ICANON


def test_size_follows_our_terminals(tree: Path, start: Start) -> None:
    script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done"
    with in_terminal(start, "contain", str(tree), "/bin/sh", "-c", script) as (
        process,
        master,
        _,
    ):
        read_until(master, b"\r\n")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 77, 0, 0))
        process.send_signal(signal.SIGWINCH)  # we are not in the terminal's foreground
        assert b"44 77" in read_until(master, b"44 77")
        assert process.wait(20) == 0


# With inject: C21


def test_inject_by_name_enters_the_container(
    tree: Path, start: Start, command: Command
) -> None:
    words = ("contain", "-c", "--name=box", str(tree), "/bin/sh", "-c", "echo; exec sleep 60")
    with start(*words) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        script = "ls /; cat /proc/self/uid_map /proc/2/cmdline"
        done = command("inject", "box", "/bin/sh", "-c", script)
        process.kill()
    names = sorted(path.name for path in tree.iterdir())
    shown = lines_of(done)
    assert shown[: len(names)] == names
    assert shown[-1] == "sleep\x0060\x00"
