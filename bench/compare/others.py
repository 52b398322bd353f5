"""Other sandboxes, told to give what ours gives as far as they can; from Debian's packages.

Each is a command, started by the same loop in C as the bare program: a sandbox a run. None
tells what the program has used.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
from pathlib import Path
from typing import Any

from runner.host import detect
from runner.seccomp import files
from runner.seccomp.rules import Verb

PLACE = "/bench"  # of the programs, inside; where the sandbox can move them
ETC = ("/etc/alternatives", "/etc/ld.so.cache", *glob.glob("/etc/java-*"))
IDS = 1_900_000_000
PROCESSES, MEMORY = 64, 256 << 20  # as bench.measure.LIMITS


def missing(program: str, package: str) -> str | None:
    return None if shutil.which(program) else f"{program} (apt-get install {package})"


def bwrap(place: Path, command: list[str]) -> list[str]:
    """All namespaces, our own filter from fd 3; no cgroups, no limits."""
    words = ["/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
    words += ["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--hostname", "sandbox"]
    words += ["--seccomp", "3", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    for entry in detect().root_entries:
        words += (
            ["--ro-bind", f"/{entry.name}", f"/{entry.name}"]
            if entry.link is None
            else ["--symlink", entry.link, f"/{entry.name}"]
        )
    for path in ETC:
        words += ["--ro-bind-try", path, path]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm", "--tmpfs", "/tmp"]
    words += ["--ro-bind", str(place), PLACE, "--chdir", "/tmp", "--"]
    return words + command


def firejail(_: Path, command: list[str]) -> list[str]:
    """Its own filter, of what is refused; no user or cgroup namespace, the host's root."""
    words = ["/usr/bin/firejail", "--quiet", "--noprofile", "--net=none", "--private-tmp"]
    words += ["--private-dev", "--caps.drop=all", "--nonewprivs", "--seccomp"]
    words += ["--ipc-namespace", "--hostname=sandbox", "--nodbus", "--private-cwd=/tmp"]
    return [*words, f"--rlimit-nproc={PROCESSES}", "--", *command]


def crun(place: Path, command: list[str], number: int) -> list[str]:
    """All namespaces, cgroups with the same limits; a filter of the same calls."""
    bundle = place / f"bundle{number}"
    root = bundle / "rootfs"
    for name in ("proc", "dev", "tmp", "sys", "etc", PLACE):
        (root / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for path in filter(os.path.exists, ETC):
        target = root / path.lstrip("/")
        if os.path.isdir(path):
            target.mkdir(exist_ok=True)
        else:
            target.touch()
    for entry in detect().root_entries:
        if entry.link is None:
            (root / entry.name).mkdir(exist_ok=True)
        elif not (root / entry.name).is_symlink():
            (root / entry.name).symlink_to(entry.link)
    (bundle / "config.json").write_text(json.dumps(_config(place, command)))
    words = ["/usr/bin/crun", "--cgroup-manager=cgroupfs", f"--root={place}/crun"]
    return [*words, "run", f"--bundle={bundle}", f"bench-{os.getpid()}-{number}"]


def without_hybrid() -> list[str]:
    """Give what hides a v2 tree beside v1's from crun, which refuses to work with both."""
    hybrid = "/sys/fs/cgroup/unified"
    if not os.path.ismount(hybrid):
        return []
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    return [*words, f'umount {hybrid} && exec "$@"', "sh"]


def _config(place: Path, command: list[str]) -> dict[str, Any]:
    ids = [{"containerID": 0, "hostID": IDS, "size": 65536}]
    names = ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 1000, "gid": 1000},
            "args": command,
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/tmp",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sandbox",
        "mounts": _mounts(place),
        "linux": {
            "namespaces": [{"type": name} for name in names],
            "uidMappings": ids,
            "gidMappings": ids,
            "resources": {"memory": {"limit": MEMORY}, "pids": {"limit": PROCESSES}},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "defaultErrnoRet": errno.ENOSYS,
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": _allowed(), "action": "SCMP_ACT_ALLOW"}],
            },
        },
    }


def _mounts(place: Path) -> list[dict[str, Any]]:
    def tmpfs(path: str) -> dict[str, Any]:
        options = ["nosuid", "nodev", "mode=1777", "size=64m"]
        return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options}

    def bind(source: str, path: str) -> dict[str, Any]:
        return {
            "destination": path,
            "type": "bind",
            "source": source,
            "options": ["rbind", "ro"],
        }

    system = [f"/{entry.name}" for entry in detect().root_entries if entry.link is None]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        tmpfs("/dev") | {"options": ["nosuid", "mode=755", "size=64k"]},
        tmpfs("/dev/shm"),
        tmpfs("/tmp"),
        *(bind(path, path) for path in [*system, *filter(os.path.exists, ETC)]),
        bind(str(place), PLACE),
    ]


def _allowed() -> list[str]:
    """Give the calls that our policy allows, some of them not with all arguments."""
    policy = files.read("default", os.uname().machine)
    allowed = {
        name for rule in policy.rules if rule.action.verb is Verb.ALLOW for name in rule.names
    }
    return sorted(allowed)
