"""What is held in a sandbox, and by what; and refusing to run with less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from runner.cgroup import Parent, Resource
from runner.config import Namespace
from runner.errors import ConfigError, HostError
from runner.rootfs import beyond_disk_limit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runner.cgroup import Groups
    from runner.config import Runner
    from runner.host import Host

# Every guarantee, in the order in which they are shown.
GUARANTEES: Final = (
    "cpu_time",
    "wall_time",
    "memory",
    "swap",
    "processes",
    "output",
    "disk",
    "network",
    "files",
    "user",
    "syscalls",
    "capabilities",
)

# What can be required too, though nothing holds it: the host can measure it or cannot.
MEASURES: Final = frozenset({"instructions"})

# Held well enough to be required only by a cgroup: what stands in can be evaded.
_BY_CGROUP: Final = frozenset({"cpu_time", "memory", "swap", "processes"})

_REMEDIES: Final = {
    "disk": "show no directory of yours writable: give a tmpfs, which is new for each run",
    "user": "start as root with CAP_SETUID and CAP_SETGID: others have but one id to give",
    "network": "do not share the network",
    "syscalls": "give a seccomp policy",
}


def check_known(names: Collection[str]) -> None:
    """Raise ConfigError for a name that is no guarantee."""
    unknown = sorted(set(names) - MEASURES.union(GUARANTEES))
    if unknown:
        known = ", ".join((*GUARANTEES, *sorted(MEASURES)))
        message = f"require: {', '.join(unknown)!r}: known are {known}"
        raise ConfigError(message)


def enforced(
    runner: Runner, groups: Groups | None, *, own_user: bool, host: Host
) -> Mapping[str, str | None]:
    """Say for each guarantee what holds it, or None."""
    # RLIMIT_NPROC does not hold for the host's uid 0 (setrlimit(2)).
    limited = None if host.euid == 0 and not own_user else "rlimit"
    by_group: Mapping[str, str] = {} if groups is None else groups.enforces
    alone = Namespace.NETWORK in runner.namespaces and not runner.hooks
    network = "namespace" if alone else None
    held: dict[str, str | None] = {
        "cpu_time": by_group.get("cpu_time", "proc"),
        "wall_time": "keeper",
        "memory": by_group.get("memory", "proc"),
        "swap": by_group.get("swap"),
        "processes": by_group.get("processes", limited),
        "output": "keeper",
        "disk": None if beyond_disk_limit(runner.mounts) else "tmpfs",
        "network": network,
        "files": "namespace",
        "user": "namespace" if own_user else None,
        "syscalls": "seccomp" if runner.seccomp else None,
        "capabilities": "dropped",
    }
    return {name: held[name] for name in GUARANTEES}


def for_run(
    held: Mapping[str, str | None], names: Collection[str], output: str | None
) -> Mapping[str, str | None]:
    """Say what is held in one run, whose outputs decide about `output`.

    Raises HostError if that is not held and required.
    """
    if output == held["output"]:
        return held
    if output is None and "output" in names:
        missing = "the guarantee 'output' cannot be given for a pipe or a terminal"
        raise HostError(missing, "capture the output, or send it to a file")
    return {**held, "output": output}


def require(names: Collection[str], held: Mapping[str, str | None], host: Host) -> None:
    """Raise HostError, with the remedy, for the first that is not held well enough."""
    for name in GUARANTEES:
        if name not in names or held[name] == "cgroup":
            continue
        if name in _BY_CGROUP:
            try:
                parent = Parent.require(host)
            except HostError as error:
                missing = f"the guarantee {name!r} cannot be given here: {error.missing}"
                raise HostError(missing, error.hint) from error
            _refuse_without_group(name, parent)
        if held[name] is None:
            missing = f"the guarantee {name!r} cannot be given here"
            raise HostError(missing, _REMEDIES.get(name))


def _refuse_without_group(name: str, parent: Parent) -> NoReturn:
    """Say why there is a group for something, but not for this."""
    if name == "swap" and not parent.why_not:
        missing = "the guarantee 'swap' cannot be given: the kernel does not account swap"
        raise HostError(missing, "boot a kernel that has swap with swapaccount=1")
    resource = Resource.MEMORY if name == "swap" else Resource(name)
    why = parent.why_not.get(resource) or next(iter(parent.why_not.values()))
    missing = f"the guarantee {name!r} cannot be given here: {why.missing}"
    raise HostError(missing, why.remedy)
