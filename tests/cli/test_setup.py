"""Options that set up the process and its files, as a program then sees them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.userns

CALL = "from runner.cli.entry import main; raise SystemExit(main())"
ROOT = Path(__file__).parents[2]


def run(*words: str, stdin: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CALL, "-q", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
    )


def test_process_is_as_the_options_say() -> None:
    text = "umask; cut -d ' ' -f 19 /proc/self/stat; cat /proc/self/oom_score_adj"
    done = run("--umask=27", "--nice=4", "--oom-score-adj=500", "--", "sh", "-c", text)
    assert (done.returncode, done.stdout) == (0, "0027\n4\n500\n"), done.stderr


def test_files_are_as_the_options_say(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower" / "old").write_text("below")
    (tmp_path / "given").write_text("content\n")
    for path in (tmp_path, tmp_path / "lower"):
        path.chmod(0o755)
    text = (
        "cat /made/given; readlink /link; stat -c %a /made/place; echo >/over/new; ls /over; "
    )
    text += "cat /usr/share/x 2>&1 | grep -c denied; touch /over2/x 2>&1 | grep -c Read-only"
    done = run(
        *("--file", "/made/given=given", "--symlink", "a b:/link", "--dir", "/made/place:710"),
        *("--overlay", "/over=lower", "--tmpfs", "/over2", "--read-only", "/over2"),
        *("--mask", "/usr/share", "--", "sh", "-c", text),
        cwd=tmp_path,
    )
    lines = ["content", "a b", "710", "new", "old", "1", "1"]
    assert done.stdout.splitlines() == lines, done.stderr
    assert os.listdir(tmp_path / "lower") == ["old"]


def test_kernel_file_systems_are_there_when_asked_for() -> None:
    text = "ls /sys/class/net; stat -f -c %T /sys /dev/mqueue"
    done = run("--sysfs", "--mqueue", "--", "sh", "-c", text)
    assert (done.returncode, done.stdout.split()) == (0, ["lo", "sysfs", "mqueue"]), done.stderr
    done = run("--", "sh", "-c", "ls /sys /dev/mqueue")
    assert done.returncode == 2
    done = run("--sysfs", "--net=host", "--", "true")
    assert (done.returncode, "needs Namespace.NETWORK" in done.stderr) == (125, True)


def test_staged_program_runs_in_an_otherwise_empty_root() -> None:
    done = run(
        "--stage", "/bin/ls", "--stage", "/bin/cat:/usr/own/cat", "--", "/bin/ls", "/usr"
    )
    assert (done.returncode, done.stdout.split()) == (0, ["own"]), done.stderr


def test_host_root_has_the_hosts_entries() -> None:
    done = run("--host-root", "--", "ls", "/")
    assert {"usr", "var", "proc", "tmp"} <= set(done.stdout.split()), done.stderr
    assert "mnt" not in done.stdout.split()


def test_hooks_run_at_set_up_and_end_it_when_they_fail(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    done = run("--hook-outside", f"echo $SANDBOX_PID >{marker}", "--", "true")
    assert done.returncode == 0, done.stderr
    assert int(marker.read_text()) > 1
    done = run("--hook-inside", "exit 3", "--", "true")
    assert (done.returncode, done.stderr) == (
        125,
        "run-sandboxed: hook[0] /bin/sh: exit status 3\n",
    )


def test_console_is_a_terminal_though_ours_are_pipes() -> None:
    text = "tty; test -t 0 && test -t 1 && test -t 2 && echo three; stty size; cat"
    done = run("--console", "--", "sh", "-c", text, stdin="typed\n")
    # What is typed is echoed, as on any terminal.
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\r\n", "\n").splitlines()
    assert sorted(lines) == sorted(["typed", "/dev/console", "three", "24 80", "typed"])


def test_console_whose_output_cannot_be_written_is_a_failure_of_ours() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", CALL, "-q", "--console", "--", "echo", "x"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=60,
        )
    what = "your terminal, or what stands for it: No space left on device"
    assert (done.returncode, done.stderr) == (125, f"run-sandboxed: --console: {what}\n")


def test_root_that_the_caller_may_not_read_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs a plain user")
    tmp_path.chmod(0)
    done = run("--root", str(tmp_path), "--", "true")
    tmp_path.chmod(0o700)  # else nobody could remove it
    why = f"run-sandboxed: --root: '{tmp_path}': Permission denied\n"
    assert (done.returncode, done.stderr) == (125, why)


def test_console_has_the_callers_size_and_gives_the_terminal_back() -> None:
    master, slave = pty.openpty()
    try:
        os.set_blocking(master, False)
        subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=slave, check=True)
        before = subprocess.run(["stty", "-g"], stdin=slave, capture_output=True, check=True)
        done = subprocess.run(
            [sys.executable, "-c", CALL, "-q", "--console", "--", "stty", "size"],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            check=False,
            cwd=ROOT,
            timeout=60,
        )
        after = subprocess.run(["stty", "-g"], stdin=slave, capture_output=True, check=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert os.read(master, 1000) == b"33 99\r\n"
        assert after.stdout == before.stdout
    finally:
        os.close(master)
        os.close(slave)
