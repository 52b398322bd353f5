"""Which hierarchies and places are chosen on hosts of every layout, with trees in tmp_path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.cgroup import Parent, Resource
from runner.cgroup.layout import choose
from runner.cgroup.place import ALWAYS, NOT_MOUNTED, Place, own_directory
from runner.errors import HostError
from runner.host import CgroupMount, Host

if TYPE_CHECKING:
    from pathlib import Path

CPU, PROCESSES, MEMORY = Resource.CPU, Resource.PROCESSES, Resource.MEMORY


def make_group(path: Path, *, controllers: str = "", passed_on: str = "") -> str:
    """Make what looks like a cgroup that we may use."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.procs").touch()
    (path / "cgroup.controllers").write_text(f"{controllers}\n")
    (path / "cgroup.subtree_control").write_text(f"{passed_on}\n")
    return str(path)


def v1_mount(path: Path, *controllers: str, root: str = "/") -> CgroupMount:
    make_group(path)
    return CgroupMount(version=1, path=str(path), root=root, controllers=frozenset(controllers))


def host_of(*mounts: CgroupMount, **paths: str) -> Host:
    own = {"cpuacct": "/", "memory": "/", "pids": "/", "": "/"} | paths
    return Host(kernel=(6, 1), cgroup_mounts=mounts, cgroup_paths=own)


def hybrid(tmp_path: Path) -> list[CgroupMount]:
    make_group(tmp_path / "unified", controllers="hugetlb")
    return [
        *(v1_mount(tmp_path / name, name) for name in ("cpuacct", "memory", "pids")),
        CgroupMount(version=2, path=str(tmp_path / "unified")),
    ]


def test_v1_host_uses_our_own_cgroup_of_each_hierarchy(tmp_path: Path) -> None:
    mounts = [v1_mount(tmp_path / name, name) for name in ("cpuacct", "memory", "pids")]
    own = make_group(tmp_path / "memory" / "session" / "7")
    layout = choose(host_of(*mounts, memory="/session/7"))
    assert layout.why_not == {}
    assert layout.places == (
        Place(str(tmp_path / "cpuacct"), 1, frozenset({CPU})),
        Place(str(tmp_path / "pids"), 1, frozenset({PROCESSES})),
        Place(own, 1, frozenset({MEMORY})),
    )


def test_v1_controllers_mounted_together_are_one_place(tmp_path: Path) -> None:
    layout = choose(host_of(v1_mount(tmp_path / "all", "cpuacct", "memory", "pids")))
    assert layout.places == (Place(str(tmp_path / "all"), 1, ALWAYS),)


def test_hybrid_host_with_all_in_v1_leaves_v2_out(tmp_path: Path) -> None:
    layout = choose(host_of(*hybrid(tmp_path)))
    assert [(place.version, place.resources) for place in layout.places] == [
        (1, {CPU}),
        (1, {PROCESSES}),
        (1, {MEMORY}),
    ]


def test_hybrid_host_without_cpuacct_takes_cpu_time_from_v2(tmp_path: Path) -> None:
    layout = choose(host_of(*hybrid(tmp_path)[1:]))
    assert [(place.version, place.resources) for place in layout.places] == [
        (2, {CPU}),
        (1, {PROCESSES}),
        (1, {MEMORY}),
    ]
    assert layout.why_not == {}


def test_hybrid_host_with_memory_and_pids_in_v2_takes_cpu_time_from_there(
    tmp_path: Path,
) -> None:
    make_group(tmp_path / "v2", controllers="memory pids", passed_on="memory pids")
    mounts = [
        v1_mount(tmp_path / "cpuacct", "cpuacct"),
        CgroupMount(version=2, path=str(tmp_path / "v2")),
    ]
    assert choose(host_of(*mounts)).places == (Place(str(tmp_path / "v2"), 2, ALWAYS),)


def test_unified_host_uses_the_nearest_ancestor_that_passes_controllers_on(
    tmp_path: Path,
) -> None:
    root = CgroupMount(version=2, path=str(tmp_path))
    make_group(tmp_path, controllers="memory pids", passed_on="memory pids")
    service = make_group(tmp_path / "app", controllers="memory pids", passed_on="memory pids")
    make_group(tmp_path / "app" / "main")
    layout = choose(host_of(root, **{"": "/app/main"}))
    assert layout.places == (Place(service, 2, ALWAYS),)
    assert layout.why_not == {}


def test_unified_host_where_no_place_has_all_takes_the_one_with_most(tmp_path: Path) -> None:
    root = CgroupMount(version=2, path=str(tmp_path))
    make_group(tmp_path)
    service = make_group(tmp_path / "app", controllers="pids", passed_on="pids")
    main = make_group(tmp_path / "app" / "main")
    layout = choose(host_of(root, **{"": "/app/main"}))
    assert layout.places == (Place(service, 2, frozenset({CPU, PROCESSES})),)
    assert layout.why_not.keys() == {MEMORY}
    assert (
        layout.why_not[MEMORY].missing == f"{main} does not have the controllers memory, pids"
    )


def test_unified_root_is_asked_to_pass_on_the_controllers_that_it_has(tmp_path: Path) -> None:
    make_group(tmp_path, controllers="cpu memory pids", passed_on="cpu")
    choose(host_of(CgroupMount(version=2, path=str(tmp_path))))
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_container_with_cgroup_namespace_goes_no_higher_than_its_mount(tmp_path: Path) -> None:
    make_group(tmp_path, controllers="memory pids", passed_on="memory pids")
    inside = make_group(tmp_path / "box")
    mount = CgroupMount(version=2, path=inside)
    layout = choose(host_of(mount))
    assert layout.places == (Place(inside, 2, frozenset({CPU})),)


def test_container_that_sees_the_tree_read_only_has_no_place_and_a_remedy(
    tmp_path: Path,
) -> None:
    mount = CgroupMount(version=2, path=make_group(tmp_path), readonly=True)
    layout = choose(host_of(mount))
    assert layout.places == ()
    assert {why.missing for why in layout.why_not.values()} == {
        f"{tmp_path} is mounted read-only"
    }


def test_v1_controller_that_we_may_not_use_is_the_reason_to_tell(tmp_path: Path) -> None:
    cpuacct, memory, pids, unified = hybrid(tmp_path)
    (tmp_path / "memory" / "cgroup.procs").unlink()
    layout = choose(host_of(cpuacct, memory, pids, unified))
    assert [(place.version, place.resources) for place in layout.places] == [
        (1, {CPU}),
        (1, {PROCESSES}),
    ]
    why = layout.why_not[MEMORY].missing
    assert why.startswith(f"{tmp_path}/memory/cgroup.procs is not writable for uid ")


def test_host_without_cgroups_has_no_parent_and_require_says_how_to_mount() -> None:
    host = Host(kernel=(6, 1))
    assert Parent.find(host) is None
    with pytest.raises(HostError) as caught:
        Parent.require(host)
    assert caught.value.missing == f"no cgroup to run programs in: {NOT_MOUNTED.missing}"
    assert caught.value.hint == "mount -t cgroup2 cgroup2 /sys/fs/cgroup"


@pytest.mark.parametrize(
    ("root", "own", "directory"),
    [
        ("/", "/", "/cg"),
        ("/", "/a/b", "/cg/a/b"),
        ("/docker/1", "/docker/1", "/cg"),
        ("/docker/1", "/docker/1/x", "/cg/x"),
        ("/docker/1", "/docker/12", None),
        ("/docker/1", "/", None),
        ("/", "/../other", None),
        ("/../..", "/", None),
        ("/", None, None),
    ],
)
def test_own_directory_is_the_path_below_the_mounts_root(
    root: str, own: str | None, directory: str | None
) -> None:
    mount = CgroupMount(version=2, path="/cg", root=root)
    assert own_directory(mount, own) == directory
