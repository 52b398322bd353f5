"""`run-sandboxed pseudo`: C15–C20, C24, C25, M20–M23."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cli.subcommand import find

Start = Callable[..., subprocess.Popen[bytes]]
Command = Callable[..., subprocess.CompletedProcess[bytes]]

pytestmark = pytest.mark.userns

TOP = 2**32 - 2
# The caller's own ids, who may enter its directories.
OWN = ("-u", f"0:{os.geteuid()}:1", "-g", f"0:{os.getegid()}:1")
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def lines_of(done: subprocess.CompletedProcess[bytes]) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.decode().splitlines()]


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Give what it wrote to stderr, with nothing on stdout and status 1."""
    assert (done.returncode, done.stdout) == (1, b"")
    return done.stderr.decode()


def top_of(path: str) -> int:
    """Give the highest id of our own user namespace."""
    with open(path) as file:
        return max(int(line.split()[0]) + int(line.split()[2]) - 1 for line in file)


# Ids: C16, C17, C18, C20


def test_pseudo_is_root_and_the_rest_of_the_caller_is_kept(command: Command) -> None:
    script = f"id -u; id -g; cd /proc/self/ns; readlink {' '.join(KINDS)}"
    uid, gid, *inside = lines_of(command("pseudo", "sh", "-c", script))
    assert (uid, gid) == (["0"], ["0"])
    own = [[os.readlink(f"/proc/self/ns/{kind}")] for kind in KINDS]
    assert [kind for kind, a, b in zip(KINDS, inside, own, strict=True) if a != b] == ["user"]


@pytest.mark.root
@pytest.mark.parametrize("kind", ["uid_map", "gid_map"])
def test_default_map_of_root_makes_it_the_highest_id(kind: str, command: Command) -> None:
    top = top_of(f"/proc/self/{kind}")
    first, *others = lines_of(command("pseudo", "cat", f"/proc/self/{kind}"))
    assert first == ["0", str(top), "1"]
    if top == TOP:
        assert others == [["1", "1", str(TOP - 1)]]


@pytest.mark.root
def test_root_inside_is_nobody_outside(place: Path, command: Command) -> None:
    assert command("pseudo", "touch", "file").returncode == 0
    status = (place / "file").stat()
    assert (status.st_uid, status.st_gid) == (
        top_of("/proc/self/uid_map"),
        top_of("/proc/self/gid_map"),
    )


def test_default_map_of_a_root_with_but_one_id_is_that_id(command: Command) -> None:
    script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g"
    done = command("pseudo", "sh", "-c", script, prefix=("unshare", "-r"))
    assert lines_of(done) == [["0", "0", "1"], ["0", "0", "1"], ["0"], ["0"]]


def test_default_map_of_a_user_is_its_own_id(place: Path, command: Command) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs a plain user")
    script = "cat /proc/self/uid_map /proc/self/gid_map; touch file"
    uids, gids = lines_of(command("pseudo", "sh", "-c", script))
    assert uids == ["0", str(os.getuid()), "1"]
    assert gids == ["0", str(os.getgid()), "1"]
    assert (place / "file").stat().st_uid == os.getuid()


@pytest.mark.root
def test_setgroups_is_allowed_to_root_and_its_groups_are_dropped(command: Command) -> None:
    script = "cat /proc/self/setgroups; id -G"
    prefix = ("setpriv", "--groups=0,5")
    assert lines_of(command("pseudo", "sh", "-c", script, prefix=prefix)) == [["allow"], ["0"]]


def test_setgroups_is_denied_to_a_user(command: Command) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs a plain user")
    assert lines_of(command("pseudo", "cat", "/proc/self/setgroups")) == [["deny"]]


def delegating(path: Path, ranges: str) -> tuple[str, ...]:
    """Give what runs a command as uid 65534, with such ranges in subuid(5) and subgid(5)."""
    path.chmod(0o755)
    (path / "subid").write_text(ranges)
    script = (
        f"mount --bind {path}/subid /etc/subuid && mount --bind {path}/subid /etc/subgid && "
        'exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
    )
    return ("unshare", "-m", "sh", "-c", script, "sh")


@pytest.mark.root
def test_default_map_of_a_user_goes_on_with_what_is_delegated(
    place: Path, command: Command
) -> None:
    prefix = delegating(place, "nobody:300000:1000\n65534:400000:5\nother:1:99\n")
    script = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -G"
    shown = lines_of(command("pseudo", "sh", "-c", script, prefix=prefix))
    maps = [["0", "65534", "1"], ["1", "300000", "1000"], ["1001", "400000", "5"]]
    assert shown == [*maps, *maps, ["allow"], ["0"]]


@pytest.mark.root
def test_name_in_the_environment_gives_nobody_another_users_ids(
    place: Path, command: Command, environment: dict[str, str]
) -> None:
    prefix = delegating(place, "root:1:99\nnobody:300000:7\n")
    environment |= {"USER": "root", "LOGNAME": "root"}
    shown = lines_of(command("pseudo", "cat", "/proc/self/uid_map", prefix=prefix))
    assert shown == [["0", "65534", "1"], ["1", "300000", "7"]]


@pytest.mark.root
def test_map_onto_what_is_delegated_in_part_is_refused(place: Path, command: Command) -> None:
    prefix = delegating(place, "nobody:300000:1000\n")
    words = ("-u", "0:65534:1,1:300000:1000", "-g", "0:65534:1;5:300999:2")
    refused = said(command("pseudo", *words, "true", prefix=prefix))
    assert refused.startswith(
        "run-sandboxed: pseudo: Cannot map onto IDs that are not delegated to you: "
        "-g: '5:300999:2': 301000 is not delegated to you: "
    )


def test_map_onto_another_users_id_is_refused(command: Command) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs a plain user")
    refused = said(command("pseudo", "-u", "0:0:1", "true"))
    assert "Cannot map onto IDs that are not delegated to you: -u: '0:0:1': 0 is not" in refused


# The syntax of maps: C15


@pytest.mark.root
@pytest.mark.parametrize("text", ["0:7:1,2:9:3", "0:7:1;2:9:3"])
def test_maps_are_written_as_they_are_given(text: str, command: Command) -> None:
    script = "cat /proc/self/uid_map /proc/self/gid_map; id -u"
    shown = lines_of(command("pseudo", "-u", text, "-g", "0:5:1", "sh", "-c", script))
    assert shown == [["0", "7", "1"], ["2", "9", "3"], ["0", "5", "1"], ["0"]]


@pytest.mark.parametrize("option", ["-g", "-u"])
@pytest.mark.parametrize(
    "text", ["", "0", "0:1", "0:1:2:3", "a:1:1", "-1:1:1", "0:1:0", "0:1:1,", "0:1:1 1:2:1"]
)
def test_map_that_is_none_is_refused(option: str, text: str, command: Command) -> None:
    assert "Invalid ID map" in said(command("pseudo", option, text, "true"))


@pytest.mark.root
def test_map_without_root_leaves_the_callers_ids_as_they_are(command: Command) -> None:
    shown = lines_of(
        command("pseudo", "-u", "5:0:1", "-g", "6:0:1", "sh", "-c", "id -u; id -g")
    )
    assert shown == [["5"], ["6"]]


# The command: C25


def test_command_is_by_default_the_callers_shell(
    place: Path, command: Command, environment: dict[str, str]
) -> None:
    shell = place / "shell"
    shell.write_text("#!/bin/sh\necho mine\n")
    shell.chmod(0o755)
    environment["SHELL"] = str(shell)
    assert command("pseudo", *OWN).stdout == b"mine\n"
    del environment["SHELL"]
    assert command("pseudo", data=b"echo $0\n").stdout == b"/bin/sh\n"


def test_command_is_looked_up_in_path_and_has_our_environment(
    place: Path, command: Command, environment: dict[str, str]
) -> None:
    program = place / "program"
    program.write_text('#!/bin/sh\necho "$0 $MARK $PWD"\n')
    program.chmod(0o755)
    environment |= {"PATH": f"{place}:/usr/bin:/bin", "MARK": "7"}
    done = command("pseudo", *OWN, "program")
    assert done.stdout.decode() == f"{place}/program 7 {place}\n"


def test_command_that_is_not_there_is_told(command: Command) -> None:
    refused = said(command("pseudo", "/no/such/program"))
    assert "pseudo: execve /no/such/program: No such file or directory (ENOENT)" in refused


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -INT $$", 130)]
)
def test_exit_status_is_the_commands(script: str, status: int, command: Command) -> None:
    assert command("pseudo", "sh", "-c", script).returncode == status


@pytest.mark.parametrize("words", [["-x"], ["-u"], ["--no-such"]])
def test_usage_error_has_status_64(words: list[str], command: Command) -> None:
    done = command("pseudo", *words)
    assert done.returncode == 64
    assert b"usage: run-sandboxed pseudo [-g MAP] [-u MAP] [COMMAND [ARG...]]" in done.stderr


def test_options_end_at_the_command(command: Command) -> None:
    assert command("pseudo", "echo", "-u", "-x").stdout == b"-u -x\n"
    assert command("pseudo", "--", "echo", "a").stdout == b"a\n"


def test_command_is_in_our_session(command: Command) -> None:
    (shown,) = lines_of(command("pseudo", "cut", "-d", " ", "-f", "6", "/proc/self/stat"))
    assert shown == [str(os.getsid(0))]


def test_interrupt_from_the_terminal_is_for_the_command_alone(start: Start) -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    with start("pseudo", "sh", "-c", script, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all in the foreground
        assert process.stdout.read() == b"caught\n"
    assert process.returncode == 5


def test_signals_that_our_caller_ignores_are_ignored(command: Command) -> None:
    script = "grep SigIgn /proc/self/status"
    done = command("pseudo", "sh", "-c", script, prefix=("nohup",), stdin=subprocess.DEVNULL)
    mask = int(done.stdout.split()[1], 16)
    assert mask == 1 << (signal.SIGHUP - 1)


def test_end_of_ours_ends_the_command(start: Start) -> None:
    with start("pseudo", "sh", "-c", "echo $$; exec sleep 60") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        ended = os.pidfd_open(pid)
        process.kill()
        assert process.stdout.read() == b""
    os.close(ended)


# The word itself


def test_program_of_the_same_name_is_run_after_two_dashes(
    place: Path, command: Command
) -> None:
    program = place / "pseudo"
    program.write_text("#!/bin/sh\necho mine $1\n")
    program.chmod(0o755)
    assert command("-q", "--", "./pseudo", "-x").stdout == b"mine -x\n"
    assert (
        command("-q", "-E", f"PATH={place}:/bin", "--", "pseudo", "-x").stdout == b"mine -x\n"
    )


@pytest.mark.parametrize("name", ["contain", "inject", "pseudo"])
def test_help_lists_the_options(name: str, command: Command) -> None:
    done = command(name, "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    options = {f"-{letter}" for letter in find(name).letters if letter != ":"}
    assert {line.split()[0] for line in lines if line.startswith("  -")} >= options
    assert max(map(len, lines)) <= 96


def test_plain_run_imports_none_of_them(command: Command, environment: dict[str, str]) -> None:
    environment["PYTHONPROFILEIMPORTTIME"] = "1"
    lines = command("true").stderr.decode().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert {"runner.cli.options", "runner.box"} <= imported
    others = {
        f"runner.cli.{name}" for name in ("subcommand", "contain", "inject", "pseudo", "ids")
    }
    others |= {
        f"runner.{name}" for name in ("accounts", "console", "doctor", "staging", "subid")
    }
    # Each costs as much as several modules of ours.
    assert not imported & (others | {"ctypes", "shutil", "json", "subprocess"})
