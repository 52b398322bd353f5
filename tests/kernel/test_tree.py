"""The host's tree in a sandbox. H68, H69, M54."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner import Mount, Namespace, rootfs, tree
from tests.kernel.starting import script

pytestmark = pytest.mark.userns

BOX = {"namespaces": Namespace.USER | Namespace.MOUNT | Namespace.PID, "pivot_root": "/mnt"}


def test_host_root_shows_each_entry_but_the_sandboxs_own() -> None:
    mounts = [*tree.host_root(), Mount.proc()]
    shown = script("ls -A /", mounts=mounts, **BOX).split()
    entries = {
        name
        for name in os.listdir("/")
        if name not in tree.NOT_SHOWN and not os.path.islink(f"/{name}")
        if os.path.isdir(f"/{name}") or os.path.isfile(f"/{name}")
    }
    links = {name for name in os.listdir("/") if os.path.islink(f"/{name}")}
    assert set(shown) == entries | links | {"proc"}
    assert (
        script("touch /usr/x 2>&1; touch /x 2>&1", mounts=mounts, **BOX).count("Read-only") == 2
    )


def test_host_etc_has_its_own_passwd_and_the_rest_of_the_hosts(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    for name in ("passwd", "group", "shells", "hosts"):
        (etc / name).write_text(f"the host's {name}\n")
    (etc / "mtab").symlink_to("../proc/self/mounts")
    (etc / "sub").mkdir()
    (etc / "sub" / "file").write_text("below\n")
    tmp_path.chmod(0o755)
    mounts = [
        *rootfs.system_directories(
            rootfs.RootEntry(
                name, os.readlink(f"/{name}") if os.path.islink(f"/{name}") else None
            )
            for name in rootfs.SYSTEM_DIRECTORIES
            if os.path.exists(f"/{name}")
        ),
        *tree.host_etc({"passwd": b"own\n", "hosts": b"127.0.0.1 me\n"}, etc=str(etc)),
    ]
    text = (
        "cd /etc; cat passwd shells hosts sub/file; readlink mtab; test -e group || echo none"
    )
    assert script(text, mounts=mounts, **BOX).splitlines() == [
        "own",
        "the host's shells",
        "127.0.0.1 me",
        "below",
        "/proc/mounts",
        "none",
    ]
    # What the host replaces later is seen: the links are into its directory.
    assert script("readlink /etc/shells", mounts=mounts, **BOX) == ".host/shells\n"
