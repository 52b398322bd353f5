"""Any `Runner`: what the program says that it was given is what was asked for, and no more.

report.c says it; `expected` computes it from the configuration and from what the caller has
itself. Rows F1–F8, F11–F15, F19, F21, F25, F28, M2–M8, M14, M20–M31, M60–M64; T1, T23, T26.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runner
from runner import (
    Capabilities,
    Credential,
    IdMap,
    Mount,
    Namespace,
    Rlimit,
    Runner,
    TimeOffsets,
)
from runner.config import CAPABILITIES, RLIMITS
from runner.host import detect
from runner.memfd import sealed_memfd

pytestmark = pytest.mark.userns

ROOT = detect().privileged
ALLOW_ALL = b"\x06\0\0\0\0\0\xff\x7f"
DROPPED_BITS = 0xEF  # all of them and their locks, but keep_caps itself
NOROOT = 1
KINDS = {
    "mnt": Namespace.MOUNT,
    "cgroup": Namespace.CGROUP,
    "uts": Namespace.UTS,
    "ipc": Namespace.IPC,
    "user": Namespace.USER,
    "pid": Namespace.PID,
    "net": Namespace.NETWORK,
    "time": Namespace.TIME,
}
# Below what this process has, so that both tiers may set them.
LOWER = {"NOFILE": 64, "CORE": 0, "STACK": 2**20, "FSIZE": 2**20, "NPROC": 2**12, "DATA": 2**26}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("report") / "report"
    source = Path(__file__).with_name("report.c")
    subprocess.run(["musl-gcc", "-static", "-O1", "-o", program, source], check=True)
    return program


class Files(NamedTuple):
    """What a program may be given as fds: a few files, and the pipe that it reports to."""

    report: int
    sources: list[int]
    reading: int
    writing: int


@contextlib.contextmanager
def opened(report: Path) -> Any:  # noqa: ANN401
    with contextlib.ExitStack() as stack:
        fds = [sealed_memfd("report", report.read_bytes())]
        fds += [os.memfd_create(f"source{number}") for number in range(3)]
        fds += os.pipe()
        for fd in fds:
            stack.callback(os.close, fd)
        yield Files(fds[0], fds[1:4], *fds[4:])


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), max_size=12)
names = st.sets(st.sampled_from(["CHOWN", "KILL", "NET_ADMIN", "SYS_ADMIN", "SETPCAP"]))
signals = st.sets(st.sampled_from([1, 2, 13, 15, 17, 25, 34, 63, 64]))


@st.composite
def capability_sets(draw: st.DrawFn) -> Capabilities:
    bounding, permitted, inheritable = draw(names), draw(names), draw(names)
    effective = permitted & draw(names)
    ambient = permitted & inheritable & draw(names)
    # One that is not in the bounding set cannot be made inheritable (capabilities(7)).
    return Capabilities(*map(frozenset, (effective, permitted, inheritable, bounding, ambient)))


@st.composite
def privileges(draw: st.DrawFn) -> dict[str, Any]:
    """Draw ids and capabilities that this caller may give."""
    fields: dict[str, Any] = {}
    namespaces = draw(st.sampled_from([Namespace(0), Namespace.USER]))
    if namespaces:
        inside = draw(st.sampled_from([0, 1000]))
        maps = (IdMap(inside, os.geteuid()),)
        if ROOT:
            maps = (IdMap(0, 300000, 1500),)
            inside = draw(st.sampled_from([0, 1000, 1499]))
            allow = draw(st.booleans())
            groups = tuple(draw(st.sets(st.integers(0, 1499), max_size=3))) if allow else ()
            fields["gid_mappings_enable_setgroups"] = allow
            fields["credential"] = Credential(inside, inside, groups)
        fields |= {"uid_mappings": maps, "gid_mappings": maps, "namespaces": namespaces}
    elif ROOT:
        inside = draw(st.sampled_from([0, 1234]))
        fields["credential"] = Credential(inside, inside, (5, 6))
    if namespaces or ROOT:
        kind = draw(st.sampled_from(["", "drop_caps", "capabilities", "securebits"]))
        if kind == "drop_caps":
            fields["drop_caps"] = True
        elif kind == "capabilities":
            fields["capabilities"] = draw(capability_sets())
        if kind in {"capabilities", "securebits"}:
            fields["securebits"] = draw(st.sampled_from([0, 0x03, 0x2F & ~0x0C, 0xEF & ~0x0C]))
    return fields


@st.composite
def places(draw: st.DrawFn, namespaces: Namespace) -> dict[str, Any]:
    """Draw a root of its own, where there is a mount namespace."""
    if Namespace.MOUNT not in namespaces or not draw(st.booleans()):
        return {"work_dir": draw(st.sampled_from(["", "/", "/usr"]))}
    some = [Mount.tmpfs("/t", size=65536), Mount.bind("/usr"), Mount.directory("/d/e")]
    some += [
        Mount.file("/f", b"x"),
        Mount.bind("/dev/null", "/n", readonly=False, devices=True),
    ]
    mounts = [mount for mount in some if draw(st.booleans())]
    if Namespace.PID in namespaces and draw(st.booleans()):
        mounts.append(Mount.proc(masked=draw(st.booleans())))
    inside = [
        "/",
        *(mount.target for mount in mounts if mount.target in {"/t", "/usr", "/d/e"}),
    ]
    work_dir = draw(st.sampled_from(["", *inside]))
    return {"pivot_root": "/tmp", "mounts": mounts, "work_dir": work_dir}


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the fields of any `Runner`; in `files`, n is the n-th source."""
    fields = draw(privileges())
    namespaces = fields.get("namespaces", Namespace(0))
    if namespaces or ROOT:
        for kind in KINDS.values():
            if kind is not Namespace.USER and draw(st.booleans()):
                namespaces |= kind
    fields["namespaces"] = namespaces
    fields |= draw(places(namespaces))
    if Namespace.TIME in namespaces and draw(st.booleans()):
        offsets = st.integers(-5, 10**6)
        fields["time_offsets"] = TimeOffsets(draw(offsets), draw(offsets))
    if Namespace.UTS in namespaces:
        fields["host_name"] = draw(st.sampled_from(["", "a", "x" * 64]))
        fields["domain_name"] = draw(st.sampled_from(["", "local"]))
    limits = draw(st.sets(st.sampled_from(sorted(LOWER))))
    fields["rlimits"] = [
        Rlimit.named(name, draw(st.sampled_from([LOWER[name] // 2, LOWER[name]])), LOWER[name])
        for name in sorted(limits)
    ]
    optional = {
        "umask": st.integers(0, 0o777),
        "nice": st.integers(max(os.nice(0), 0), 19),
        "personality": st.sampled_from([0, 0x0040000]),
        "oom_score_adj": st.integers(500, 1000),
        "cpus": st.sets(st.sampled_from(sorted(os.sched_getaffinity(0))), min_size=1),
        "seccomp": st.just(ALLOW_ALL),
        "no_new_privs": st.just(value=True),
        "ignored_signals": signals,
        "blocked_signals": signals,
        "sync_func": st.just(check_pid),
    }
    fields |= {name: draw(value) for name, value in optional.items() if draw(st.booleans())}
    fields["args"] = ["report", *draw(st.lists(texts, max_size=3))]
    names = st.from_regex(r"[A-Z_]{1,8}", fullmatch=True)
    fields["env"] = draw(st.dictionaries(names, texts, max_size=3))
    files = draw(st.lists(st.integers(-1, 2), min_size=2, max_size=9))
    fields["files"] = files
    return fields


def check_pid(pid: int) -> None:
    assert pid > 1


def reported(fields: dict[str, Any], files: Files) -> dict[str, list[str]]:
    """Run it, and give name → lines."""
    numbers = [files.sources[n] if n >= 0 else -1 for n in fields["files"]]
    numbers[1] = files.writing
    config = Runner(**(fields | {"files": numbers, "exec_file": files.report}))
    with runner.start(config) as process:
        result = process.wait()
    assert result.exit_code == 0, result
    text = os.read(files.reading, 1 << 20).decode()
    lines: dict[str, list[str]] = {}
    for line in text.split("\n")[:-1]:
        name, _, value = line.partition(" ")
        lines.setdefault(name, []).append(value)
    return lines


def identity(fd: int) -> str:
    status = os.fstat(fd)
    return f"{status.st_dev}:{status.st_ino} 0"


def expected_files(fields: dict[str, Any], files: Files) -> dict[str, str]:
    found = {
        f"fd{number}": identity(files.sources[source])
        for number, source in enumerate(fields["files"])
        if source >= 0 and number != 1
    }
    return found | {"fd1": identity(files.writing)}


def expected_ids(fields: dict[str, Any]) -> dict[str, str]:
    credential = fields.get("credential")
    if credential is None:
        in_user = Namespace.USER in fields["namespaces"]
        uid = fields["uid_mappings"][0].inside if in_user else os.geteuid()
        gid = fields["gid_mappings"][0].inside if in_user else os.getegid()
        groups = os.getgroups()
    else:
        uid, gid, groups = credential.uid, credential.gid, credential.groups
    return {
        "uid": f"{uid} {uid} {uid}",
        "gid": f"{gid} {gid} {gid}",
        "groups": " ".join(map(str, sorted(groups))),
    }


def known_capabilities() -> int:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    return (1 << (last + 1)) - 1


def own_mask(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0], 16)


def expected_privileges(fields: dict[str, Any]) -> dict[str, str]:
    """Apply capabilities(7)'s rules of exec to what the process had before it."""
    in_user = Namespace.USER in fields["namespaces"]
    uid = int(expected_ids(fields)["uid"].split()[0])
    bits = fields.get("securebits", DROPPED_BITS if fields.get("drop_caps") else 0)
    sets = fields.get("capabilities")
    full = known_capabilities()
    if fields.get("drop_caps"):
        inheritable = bounding = ambient = 0
    elif sets is not None:
        inheritable, bounding, ambient = map(sets.mask, ("inheritable", "bounding", "ambient"))
    else:
        inheritable, ambient = 0, 0
        bounding = full if in_user else own_mask("CapBnd")
    is_root = uid == 0 and not bits & NOROOT
    permitted = (inheritable | bounding if is_root else 0) | ambient
    no_new_privs = bool(fields.get("no_new_privs") or "seccomp" in fields)
    # An exec that gives capabilities clears the parent-death signal (prctl(2)) and, even where
    # no_new_privs then withholds them, what of the personality weakens a program (per_clear).
    gained = sets is not None and permitted & ~sets.mask("permitted")
    personality = 0 if gained else fields.get("personality", 0)
    if gained and no_new_privs:
        permitted, gained = permitted & sets.mask("permitted"), 0
    return {
        "parent_death": "0" if gained else "9",
        "personality": f"{personality:x}",
        "effective": f"{permitted:x}",
        "permitted": f"{permitted:x}",
        "inheritable": f"{inheritable:x}",
        "bounding": f"{bounding:x}",
        "ambient": f"{ambient:x}",
        "securebits": f"{bits:x}",
        "no_new_privs": str(int(no_new_privs)),
        "seccomp": "2" if "seccomp" in fields else "0",
    }


def mask(numbers: Any) -> str:  # noqa: ANN401
    return f"{sum(1 << (number - 1) for number in numbers):x}"


def expected_process(fields: dict[str, Any]) -> dict[str, str]:
    umask = os.umask(0)
    os.umask(umask)
    host = os.uname()
    domain = Path("/proc/sys/kernel/domainname").read_text().strip()
    cpus = fields.get("cpus") or os.sched_getaffinity(0)
    limits = {limit.resource: (limit.soft, limit.hard) for limit in fields["rlimits"]}
    moved = Namespace.MOUNT in fields["namespaces"]  # whose root is then the directory
    return {
        "blocked": mask(fields.get("blocked_signals", ())),
        "ignored": mask(fields.get("ignored_signals", ())),
        "caught": "0",
        "umask": f"{fields.get('umask', umask):o}",
        "nice": str(fields.get("nice", os.nice(0))),
        "host_name": fields.get("host_name") or host.nodename,
        "domain_name": fields.get("domain_name") or domain,
        "work_dir": fields["work_dir"] or ("/" if moved else os.getcwd()),
        "leads_session": "1",
        "first": "0",
        "cpus": " ".join(map(str, sorted(cpus))),
    } | {
        f"rlimit{number}": " ".join(map(str, limits.get(number, resource.getrlimit(number))))
        for number in RLIMITS.values()
    }


def check_namespaces(fields: dict[str, Any], lines: dict[str, list[str]]) -> None:
    """Its own are others than ours exactly where that was asked for."""
    if "ns_mnt" not in lines:
        assert "pivot_root" in fields  # there is no proc
        return
    for name, kind in KINDS.items():
        same = lines[f"ns_{name}"] == [os.readlink(f"/proc/self/ns/{name}")]
        assert same == (kind not in fields["namespaces"]), name
    if Namespace.USER in fields["namespaces"]:
        allow = fields.get("gid_mappings_enable_setgroups", False)
        assert lines["setgroups"] == ["allow" if allow else "deny"]
        for name in ("uid", "gid"):
            maps = [f"{m.inside} {m.outside} {m.count}" for m in fields[f"{name}_mappings"]]
            assert [" ".join(line.split()) for line in lines[f"{name}_map"]] == maps
    score = fields.get("oom_score_adj", int(Path("/proc/self/oom_score_adj").read_text()))
    assert lines["oom_score_adj"] == [str(score)]


FLAGS = {
    "/": {"ro", "nosuid", "nodev"},
    "/t": {"rw", "nosuid", "nodev", "noatime"},
    "/usr": {"ro", "nosuid", "nodev"},
    "/n": {"rw", "nosuid"},
    "/proc": {"ro", "nosuid", "nodev", "noexec"},
}


def check_mounts(fields: dict[str, Any], lines: dict[str, list[str]]) -> None:
    """Nothing is mounted but what was asked for, with its flags; none is shared."""
    if "mount" not in lines or "pivot_root" not in fields:
        return
    asked = {"/"} | {mount.target for mount in fields["mounts"]} & FLAGS.keys()
    # With what the host has mounted there, and with the masks.
    masked = any(mount.masked for mount in fields["mounts"])
    below = asked & ({"/usr", "/proc"} if masked else {"/usr"})
    found = {}
    masks = 0
    for line in lines["mount"]:
        _, _, _, _, target, options, *optional = line.split()
        assert not [word for word in optional if word.startswith(("shared:", "master:"))]
        if not any(target.startswith(f"{parent}/") for parent in below):
            found[target] = set(options.split(","))
        masks += target.startswith("/proc/")
    assert (masks > 0) == masked
    assert found.keys() == asked
    for target, options in found.items():
        assert options >= FLAGS[target], target


@settings(max_examples=250, deadline=None)
@given(fields=configurations())
def test_program_reports_exactly_what_the_runner_asked_for(
    fields: dict[str, Any], report: Path
) -> None:
    with opened(report) as files:
        before = (
            time.clock_gettime(time.CLOCK_MONOTONIC),
            time.clock_gettime(time.CLOCK_BOOTTIME),
        )
        lines = reported(fields, files)
        wanted = expected_files(fields, files)
    wanted |= expected_ids(fields) | expected_privileges(fields) | expected_process(fields)
    names = [name for name in lines if name.startswith("fd")] + list(wanted)
    assert {name: lines.get(name) for name in names} == {
        name: [wanted[name]] if name in wanted else None for name in names
    }
    argv = [lines[f"arg{number}"][0] for number in range(len(fields["args"]))]
    assert argv == fields["args"]
    assert sorted(lines.get("env", [])) == sorted(f"{k}={v}" for k, v in fields["env"].items())
    offsets = fields.get("time_offsets", TimeOffsets())
    for name, start, offset in zip(
        ("monotonic", "boottime"), before, (offsets.monotonic, offsets.boottime), strict=True
    ):
        assert -1 <= int(lines[name][0]) - start - offset < 30
    check_namespaces(fields, lines)
    check_mounts(fields, lines)


def test_capabilities_are_numbered_as_the_kernel_does() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert len(CAPABILITIES) == last + 1
