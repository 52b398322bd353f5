"""Supervision by the filter's notices: what is granted is opened by the keeper. M72, M73.

Each call is made in a sandbox with rules and in one without: what is granted ends alike.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import runner
from runner import (
    Call,
    ConfigError,
    Limits,
    Mount,
    Runner,
    Sandbox,
    Status,
    Supervision,
    TimeOffsets,
)
from tests.kernel.path_calls import (
    CALLS,
    NUMBERS,
    PLACES,
    SMALLER,
    fill,
    use_of,
    words,
)

pytestmark = pytest.mark.userns

PYTHON = "/usr/bin/python3"
PLACE = "/place"
SYSTEM = ("/usr/", "/lib/", "/lib64/", "/bin/", "/etc/ld.so.cache", "/etc/ld.so.preload")
SYSTEM += ("/proc/self/exe", "/proc/self/status", "/raw_call", "/dev/null", "/dev/fd")


def rules(**more: Any) -> Supervision:  # noqa: ANN401
    fields: dict[str, Any] = {
        "stat": (PLACE, f"{PLACE}/*", f"{PLACE}/stat/", "/usr/", "/etc/", "/proc/self/"),
        "read": (*SYSTEM, f"{PLACE}/read/"),
        "write": (f"{PLACE}/write/", "/tmp/"),
        "ban": (f"{PLACE}/soft/",),
        "refuse": "EACCES",
        "by": "notify",
    }
    return Supervision(**(fields | more))


class Boxes(NamedTuple):
    """Two sandboxes that share a directory, with rules and without."""

    place: Path
    held: Sandbox
    free: Sandbox

    def refill(self) -> None:
        """Make its directories, named by what may be done in each, anew."""
        subprocess.run(["chmod", "-R", "u+rwx", self.place], check=True)  # made without
        for name in PLACES:
            shutil.rmtree(self.place / name, ignore_errors=True)
        fill(self.place)


@pytest.fixture
def boxes(tmp_path: Path, raw_call: str) -> Iterator[Boxes]:
    mounts = mounts_of(tmp_path, raw_call)
    with Sandbox(mounts=mounts, supervision=rules()) as held, Sandbox(mounts=mounts) as free:
        both = Boxes(tmp_path, held, free)
        both.refill()
        yield both
        both.refill()


def mounts_of(place: Path, raw_call: str) -> list[Mount]:
    return [
        Mount.bind(str(place), PLACE, readonly=False, owned=True),
        Mount.bind(raw_call, "/raw_call"),
    ]


def say(box: Sandbox, *args: str) -> str:
    result = box.run(args)
    assert result.status is Status.OK, (args, result)
    return (result.stdout + result.stderr).decode()


def raw(name: str, at: int, path: str) -> list[str]:
    return ["/raw_call", *words(name, at, path, PLACE)]


@pytest.mark.parametrize(("name", "at"), CALLS)
def test_call_with_a_path_ends_as_without_rules_or_is_refused(
    name: str, at: int, boxes: Boxes
) -> None:
    use = use_of(name, at)
    for entry in ("f", "d", "l", "new"):
        outcomes = []
        for box in (boxes.held, boxes.free):
            boxes.refill()
            outcomes.append(say(box, *raw(name, at, f"{PLACE}/{use}/{entry}")))
        assert outcomes[0] == outcomes[1], entry
        refused = raw(name, at, f"{PLACE}/{SMALLER[use]}/{entry}")
        expected = "ENOSYS\n" if name == "openat2" else "EACCES\n"  # the policy's
        assert say(boxes.held, *refused) == expected, entry


OPENS = """
import fcntl, os, stat
os.umask(0o027)
os.chdir("/place/write")
os.mkfifo("pipe")
def tell(name, flags, mode=0o666, directory=None):
    try: fd = os.open(name, flags, mode, dir_fd=directory)
    except OSError as error: print(name, flags, error.strerror); return None
    seen, end = os.fstat(fd), ""
    if stat.S_ISREG(seen.st_mode) and flags & 3 == 0 and not flags & os.O_PATH:
        end = os.read(fd, 99)
    descriptor = fcntl.fcntl(fd, fcntl.F_GETFD)
    print(name, flags, oct(seen.st_mode), seen.st_uid == os.getuid() or seen.st_uid,
          oct(fcntl.fcntl(fd, fcntl.F_GETFL)), descriptor, end, flush=True)
    return fd
for name in ("f", "l", "d", "new", "pipe", "none/x", "", "/place/read/f", "/place/read/l",
             "/dev/null", "/proc/self/status", "./../write//f", "d/../f", "/place/write"):
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC,
                  os.O_RDONLY | os.O_NOFOLLOW, os.O_PATH, os.O_PATH | os.O_NOFOLLOW,
                  os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_NONBLOCK,
                  os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_RDWR | os.O_SYNC,
                  os.O_RDONLY | 0x20000008):
        if name == "pipe" and flags & 3 != 2 and not flags & (os.O_PATH | os.O_NONBLOCK):
            continue  # it would wait for the other end
        if name.startswith(("/place/read", "/dev", "/proc")) and flags & 3:
            continue  # not granted
        if name == "/proc/self/status" and not flags & os.O_PATH:
            continue  # its text has pids
        tell(name, flags)
tell("made", os.O_WRONLY | os.O_CREAT, 0o777)
tell("kept", os.O_RDWR | os.O_CREAT, 0o4640)
tell(".", os.O_RDWR | os.O_TMPFILE, 0o600)
top = tell(".", os.O_RDONLY | os.O_DIRECTORY)
tell("f", os.O_RDONLY, directory=top)
tell("f", os.O_RDONLY, directory=999)
print(open("/dev/fd/0").read(), sorted(os.listdir("/place/write")))
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
tell("f", os.O_RDONLY)
"""


def test_open_gives_the_same_fd_as_without_rules(boxes: Boxes) -> None:
    said = []
    for box in (boxes.held, boxes.free):
        boxes.refill()
        said.append(say(box, PYTHON, "-IS", "-c", OPENS).splitlines())
    assert said[0] == said[1]
    assert len(said[0]) > 80


FLIP = """
import ctypes, os, sys, threading
c = ctypes.CDLL(None)
path = ctypes.create_string_buffer(b"/place/read/f", 64)
def flip():
    while True: path.value = b"/place/none/f"; path.value = b"/place/read/f"
threading.Thread(target=flip, daemon=True).start()
seen = {}
for _ in range(int(sys.argv[1])):
    fd = c.open(path, 0)
    text = ctypes.create_string_buffer(32)
    if fd >= 0: c.pread(fd, text, 31, 0); c.close(fd)
    seen[text.value] = seen.get(text.value, 0) + 1
    if text.value == b"of none\\n": break
print(sorted(seen), flush=True)
os._exit(0)
"""


def test_path_that_another_thread_changes_is_opened_as_it_was_judged(boxes: Boxes) -> None:
    boxes.refill()
    assert say(boxes.held, PYTHON, "-IS", "-c", FLIP, "500") == "[b'', b'of read\\n']\n"
    assert "of none" in say(boxes.free, PYTHON, "-IS", "-c", FLIP, "100000000")


SWAP = """
import os, threading
os.chdir("/place/write")
os.mkdir("real"); open("real/f", "w").write("mine")
os.symlink("/place/none", "evil")
def swap():
    while True:
        os.rename("real", "spare"); os.rename("evil", "real")
        os.rename("real", "evil"); os.rename("spare", "real")
threading.Thread(target=swap, daemon=True).start()
seen = set()
for _ in range(300):
    try: seen.add(open("real/f").read())
    except OSError: pass
print(sorted(seen), flush=True)
os._exit(0)
"""


def test_directory_that_becomes_a_symlink_leads_nowhere(boxes: Boxes) -> None:
    boxes.refill()
    assert say(boxes.held, PYTHON, "-IS", "-c", SWAP) == "['mine']\n"


STREAMS = """
import os
def tell(name, flags):
    try: os.close(os.open(name, flags)); print(name, flags, "opened")
    except OSError as error: print(name, flags, error.strerror)
given = (os.open("/place/read/f", os.O_RDONLY), os.open("/place/read/f", os.O_PATH),
         os.open("/place/write/f", os.O_WRONLY), os.open("/place/write/f", os.O_RDWR))
for fd in given:
    os.dup2(fd, 0)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        tell("/proc/self/fd/0", flags)
    try: os.truncate("/dev/fd/0", 0); print("cut")
    except OSError as error: print(error.strerror)
os.close(0)
tell("/dev/fd/0", os.O_RDONLY)
"""


@pytest.mark.parametrize("by", ["notify", "ptrace"])
def test_standard_stream_opened_anew_gives_no_right_that_its_fd_has_not(
    by: str, tmp_path: Path, raw_call: str
) -> None:
    mounts = mounts_of(tmp_path, raw_call)
    with Sandbox(mounts=mounts, supervision=rules(by=by)) as box:
        both = Boxes(tmp_path, box, box)
        both.refill()
        said = say(box, PYTHON, "-IS", "-c", STREAMS)
        text = (tmp_path / "read" / "f").read_text()
        both.refill()
    yes, no = "opened", "Permission denied"
    wanted: list[str] = []
    for outcomes, cut in (
        ((yes, no, no, no), no),
        ((no, no, no, no), no),
        ((no, yes, no, no), "cut"),
        ((yes, yes, yes, yes), "cut"),
    ):
        for flags, outcome in zip((0, 1, 2, 512), outcomes, strict=True):
            wanted.append(f"/proc/self/fd/0 {flags} {outcome}")
        wanted.append(cut)
    wanted.append("/dev/fd/0 0 Bad file descriptor")
    assert said.splitlines() == wanted
    assert text == "of read\n"


def test_keepers_rights_are_not_lent(boxes: Boxes) -> None:
    """What only root, inside or outside, may open stays closed although the rules grant it."""
    boxes.refill()
    lines = "for name in ('/etc/shadow', '/proc/1/maps', '/root', '/place/write/closed'):\n"
    lines += " try: print(open(name) and name)\n except OSError as e: print(e.strerror)\n"
    close = "open('/place/write/closed', 'x').close(); os.chmod('/place/write/closed', 0)"
    script = f"import os\n{close}\n{lines}"
    mounts = [
        Mount.bind(str(boxes.place), PLACE, readonly=False, owned=True),
        *(Mount.bind(p, optional=True) for p in ("/etc/shadow", "/root")),
    ]
    wanted = rules(stat=("/",), read=("/",), write=("/",))
    with Sandbox(mounts=mounts, supervision=wanted) as box:
        said = say(box, PYTHON, "-IS", "-c", script)
    assert set(said.splitlines()) <= {
        "Permission denied",
        "No such file or directory",
        "Is a directory",
    }
    assert said.splitlines()[-1] == "Permission denied"


def test_path_that_is_not_granted_may_end_the_run(boxes: Boxes, raw_call: str) -> None:
    wanted = rules(refuse="kill")
    with Sandbox(mounts=mounts_of(boxes.place, raw_call), supervision=wanted) as box:
        for _ in range(2):
            result = box.run(raw("openat", 0, f"{PLACE}/none/f"))
            assert (result.status, result.syscall) == (Status.DISALLOWED_SYSCALL, "openat")
            assert say(box, *raw("openat", 0, f"{PLACE}/read/f")) == "0\n"
            assert say(box, *raw("openat", 0, f"{PLACE}/soft/f")) == "EACCES\n"


def test_count_is_exact_and_of_the_whole_tree() -> None:
    line = "import os\nfor _ in range(3): os.fork() or (os.umask(0), os._exit(0)); os.wait()"
    for count, status in ((3, Status.OK), (2, Status.DISALLOWED_SYSCALL)):
        with Sandbox(supervision=Supervision(calls={"umask": count}, by="notify")) as box:
            assert box.run([PYTHON, "-IS", "-c", line]).status is status


def test_call_may_be_decided_by_the_caller(boxes: Boxes, raw_call: str) -> None:
    asked: list[Call] = []

    def decide(call: Call) -> str:
        asked.append(call)
        return {"f": "allow", "l": "ENXIO"}[call.path.removeprefix(f"{PLACE}/none/")]

    wanted = rules(refuse="ask", decide=decide)
    mounts = mounts_of(boxes.place, raw_call)
    (boxes.place / "none" / "l").unlink()
    (boxes.place / "none" / "l").write_text("")
    with Sandbox(mounts=mounts, supervision=wanted) as box:
        assert say(box, *raw("openat", 0, f"{PLACE}/none/f")) == "0\n"
        assert say(box, *raw("openat", 0, f"{PLACE}/none/l")) == "ENXIO\n"
        assert say(box, *raw("openat", 0, f"{PLACE}/read/f")) == "0\n"
        assert say(box, *raw("openat", 0, "/proc/self/mem")) == "EACCES\n"
    assert [(call.name, call.path) for call in asked] == [
        ("openat", f"{PLACE}/none/f"),
        ("openat", f"{PLACE}/none/l"),
    ]
    assert asked[0].number == NUMBERS["openat"]
    assert asked[0].args[0] & 0xFFFF_FFFF == 2**32 - 100


@pytest.mark.parametrize("verdict", ["kill", "allow", "EXDEV"])
def test_call_without_a_path_may_be_decided_by_the_caller(verdict: str, raw_call: str) -> None:
    wanted = Supervision(calls={"umask": "ask"}, by="notify", decide=lambda _call: verdict)
    mounts = [Mount.bind(raw_call, "/raw_call")]
    with Sandbox(mounts=mounts, supervision=wanted) as box:
        result = box.run(["/raw_call", str(NUMBERS["umask"]), "18"])
        if verdict == "kill":
            assert (result.status, result.syscall) == (Status.DISALLOWED_SYSCALL, "umask")
        else:
            assert result.stdout == {"allow": b"0\n", "EXDEV": b"EXDEV\n"}[verdict]


def test_exec_of_what_is_open_is_asked_about_too() -> None:
    """It has a path, which is empty."""
    line = "import os\nos.execve(os.open('/bin/true', os.O_RDONLY), ['true'], {})"
    asked: list[Call] = []

    def decide(call: Call) -> str:
        asked.append(call)
        return "EXDEV"

    with Sandbox(
        supervision=Supervision(calls={"execveat": "ask"}, by="notify", decide=decide)
    ) as box:
        result = box.run([PYTHON, "-IS", "-c", line])
    assert result.stderr.endswith(b"OSError: [Errno 18] Invalid cross-device link: 3\n")
    assert [(call.name, call.path) for call in asked] == [("execveat", "")]


def test_calls_of_many_threads_are_all_decided() -> None:
    line = (
        "import os, threading\n"
        "all = [threading.Thread(target=lambda: [os.getpriority(0, 0) for _ in range(9)])"
        " for _ in range(40)]\n"
        "[t.start() for t in all]; [t.join() for t in all]; print('all')"
    )
    count = []
    wanted = Supervision(
        calls={"getpriority": "ask"},
        by="notify",
        decide=lambda call: count.append(call.pid) or "allow",  # type: ignore[func-returns-value]
    )
    with Sandbox(supervision=wanted) as box:
        assert say(box, PYTHON, "-IS", "-c", line) == "all\n"
    assert len(count) == 360
    assert len(set(count)) > 1


def test_what_the_decision_raises_ends_the_run_and_comes_back(raw_call: str) -> None:
    error = RuntimeError("no idea")

    def decide(_call: Call) -> str:
        raise error

    wanted = Supervision(calls={"umask": "ask"}, by="notify", decide=decide)
    with Sandbox(supervision=wanted) as box:
        for _ in range(2):
            with pytest.raises(RuntimeError) as caught:
                box.run(["sh", "-c", "umask 0; sleep 60"])
            assert caught.value is error
        assert say(box, "echo", "x") == "x\n"


def test_decision_that_means_nothing_is_refused() -> None:
    wanted = Supervision(calls={"umask": "ask"}, by="notify", decide=lambda _call: "perhaps")
    with Sandbox(supervision=wanted) as box, pytest.raises(ConfigError) as caught:
        box.run(["sh", "-c", "umask 0"])
    why = 'give "allow", "kill", or an errno such as "EACCES"'
    assert str(caught.value) == f"Supervision.decide: 'perhaps': {why}"


def test_limit_holds_while_a_call_waits_for_its_decision() -> None:
    def decide(_call: Call) -> str:
        time.sleep(1)
        return "allow"

    wanted = Supervision(calls={"umask": "ask"}, by="notify", decide=decide)
    with Sandbox(supervision=wanted, limits=Limits(wall_time=0.2)) as box:
        for _ in range(2):
            result = box.run(["sh", "-c", "umask 0; echo after"])
            assert (result.status, result.stdout) == (Status.WALL_TIME_LIMIT, b"")


@pytest.mark.parametrize("by", ["ptrace", "notify"])
def test_program_may_be_stopped_and_continued(by: str) -> None:
    """As with job control: its parent is told of the stop, and it waits for the signal."""
    line = (
        "import os, signal\n"
        "child = os.fork() or os._exit(os.umask(0) and signal.pause())\n"
        "told = lambda: os.waitpid(child, os.WUNTRACED | os.WCONTINUED)[1]\n"
        "for _ in range(2):\n"
        "    os.kill(child, signal.SIGSTOP); status = told()\n"
        "    print(os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP)\n"
        "    print(open(f'/proc/{child}/stat').read().split()[2])\n"
        "    os.kill(child, signal.SIGCONT); print(os.WIFCONTINUED(told()))\n"
        "os.kill(child, 15); print(os.WTERMSIG(told()))"
    )
    with Sandbox(supervision=Supervision(calls={"umask": 9}, by=by)) as box:
        said = say(box, PYTHON, "-IS", "-c", line)
    stopped = "t" if by == "ptrace" else "T"
    assert said == f"True\n{stopped}\nTrue\n" * 2 + "15\n"


def test_policy_still_ends_what_it_ended() -> None:
    with Sandbox(supervision=Supervision(calls={"umask": 9}, by="notify")) as box:
        line = "import ctypes; ctypes.CDLL(None).syscall(500000)"
        free = Sandbox()
        with free:
            assert (
                box.run([PYTHON, "-IS", "-c", line]).status
                is free.run([PYTHON, "-IS", "-c", line]).status
            )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"calls": {"umask": "ask"}, "by": "notify"},
            "Supervision: 'ask': it needs somebody to ask: give decide, and by=\"notify\"",
        ),
        (
            {"refuse": "ask", "decide": print},
            "Supervision: 'ask': it needs somebody to ask: give decide, and by=\"notify\"",
        ),
        (
            {"by": "notify", "decide": print},
            f'Supervision.decide: {print!r}: nothing is asked: give a rule "ask"',
        ),
        ({"by": "sight"}, 'Supervision.by: \'sight\': give "ptrace" or "notify"'),
        (
            {"by": "notify", "calls": {"exit_group": 1}},
            "Supervision.calls: ['exit_group']: by notify, the start itself makes them",
        ),
    ],
)
def test_supervision_by_what_there_is_not_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Supervision(**({"calls": {"umask": 1}} | fields))
    assert str(caught.value) == message


def test_supervision_by_notify_needs_a_sandbox_whose_keeper_shares_its_fds() -> None:
    wanted = Supervision(calls={"umask": 1}, by="notify")
    with pytest.raises(ConfigError) as caught:
        runner.start(Runner(args=["/bin/true"], supervision=wanted))
    assert str(caught.value) == "Runner.supervision: 'notify': in a Sandbox alone: give ptrace"
    for extra in ({"oom_score_adj": 5}, {"time_offsets": TimeOffsets(1.0)}):
        with pytest.raises(ConfigError, match='not with supervision by "notify"'):
            Sandbox(supervision=wanted, **extra).run(["true"])  # type: ignore[arg-type]
