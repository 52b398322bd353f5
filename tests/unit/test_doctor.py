"""The doctor's findings: on trees of other hosts, and from trials that ended otherwise."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from runner import doctor
from runner.cgroup import Resource, WhyNot
from runner.cgroup.layout import choose
from runner.config import IdMap, Namespace
from runner.doctor import Finding, Level, Probed, Tried, features, guarantees, noise
from runner.doctor.files import Files
from runner.doctor.surroundings import Surroundings, look
from runner.errors import ChildError, ErrorLocation, HostError
from runner.guarantees import GUARANTEES
from runner.host import CgroupMount, Host

ALL_WORK = Probed(
    open_tree=0, mount_setattr=0, pidfds=0, perf_instructions=0, landlock=0, landlock_abi=4
)
PLAIN = Surroundings(uid=1000)
DOCKER = Surroundings(uid=1000, container="docker")
STRONG = {
    name: "cgroup" if name in {"cpu_time", "memory", "swap", "processes"} else "by"
    for name in GUARANTEES
}
WHY = WhyNot("the group is not writable", "run as root")
NO_GROUPS = dict.fromkeys(Resource, WHY)


def tree(directory: Path, **files: str) -> Files:
    """Make files below a directory; two underscores in a name are a slash."""
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Files(str(directory))


def by_name(findings: tuple[Finding, ...] | list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


# Files that may be missing.


def test_files_that_are_missing_or_no_files_are_none(tmp_path: Path) -> None:
    files = tree(tmp_path, proc__number="12\n", proc__word="max\n")
    assert files.read("/proc/number") == "12"
    assert files.number("/proc/number") == 12
    assert files.number("/proc/word") is None
    assert files.read("/proc/nothing") is None
    assert files.read("/proc") is None
    assert files.names("/proc") == ["number", "word"]
    assert files.names("/sys") == []
    assert files.attribute("/proc/number", "user.delegate") is None


# Surroundings.


@pytest.mark.parametrize(
    ("files", "environ", "container"),
    [
        ({}, {}, None),
        ({".dockerenv": ""}, {}, "docker"),
        ({"run__.containerenv": "", ".dockerenv": ""}, {}, "podman"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"run__systemd__container": "lxc\n"}, {}, "lxc"),
        ({}, {"container": "systemd-nspawn"}, "systemd-nspawn"),
    ],
)
def test_surroundings_know_a_container_by_its_marks(
    files: dict[str, str], environ: dict[str, str], container: str | None, tmp_path: Path
) -> None:
    assert look(tree(tmp_path, **files), environ, uid=0).container == container


def test_surroundings_know_systemd_by_its_directory(tmp_path: Path) -> None:
    assert not look(Files(str(tmp_path)), {}, uid=0).systemd
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert look(Files(str(tmp_path)), {}, uid=0).systemd


@pytest.mark.parametrize(
    ("around", "words"),
    [
        (Surroundings(uid=0), []),
        (Surroundings(uid=1000), ["chown -R 1000 "]),
        (
            Surroundings(uid=1000, systemd=True),
            ["systemd-run --user --scope -p Delegate=yes", "systemctl edit", "user@.service.d"],
        ),
        (DOCKER, ["writable-cgroups=true"]),
        (Surroundings(uid=0, container="podman"), ["unmask=/sys/fs/cgroup"]),
        (
            Surroundings(uid=0, container="kubernetes"),
            ["cgroup_writable = true", "io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw"],
        ),
        (Surroundings(uid=0, container="lxc"), ["writable-cgroups=true", "podman run"]),
    ],
)
def test_cgroup_remedies_are_those_of_the_surroundings(
    around: Surroundings, words: list[str]
) -> None:
    remedies = around.cgroup_remedies(WHY)
    for word in words:
        assert any(word in remedy for remedy in remedies)
    assert (WHY.remedy in remedies) is not around.systemd


def test_confinement_remedies_are_only_for_containers() -> None:
    assert PLAIN.confinement_remedies() == ()
    (remedy,) = DOCKER.confinement_remedies()
    for word in ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unmasked"):
        assert word in remedy


# Guarantees.


def test_guarantees_by_their_strong_means_are_ok() -> None:
    found = guarantees.examine(STRONG, Host(kernel=(6, 1)), {}, PLAIN)
    assert [finding.name for finding in found] == list(GUARANTEES)
    assert {finding.level for finding in found} == {Level.OK}
    assert by_name(found)["memory"].value == "cgroup"


def test_guarantee_by_weaker_means_is_weak_with_the_obstacle_and_its_remedies() -> None:
    # No cgroups on this host, so that `require` finds none either.
    held = STRONG | {"memory": "proc"}
    found = by_name(guarantees.examine(held, Host(kernel=(6, 1)), NO_GROUPS, DOCKER))
    assert found["memory"].level is Level.WEAK
    assert found["memory"].value == "proc"
    assert found["memory"].why == "the group is not writable"
    assert found["memory"].remedies == DOCKER.cgroup_remedies(WHY)
    assert found["cpu_time"].level is Level.OK


def test_guarantee_that_nothing_holds_is_missing_with_its_remedy() -> None:
    held = STRONG | {"user": None}
    found = by_name(guarantees.examine(held, Host(kernel=(6, 1)), {}, PLAIN))
    assert found["user"].level is Level.MISSING
    assert found["user"].value == "nothing"
    assert found["user"].remedies == (
        "start as root with CAP_SETUID and CAP_SETGID: others have but one id to give",
    )


def test_guarantees_without_any_sandbox_are_all_missing_with_its_reason() -> None:
    error = HostError("user namespaces", "set the sysctl")
    found = guarantees.examine(error, Host(kernel=(6, 1)), {}, DOCKER)
    assert {finding.level for finding in found} == {Level.MISSING}
    assert {finding.why for finding in found} == {"no sandbox can be started: user namespaces"}
    assert found[0].remedies == ("set the sysctl", *DOCKER.confinement_remedies())


# Features.


def test_namespace_that_was_refused_says_the_sysctl_that_refuses() -> None:
    error = ChildError(ErrorLocation.CLONE, errno.EPERM)
    host = Host(kernel=(6, 1), no_user_namespaces="kernel.unprivileged_userns_clone is 0")
    tried = {Namespace.USER: error, Namespace.TIME: None}
    found = by_name([*features.namespaces(tried, host, Files(), PLAIN)])
    assert found["user_namespace"].level is Level.MISSING
    assert found["user_namespace"].why == "clone: Operation not permitted (EPERM)"
    assert found["user_namespace"].remedies == ("kernel.unprivileged_userns_clone is 0",)
    assert found["time_namespace"].level is Level.OK


def test_namespace_that_the_kernel_does_not_have_names_its_option(tmp_path: Path) -> None:
    tried = {
        kind: ChildError(ErrorLocation.UNSHARE, errno.EINVAL)
        for kind in (Namespace.NETWORK, Namespace.TIME)
    }
    files = tree(tmp_path, proc__self__ns__net="")
    host = Host(kernel=(6, 1))
    found = by_name([*features.namespaces(tried, host, files, PLAIN)])
    assert found["network_namespace"].why == "unshare: Invalid argument (EINVAL)"
    assert found["time_namespace"].why == "this kernel has none"
    assert found["time_namespace"].remedies == ("a kernel with CONFIG_TIME_NS",)


def test_mount_that_was_refused_is_missing_and_one_not_needed_is_ok() -> None:
    error = ChildError(ErrorLocation.MOUNT, errno.EPERM, 1, subject="/proc")
    found = by_name([*features.mounts({"proc_mount": error, "overlay": None}, DOCKER)])
    assert found["proc_mount"].level is Level.MISSING
    assert found["proc_mount"].remedies[0] == error.hint
    assert found["proc_mount"].remedies[1:] == DOCKER.confinement_remedies()
    assert found["overlay"].level is Level.OK
    assert found["idmapped_mounts"].level is Level.OK


@pytest.mark.parametrize(
    ("name", "error", "remedy"),
    [
        ("open_tree", errno.ENOSYS, "Linux 5.2 has it"),
        ("mount_setattr", errno.ENOSYS, "Linux 5.12 has it"),
        ("mount_setattr", errno.EPERM, DOCKER.confinement_remedies()[0]),
        ("pidfds", errno.ENOSYS, "Linux 5.3 has it"),
        ("landlock", errno.EOPNOTSUPP, "add landlock to lsm= on the kernel's command line"),
        ("perf_instructions", errno.EACCES, "as root: sysctl -w kernel.perf_event_paranoid=2"),
        (
            "perf_instructions",
            errno.ENOENT,
            "give the virtual machine its CPU's counters (a vPMU)",
        ),
    ],
)
def test_call_that_fails_is_missing_with_what_gives_it(
    name: str, error: int, remedy: str, tmp_path: Path
) -> None:
    probed = dataclasses.replace(ALL_WORK, **{name: error})
    found = by_name([*features.calls(probed, Files(str(tmp_path)), DOCKER)])
    assert found[name].level is Level.MISSING
    assert found[name].remedies[0] == remedy
    others = {"open_tree", "mount_setattr", "pidfds", "landlock", "perf_instructions"} - {name}
    assert {found[other].level for other in others} == {Level.OK}


def test_seccomp_tells_its_actions_and_the_filter_that_we_are_under(tmp_path: Path) -> None:
    files = tree(
        tmp_path,
        proc__self__status="Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n",
        proc__sys__kernel__seccomp__actions_avail="kill_process errno\n",
    )
    found = by_name([*features.calls(ALL_WORK, files, PLAIN)])
    assert found["seccomp"].value == "kill_process errno; this process is under one itself"


def test_cgroups_of_a_v2_host_show_controllers_delegation_and_place(tmp_path: Path) -> None:
    group = tmp_path / "user.slice"
    group.mkdir()
    (group / "cgroup.controllers").write_text("cpu memory pids\n")
    (group / "cgroup.subtree_control").write_text("memory pids\n")
    (group / "cgroup.procs").write_text("")
    mount = CgroupMount(version=2, path=str(tmp_path))
    host = Host(kernel=(6, 1), cgroup_mounts=(mount,), cgroup_paths={"": "/user.slice"})
    delegated = "" if not _delegate(group) else "delegated "
    found = by_name([*features.cgroups(host, choose(host), Files("/"), PLAIN)])
    assert found["cgroups"].value == f"v2 {delegated}with cpu, memory, pids"
    assert found["memory_cgroup"].value == f"v2, below {group}"
    assert found["memory_cgroup"].level is Level.OK


def _delegate(path: Path) -> bool:
    """Mark a directory as systemd does, where its file system can hold that."""
    try:
        os.setxattr(path, "user.delegate", b"1")
    except OSError:
        return False
    return True


def test_cgroups_that_are_read_only_are_weak_and_have_no_place(tmp_path: Path) -> None:
    mount = CgroupMount(version=2, path=str(tmp_path), readonly=True)
    host = Host(kernel=(6, 1), cgroup_mounts=(mount,), cgroup_paths={"": "/"})
    found = by_name([*features.cgroups(host, choose(host), Files("/"), DOCKER)])
    assert found["cgroups"].level is Level.WEAK
    assert found["cgroups"].value == "v2 read-only with no controllers"
    assert found["memory_cgroup"].level is Level.MISSING
    assert found["memory_cgroup"].why == f"{tmp_path} is mounted read-only"
    assert any("writable-cgroups=true" in text for text in found["memory_cgroup"].remedies)


def test_cgroups_without_any_mount_are_missing_with_the_command() -> None:
    host = Host(kernel=(6, 1))
    found = by_name([*features.cgroups(host, choose(host), Files("/"), PLAIN)])
    assert found["cgroups"].level is Level.MISSING
    assert found["cgroups"].remedies == ("mount -t cgroup2 cgroup2 /sys/fs/cgroup",)


def test_id_maps_are_not_needed_by_who_may_map_any_id() -> None:
    host = Host(kernel=(6, 1), maps_ids=True, uid_map=(IdMap(0, 0, 65536),))
    assert {finding.level for finding in features.id_maps(host)} == {Level.OK}


# Noise.

QUIET = {
    "sys__devices__system__cpu__online": "0-3,6\n",
    "proc__loadavg": "0.10 0.20 0.30 1/100 1\n",
    "proc__pressure__cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
    "proc__stat": "cpu  90 0 10 1000 0 0 0 0 0 0\ncpu0 1 2 3\n",
    "proc__swaps": "Filename\tType\tSize\tUsed\tPriority\n",
    "sys__devices__system__cpu__cpufreq__policy0__scaling_governor": "performance\n",
    "sys__devices__system__cpu__intel_pstate__no_turbo": "1\n",
    "sys__devices__system__cpu__smt__active": "0\n",
    "proc__sys__kernel__randomize_va_space": "0\n",
    "sys__kernel__mm__transparent_hugepage__enabled": "always [madvise] never\n",
}


def test_noise_of_a_quiet_host_is_all_ok(tmp_path: Path) -> None:
    found = noise.examine(tree(tmp_path, **QUIET), Host(kernel=(6, 1), cpus=4))
    assert {finding.level for finding in found} == {Level.OK}
    values = {finding.name: finding.value for finding in found}
    assert values["cpus"] == "4 of 5 in the affinity mask"
    assert values["steal"] == "0.0% of the CPU time since boot"
    assert values["governor"] == "performance"
    assert (values["turbo"], values["smt"], values["aslr"]) == ("off", "off", "off")
    assert (values["swap_space"], values["huge_pages"]) == ("off", "madvise")
    assert (values["cpu_quota"], values["memory_above"]) == ("none", "no limit")


@pytest.mark.parametrize(
    ("name", "file", "text", "value", "remedy"),
    [
        ("load", "proc__loadavg", "3.50 1 1 5/9 1\n", "3.50 on 4 CPUs", "see who with top"),
        (
            "cpu_pressure",
            "proc__pressure__cpu",
            "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n",
            "12.5 % of the last 10 s",
            "find who by cpu.pressure",
        ),
        (
            "steal",
            "proc__stat",
            "cpu  80 0 0 1000 0 0 0 20 0 0\n",
            "20.0% of the CPU time since boot",
            "take a machine type with dedicated CPUs",
        ),
        (
            "swap_space",
            "proc__swaps",
            "Filename Type Size Used Priority\n/swap.img file 2097148 0 -2\n",
            "/swap.img",
            "as root: swapoff -a",
        ),
        (
            "governor",
            "sys__devices__system__cpu__cpufreq__policy1__scaling_governor",
            "powersave\n",
            "performance, powersave",
            "as root: cpupower frequency-set -g performance",
        ),
        (
            "turbo",
            "sys__devices__system__cpu__intel_pstate__no_turbo",
            "0\n",
            "on",
            "as root: echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo",
        ),
        (
            "smt",
            "sys__devices__system__cpu__smt__active",
            "1\n",
            "on",
            "as root: echo off > /sys/devices/system/cpu/smt/control",
        ),
        (
            "aslr",
            "proc__sys__kernel__randomize_va_space",
            "2\n",
            "on",
            "for one run: --no-aslr, or Sandbox(personality=ADDR_NO_RANDOMIZE)",
        ),
        (
            "huge_pages",
            "sys__kernel__mm__transparent_hugepage__enabled",
            "[always] madvise never\n",
            "always",
            "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
    ],
)
def test_noise_that_is_at_work_is_weak_and_alone(
    name: str, file: str, text: str, value: str, remedy: str, tmp_path: Path
) -> None:
    files = tree(tmp_path, **(QUIET | {file: text}))
    found = by_name(noise.examine(files, Host(kernel=(6, 1), cpus=4)))
    assert {n for n, finding in found.items() if finding.level is Level.WEAK} == {name}
    assert found[name].value == value
    assert found[name].why
    assert found[name].remedies[0].startswith(remedy)


def test_noise_of_amd_turbo_is_told_by_boost(tmp_path: Path) -> None:
    files = tree(tmp_path, sys__devices__system__cpu__cpufreq__boost="1\n")
    found = by_name(noise.examine(files, Host(kernel=(6, 1), cpus=4)))
    assert found["turbo"].remedies == (
        "as root: echo 0 > /sys/devices/system/cpu/cpufreq/boost",
    )


def test_noise_of_a_single_cpu_is_weak(tmp_path: Path) -> None:
    found = by_name(noise.examine(tree(tmp_path, **QUIET), Host(kernel=(6, 1), cpus=1)))
    assert found["cpus"].level is Level.WEAK


def test_noise_of_limits_above_us_is_the_smallest_and_says_whose(tmp_path: Path) -> None:
    files = tree(
        tmp_path,
        cg__a__cpu__x="",
        **{
            "cg__a__memory.max": "1073741824\n",
            "cg__a__b__memory.max": "max\n",
            "cg__a__cpu.max": "max 100000\n",
            "cg__a__b__cpu.max": "150000 100000\n",
        },
    )
    mount = CgroupMount(version=2, path="/cg")
    host = Host(kernel=(6, 1), cpus=4, cgroup_mounts=(mount,), cgroup_paths={"": "/a/b"})
    found = by_name(noise.examine(files, host))
    assert found["memory_above"].value == "1.0 GiB, by /cg/a"
    assert found["cpu_quota"].value == "1.5 CPUs, by /cg/a/b"
    assert found["memory_above"].level is found["cpu_quota"].level is Level.WEAK


def test_noise_of_limits_above_us_in_v1_knows_the_number_that_is_none(tmp_path: Path) -> None:
    files = tree(
        tmp_path,
        **{
            "memory__memory.limit_in_bytes": "9223372036854771712\n",
            "memory__a__memory.limit_in_bytes": "536870912\n",
            "cpu__cpu.cfs_quota_us": "-1\n",
            "cpu__cpu.cfs_period_us": "100000\n",
            "cpu__a__cpu.cfs_quota_us": "50000\n",
            "cpu__a__cpu.cfs_period_us": "100000\n",
        },
    )
    mounts = (
        CgroupMount(version=1, path="/memory", controllers=frozenset({"memory"})),
        CgroupMount(version=1, path="/cpu", controllers=frozenset({"cpuacct"})),
    )
    paths = {"memory": "/a", "cpu": "/a", "cpuacct": "/a"}
    host = Host(kernel=(6, 1), cpus=4, cgroup_mounts=mounts, cgroup_paths=paths)
    found = by_name(noise.examine(files, host))
    assert found["memory_above"].value == "512.0 MiB, by /memory/a"
    assert found["cpu_quota"].value == "0.5 CPUs, by /cpu/a"


def test_noise_of_v1_without_any_limit_is_ok(tmp_path: Path) -> None:
    files = tree(tmp_path, **{"memory__memory.limit_in_bytes": "9223372036854771712\n"})
    mount = CgroupMount(version=1, path="/memory", controllers=frozenset({"memory"}))
    paths = {"memory": "/"}
    host = Host(kernel=(6, 1), cpus=4, cgroup_mounts=(mount,), cgroup_paths=paths)
    assert by_name(noise.examine(files, host))["memory_above"].value == "no limit"


@pytest.mark.parametrize("junk", ["", "\n", "x", "some x\n", "cpu\n", "a b c"])
def test_noise_reads_whatever_the_files_hold(junk: str, tmp_path: Path) -> None:
    files = tree(tmp_path, **dict.fromkeys(QUIET, junk))
    found = noise.examine(files, Host(kernel=(6, 1), cpus=4))
    assert by_name(found)["load"].value == "unknown"


# The report.


def report(root: Path, **changes: object) -> doctor.Report:
    tried = Tried(
        sandbox=STRONG,
        namespaces=dict.fromkeys(Namespace),
        mounts={"proc_mount": None, "overlay": None},
        probed=ALL_WORK,
    )
    tried = dataclasses.replace(tried, **changes)  # type: ignore[arg-type]
    return doctor.examine(Host(kernel=(6, 1)), tried, environ={}, root=str(root))


def test_report_on_an_empty_proc_and_sys_raises_nothing(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert found.ok
    assert {finding.level for finding in found.noise} - {Level.WEAK} == {Level.OK}


def test_report_is_ok_by_its_guarantees_alone(tmp_path: Path) -> None:
    refused = ChildError(ErrorLocation.CLONE, errno.EPERM)
    noisy = tree(tmp_path, proc__swaps="Filename\n/swap x\n")
    assert noisy.exists("/proc/swaps")
    assert report(tmp_path, namespaces={Namespace.TIME: refused}).ok
    assert not report(tmp_path, sandbox=STRONG | {"syscalls": None}).ok


def test_report_as_json_has_the_keys_of_its_schema(tmp_path: Path) -> None:
    found = json.loads(json.dumps(report(tmp_path).to_dict()))
    assert list(found) == ["schema", "ok", "host", "guarantees", "features", "noise"]
    assert found["schema"] == 1
    assert list(found["host"]) == ["kernel", "uid", "container", "systemd"]
    for section in ("guarantees", "features", "noise"):
        for finding in found[section]:
            assert list(finding) == ["name", "level", "value", "why", "remedies"]
            assert finding["level"] in {"ok", "weak", "missing"}
    names = [f["name"] for s in ("guarantees", "features", "noise") for f in found[s]]
    assert len(set(names)) == len(names)


def test_report_when_the_cgroup_files_are_gone_says_so(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    mount = CgroupMount(version=2, path=str(tmp_path))
    host = Host(kernel=(6, 1), cgroup_mounts=(mount,), cgroup_paths={"": "/"})
    tried = Tried(sandbox=STRONG, namespaces={}, mounts={}, probed=ALL_WORK)
    found = by_name(doctor.examine(host, tried, environ={}, root=str(tmp_path)).features)
    missing = f"{tmp_path}/cgroup.subtree_control: No such file or directory"
    assert found["memory_cgroup"].why == missing


def test_probe_leaves_no_fd_open() -> None:
    before = os.listdir("/proc/self/fd")
    doctor.probe()
    assert os.listdir("/proc/self/fd") == before
