"""Which hierarchies and places are chosen on hosts of every layout, with trees in tmp_path."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.cgroup import Parent, Resource, nest, refuse_without_groups
from runner.cgroup.layout import choose, place_for
from runner.cgroup.place import ALWAYS, NOT_MOUNTED, Place, own_directory
from runner.config import IoLimit, Limits
from runner.errors import HostError
from runner.host import CgroupMount, Host

if TYPE_CHECKING:
    from pathlib import Path

CPU, PROCESSES, MEMORY = Resource.CPU, Resource.PROCESSES, Resource.MEMORY


BY_SYSTEMD_RUN = (
    "run as root, or in a cgroup delegated to you: "
    "systemd-run --user --scope -p Delegate=yes COMMAND"
)
BY_UNIT = (
    "run as root, or systemctl edit grader.service: under [Service] Delegate=yes and "
    "DelegateSubgroup=main"
)


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


@pytest.mark.parametrize(
    ("own", "remedy"),
    [
        (
            "user.slice/user-1000.slice/session-2.scope",
            BY_SYSTEMD_RUN,
        ),
        (
            "user.slice/user-1000.slice/user@1000.service/init.scope",
            BY_SYSTEMD_RUN,
        ),
        (
            "system.slice/grader.service",
            BY_UNIT,
        ),
    ],
)
def test_group_that_is_not_ours_has_the_remedy_for_where_we_are(
    tmp_path: Path, own: str, remedy: str
) -> None:
    make_group(tmp_path / own)
    (tmp_path / own / "cgroup.procs").unlink()
    mount = CgroupMount(version=2, path=str(tmp_path))
    layout = choose(host_of(mount, **{"": f"/{own}"}))
    assert layout.places == ()
    assert layout.why_not[MEMORY].missing == (
        f"{tmp_path}/{own}/cgroup.procs is not writable for uid {os.geteuid()}"
    )
    assert layout.why_not[MEMORY].remedy == remedy


def test_users_systemd_instance_is_ours_without_systemd_run(tmp_path: Path) -> None:
    service = tmp_path / "user.slice/user-1000.slice/user@1000.service"
    slice_ = make_group(service / "app.slice", controllers="memory pids")
    make_group(service / "app.slice/terminal.scope")
    (service / "app.slice/cgroup.subtree_control").write_text("memory pids\n")
    mount = CgroupMount(version=2, path=str(tmp_path))
    own = "/user.slice/user-1000.slice/user@1000.service/app.slice/terminal.scope"
    layout = choose(host_of(mount, **{"": own}))
    assert layout.places == (Place(slice_, 2, ALWAYS),)


def test_v1_group_that_is_not_ours_has_a_remedy_without_systemd(tmp_path: Path) -> None:
    (memory,) = mounts = [v1_mount(tmp_path / "memory", "memory")]
    (tmp_path / "memory" / "cgroup.procs").unlink()
    remedy = choose(host_of(*mounts)).why_not[MEMORY].remedy
    own = f"{memory.path}/run-sandboxed"
    assert remedy.startswith(
        f"run as root, or as root: mkdir {own}, chown {os.geteuid()} {own}"
    )


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


# What a run asks for besides.


def test_place_for_a_controller_of_v1_is_one_more_group(tmp_path: Path) -> None:
    mounts = [*hybrid(tmp_path), v1_mount(tmp_path / "cpuset", "cpuset")]
    host = host_of(*mounts, cpuset="/")
    place = place_for(host, choose(host).places, Resource.CPUS)
    assert place == Place(str(tmp_path / "cpuset"), 1, frozenset({Resource.CPUS}))


def test_place_for_a_controller_of_v2_is_the_group_in_use_and_enabled_from_the_top(
    tmp_path: Path,
) -> None:
    both = "cpu memory pids"
    make_group(tmp_path, controllers=both, passed_on="memory pids")
    make_group(tmp_path / "a", controllers=both, passed_on="memory pids")
    make_group(tmp_path / "a" / "main")
    host = host_of(CgroupMount(version=2, path=str(tmp_path)), **{"": "/a/main"})
    used = choose(host).places
    assert [place.path for place in used] == [str(tmp_path / "a")]
    place = place_for(host, used, Resource.CPU_SHARE)
    assert place == Place(str(tmp_path / "a"), 2, frozenset({Resource.CPU_SHARE}))
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert (tmp_path / "a" / "cgroup.subtree_control").read_text() == "+cpu"


def test_place_for_a_controller_that_the_v2_tree_lacks_is_a_host_error(tmp_path: Path) -> None:
    make_group(tmp_path, controllers="memory pids", passed_on="memory pids")
    host = host_of(CgroupMount(version=2, path=str(tmp_path)))
    with pytest.raises(HostError) as caught:
        place_for(host, choose(host).places, Resource.CPUS)
    assert caught.value.missing == (
        f"cpus needs the cgroup controller cpuset: {tmp_path} does not have the controllers "
        "cpuset"
    )
    assert (
        caught.value.hint == "enable them in the cgroup.subtree_control of each cgroup above it"
    )


def test_place_for_what_needs_no_controller_is_any_v2_group(tmp_path: Path) -> None:
    host = host_of(*hybrid(tmp_path))
    place = place_for(host, choose(host).places, Resource.PRESSURE)
    assert place == Place(str(tmp_path / "unified"), 2, frozenset({Resource.PRESSURE}))


@pytest.mark.parametrize(
    "limits",
    [
        Limits(cpu_quota=0.5),
        Limits(cpu_weight=1),
        Limits(cpus={0}),
        Limits(io=(IoLimit(device="8:0", read_ops=5),)),
        Limits(devices=()),
        Limits(swap=1),
    ],
)
def test_run_without_groups_that_asks_for_one_is_refused(limits: Limits) -> None:
    with pytest.raises(HostError) as caught:
        refuse_without_groups(limits, Host(kernel=(6, 1)))
    assert caught.value.missing == f"no cgroup to run programs in: {NOT_MOUNTED.missing}"


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(memory=1, swap=None), Limits(pressure=True)]
)
def test_run_without_groups_that_asks_for_none_is_not_refused(limits: Limits) -> None:
    refuse_without_groups(limits, Host(kernel=(6, 1)))


def test_nest_where_there_is_no_v2_group_of_ours_is_a_host_error(tmp_path: Path) -> None:
    mount = CgroupMount(version=2, path=make_group(tmp_path), readonly=True)
    with pytest.raises(HostError) as caught:
        nest(host_of(mount))
    assert caught.value.missing == (
        f"no cgroup to make room in: {tmp_path} is mounted read-only"
    )
    with pytest.raises(HostError) as caught:
        nest(Host(kernel=(6, 1)))
    assert caught.value.missing == f"no cgroup to make room in: {NOT_MOUNTED.missing}"


def test_nest_in_a_group_of_our_own_moves_nobody_and_gives_the_child(tmp_path: Path) -> None:
    make_group(tmp_path)
    assert nest(host_of(CgroupMount(version=2, path=str(tmp_path)))) == f"{tmp_path}/main"
    assert (tmp_path / "main").is_dir()


def test_nest_does_not_take_a_process_that_it_cannot_name_for_itself(tmp_path: Path) -> None:
    make_group(tmp_path)
    (tmp_path / "cgroup.procs").write_text("0\n")
    with pytest.raises(HostError) as caught:
        nest(host_of(CgroupMount(version=2, path=str(tmp_path))))
    assert caught.value.missing == f"a process of another pid namespace is in {tmp_path}"
    assert not (tmp_path / "main" / "cgroup.procs").exists()


@pytest.mark.parametrize("passed_on", ["memory", "pids", ""])
def test_run_where_groups_lack_a_controller_is_refused_with_that_reason(
    tmp_path: Path, passed_on: str
) -> None:
    make_group(tmp_path, controllers=passed_on, passed_on=passed_on)
    host = host_of(CgroupMount(version=2, path=str(tmp_path)))
    lacking = ", ".join(sorted({"memory", "pids"} - {passed_on}))
    with pytest.raises(HostError) as caught:
        refuse_without_groups(Limits(cpu_quota=1), host)
    assert caught.value.missing == (
        f"no cgroup to run programs in: {tmp_path} does not have the controllers {lacking}"
    )
