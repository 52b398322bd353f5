"""The sandbox's file system, as a program in it sees it, and what of it reaches the host.

Each promise is attacked first: by symlinks that an earlier run has left, by what is mounted
below, by what is remounted. Rows F9–F11, H60–H72, K22–K29, U30–U37, C9, C10, M40–M59.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runner
from runner import (
    ALL_NAMESPACES,
    ChildError,
    ConfigError,
    ErrorLocation,
    IdMap,
    Mount,
    Namespace,
    Runner,
    helper,
    host,
    sources,
)
from runner.config import MountKind
from tests.kernel.starting import output_of

At = ErrorLocation
pytestmark = pytest.mark.userns
ROOT = Path(__file__).parents[2]

SYSTEM = tuple(
    Mount.symlink(os.readlink(path), path) if os.path.islink(path) else Mount.bind(path)
    for path in ("/bin", "/lib", "/lib64", "/usr")
    if os.path.exists(path)
)
# The same on all machines, as all calls since 5.0.
NEW_CALLS = {"open_tree": 428, "move_mount": 429, "mount_setattr": 442}


def fields(*mounts: Mount, **more: object) -> dict[str, Any]:
    wanted = {"namespaces": ALL_NAMESPACES, "pivot_root": "/tmp", "env": {"PATH": "/bin"}}
    return wanted | {"mounts": (*SYSTEM, Mount.proc(), *mounts)} | more


def inside(command: str, *mounts: Mount, **more: object) -> str:
    """Give what a shell in the sandbox writes, to stderr too."""
    return output_of("/bin/sh", "-c", command, stderr=True, **fields(*mounts, **more))


def failure(*mounts: Mount, **more: object) -> tuple[ErrorLocation, int, int | None]:
    """Give how the start fails."""
    with pytest.raises(ChildError) as caught:
        inside(":", *mounts, **more)
    return caught.value.location, caught.value.errno, caught.value.index


def options(target: str, *mounts: Mount, **more: object) -> list[set[str]]:
    """Give the options of each mount at this target or below it."""
    lines = inside("cat /proc/self/mountinfo", *mounts, **more).splitlines()
    return [
        set(line.split()[5].split(","))
        for line in lines
        if f"{line.split()[4]}/".startswith(f"{target}/")
    ]


@pytest.fixture(scope="session")
def old_keeper(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The helper on a kernel without the calls that are newer than mount(2)."""
    directory = tmp_path_factory.mktemp("old")
    directory.chmod(0o755)
    deny = directory / "deny_syscall"
    subprocess.run(["gcc", "-o", deny, ROOT / "tests" / "deny_syscall.c"], check=True)
    program = helper.keeper_path()
    for number in NEW_CALLS.values():
        wrapper = directory / f"without{number}"
        wrapper.write_text(f"#!/bin/sh\nexec {deny} {number} {errno.ENOSYS} {program}\n")
        wrapper.chmod(0o755)
        program = str(wrapper)
    return program


@pytest.fixture(autouse=True, params=["new calls", "old calls"])
def new(
    request: pytest.FixtureRequest, old_keeper: str, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Each test twice: at the second time the start finds out that calls are missing."""
    monkeypatch.setattr(sources._Kernel, "has_new_calls", True)
    if request.param == "old calls":
        monkeypatch.setattr(helper, "keeper_path", lambda: old_keeper)
    return request.param == "new calls"


FIRST = len(SYSTEM) + 1  # the place of the first of `mounts`


@pytest.fixture(params=["user", pytest.param("no user", marks=pytest.mark.root)])
def spaces(request: pytest.FixtureRequest) -> Namespace:
    """With a user namespace, and as root without one."""
    return ALL_NAMESPACES if request.param == "user" else ALL_NAMESPACES & ~Namespace.USER


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory that is a root: a shell, and places to mount at."""
    tree = tmp_path / "tree"
    for name in ("proc", "dev", "tmp", "etc", "work"):
        (tree / name).mkdir(parents=True)
    for mount in SYSTEM:
        if mount.source.startswith("/"):
            (tree / mount.target[1:]).mkdir()
        else:
            (tree / mount.target[1:]).symlink_to(mount.source)
    (tree / "etc" / "motd").write_text("of the tree\n")
    os.chmod(tmp_path, 0o755)  # init may search it, whoever it is
    return tree


def listing(directory: Path) -> list[tuple[str, int, int]]:
    """Give all that could be changed in a directory."""
    found = [(str(p), p.lstat().st_mode, p.lstat().st_mtime_ns) for p in directory.rglob("*")]
    return sorted(found)


# An existing directory as the root. M41, K23, U9, C9


def test_root_of_a_directory_shows_it_with_mounts_in_it(
    tree: Path, spaces: Namespace
) -> None:  # M41
    shown = inside(
        "cat /etc/motd; ls /; echo $$; echo x >/tmp/x && cat /tmp/x",
        Mount.tmpfs("/tmp"),
        root=str(tree),
        namespaces=spaces,
    )
    names = sorted(path.name for path in tree.iterdir())
    assert shown.split("\n") == ["of the tree", *names, "2", "x", ""]


def test_root_of_a_directory_leaves_nothing_of_the_old_root(
    tree: Path, spaces: Namespace
) -> None:  # C9, T1
    seen = inside("cat /proc/self/mountinfo; ls /..", root=str(tree), namespaces=spaces)
    assert "run-sandboxed" not in seen
    assert seen.splitlines()[-len(list(tree.iterdir())) :] == sorted(os.listdir(tree))
    targets = [line.split()[4] for line in seen.splitlines() if " - " in line]
    assert targets.count("/") == 1


def test_root_of_a_directory_is_read_only_with_all_below(
    tree: Path, spaces: Namespace
) -> None:  # U9, M56
    seen = inside("touch /x /etc/x /usr/x", root=str(tree), namespaces=spaces)
    assert seen.count("Read-only file system") == 3
    assert {"ro", "nosuid", "nodev"} <= options("", root=str(tree), namespaces=spaces)[0]


def test_root_of_a_directory_is_writable_if_asked_for(tree: Path) -> None:  # K29
    assert inside("echo y >/work/y; cat /work/y", root=str(tree), root_readonly=False) == "y\n"
    assert (tree / "work" / "y").read_text() == "y\n"


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize(
    "mount",
    [
        Mount.tmpfs("/missing"),
        Mount.directory("/missing"),
        Mount.file("/missing", b"x"),
        Mount.bind("/usr", "/missing"),
        Mount.bind("/etc/passwd", "/missing"),
        Mount.dev("/missing"),
        Mount.overlay("/missing", lower=["/usr"], ephemeral=True),
        Mount.tmpfs("/missing/below"),
        Mount.device("/dev/null", "/missing"),
    ],
    ids=lambda value: getattr(getattr(value, "kind", value), "name", str(value)),
)
def test_root_of_a_directory_is_never_written_to(
    tree: Path, readonly: bool, mount: Mount, spaces: Namespace
) -> None:  # T27
    before = listing(tree)
    where = failure(mount, root=str(tree), root_readonly=readonly, namespaces=spaces)
    assert where == (At.MOUNT_MKDIR, errno.ENOENT, FIRST)
    assert listing(tree) == before


def test_symlink_in_a_directory_as_root_is_there_or_refused(tree: Path) -> None:  # T27
    (tree / "link").symlink_to("etc")
    assert inside("readlink /link", Mount.symlink("etc", "/link"), root=str(tree)) == "etc\n"
    before = listing(tree)
    for text, target, error in (("a", "/new", errno.ENOENT), ("b", "/link", errno.EEXIST)):
        where = failure(Mount.symlink(text, target), root=str(tree), root_readonly=False)
        assert where == (At.SYMLINK, error, FIRST)
    assert listing(tree) == before


def test_file_in_a_directory_as_root_covers_the_one_there(tree: Path) -> None:  # H67
    mount = Mount.file("/etc/motd", b"ours\n", mode=0o444)
    seen = inside("cat /etc/motd; echo >/etc/motd", mount, root=str(tree), root_readonly=False)
    assert seen.startswith("ours\n")
    assert "Read-only file system" in seen
    assert (tree / "etc" / "motd").read_text() == "of the tree\n"


def test_host_below_a_writable_bind_is_never_made_in(tmp_path: Path) -> None:  # T27
    os.chmod(tmp_path, 0o777)
    bound = Mount.bind(str(tmp_path), "/box", readonly=False)
    for mount in (Mount.tmpfs("/box/x"), Mount.file("/box/x", b""), Mount.directory("/box/x")):
        where = failure(bound, mount)
        assert where == (At.MOUNT_MKDIR, errno.ENOENT, FIRST + 1)
    assert os.listdir(tmp_path) == []


# Planted symlinks: at each kind of target, absolute and upwards.

KINDS: dict[str, Callable[[str], Mount]] = {
    "tmpfs": Mount.tmpfs,
    "directory": Mount.directory,
    "bind": lambda path: Mount.bind("/usr", path),
    "file": lambda path: Mount.file(path, b"planted"),
    "bound file": lambda path: Mount.bind("/etc/passwd", path),
    "dev": Mount.dev,
    "mask": Mount.mask,
    "read_only": Mount.read_only,
    "remount": Mount.remount,
    "proc": Mount.proc,
    "overlay": lambda path: Mount.overlay(path, lower=["/usr"], ephemeral=True),
}
LATE = sorted(KINDS.keys() - {"proc", "mask", "read_only", "remount"})


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host's that anybody may write to: what an attack is after."""
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    return outside


@pytest.mark.parametrize("upwards", [False, True])
@pytest.mark.parametrize("below", ["", "/new"])
@pytest.mark.parametrize("kind", KINDS)
def test_planted_symlink_in_the_root_never_leads_to_the_host(
    tree: Path, outside: Path, kind: str, below: str, upwards: bool, spaces: Namespace
) -> None:  # M41
    link = tree / "trap"
    link.symlink_to(f"../../../../../..{outside}" if upwards else outside)
    before = Path("/proc/self/mountinfo").read_text()
    config = {"root": str(tree), "root_readonly": False, "namespaces": spaces}
    if kind == "mask":  # there is nothing inside where the link leads, and so nothing to hide
        assert inside(":", Mount.mask(f"/trap{below}"), **config) == ""
    else:
        _, error, index = failure(KINDS[kind](f"/trap{below}"), **config)
        assert (error, index) == (errno.ENOENT, FIRST)
    assert os.listdir(outside) == []
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize("link", ["/", "..", "../../..", "/.."])
@pytest.mark.parametrize("kind", [*LATE, "proc", "mask"])
def test_symlink_to_the_root_itself_is_no_target(
    tree: Path, kind: str, link: str, spaces: Namespace
) -> None:
    """What is mounted on the root would be seen by nobody: a mask there would hide nothing."""
    (tree / "trap").symlink_to(link)
    config = {"root": str(tree), "namespaces": spaces}
    if kind == "directory":
        assert inside("ls /trap/etc", Mount.directory("/trap"), **config) == "motd\n"
        return
    location, error, index = failure(KINDS[kind]("/trap"), **config)
    assert (error, index) == (errno.ELOOP, FIRST)
    assert location in {At.MOUNT, At.MOUNT_MKDIR}


@pytest.mark.parametrize("link", ["cwd", "cwd/m4", "root", "fd/3", "cwd/../root"])
@pytest.mark.parametrize("kind", LATE)
def test_symlink_to_what_init_has_open_leads_nowhere(
    tree: Path, kind: str, link: str, spaces: Namespace
) -> None:
    """Proc is put into place last: its links to what init works with are not there before."""
    (tree / "trap").symlink_to(f"/proc/self/{link}")
    config = {"root": str(tree), "namespaces": spaces}
    _, error, index = failure(KINDS[kind]("/trap"), **config)
    assert (error, index) == (errno.ENOENT, FIRST)


def test_symlink_at_the_place_of_proc_leads_to_no_other_file_system(
    tree: Path, outside: Path
) -> None:
    """Proc is mounted while the old root is there, but is put into place when it is gone."""
    (tree / "proc").rmdir()
    (tree / "proc").symlink_to(f"../..{outside}")
    where = failure(root=str(tree))
    assert where == (At.MOUNT_MKDIR, errno.ENOENT, FIRST - 1)
    (tree / "proc").unlink()
    (tree / "proc").symlink_to("work")
    assert inside("cat /work/self/comm", root=str(tree)) == "cat\n"


def test_target_that_is_a_symlink_of_the_image_is_followed(tree: Path) -> None:
    (tree / "run").mkdir()
    (tree / "var").symlink_to("/run")
    mount = Mount.bind("/etc/passwd", "/var/x")
    (tree / "run" / "x").touch()
    seen = inside("cat /run/x", mount, root=str(tree))
    assert seen == Path("/etc/passwd").read_text()
    (tree / "link").symlink_to("run/x")
    assert inside("cat /run/x", Mount.bind("/etc/passwd", "/link"), root=str(tree)) == seen
    assert (tree / "run" / "x").read_text() == ""


def test_root_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    for name, why in (
        ("missing", "cannot be shown: No such file"),
        ("file", "not a directory"),
    ):
        (tmp_path / "file").touch()
        config = Runner(args=("x",), **fields(root=str(tmp_path / name)))
        with pytest.raises(ConfigError, match=f"Runner.root: .*{name}': {why}"):
            sources.check(config)


def test_root_that_is_writable_is_a_tmpfs_of_its_own() -> None:  # F11
    assert inside("echo x >/x && cat /x", root_readonly=False) == "x\n"
    assert not os.path.exists("/x")


# Binds. F9, F10, H60, K24, U33, M42–M45


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """A directory and a file to bind, and places to mount below the directory."""
    os.chmod(tmp_path, 0o755)
    shown = tmp_path / "shown"
    (shown / "below").mkdir(parents=True)
    (shown / "file").write_text("text\n")
    os.chmod(shown, 0o777)
    os.chmod(shown / "file", 0o666)
    return shown


def test_bind_of_a_directory_is_read_only_unless_asked(
    shown: Path, spaces: Namespace, new: bool
) -> None:
    mounts = (
        Mount.bind(str(shown), "/ro"),
        Mount.bind(str(shown), "/rw", readonly=False),
        Mount.bind(str(shown / "file"), "/one"),
        Mount.bind(str(shown / "file"), "/two", readonly=False),
    )
    seen = inside(
        "echo a >/ro/a; echo b >/rw/b; echo c >/one; echo d >/two; cat /ro/b /one",
        *mounts,
        namespaces=spaces,
    )
    assert seen.count("Read-only file system") == 2
    assert seen.splitlines()[-2:] == ["b", "d"]
    assert sorted(os.listdir(shown)) == ["b", "below", "file"]
    assert sources._Kernel.has_new_calls is new


def test_bind_has_the_attributes_that_were_asked_for(shown: Path, spaces: Namespace) -> None:
    mounts = (Mount.bind(str(shown), "/box", readonly=False, executable=False),)
    (seen,) = options("/box", *mounts, namespaces=spaces)
    assert {"rw", "nosuid", "nodev", "noexec"} <= seen
    (seen,) = options("/n", Mount.device("/dev/null", "/n", readonly=True))
    assert {"ro", "nosuid"} <= seen
    assert "nodev" not in seen


def test_bind_optional_without_a_source_is_left_out(spaces: Namespace) -> None:  # M45
    mounts = (Mount.bind("/no/such/path", optional=True), Mount.tmpfs("/t"))
    assert inside("ls -d /no/such/path /t", *mounts, namespaces=spaces).endswith("\n/t\n")
    with pytest.raises(ConfigError, match=r"mounts\[\d+\].source: '/no/such/path': cannot be"):
        inside("true", Mount.bind("/no/such/path"))


def with_submount(shown: Path, command: str, flags: str = "") -> str:
    """Run a command where a tmpfs is mounted below `shown`, in namespaces of its own."""
    setup = f"mount -t tmpfs {flags} t {shown}/below && touch {shown}/below/f && {command}"
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", setup]
    if os.geteuid() != 0:
        words[1:1] = ["-Ur"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from runner import Mount, sources
from tests.kernel import test_root as t
sources._Kernel.has_new_calls = {new}
print(t.inside({command!r}, Mount.bind({shown!r}, "/box", recursive={recursive},
                                       readonly={readonly})))
"""


@pytest.mark.parametrize("flags", ["", "-o nodev,noexec"])
def test_bind_read_only_holds_for_what_is_mounted_below(
    shown: Path, new: bool, flags: str
) -> None:  # T17, M43, M44, F10
    """In a user namespace the flags of the source are locked, and must not be lost for ours."""
    command = "echo x >/box/below/f; echo x >/box/x; cat /proc/self/mountinfo"
    text = PROGRAM.format(
        root=str(ROOT),
        new=new,
        command=command,
        shown=str(shown),
        recursive=True,
        readonly=True,
    )
    (shown.parent / "program.py").write_text(text)
    seen = with_submount(shown, f"{sys.executable} {shown.parent}/program.py", flags)
    assert seen.count("Read-only file system") == 2
    (below,) = (line for line in seen.splitlines() if " /box/below " in line)
    wanted = {"ro", "nosuid", "nodev"} | ({"noexec"} if flags else set())
    assert wanted <= set(below.split()[5].split(","))
    assert "x" not in os.listdir(shown)


def test_bind_keeps_flags_that_it_was_not_asked_for(shown: Path, new: bool) -> None:  # T17
    text = PROGRAM.format(
        root=str(ROOT),
        new=new,
        command="cat /proc/self/mountinfo; echo x >/box/below/x && cat /box/below/x",
        shown=str(shown),
        recursive=True,
        readonly=False,
    )
    (shown.parent / "program.py").write_text(text)
    seen = with_submount(shown, f"{sys.executable} {shown.parent}/program.py", "-o noexec")
    (below,) = (line for line in seen.splitlines() if " /box/below " in line)
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(below.split()[5].split(","))
    assert seen.rstrip().endswith("x")


def test_bind_that_is_not_recursive_is_without_what_is_mounted_below(
    spaces: Namespace, new: bool
) -> None:
    if not host.detect().privileged or (Namespace.USER in spaces and not new):
        # A user namespace may not look below a mount that it did not make.
        assert failure(Mount.bind("/dev", "/d", recursive=False))[:2] == (
            At.MOUNT_SOURCE,
            errno.EINVAL,
        )
        return
    mount = Mount.bind("/dev", "/d", recursive=False)
    assert len(options("/d", mount, namespaces=spaces)) == 1
    assert len(options("/d", Mount.bind("/dev", "/d"), namespaces=spaces)) > 1


# Order. M57, K28, U32


def test_mounts_are_made_parents_first_whatever_their_order(shown: Path) -> None:  # K28
    mounts = (
        Mount.file("/a/b/c/file", b"deep\n"),
        Mount.tmpfs("/a/b/c"),
        Mount.bind(str(shown), "/a/b/c/d"),
        Mount.tmpfs("/a"),
        Mount.read_only("/a"),
        Mount.directory("/a/b"),
    )
    assert inside("cat /a/b/c/file /a/b/c/d/file", *mounts) == "deep\ntext\n"


def test_mount_for_a_target_that_has_one_replaces_it() -> None:  # M57
    mounts = (Mount.file("/f", b"first\n"), Mount.tmpfs("/f/"), Mount.file("//f", b"last\n"))
    assert inside("cat /f", *mounts) == "last\n"


def test_mount_that_fails_has_its_place_in_the_callers_list() -> None:  # F9, M57
    mounts = (Mount.tmpfs("/z/y/x"), Mount.file("/f", b""), Mount.tmpfs("/f/b"))
    assert failure(*mounts) == (At.MOUNT_MKDIR, errno.ENOTDIR, FIRST + 2)


# Tmpfs, directories, files, links. H64–H67, K26, K27, M46, M53


def test_tmpfs_holds_no_more_than_its_size_and_its_inodes() -> None:  # M46
    mount = Mount.tmpfs("/t", size=64 * 1024, inodes=4, mode=0o750)
    seen = inside(
        "stat -c %a /t; head -c 65536 /dev/zero >/t/a; cp /bin/sh /t/b; rm /t/a; "
        "touch /t/1 /t/2; touch /t/3",
        mount,
        Mount.dev(),
    )
    assert seen.startswith("750\n")
    assert seen.count("No space left on device") == 2


def test_directories_files_and_links_are_as_they_were_asked_for() -> None:  # H65–H67, K27
    mounts = (
        Mount.directory("/d/e", mode=0o1711),
        Mount.file("/d/f", b"content\n", mode=0o640),
        Mount.symlink("../x", "/d/l"),
    )
    seen = inside("stat -c %a /d /d/e /d/f; cat /d/f; readlink /d/l; echo >/d/f", *mounts)
    assert seen.splitlines()[:5] == ["755", "1711", "640", "content", "../x"]
    assert "Read-only file system" in seen


# File systems of the kernel's. K26, M47, M49, M50


def test_proc_shows_the_processes_of_the_sandbox_alone(spaces: Namespace) -> None:  # M47
    seen = inside("cd /proc && ls -d [0-9]*; touch sys/kernel/hostname", namespaces=spaces)
    assert seen.split()[0] == "1"
    assert len([word for word in seen.split() if word.isdigit()]) <= 4
    assert "Read-only file system" in seen or "Permission denied" in seen


@pytest.mark.parametrize(
    ("mount", "namespace"),
    [
        (Mount.proc(), Namespace.PID),
        (Mount.sysfs(), Namespace.NETWORK),
        (Mount.mqueue(), Namespace.IPC),
    ],
)
def test_file_system_of_a_namespace_needs_one_of_its_own(
    mount: Mount, namespace: Namespace
) -> None:  # K26
    config = Runner(
        args=("x",),
        pivot_root="/tmp",
        namespaces=ALL_NAMESPACES & ~namespace,
        mounts=(Mount.tmpfs("/t"), mount),
    )
    with pytest.raises(ConfigError) as caught:
        sources.check(config)
    assert str(caught.value) == (
        f"Runner.mounts[1]: {mount.target!r}: Mount.{mount.kind.value} needs "
        f"Namespace.{namespace.name} in Runner.namespaces"
    )


def test_sysfs_shows_the_sandboxs_own_network(tree: Path, spaces: Namespace) -> None:  # M50
    (tree / "sys").mkdir()
    for more in ({}, {"root": str(tree)}):
        config = {"namespaces": spaces} | more
        seen = inside("ls /sys/class/net; touch /sys/x", Mount.sysfs(), **config)
        assert seen.split()[0] == "lo"
        assert len(seen.splitlines()) == 2
        (flags,) = options("/sys", Mount.sysfs(), **config)
        assert {"ro", "nosuid", "nodev", "noexec"} <= flags


def test_mqueue_shows_the_queues_of_the_sandbox(spaces: Namespace) -> None:  # M49
    mounts = (Mount.dev(), Mount.mqueue())
    seen = inside("touch /dev/mqueue/q && ls /dev/mqueue", *mounts, namespaces=spaces)
    assert seen == "q\n"


@pytest.mark.parametrize("masked", [True, None])
def test_proc_hides_the_host_from_its_uid_0(masked: bool | None, spaces: Namespace) -> None:
    """M52: this uid may read what others may not, without any capability."""
    names = "keys key-users timer_list slabinfo vmallocinfo kpageflags kallsyms iomem"
    command = f"cd /proc; for f in {names}; do [ -e $f ] && head -c1 $f 2>&1; done; ls -a acpi"
    config = {"drop_caps": True, "namespaces": spaces}
    maps = (IdMap(0, os.geteuid()),)
    if Namespace.USER in spaces:
        config |= {"uid_mappings": maps, "gid_mappings": (IdMap(0, os.getegid()),)}
    mounts = (*SYSTEM, Mount.proc(masked=masked))
    seen = inside(command, **config, mounts=mounts)
    open_files = [line for line in seen.splitlines() if "Permission denied" not in line]
    if os.geteuid() == 0 or masked:
        assert open_files == []
    else:
        assert open_files != []  # it sees what the caller sees


def test_proc_without_masks_shows_that_there_was_something_to_hide() -> None:
    mounts = (*SYSTEM, Mount.proc(masked=False))
    assert (
        inside(
            "head -c1 /proc/key-users; [ -s /proc/kallsyms ] || head -c1 /proc/kallsyms",
            mounts=mounts,
        )
        != ""
    )


def test_proc_that_is_writable_keeps_the_host_read_only(spaces: Namespace) -> None:  # M47
    mounts = (*SYSTEM, Mount.proc(readonly=False))
    seen = inside(
        "cd /proc; echo 5 >self/oom_score_adj && cat self/oom_score_adj; "
        "for f in sys/vm/swappiness sys/kernel/core_pattern irq/default_smp_affinity; do "
        "[ -e $f ] && echo 1 >$f; done",
        mounts=mounts,
        namespaces=spaces,
    )
    lines = seen.splitlines()
    assert lines[0] == "5"
    # As a user of the host's, some of them are refused already by their modes.
    assert all("Read-only" in line or "denied" in line for line in lines[1:])
    assert len(lines) >= 3
    if os.geteuid() == 0:
        assert seen.count("Read-only file system") >= 3


# /dev. H62, H72, K25, U34, C9, M48, M59


def test_dev_has_the_standard_nodes_and_links(spaces: Namespace) -> None:  # M48, T24
    seen = inside(
        "cd /dev; for f in null zero full random urandom tty; do [ -c $f ] && echo $f; done; "
        "for l in fd stdin stdout stderr core; do readlink $l; done; "
        "echo x >null && head -c1 zero | wc -c && cp /bin/sh full; head -c9 urandom | wc -c; "
        "stat -c %a shm; touch x",
        Mount.dev(),
        namespaces=spaces,
    )
    assert seen.split("\n")[:6] == ["null", "zero", "full", "random", "urandom", "tty"]
    assert seen.split("\n")[6:11] == [
        "/proc/self/fd",
        *(f"/proc/self/fd/{fd}" for fd in range(3)),
        "/proc/kcore",
    ]
    assert "No space left on device" in seen
    assert seen.splitlines()[-3:-1] == ["9", "755"]
    assert seen.splitlines()[-1].endswith("Read-only file system")


def test_dev_that_is_writable_is_the_sandboxs_own() -> None:  # H72
    assert inside("echo x >/dev/x && cat /dev/x", Mount.dev(readonly=False)) == "x\n"
    assert not os.path.exists("/dev/x")


OPENPTY = """
import os, sys
master, slave = os.openpty()
print(os.ttyname(slave), oct(os.stat(slave).st_mode & 0o777), os.stat(slave).st_gid)
os.write(master, b"typed\\n")
print(os.read(slave, 9))
"""


def test_dev_with_pts_has_terminals_of_its_own(tree: Path, spaces: Namespace) -> None:  # M48
    for more in ({}, {"root": str(tree)}):
        seen = output_of(
            sys.executable if sys.executable.startswith("/usr") else "/usr/bin/python3",
            "-c",
            OPENPTY,
            stderr=True,
            **fields(Mount.dev(pts=True), namespaces=spaces, **more),
        )
        group = 5 if Namespace.USER not in spaces and host.detect().privileged else 0
        assert seen == f"/dev/pts/0 0o620 {group}\nb'typed\\n'\n"
    assert options("/dev/pts", Mount.dev(pts=True), namespaces=spaces)[0] >= {
        "nosuid",
        "noexec",
    }


def test_dev_pts_without_ids_0_is_refused() -> None:
    maps = {
        "uid_mappings": (IdMap(1000, os.geteuid()),),
        "gid_mappings": (IdMap(1000, os.getegid()),),
    }
    with pytest.raises(ConfigError, match=rf"Runner.mounts\[{FIRST}\].pts: True: .*ids 0"):
        inside(":", Mount.dev(pts=True), **maps)


def test_dev_console_is_the_terminal_that_was_given(spaces: Namespace) -> None:  # C9
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        mount = Mount.dev(console=name)
        assert inside("echo typed >/dev/console", mount, namespaces=spaces) == ""
        assert os.read(master, 99) == b"typed\r\n"
    finally:
        os.close(master)
        os.close(slave)


def test_device_that_was_chosen_is_the_hosts(spaces: Namespace) -> None:  # M59
    mounts = (Mount.dev(), Mount.device("/dev/zero", "/dev/mine"))
    assert inside("head -c3 /dev/mine | wc -c", *mounts, namespaces=spaces) == "3\n"
    config = Runner(args=("x",), **fields(Mount.device("/etc/passwd")))
    with pytest.raises(ConfigError, match=r"source: '/etc/passwd': not a device"):
        sources.check(config)


@pytest.mark.root
def test_node_is_made_by_mknod(spaces: Namespace) -> None:  # M59, U34, T24
    mounts = (Mount.dev(), Mount.node("/dev/mine", "c", 1, 5, mode=0o640))
    if Namespace.USER in spaces or not host.detect().privileged:
        assert failure(*mounts) == (At.MKNOD, errno.EPERM, FIRST + 1)
        return
    seen = inside(
        "stat -c '%a %t %T' /dev/mine; head -c3 /dev/mine | wc -c", *mounts, namespaces=spaces
    )
    assert seen == "640 1 5\n3\n"


def test_node_in_a_user_namespace_is_an_error_with_a_remedy() -> None:  # T24
    with pytest.raises(ChildError) as caught:
        inside(":", Mount.dev(), Mount.node("/dev/mine", "c", 1, 5))
    error = caught.value
    assert (error.location, error.errno, error.index) == (At.MKNOD, errno.EPERM, FIRST + 1)
    assert error.hint is not None
    assert "Mount.device" in error.hint


def test_node_outside_of_dev_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"target: '/n': only in a Mount.dev"):
        inside(":", Mount.node("/n", "c", 1, 5))


# Masks, read-only paths, remounts. M52, U36, H71


def test_mask_hides_files_and_directories_behind_empty_ones(
    shown: Path, spaces: Namespace
) -> None:  # U36, M52
    mounts = (
        Mount.bind(str(shown), "/box", readonly=False),
        Mount.mask("/box/file"),
        Mount.mask("/box/below"),
        Mount.mask("/box/none/at/all"),
        Mount.mask("/box/file/below"),
    )
    (shown / "below" / "secret").touch()
    seen = inside(
        "stat -c '%a %s' /box/file; stat -c %a /box/below; cat /box/file; ls -A /box/below; "
        "echo x >/box/file; touch /box/below/x; ls /",
        *mounts,
        namespaces=spaces,
    )
    assert seen.splitlines()[:2] == ["0 0", "0"]
    assert "secret" not in seen
    assert "text" not in seen
    assert "run-sandboxed" not in seen
    assert seen.count("Read-only file system") == 2  # a program with capabilities got as far
    assert (shown / "file").read_text() == "text\n"
    for flags in options("/box", *mounts, namespaces=spaces)[1:]:
        assert {"ro", "nosuid", "nodev"} <= flags


def test_read_only_path_holds_for_all_below(shown: Path, spaces: Namespace) -> None:  # U36
    mounts = (
        Mount.bind(str(shown), "/box", readonly=False),
        Mount.tmpfs("/box/below"),
        Mount.read_only("/box/below"),
        Mount.read_only("/none", optional=True),
    )
    seen = inside("echo 1 >/box/1; echo 2 >/box/below/2", *mounts, namespaces=spaces)
    assert seen.count("Read-only file system") == 1
    assert "1" in os.listdir(shown)
    whole = (*mounts[:2], Mount.read_only("/box"))
    assert (
        inside("touch /box/3 /box/below/3", *whole, namespaces=spaces).count("Read-only") == 2
    )
    missing = failure(Mount.read_only("/none"), namespaces=spaces)
    assert missing == (At.MOUNT, errno.ENOENT, FIRST)


def test_remount_only_takes_away(shown: Path, spaces: Namespace) -> None:  # H71
    bound = Mount.bind(str(shown), "/box", executable=False)
    loose = Mount.remount("/box", readonly=False)
    (flags,) = options("/box", bound, loose, namespaces=spaces)
    assert {"ro", "nosuid", "nodev", "noexec"} <= flags
    mounts = (Mount.tmpfs("/t"), Mount.tmpfs("/t/u"))
    tight = Mount.remount("/t", executable=False, devices=False)
    assert [{"ro", "noexec", "nodev"} <= f for f in options("/t", *mounts, tight)] == [True] * 2
    alone = Mount.remount("/t", recursive=False)
    assert ["ro" in f for f in options("/t", *mounts, alone, namespaces=spaces)] == [
        True,
        False,
    ]
    no_mount = failure(Mount.directory("/d"), Mount.remount("/d"), namespaces=spaces)
    assert no_mount == (At.MOUNT_ATTRIBUTES, errno.EINVAL, FIRST + 1)


# Overlays. H70, U9, M51


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    os.chmod(tmp_path, 0o755)
    for name in ("a", "b", "c/upper", "c/work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "both").write_text("a\n")
    (tmp_path / "b" / "both").write_text("b\n")
    (tmp_path / "b" / "low").write_text("low\n")
    return tmp_path


@pytest.mark.parametrize("in_tree", [False, True])
def test_overlay_keeps_what_is_written_in_upper_alone(
    layers: Path, tree: Path, in_tree: bool, spaces: Namespace
) -> None:  # H70, U9
    upper = layers / "c" / "upper"
    mount = Mount.overlay(
        "/work",
        lower=[str(layers / "a"), str(layers / "b")],
        upper=str(upper),
        work=str(layers / "c" / "work"),
    )
    root = {"root": str(tree)} if in_tree else {}
    before = listing(layers / "a") + listing(layers / "b")
    seen = inside(
        "cd /work; cat both low; echo new >new; echo more >>both; rm low; ls",
        mount,
        namespaces=spaces,
        **root,
    )
    assert seen == "a\nlow\nboth\nnew\n"
    assert listing(layers / "a") + listing(layers / "b") == before
    assert (upper / "new").read_text() == "new\n"
    assert (upper / "both").read_text() == "a\nmore\n"
    assert inside("ls /work", mount, namespaces=spaces, **root) == "both\nnew\n"
    if os.geteuid() == 0:  # else the kernel's own directory in it is not ours to remove
        return
    subprocess.run(["chmod", "-R", "u+rwx", layers], check=True)


def test_overlay_ephemeral_is_lost_and_bounded(layers: Path, spaces: Namespace) -> None:  # U9
    mount = Mount.overlay("/work", lower=[str(layers / "a")], ephemeral=True, size=65536)
    command = "cd /work; cat both; echo n >new; ls; head -c 99999 /dev/zero >big"
    before = listing(layers)
    for _ in range(2):
        seen = inside(command, mount, Mount.dev(), namespaces=spaces)
        assert seen.startswith("a\nboth\nnew\n")
        assert "No space left on device" in seen
    assert listing(layers) == before


def test_overlay_without_upper_is_read_only(layers: Path, spaces: Namespace) -> None:  # H70
    for lower in (["a"], ["a", "b"]):
        mount = Mount.overlay("/work", lower=[str(layers / name) for name in lower])
        seen = inside("cd /work; cat both; echo x >both", mount, namespaces=spaces)
        assert seen.startswith("a\n")
        assert "Read-only file system" in seen


def test_overlay_leaves_no_way_to_its_layers(layers: Path, spaces: Namespace) -> None:
    mount = Mount.overlay("/work", lower=[str(layers / "a")], ephemeral=True)
    seen = inside("cat /proc/self/mountinfo; ls -a /", mount, namespaces=spaces)
    assert str(layers) not in seen.replace(" / / ", "")
    assert "run-sandboxed" not in seen


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"lower": ["/no/such/path"]}, "lower: '/no/such/path': cannot be shown: No such file"),
        ({"lower": ["/etc/passwd"]}, "lower: '/etc/passwd': not a directory"),
        ({"work": "/dev/shm"}, "work: '/dev/shm': not on the file system of upper"),
        ({"lower": ["{}/link"]}, "upper: '{}/c/upper': it lies in lower '{}/link'"),
    ],
)
def test_overlay_that_the_kernel_would_refuse_is_refused_by_name(
    layers: Path, change: dict[str, Any], why: str
) -> None:
    (layers / "link").symlink_to("c")
    lower = [path.format(layers) for path in change.get("lower", [str(layers / "a")])]
    mount = Mount.overlay(
        "/work",
        lower=lower,
        upper=str(layers / "c" / "upper"),
        work=change.get("work", str(layers / "c" / "work")),
    )
    with pytest.raises(ConfigError) as caught:
        sources.check(Runner(args=("x",), **fields(mount)))
    assert str(caught.value).startswith(
        f"Runner.mounts[{FIRST}].{why.format(*[str(layers)] * why.count('{}'))}"
    )


# Kernels and containers without the newer calls.


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("call", NEW_CALLS)
def test_kernel_without_a_call_is_found_out_once(
    call: str,
    error: int,
    new: bool,
    old_keeper: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not new or (call, error) == ("move_mount", errno.EPERM):
        return  # no filter of a container knows one of these and not the others
    deny = Path(old_keeper).with_name("deny_syscall")
    wrapper = tmp_path / "keeper"
    keeper = helper.keeper_path()
    wrapper.write_text(f"#!/bin/sh\nexec {deny} {NEW_CALLS[call]} {error} {keeper}\n")
    wrapper.chmod(0o755)
    os.chmod(tmp_path, 0o755)
    monkeypatch.setattr(helper, "keeper_path", lambda: str(wrapper))
    for _ in range(2):
        assert "Read-only" in inside("touch /usr/x")
        assert not sources._Kernel.has_new_calls


def test_failure_that_has_another_cause_does_not_teach_that_calls_are_missing() -> None:
    failure(Mount.read_only("/no/such/path"))
    assert sources._Kernel.has_new_calls


def test_sandbox_works_with_either_calls_and_its_places_stay_fresh(new: bool) -> None:
    # In the old way by init, with the ids of the sandbox: /usr and the like are for everybody.
    with runner.Sandbox() as sandbox:
        for _ in range(2):
            seen = sandbox.run(["sh", "-c", "ls /tmp /dev/shm; echo x >/tmp/x; touch /usr/x"])
            assert seen.stdout == b"/dev/shm:\n\n/tmp:\n"
            assert b"Read-only file system" in seen.stderr
    assert sources._Kernel.has_new_calls is new


@pytest.mark.parametrize(
    "mount",
    [
        Mount.overlay("/work", lower=["/usr"], ephemeral=True, mode=0o777),
        Mount.mqueue(),
        Mount.dev(readonly=False),
    ],
    ids=lambda mount: mount.kind.name,
)
def test_sandbox_keeps_nothing_that_a_run_wrote(mount: Mount) -> None:
    place = mount.target
    command = f"ls {place}/left; touch {place}/left && echo written"
    with runner.Sandbox(mounts=[mount], policy=None) as sandbox:
        for _ in range(2):
            seen = sandbox.run(["sh", "-c", command])
            # Root's sandbox has a /dev that is its uid 0's.
            refused = mount.kind is MountKind.DEV and host.detect().privileged
            assert seen.stdout == (b"" if refused else b"written\n")


def test_sandbox_takes_a_restriction_beside_what_it_restricts() -> None:
    with runner.Sandbox(mounts=[Mount.mask("/usr/share"), Mount.read_only("/tmp")]) as sandbox:
        seen = sandbox.run(["sh", "-c", "ls /usr/share; touch /tmp/x"])
    assert seen.stdout == b""
    assert b"Permission denied" in seen.stderr
    assert b"Read-only file system" in seen.stderr


@pytest.mark.parametrize("owned", [True, False])
def test_sandbox_writes_to_an_overlay_as_the_caller(
    layers: Path, owned: bool, new: bool
) -> None:
    """Whoever the program is: what it leaves is the caller's; another sandbox takes it up."""
    mount = Mount.overlay(
        "/work",
        lower=[str(layers / "a")],
        upper=str(layers / "c" / "upper"),
        work=str(layers / "c" / "work"),
        owned=owned,
    )
    if not new and host.detect().privileged:
        # In the old way init opens them, with ids that may not search root's directories.
        with pytest.raises(ChildError) as caught, runner.Sandbox(mounts=[mount]) as sandbox:
            sandbox.start()
        at = (caught.value.location, caught.value.errno)
        assert at == (At.MOUNT_SOURCE, errno.EACCES)
        return
    may = owned or not host.detect().privileged
    for line in (1, 2):
        with runner.Sandbox(mounts=[mount]) as sandbox:
            seen = sandbox.run(["sh", "-c", "cd /work; echo x >>new; echo y >>both; cat new"])
        assert seen.stdout == b"x\n" * line
        assert (b"Permission denied" in seen.stderr) is not may
    left = layers / "c" / "upper" / "new"
    assert (left.stat().st_uid, left.read_text()) == (os.geteuid(), "x\n" * 2)
    assert (layers / "a" / "both").read_text() == "a\n"
    assert (layers / "c" / "upper" / "both").exists() is may


@pytest.mark.root
def test_overlay_that_the_kernel_makes_read_only_is_an_error(layers: Path, new: bool) -> None:
    """It does so, silently, where the sandbox's ids may not write to upper and work."""
    if not host.detect().privileged or not new:
        return
    mount = Mount.overlay(
        "/work",
        lower=[str(layers / "a")],
        upper=str(layers / "c" / "upper"),
        work=str(layers / "c" / "work"),
    )
    maps = (IdMap(0, 100_000),)
    where = failure(mount, uid_mappings=maps, gid_mappings=maps)
    assert where == (At.MOUNT, errno.EROFS, FIRST)


def test_bind_that_follows_no_link_refuses_one(tmp_path: Path, spaces: Namespace) -> None:
    # What lists a directory that others may change looks at an entry before it is bound.
    (tmp_path / "link").symlink_to("/usr")
    tmp_path.chmod(0o755)
    source = str(tmp_path / "link")
    assert inside("ls -d /a/bin", Mount.bind(source, "/a"), namespaces=spaces) == "/a/bin\n"
    at = failure(Mount.bind(source, "/a", follow=False), namespaces=spaces)
    assert at == (At.MOUNT_SOURCE, errno.ELOOP, FIRST)
    assert inside("ls -d /a/bin", Mount.bind("/usr", "/a", follow=False)) == "/a/bin\n"


def test_mounts_of_more_sources_than_the_helper_holds_are_refused() -> None:
    mounts = [Mount.bind("/usr", f"/m{number}") for number in range(257)]
    with pytest.raises(
        ConfigError, match=r"Runner.mounts: 2\d\d sources of the host's: at most"
    ):
        inside("true", *mounts)
