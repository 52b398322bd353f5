"""The sandbox's file system, as a program in it sees it, and what of it reaches the host.

Each promise is attacked first: by symlinks that an earlier run has left, by what is mounted
below, by what is remounted. Rows F9–F11, H60–H72, K22–K29, U30–U37, C9, C10, M40–M59.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import (
    ALL_NAMESPACES,
    ChildError,
    ConfigError,
    ErrorLocation,
    Mount,
    Namespace,
    Runner,
    sources,
)
from tests.kernel.starting import output_of

At = ErrorLocation
pytestmark = pytest.mark.userns
ROOT = Path(__file__).parents[2]

SYSTEM = tuple(
    Mount.symlink(os.readlink(path), path) if os.path.islink(path) else Mount.bind(path)
    for path in ("/bin", "/lib", "/lib64", "/usr")
    if os.path.exists(path)
)
NEW_CALLS = ("open_tree", "move_mount", "mount_setattr")


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
