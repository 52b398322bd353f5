# ruff: noqa: INP001 - a tool, run by its path
"""Write the seeds of fuzz_plan.c into corpus/: plans as the package sends them.

Run it with the package's interpreter after a change of the wire; its output depends on nothing
else. Each seed is the number of fds, in one byte, and then a plan.
"""

from __future__ import annotations

from pathlib import Path

from runner import plan, rootfs, wire
from runner.config import ALL_NAMESPACES, Credential, IdMap, Mount, Namespace, Rlimit, Runner
from runner.errors import ErrorLocation
from runner.plan import Op, Phase, Step
from runner.rootfs import RootEntry
from runner.seccomp import load

CORPUS = Path(__file__).with_name("corpus")

ROOT_ENTRIES = (
    RootEntry("usr", None),
    RootEntry("bin", "usr/bin"),
    RootEntry("lib", "usr/lib"),
)
MAPS = (IdMap(0, 1_900_000_000), IdMap(1000, 1_900_000_001))


def sandbox() -> Runner:
    """Give the default sandbox, as on a small host with a merged /usr."""
    root = rootfs.default_root(ROOT_ENTRIES)
    return Runner(
        args=("sandbox",),
        namespaces=ALL_NAMESPACES,
        mounts=rootfs.combine(root, ()),
        pivot_root="/tmp",
        host_name="sandbox",
        domain_name="local",
        uid_mappings=MAPS,
        gid_mappings=MAPS,
        drop_caps=True,
    )


def program(**changes: object) -> Runner:
    """Give a program that uses every part of a program's plan but the rendezvous."""
    fields: dict[str, object] = {
        "args": ("cat", "a b", ""),
        "env": {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        "rlimits": (Rlimit.named("NOFILE", 64), Rlimit.named("CORE", 0)),
        "work_dir": "/tmp",
        "namespaces": ALL_NAMESPACES,
        "credential": Credential(1000, 1000),
        "seccomp": load("default", "x86_64"),
        "no_new_privs": True,
        "drop_caps": True,
    }
    return Runner(**(fields | changes))  # type: ignore[arg-type]


def program_steps(runner: Runner) -> list[Step]:
    """Plan it with captured output and two cgroups."""
    return plan.program(
        runner,
        candidates=(b"/usr/bin/cat", b"/bin/cat"),
        files=(0, plan.FD_STDOUT_PIPE, plan.FD_STDERR_PIPE),
        cgroups=(1, 2),
    )


def seeds() -> dict[str, tuple[int, list[Step]]]:
    """Give name → number of fds, steps."""
    shared = Namespace.MOUNT | Namespace.PID
    files = Runner(
        args=("files",),
        namespaces=shared,
        mounts=(Mount.file("/etc/hosts", bytes(range(256))), Mount.symlink("a", "/b")),
        pivot_root="/mnt",
    )
    tree = Runner(
        args=("tree",),
        namespaces=ALL_NAMESPACES,
        root="/srv/image",
        mounts=(
            Mount.proc(readonly=False, masked=True),
            Mount.dev(console="/dev/pts/0"),
            Mount.node("/dev/fuse", "c", 10, 229),
            Mount.overlay("/work", lower=("/a", "/b"), upper="/c/upper", work="/c/work"),
            Mount.file("/etc/hosts", b"127.0.0.1 localhost\n"),
            Mount.read_only("/usr"),
            Mount.remount("/work", executable=False),
        ),
        pivot_root="/tmp",
    )
    bare = Runner(args=("true",))
    step = Step(Phase.PROGRAM, Op.SETSID, ErrorLocation.SETSID)
    chdir = Step(Phase.SETUP, Op.CHDIR, ErrorLocation.CHDIR, strings=(b"/",), item=0)
    knock = program(sync_func=print, seccomp=b"", credential=Credential(0, 0, (4, 5)))
    return {
        "sandbox-privileged": (0, plan.box(sandbox(), privileged=True)),
        "sandbox-user": (0, plan.box(sandbox(), privileged=False)),
        "sandbox-files": (0, plan.box(files, privileged=True)),
        "sandbox-tree": (0, plan.box(tree, privileged=True)),
        "sandbox-old-mounts": (0, plan.box(tree, privileged=True, old_mounts=True)),
        "sandbox-bare": (0, plan.box(bare, privileged=False)),
        "program": (3, program_steps(program())),
        "program-sync": (3, program_steps(knock)),
        "program-bare": (3, program_steps(bare)),
        "program-closed": (0, plan.program(bare, candidates=(b"x",), files=(plan.FD_CLOSED,))),
        "program-no-files": (0, plan.program(bare, candidates=(), files=())),
        "step": (0, [step]),
        "steps-many": (0, [step] * 40),
        "strings-empty": (0, [chdir, step._replace(op=Op.ARGV, strings=(b"",) * 8)]),
        "blob-long": (255, [step._replace(op=Op.PLACE_FDS, data=bytes(4 * 1024))]),
        "node": (0, [chdir._replace(op=Op.MKNOD, args=(0o20666, 259, -1, 2**63 - 1))]),
    }


def main() -> None:
    """Write every seed; one that is here no more stays, to be removed by hand."""
    CORPUS.mkdir(exist_ok=True)
    for name, (fd_count, steps) in seeds().items():
        (CORPUS / name).write_bytes(bytes([fd_count]) + wire.encode_plan(steps))


if __name__ == "__main__":
    main()
