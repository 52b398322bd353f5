"""What `runner.host` reads out of the texts and trees of other hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.config import IdMap
from runner.errors import HostError
from runner.host import (
    CgroupMount,
    RootEntry,
    detect,
    parse_cgroup,
    parse_id_map,
    parse_kernel,
    parse_mountinfo,
)

if TYPE_CHECKING:
    from pathlib import Path

UNIFIED = """\
23 28 0:22 / /sys rw,nosuid - sysfs sysfs rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
V1 = """\
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:14 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,nosuid shared:15 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""
CONTAINER = """\
712 711 0:32 /docker/4f1c /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory
713 711 0:38 / /sys/fs/my\\040groups rw - cgroup2 cgroup2 rw
"""


def test_mountinfo_of_a_unified_host_gives_one_v2_mount() -> None:
    assert parse_mountinfo(UNIFIED) == (CgroupMount(version=2, path="/sys/fs/cgroup"),)


def test_mountinfo_of_a_v1_host_gives_the_controllers_that_we_use() -> None:
    cpu, memory, named = parse_mountinfo(V1)
    assert cpu.controllers == {"cpu", "cpuacct"}
    assert memory.controllers == {"memory"}
    assert named.controllers == frozenset()


def test_mountinfo_of_a_container_gives_root_read_only_and_plain_spaces() -> None:
    assert parse_mountinfo(CONTAINER) == (
        CgroupMount(
            version=1,
            path="/sys/fs/cgroup/memory",
            root="/docker/4f1c",
            controllers=frozenset({"memory"}),
            readonly=True,
        ),
        CgroupMount(version=2, path="/sys/fs/my groups"),
    )


def test_mountinfo_when_a_file_system_is_called_like_cgroup_ignores_it() -> None:
    assert parse_mountinfo("50 1 0:40 / /mnt rw - tmpfs cgroup rw,memory\n") == ()


def test_cgroup_text_gives_paths_by_controller_and_v2_at_the_empty_name() -> None:
    text = "4:cpu,cpuacct:/a\n3:memory:/with:colon\n2:name=systemd:/b\n1::/\n0::/user.slice\n"
    assert parse_cgroup(text) == {
        "cpu": "/a",
        "cpuacct": "/a",
        "memory": "/with:colon",
        "name=systemd": "/b",
        "": "/user.slice",
    }


def test_id_map_gives_each_line() -> None:
    text = "         0       1000          1\n         1     100000      65536\n"
    assert parse_id_map(text) == (IdMap(0, 1000), IdMap(1, 100000, 65536))


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-18-amd64", (6, 1)), ("5.15.167.4-microsoft", (5, 15)), ("6.18.44-fc", (6, 18))],
)
def test_kernel_release_gives_major_and_minor(release: str, version: tuple[int, int]) -> None:
    assert parse_kernel(release) == version


def test_kernel_release_when_it_is_no_version_is_refused_with_the_text() -> None:
    with pytest.raises(HostError) as caught:
        parse_kernel("custom")
    assert caught.value.missing == "the kernel's release 'custom' does not begin with a version"


def make_proc(directory: Path, **sysctls: str) -> str:
    """Make a /proc of a process without cgroups; the first _ of a sysctl's name is a slash."""
    (directory / "self" / "ns").mkdir(parents=True)
    (directory / "self" / "status").write_text("Name:\tx\nCapEff:\t0000000000000000\n")
    (directory / "self" / "ns" / "user").touch()
    (directory / "self" / "mountinfo").write_text("")
    for name, value in sysctls.items():
        path = directory / "sys" / name.replace("_", "/", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return str(directory)


def test_detect_on_a_host_without_cgroups_gives_none(tmp_path: Path) -> None:
    host = detect(proc=make_proc(tmp_path))
    assert host.cgroup_mounts == ()
    assert host.cgroup_paths == {}


def test_detect_without_proc_says_how_to_mount_it(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        detect(proc=str(tmp_path))
    assert caught.value.missing == f"no proc file system: {tmp_path}/self/status is missing"
    assert caught.value.hint == "mount it: mount -t proc proc /proc"


@pytest.mark.parametrize(
    ("sysctls", "is_admin", "reason"),
    [
        ({"user_max_user_namespaces": "1000"}, True, None),
        ({"user_max_user_namespaces": "0"}, True, "user.max_user_namespaces is 0"),
        ({"kernel_unprivileged_userns_clone": "0"}, True, None),
        (
            {"kernel_unprivileged_userns_clone": "0"},
            False,
            "kernel.unprivileged_userns_clone is 0",
        ),
        ({"kernel_unprivileged_userns_clone": "1"}, False, None),
        ({"kernel_apparmor_restrict_unprivileged_userns": "1"}, False, None),
    ],
)
def test_user_namespaces_follow_the_sysctls_that_bind_this_user(
    tmp_path: Path,
    sysctls: dict[str, str],
    is_admin: bool,
    reason: str | None,
) -> None:
    proc = make_proc(tmp_path, **sysctls)
    if is_admin:
        (tmp_path / "self" / "status").write_text("CapEff:\t0000000000200000\n")
    host = detect(proc=proc)
    assert host.user_namespaces is (reason is None)
    assert (host.no_user_namespaces or "").partition(":")[0] == (reason or "")


@pytest.mark.parametrize(
    ("mask", "privileged"),
    [("000001ffffffffff", True), ("00000000002000c0", True), ("0000000000200000", False)],
)
def test_privileged_needs_setuid_setgid_and_sys_admin(
    tmp_path: Path, mask: str, privileged: bool
) -> None:
    proc = make_proc(tmp_path)
    (tmp_path / "self" / "status").write_text(f"CapPrm:\tff\nCapEff:\t{mask}\n")
    assert detect(proc=proc).privileged is privileged


def test_root_entries_are_symlinks_with_their_text_and_directories(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "lib64").symlink_to("/usr/lib64")
    (root / "sbin").mkdir()
    (root / "lib").touch()
    host = detect(proc=make_proc(tmp_path / "proc"), root=str(root))
    assert host.root_entries == (
        RootEntry("bin", "usr/bin"),
        RootEntry("sbin"),
        RootEntry("lib64", "/usr/lib64"),
        RootEntry("usr"),
    )
