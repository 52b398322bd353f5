"""`start()`: each field of a `Runner`, as the program itself sees it. Rows F1–F31, T1–T5."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import runner
from runner import (
    ALL_NAMESPACES,
    ChildError,
    ConfigError,
    Credential,
    ErrorLocation,
    IdMap,
    Mount,
    Namespace,
    Rlimit,
    Runner,
    Status,
)
from tests.kernel.starting import output_of, script, status_fields

pytestmark = pytest.mark.userns

SYSTEM = tuple(
    Mount.symlink(os.readlink(path), path) if os.path.islink(path) else Mount.bind(path)
    for path in ("/bin", "/lib", "/lib64", "/usr")
    if os.path.exists(path)
)
NAMESPACES = {
    "mnt": Namespace.MOUNT,
    "cgroup": Namespace.CGROUP,
    "uts": Namespace.UTS,
    "ipc": Namespace.IPC,
    "user": Namespace.USER,
    "pid": Namespace.PID,
    "net": Namespace.NETWORK,
}


def test_args_are_argv_and_args0_is_the_path() -> None:  # F1
    assert output_of("/bin/echo", "a", "b c", "") == "a b c \n"


def test_args0_without_a_slash_is_not_looked_up() -> None:  # F1
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["echo"], env={"PATH": "/bin"}))
    assert (caught.value.location, caught.value.errno) == (ErrorLocation.EXECVE, errno.ENOENT)


def test_args_with_a_nul_are_refused_before_anything_starts() -> None:  # F1
    with pytest.raises(ConfigError, match=r"args: 'a.x00b'"):
        Runner(args=["/bin/echo", "a\0b"])


def test_args_that_are_long_travel_whole() -> None:
    word = "x" * 100_000
    assert output_of("/bin/echo", word, word) == f"{word} {word}\n"


def test_env_is_exact_and_empty_by_default() -> None:  # F2
    assert output_of("/usr/bin/env") == ""
    assert output_of("/usr/bin/env", env={"A": "1", "B": "x=y"}) == "A=1\nB=x=y\n"


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 0, 0), (1, 2, 0), (2, 1, 0)])
def test_files_are_placed_in_any_order(order: tuple[int, ...], tmp_path: Path) -> None:  # F5
    names = [str(tmp_path / name) for name in "abc"]
    fds = [os.open(name, os.O_RDWR | os.O_CREAT) for name in names]
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    try:
        # Fd 3 is where ls writes; 0 to 2 are what it looks at.
        command = "for i in 0 1 2; do readlink /proc/self/fd/$i >&3; done"
        files = (*(fds[i] for i in order), out)
        with runner.start(Runner(args=["/bin/sh", "-c", command], files=files)) as process:
            assert process.wait().status is Status.OK
        # In the loop stdout is fd 3, so fd 1 of readlink is `out`.
        seen = Path(tmp_path / "out").read_text().split()
        assert [seen[0], seen[2]] == [names[order[0]], names[order[2]]]
    finally:
        for fd in (*fds, out):
            os.close(fd)


def test_files_of_minus_one_are_closed() -> None:  # F5
    with runner.start(Runner(args=["/bin/sleep", "5"], files=(-1, 1, -1, 2))) as process:
        assert sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["1", "3"]


def test_files_where_our_own_fds_lie_do_not_end_the_wait_for_its_exec() -> None:
    """The program's fds take the numbers of what we hold until its exec."""
    files = (0, 1, 2, *[-1] * 40)
    with runner.start(
        Runner(args=("/bin/sleep", "60"), files=files, stop_before_exec=True)
    ) as process:
        process.resume()
        assert os.readlink(f"/proc/{process.pid}/exe").endswith("sleep")


def test_files_beyond_the_map_are_closed_even_if_inheritable(tmp_path: Path) -> None:  # F5, M4
    stray = os.open(tmp_path, os.O_RDONLY)
    fcntl.fcntl(stray, fcntl.F_SETFD, 0)
    try:
        listed = script("ls /proc/self/fd").split()
    finally:
        os.close(stray)
    assert listed == ["0", "1", "2", "3"]  # 3 is the directory that ls reads


def test_files_that_are_not_open_are_refused_with_their_place() -> None:
    with pytest.raises(ConfigError, match=r"Runner.files\[1\]: 999: not an open"):
        runner.start(Runner(args=["/bin/true"], files=(0, 999)))


def test_rlimits_are_the_programs_own() -> None:  # F4, T23
    limits = [Rlimit.named("NOFILE", 40, 50), Rlimit.named("CORE", 0)]
    assert script("ulimit -Sn; ulimit -Hn; ulimit -c", rlimits=limits) == "40\n50\n0\n"


def test_work_dir_is_the_programs_directory() -> None:  # F6
    assert output_of("/bin/pwd", work_dir="/usr") == "/usr\n"


def test_signals_are_default_although_python_ignores_some() -> None:  # F28
    fields = status_fields()
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    assert (fields["SigIgn"], fields["SigBlk"]) == ("0" * 16, "0" * 16)


def test_session_is_the_programs_own() -> None:  # F25
    text = script("cat /proc/$$/stat; echo $$")
    fields, pid = text.rsplit(")", 1)[1].split(), text.split()[-1]
    assert fields[2:4] == [pid, pid]  # pgrp and session


@pytest.mark.parametrize("names", [(), ("user",), ("user", "uts"), tuple(NAMESPACES)])
def test_namespaces_are_new_exactly_where_asked_for(names: tuple[str, ...]) -> None:  # F8
    wanted = Namespace(0)
    for name in names:
        wanted |= NAMESPACES[name]
    links = script(f"cd /proc/self/ns; readlink {' '.join(NAMESPACES)}", namespaces=wanted)
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES]
    fresh = {n for n, a, b in zip(NAMESPACES, links.split(), ours, strict=True) if a != b}
    assert fresh == set(names)


def test_pid_namespace_has_an_init_and_the_program_is_not_it() -> None:  # K5, T4
    assert script("echo $$; kill -TERM $$; echo lives", namespaces=ALL_NAMESPACES) == "2\n"


def test_signal_to_itself_works_in_a_pid_namespace() -> None:  # T4
    command = ["/bin/sh", "-c", "kill -ABRT $$"]
    with runner.start(Runner(args=command, namespaces=ALL_NAMESPACES)) as process:
        result = process.wait()
    assert (result.status, result.signal) == (Status.SIGNALLED, signal.SIGABRT)


def test_uid_map_is_inside_0_to_the_caller_by_default() -> None:  # F13, F14
    shown = script(
        "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups",
        namespaces=Namespace.USER,
    )
    words = shown.split()
    assert words == ["0", str(os.geteuid()), "1", "0", str(os.getegid()), "1", "deny"]


@pytest.mark.root
def test_id_maps_of_several_ranges_are_written_as_given() -> None:  # F13, F14
    maps = (IdMap(0, 100_000, 10), IdMap(1000, 200_000, 5))
    shown = script(
        "cat /proc/self/uid_map /proc/self/setgroups",
        namespaces=Namespace.USER,
        uid_mappings=maps,
        gid_mappings=maps,
        gid_mappings_enable_setgroups=True,
    )
    assert shown.split() == ["0", "100000", "10", "1000", "200000", "5", "allow"]


@pytest.mark.root
def test_credential_is_what_the_program_runs_as() -> None:  # F15
    shown = script("id -u; id -g; id -G", credential=Credential(1234, 1235, (1236, 1237)))
    assert shown == "1234\n1235\n1235 1236 1237\n"


def test_no_new_privs_is_set_only_when_asked_for() -> None:  # F19, T5
    assert status_fields(no_new_privs=True)["NoNewPrivs"] == "1"
    ours = Path("/proc/self/status").read_text()
    assert f"NoNewPrivs:\t{status_fields()['NoNewPrivs']}" in ours


def test_drop_caps_empties_all_five_sets() -> None:  # F21, K40
    fields = status_fields(namespaces=Namespace.USER, drop_caps=True)
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert [fields[name] for name in sets] == ["0" * 16] * 5


def test_capabilities_of_a_new_user_namespace_stay_without_drop_caps() -> None:
    assert status_fields(namespaces=Namespace.USER)["CapEff"] != "0" * 16


ALLOW = b"\x06\0\0\0\0\0\xff\x7f"
EXECVE, EXIT_GROUP = (59, 231) if os.uname().machine == "x86_64" else (221, 94)


def only(*numbers: int) -> bytes:
    """A filter that kills for every system call but these."""
    code = b"\x20\0\0\0\0\0\0\0"
    for number in numbers:
        code += b"\x15\0\0\x01" + number.to_bytes(4, "little") + ALLOW
    return code + b"\x06\0\0\0\0\0\0\x80"


def test_seccomp_is_loaded_and_implies_no_new_privs() -> None:  # F7
    fields = status_fields(seccomp=ALLOW)
    assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")


def test_seccomp_need_allow_nothing_but_what_the_program_needs(
    tmp_path: Path,
) -> None:  # F23, T3
    source = tmp_path / "quit.c"
    source.write_text(
        'void _start(void) { __asm__ volatile("syscall" :: "a"(231L), "D"(7L)); }'
        if EXECVE == 59
        else 'void _start(void) { __asm__ volatile("mov x8, 94\\nmov x0, 7\\nsvc 0"); }'
    )
    program = str(tmp_path / "quit")
    subprocess.run(["gcc", "-nostdlib", "-static", "-o", program, source], check=True)
    called = []
    config = Runner(args=[program], seccomp=only(EXECVE, EXIT_GROUP), sync_func=called.append)
    with runner.start(config) as process:
        result = process.wait()
    assert (result.exit_code, called) == (7, [process.pid])


def test_seccomp_that_refuses_the_exec_is_the_programs_end() -> None:
    with (
        pytest.raises(ChildError) as caught,
        runner.start(Runner(args=["/bin/true"], seccomp=b"\x06\0\0\0\x01\0\x05\0")),
    ):
        pass
    assert (caught.value.location, caught.value.errno) == (ErrorLocation.EXECVE, errno.EPERM)


def test_sync_func_sees_the_program_set_up_and_not_started(tmp_path: Path) -> None:  # F16
    marker = tmp_path / "started"
    seen: dict[str, Any] = {}

    def look(pid: int) -> None:
        seen["pid"] = pid
        if os.geteuid() == 0:  # else it cannot be looked into: it is not dumpable
            seen["root"] = sorted(os.listdir(f"/proc/{pid}/root"))
        seen["started"] = marker.exists()

    config = Runner(
        args=["/bin/touch", "/m/started"],
        namespaces=ALL_NAMESPACES,
        pivot_root="/tmp",
        mounts=(*SYSTEM, Mount.bind(str(tmp_path), "/m", readonly=False)),
        sync_func=look,
    )
    with runner.start(config) as process:
        assert process.wait().status is Status.OK
        assert seen["pid"] == process.pid
    if os.geteuid() == 0:
        assert seen["root"] == sorted(["m", *(mount.target[1:] for mount in SYSTEM)])
    assert (seen["started"], marker.exists()) == (False, True)


def test_sync_func_that_raises_ends_the_program_and_its_exception_goes_on() -> None:  # F17
    mine = KeyError("mine")
    pids = []

    def refuse(pid: int) -> None:
        pids.append(pid)
        raise mine

    with pytest.raises(KeyError) as caught:
        runner.start(Runner(args=["/bin/true"], sync_func=refuse))
    assert caught.value is mine
    assert not os.path.exists(f"/proc/{pids[0]}")


def test_pivot_root_shows_only_what_was_mounted_and_is_read_only() -> None:  # F9, F11, M40, M56
    fields: dict[str, Any] = {
        "namespaces": ALL_NAMESPACES,
        "pivot_root": "/tmp",
        "mounts": (*SYSTEM, Mount.proc(), Mount.tmpfs("/t", size=65536)),
    }
    names = {mount.target[1:] for mount in SYSTEM} | {"proc", "t"}
    assert set(script("ls /", **fields).split()) == names
    refused = script("touch /x /usr/x; touch /t/y && ls /t", stderr=True, **fields)
    assert refused.count("Read-only file system") == 2
    assert refused.endswith("y\n")
    assert "old_root" not in script("cat /proc/self/mountinfo", **fields)


def test_target_through_a_planted_symlink_stays_in_the_new_root(tmp_path: Path) -> None:
    """A directory of an earlier run may hold a symlink to the host: nothing is made there."""
    box, outside = tmp_path / "box", tmp_path / "outside"
    box.mkdir()
    outside.mkdir()
    (box / "link").symlink_to(outside)
    mounts = (Mount.bind(str(box), "/box", readonly=False), Mount.tmpfs("/box/link/x"))
    config = Runner(
        args=["/bin/true"], namespaces=ALL_NAMESPACES, pivot_root="/tmp", mounts=mounts
    )
    with pytest.raises(ChildError) as caught:
        runner.start(config)
    assert caught.value.location is ErrorLocation.MOUNT_MKDIR
    assert list(outside.iterdir()) == []


def test_bind_read_only_holds_over_submounts_in_a_user_namespace() -> (
    None
):  # H60, T17, M43, M44
    fields: dict[str, Any] = {
        "namespaces": ALL_NAMESPACES,
        "pivot_root": "/tmp",
        "mounts": (*SYSTEM, Mount.proc(), Mount.bind("/dev", "/host-dev")),
    }
    lines = script("grep /host-dev /proc/self/mountinfo", **fields).splitlines()
    options = [line.split()[5].split(",") for line in lines]
    assert options
    assert all({"ro", "nosuid", "nodev"} <= set(each) for each in options)


def test_host_name_is_the_namespaces_own() -> None:  # F12
    ours = os.uname().nodename
    shown = output_of(
        "/bin/uname", "-n", namespaces=Namespace.USER | Namespace.UTS, host_name="box"
    )
    assert (shown, os.uname().nodename) == ("box\n", ours)


def test_host_mounts_are_as_before() -> None:  # C28
    before = Path("/proc/self/mountinfo").read_text()
    script(":", namespaces=ALL_NAMESPACES, pivot_root="/tmp", mounts=SYSTEM)
    assert Path("/proc/self/mountinfo").read_text() == before


def test_kill_ends_everything_in_the_pid_namespace() -> None:
    command = ["/bin/sh", "-c", "setsid sleep 77 & setsid sleep 77 & sleep 77"]
    with runner.start(Runner(args=command, namespaces=ALL_NAMESPACES)) as process:
        time.sleep(0.1)
        process.kill()
        result = process.wait()
    assert result.status is Status.CANCELLED
    assert "sleep\x0077" not in "".join(
        path.read_text(errors="replace")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    )


def test_max_rss_is_the_programs_own_not_the_graders() -> None:  # K11, T16
    ballast = bytearray(200 << 20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    with runner.start(Runner(args=["/bin/true"])) as process:
        result = process.wait()
    assert result.max_rss_bytes is not None
    assert result.max_rss_bytes < 8 << 20  # true and its libc; the ballast is 200 MiB
    del ballast
