"""Namespaces of a `Runner`: made, joined, given what belongs to them; hooks. M20–M32, M113."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner import (
    ChildError,
    ConfigError,
    ErrorLocation,
    Hook,
    IdMap,
    Join,
    Namespace,
    Runner,
    TimeOffsets,
    Where,
    helper,
)
from runner.errors import ProtocolError
from runner.host import detect
from tests.kernel.starting import output_of, script

pytestmark = pytest.mark.userns

At = ErrorLocation
ROOT = Path(__file__).parents[2]
USER = Namespace.USER
NET = Namespace.USER | Namespace.NETWORK
BOX = Namespace.USER | Namespace.MOUNT | Namespace.PID

# Time: M31, U55, C3, T21

UPTIME = (
    "/usr/bin/python3",
    "-c",
    "import time; print(time.monotonic(), time.clock_gettime(7))",
)


def test_time_offsets_are_added_to_both_clocks() -> None:
    offsets = TimeOffsets(monotonic=1000.5, boottime=86400)
    ours = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    text = output_of(*UPTIME, namespaces=BOX | Namespace.TIME, time_offsets=offsets)
    monotonic, boottime = map(float, text.split())
    assert 1000.5 <= monotonic - ours[0] < 1060
    assert 86400 <= boottime - ours[1] < 86460


def test_time_offsets_may_be_negative_and_change_no_figure() -> None:
    config = Runner(
        args=["/bin/sleep", "0.2"],
        namespaces=USER | Namespace.TIME,
        time_offsets=TimeOffsets(monotonic=-1.25, boottime=-1.25),
    )
    with runner.start(config) as process:
        result = process.wait()
    assert result.ok
    assert 0.2 <= result.wall_ns / 1e9 < 1.2
    assert 0 < result.setup_ns / 1e9 < 1


def test_time_namespace_without_offsets_is_another_one() -> None:
    text = script("readlink /proc/self/ns/time", namespaces=USER | Namespace.TIME)
    assert text.strip() != os.readlink("/proc/self/ns/time")


def test_time_before_the_boot_is_reported_with_what_was_asked_for() -> None:
    with pytest.raises(ChildError) as caught:
        runner.start(
            Runner(
                args=["/bin/true"],
                namespaces=USER | Namespace.TIME,
                time_offsets=TimeOffsets(monotonic=-1e9),
            )
        )
    error = caught.value
    assert (error.location, error.errno) == (At.TIME, errno.ERANGE)
    assert str(error).startswith("time monotonic -1e+09 boottime 0: ")


# Joined: M32, U16, U54, C21

KINDS = {
    "mnt": Namespace.MOUNT,
    "uts": Namespace.UTS,
    "ipc": Namespace.IPC,
    "user": Namespace.USER,
    "pid": Namespace.PID,
    "net": Namespace.NETWORK,
}


@pytest.fixture(scope="module")
def other() -> Iterator[int]:
    """Another process, in six namespaces of its own."""
    command = ["unshare", "-Urmuipnf", "--kill-child", "sh", "-c", "echo; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield int(child)
        process.kill()


def links(pid: int | str) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in KINDS}


def test_namespaces_of_a_process_are_joined(other: int) -> None:
    # USER last in the list, and yet first entered: it allows the others.
    joined = [Join(kind, pid=other) for kind in reversed(KINDS.values())]
    with runner.start(Runner(args=["/bin/sleep", "9"], join=joined)) as process:
        assert links(process.pid) == links(other)
        status = Path(f"/proc/{process.pid}/status").read_text()
        pids = status.split("NSpid:")[1].split("\n")[0].split()
        assert pids[0] == str(process.pid)
        assert len(pids) == 2  # and another in the namespace that it joined


def test_namespace_is_joined_by_its_path_and_others_are_made(other: int) -> None:
    config = Runner(
        args=["/bin/sleep", "9"],
        join=[Join(USER, path=f"/proc/{other}/ns/user"), Join(Namespace.NETWORK, pid=other)],
        namespaces=Namespace.UTS,
        host_name="joined",
    )
    with runner.start(config) as process:
        ours, theirs, host = links(process.pid), links(other), links("self")
    assert (ours["user"], ours["net"]) == (theirs["user"], theirs["net"])
    assert ours["uts"] not in {theirs["uts"], host["uts"]}
    assert ours["mnt"] == host["mnt"]


def test_join_runs_the_keeper_from_a_copy_that_nobody_there_can_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def keeper(**options: object) -> helper.Keeper:
        seen.append(options["sealed"])
        raise ProtocolError

    monkeypatch.setattr("runner.process.Keeper", keeper)
    own = Join(Namespace.UTS, pid=os.getpid())
    for joins in ((own,), ()):
        with pytest.raises(ProtocolError):
            runner.start(Runner(args=["/bin/true"], join=joins))
    assert seen == [True, False]


def test_join_of_another_type_is_refused_before_any_process(other: int, tmp_path: Path) -> None:
    config = Runner(args=["x"], join=[Join(USER, path=f"/proc/{other}/ns/net")])
    with pytest.raises(ConfigError, match=r"Runner.join\[0\]: '/proc/\d+/ns/net': not a user"):
        runner.start(config)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, why in ((str(fifo), "not a user namespace"), ("/nonexistent", "No such file")):
        with pytest.raises(ConfigError, match=why):
            runner.start(Runner(args=["x"], join=[Join(USER, path=path)]))
    with pytest.raises(ConfigError, match=r"Runner.join: .*made or joined already"):
        Runner(args=["x"], namespaces=USER, join=[Join(USER, pid=1)])
    with pytest.raises(ConfigError, match=r"Runner.join: .*not with oom_score_adj"):
        Runner(args=["x"], oom_score_adj=1, join=[Join(USER, pid=1)])


def test_join_that_the_kernel_refuses_is_reported_with_its_index(other: int) -> None:
    if os.geteuid() == 0:  # of the host, or of the namespace that the other one is below
        pytest.skip("needs a plain user")
    # Without the user namespace that owns it, it may not be entered.
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["/bin/true"], join=[Join(Namespace.NETWORK, pid=other)]))
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.SETNS, errno.EPERM, 0)


# Network and sysctls: U39, M58


def test_loopback_is_down_until_it_is_asked_for() -> None:
    assert "::1" not in script("cat /proc/self/net/if_inet6", namespaces=NET)
    text = script("cat /proc/self/net/if_inet6", namespaces=NET, loopback=True)
    assert text.startswith("00000000000000000000000000000001")


def test_sysctls_are_set_in_the_programs_namespaces_alone() -> None:
    name = "net.ipv4.ip_unprivileged_port_start"
    before = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    text = script(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        namespaces=NET,
        sysctls={name: "80"},
    )
    assert text == "80\n"
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == before


def test_sysctl_that_does_not_exist_is_reported_with_its_index() -> None:
    sysctls = {"net.ipv4.ip_forward": "1", "net.ipv4.no_such_thing": "1"}
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["/bin/true"], namespaces=NET, sysctls=sysctls))
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.SYSCTL, errno.ENOENT, 1)
    assert str(error).startswith("sysctl[1] net.ipv4.no_such_thing: ")


@pytest.mark.parametrize(
    "name", ["kernel.core_pattern", "vm.swappiness", "net/ipv4/x", "net...kernel.core_pattern"]
)
def test_sysctl_of_the_host_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"Runner.sysctls: .*: only net\.\*"):
        Runner(args=["x"], namespaces=NET | Namespace.IPC, sysctls={name: "1"})


def test_sysctl_without_its_namespace_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"it needs Namespace.NETWORK"):
        Runner(args=["x"], namespaces=USER, sysctls={"net.ipv4.ip_forward": "1"})
    with pytest.raises(ConfigError, match=r"it needs Namespace.IPC"):
        Runner(args=["x"], namespaces=NET, sysctls={"kernel.shmmax": "1"})


# Id maps: M20–M22


def test_id_map_that_is_not_ours_to_give_is_refused() -> None:
    if detect().privileged:
        pytest.skip("needs a plain user")
    config = Runner(args=["x"], namespaces=USER, uid_mappings=(IdMap(0, 5),))
    with pytest.raises(ConfigError, match=r"Runner.uid_mappings"):
        runner.start(config)


@pytest.mark.root
def test_id_maps_of_several_ranges_are_written_in_order() -> None:
    maps = (IdMap(0, 100000, 10), IdMap(1000, 200000, 5))
    text = script(
        "cat /proc/self/uid_map", namespaces=USER, uid_mappings=maps, gid_mappings=maps
    )
    assert [line.split() for line in text.splitlines()] == [
        ["0", "100000", "10"],
        ["1000", "200000", "5"],
    ]


# Hooks: C5–C7, M113, T19, T25


def marking(path: Path, *, where: Where = Where.OUTSIDE, then: str = "") -> Hook:
    text = f"id -u >{path}; readlink /proc/self/ns/user >>{path}; {then}"
    return Hook(args=("sh", "-c", text), where=where, env={"PATH": "/usr/bin:/bin"})


def test_hook_outside_runs_as_the_caller_before_the_program(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    text = output_of("/bin/cat", str(marker), namespaces=BOX, hooks=[marking(marker)])
    assert text.splitlines() == [str(os.geteuid()), os.readlink("/proc/self/ns/user")]


def test_hook_inside_is_root_of_the_namespaces_in_the_new_root(tmp_path: Path) -> None:
    # It sees the host's tree, and what it mounts below its directory is in the sandbox.
    text = "id -u; pwd; mkdir bin lib lib64 usr; for d in bin lib lib64 usr; do "
    text += "mount --rbind /$d $d || exit 9; done; echo made >made"
    hook = Hook(args=("sh", "-c", text), where=Where.INSIDE, env={"PATH": "/usr/bin:/bin"})
    assert (
        script("cat /made; ls -d /.run* 2>&1", namespaces=BOX, pivot_root="/mnt", hooks=[hook])
        == "made\nls: cannot access '/.run*': No such file or directory\n"
    )


def test_hook_knows_the_first_process(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    text = f'echo "$1 $SANDBOX_PID" >{marker}; readlink /proc/$1/ns/user >>{marker}'
    hook = Hook(args=("/bin/sh", "-c", text, "sh", "{pid}"), env={"PATH": "/usr/bin:/bin"})
    output = script(f"readlink /proc/self/ns/user; cat {marker}", namespaces=BOX, hooks=[hook])
    own, pids, user = output.splitlines()
    assert own == user
    first, second = pids.split()
    assert first == second
    assert int(first) > 1


def test_hook_output_goes_where_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file:
        hook = Hook(args=("/bin/sh", "-c", "echo out; echo err >&2; cat"), stdout=file.fileno())
        hook = Hook(args=hook.args, stdout=file.fileno(), stderr=file.fileno())
        with runner.start(Runner(args=["/bin/true"], namespaces=USER, hooks=[hook])) as process:
            process.wait()
    assert path.read_bytes() == b"out\nerr\n"


@pytest.mark.parametrize("where", Where)
@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        ("exit 3", 3 << 8, "exit status 3"),
        ("kill -9 $$", signal.SIGKILL, "signal 9"),
        ("kill -15 $$", signal.SIGTERM, "signal 15"),
    ],
)
def test_hook_that_fails_or_is_killed_stops_the_start(
    where: Where, command: str, status: int, text: str, tmp_path: Path
) -> None:
    hooks = [
        Hook(args=("true",), where=where),
        Hook(args=("/bin/sh", "-c", command), where=where),
    ]
    marker = tmp_path / "marker"
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["/usr/bin/touch", str(marker)], namespaces=BOX, hooks=hooks))
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.HOOK, errno.ECANCELED, 1)
    assert (error.status, str(error)) == (status, f"hook[1] /bin/sh: {text}")
    assert not marker.exists()


@pytest.mark.parametrize("where", Where)
def test_hook_that_takes_too_long_is_killed_with_its_group(
    where: Where, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    command = f"sleep 60 & echo $! >{pid_file}; wait"
    hook = Hook(args=("/bin/sh", "-c", command), where=where, timeout=0.3)
    before = time.monotonic()
    with pytest.raises(ChildError) as caught:
        runner.start(Runner(args=["/bin/true"], namespaces=USER, hooks=[hook]))
    assert 0.3 <= time.monotonic() - before < 10
    assert (caught.value.location, caught.value.errno) == (At.HOOK, errno.ETIMEDOUT)
    child = int(pid_file.read_text())
    deadline = time.monotonic() + 2
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}")


def test_hook_that_is_missing_is_refused_or_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Runner.hooks\[0\].args: 'no-such-program'"):
        runner.start(
            Runner(args=["x"], namespaces=USER, hooks=[Hook(args=("no-such-program",))])
        )
    script_path = tmp_path / "script"
    script_path.write_text("#!/no/such/interpreter\n")
    script_path.chmod(0o755)
    with pytest.raises(ChildError) as caught:
        runner.start(
            Runner(args=["/bin/true"], namespaces=USER, hooks=[Hook(args=(str(script_path),))])
        )
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.HOOK, errno.ENOENT, 0)


def test_hook_ends_with_the_grader(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    text = (
        "import runner\nfrom runner import *\n"
        f"hook = Hook(args=('/bin/sh', '-c', 'echo $$ >{pid_file}; exec sleep 60'))\n"
        "runner.start(Runner(args=['/bin/true'], namespaces=Namespace.USER, hooks=[hook]))\n"
    )
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", text], cwd=Path(__file__).parents[2]
    ) as one:
        deadline = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        child = int(pid_file.read_text())
        assert os.path.exists(f"/proc/{child}")
        one.kill()
    deadline = time.monotonic() + 2
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}")


def bad_hook(**fields: Any) -> None:  # noqa: ANN401
    Hook(**({"args": ("true",)} | fields))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"args": ()}, "Hook.args: (): there is no command"),
        ({"args": ("a\0",)}, "Hook.args: 'a\\x00': it holds a NUL byte"),
        ({"timeout": 0}, "Hook.timeout: 0: give a positive number"),
    ],
)
def test_hook_that_cannot_be_meant_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bad_hook(**fields)
    assert str(caught.value).startswith(text)


# Maps by newuidmap and newgidmap: C17, C18, C20, K31, M21, M22. A mount namespace of the test's
# own has a subuid(5) that delegates to an ordinary user.

DELEGATED = """
import sys
sys.path.insert(0, sys.argv[1])
import os
from runner import *
from runner.host import detect
from tests.kernel.starting import script
maps = (IdMap(0, 65534), IdMap(1, 300000, 1000))
fields = {"namespaces": Namespace.USER | Namespace.MOUNT, "uid_mappings": maps}
fields |= {"gid_mappings": maps, "gid_mappings_enable_setgroups": sys.argv[2] == "allow"}
text = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id"
credential = Credential(7, 8, (9,)) if sys.argv[2] == "allow" else Credential(7, 8)
print(script(text, credential=credential, **fields), end="")
try:
    start(Runner(args=["x"], namespaces=Namespace.USER, uid_mappings=(IdMap(0, 300999, 2),)))
except ConfigError as error:
    print(error)
"""


def delegated(tmp_path: Path, setgroups: str) -> list[str]:
    ranges = tmp_path / "subid"
    ranges.write_text("nobody:300000:1000\n")
    tmp_path.chmod(0o755)
    command = f"mount --bind {ranges} /etc/subuid && mount --bind {ranges} /etc/subgid && "
    command += 'exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
    program = ["/usr/bin/python3", "-B", "-c", DELEGATED, str(ROOT), setgroups]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.root
@pytest.mark.parametrize("setgroups", ["allow", "deny"])
def test_delegated_ids_are_mapped_by_the_helpers(tmp_path: Path, setgroups: str) -> None:
    *maps, shown, ids, refused = delegated(tmp_path, setgroups)
    assert [line.split() for line in maps] == 2 * [["0", "65534", "1"], ["1", "300000", "1000"]]
    assert shown == setgroups
    groups = "9(news)" if setgroups == "allow" else "0(root)"
    assert ids.startswith("uid=7(lp) gid=8(mail) groups=8(mail)")
    assert (groups in ids) == (setgroups == "allow")
    assert refused.startswith(
        "Runner.uid_mappings: '0:300999:2': 301000 is not delegated to you: as root, usermod "
    )
