"""OCI profiles beside crun: the same profile gives the same decision of each call.

Rows K37, K66, K67, U59, M69; T14, T20.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner import Limits, Mount, Sandbox, Status
from runner.seccomp import bpf, evaluate, native, syscalls
from runner.seccomp.oci import parse_profile
from runner.seccomp.rules import Verb

pytestmark = [pytest.mark.userns, pytest.mark.root]

ARCH = native(None)
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[ARCH]
STOCK = Path("/usr/share/containers/seccomp.json")

CAPABILITIES: list[tuple[str, ...]] = [
    (),
    ("AUDIT_WRITE",),
    ("SYS_ADMIN", "SYS_CHROOT", "DAC_READ_SEARCH"),
    ("SYS_MODULE", "SYS_TIME", "SYS_TTY_CONFIG", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO"),
]


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    if not STOCK.exists():
        pytest.skip("needs the stock profile of containers-common")
    loaded: dict[str, Any] = json.loads(STOCK.read_text())
    return loaded


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container of one program, `calls`."""
    place = tmp_path_factory.mktemp("bundle")
    (place / "rootfs").mkdir()
    source = Path(__file__).with_name("calls.c")
    command = ["musl-gcc", "-static", "-O1", "-o", place / "rootfs" / "calls", source]
    subprocess.run(command, check=True)
    return place


def for_runtime(profile: dict[str, Any], capabilities: Sequence[str]) -> dict[str, Any]:
    """Evaluate the conditions as Podman does, which gives crun what is left."""
    named = {f"CAP_{name}" for name in capabilities}

    def applies(entry: dict[str, Any]) -> bool:
        includes, excludes = entry.get("includes", {}), entry.get("excludes", {})
        return (
            MACHINE in includes.get("arches", [MACHINE])
            and set(includes.get("caps", ())) <= named
            and MACHINE not in excludes.get("arches", ())
            and not set(excludes.get("caps", ())) & named
        )

    kept = {"names", "action", "args", "errnoRet"}
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": [f"SCMP_ARCH_{ARCH.upper()}"],
        "syscalls": [
            {key: value for key, value in entry.items() if key in kept}
            for entry in profile["syscalls"]
            if applies(entry)
        ],
    }


# crun refuses hosts with both cgroup trees: it is shown the one of version 2, as its own.
SHOW_V2 = 'umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec "$@"'


def crun(bundle: Path, *words: str) -> str:
    if shutil.which("crun") is None:
        pytest.skip("crun is not installed")
    command = ["unshare", "-m", "sh", "-c", SHOW_V2, "sh"]
    command += ["crun", "--cgroup-manager=disabled", f"--root={bundle}/state", *words]
    with open(bundle / "out", "w+b") as out:  # a pipe would be held open by the container
        subprocess.run(
            command, cwd=bundle, check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=out
        )
        out.seek(0)
        return out.read().decode()


def configure(bundle: Path, seccomp: dict[str, Any], args: Sequence[str]) -> None:
    (bundle / "config.json").unlink(missing_ok=True)
    crun(bundle, "spec")
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": list(args)}
    config["linux"]["seccomp"] = seccomp
    (bundle / "config.json").write_text(json.dumps(config))


def filter_of_crun(bundle: Path, seccomp: dict[str, Any]) -> bytes:
    """Give the filter that crun makes for a container, and loads into it."""
    configure(bundle, seccomp, ["/calls"])
    crun(bundle, "create", "filter")
    try:
        return (bundle / "state" / "filter" / "seccomp.bpf").read_bytes()
    finally:
        crun(bundle, "delete", "-f", "filter")


def ours(profile: dict[str, Any], capabilities: Sequence[str]) -> bytes:
    text = json.dumps(profile)
    found = parse_profile(text, name="stock", arch=ARCH, capabilities=capabilities)
    return bpf.compile_rules(found.policy, ARCH, syscalls.numbers(ARCH))


def argument_cases() -> Iterator[tuple[int, ...]]:
    """Give what the profile's comparisons look at, what is beside it, and anything."""
    near = [0, 1, 2, 8, 9, 10, 15, 16, 17, 40, 0x20000, 0x20008, 0x10000000, 2**32 - 1]
    near += [1 << 32 | value for value in near] + [2**64 - 1]
    yield from itertools.product(near, [0, 1], near)
    chosen = random.Random(1)
    for _ in range(100):
        yield tuple(chosen.getrandbits(64) for _ in range(6))


@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=" ".join)
def test_stock_profile_decides_every_call_as_crun_does(
    capabilities: tuple[str, ...], profile: dict[str, Any], bundle: Path
) -> None:
    theirs = filter_of_crun(bundle, for_runtime(profile, capabilities))
    mine = ours(profile, capabilities)
    names = {number: name for name, number in syscalls.numbers(ARCH).items()}
    compared = {
        name for entry in profile["syscalls"] if entry["args"] for name in entry["names"]
    }
    # From 2**30 on are no calls, and calls of the x32 ABI.
    for number in [*range(600), 2**29, 2**30 - 1]:
        cases = argument_cases() if names.get(number) in compared else [(), (2**64 - 1,) * 6]
        for arguments in cases:
            answers = [evaluate.run(one, number, ARCH, arguments) for one in (mine, theirs)]
            assert answers[0] == answers[1], (names.get(number, number), arguments)


def test_stock_profile_depends_on_the_capabilities(profile: dict[str, Any]) -> None:
    mount, chroot, bpf_call = (syscalls.numbers(ARCH)[n] for n in ("mount", "chroot", "bpf"))
    without, with_admin = (ours(profile, caps) for caps in ((), ("SYS_ADMIN",)))
    assert str(evaluate.run(without, bpf_call, ARCH)) == "errno EPERM"
    assert str(evaluate.run(with_admin, bpf_call, ARCH)) == "allow"
    assert str(evaluate.run(without, chroot, ARCH)) == "errno EPERM"
    assert str(evaluate.run(with_admin, chroot, ARCH)) == "errno EPERM"
    assert str(evaluate.run(without, mount, ARCH)) == "allow"  # which its authors leave open


def test_refused_calls_answer_in_a_sandbox_as_in_a_container(
    profile: dict[str, Any], bundle: Path
) -> None:
    mine = ours(profile, ())
    # Of x86_64, uretprobe and uprobe (335, 336) pass every filter, and end who calls them.
    numbers = set(range(500)) - {335, 336}
    cases = [(number, *(0,) * 6) for number in sorted(numbers)] + [
        (syscalls.numbers(ARCH)["socket"], 16, 3, 9),
        (syscalls.numbers(ARCH)["personality"], 5),
    ]
    refused = [
        ",".join(map(str, case))
        for case in cases
        if evaluate.run(mine, case[0], ARCH, case[1:]).verb is Verb.ERRNO
    ]
    assert len(refused) > 100
    configure(bundle, for_runtime(profile, ()), ["/calls", *refused])
    by_crun = crun(bundle, "run", "run").split()
    mount = Mount.bind(str(bundle / "rootfs"), "/bundle")
    os.chmod(bundle, 0o755)
    with Sandbox(policy=mine, mounts=[mount], limits=Limits(wall_time=60)) as sandbox:
        result = sandbox.run(["/bundle/calls", *refused])
    assert result.status is Status.OK
    assert (result.stdout or b"").decode().split() == by_crun
    assert set(by_crun) == {"1", "22", "38"}
