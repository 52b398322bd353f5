"""What the host has of what some feature needs: as tried, where it can be tried."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from runner import network, subid
from runner.cgroup import Resource
from runner.cgroup.place import own_directory
from runner.config import Namespace
from runner.doctor.finding import Finding, Level
from runner.errors import HostError
from runner.resolve import NS_FILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.cgroup.layout import Layout
    from runner.doctor.files import Files
    from runner.doctor.probes import Probed
    from runner.doctor.surroundings import Surroundings
    from runner.errors import SandboxError
    from runner.host import Host

_PARANOID: Final = "/proc/sys/kernel/perf_event_paranoid"

# What a mount that was tried is for.
_MOUNTS: Final = {
    "proc_mount": "a sandbox has a /proc of its own processes",
    "idmapped_mounts": "a writable directory of root's is the program's too (bind …:rw)",
    "overlay": "directories can be laid over each other",
}


def namespaces(
    tried: Mapping[Namespace, SandboxError | None],
    host: Host,
    files: Files,
    around: Surroundings,
) -> Iterator[Finding]:
    """Tell which kinds a program could be started in."""
    for kind, error in tried.items():
        name = f"{(kind.name or '').lower()}_namespace"
        if error is None:
            yield Finding(name=name, level=Level.OK, value="made")
            continue
        remedies = _hint(error)
        if host.no_user_namespaces is not None:
            remedies = (host.no_user_namespaces,)
        elif not files.exists(f"/proc/self/ns/{NS_FILES[kind]}"):
            option = f"CONFIG_{NS_FILES[kind].upper()}_NS"
            yield _missing(name, "this kernel has none", f"a kernel with {option}")
            continue
        yield _failed(name, error, remedies, around)


def mounts(tried: Mapping[str, SandboxError | None], around: Surroundings) -> Iterator[Finding]:
    """Tell which of the mounts that were tried worked; the keys are those of `_MOUNTS`."""
    for name, purpose in _MOUNTS.items():
        if name not in tried:
            yield Finding(name=name, level=Level.OK, value="not needed: the files are yours")
            continue
        error = tried[name]
        if error is None:
            yield Finding(name=name, level=Level.OK, value=purpose)
        else:
            yield _failed(name, error, _hint(error), around)


def _failed(
    name: str, error: SandboxError, remedies: tuple[str, ...], around: Surroundings
) -> Finding:
    return Finding(
        name=name,
        level=Level.MISSING,
        value="refused",
        why=str(error),
        remedies=(*remedies, *around.confinement_remedies()),
    )


def cgroups(
    host: Host, layout: Layout, files: Files, around: Surroundings
) -> Iterator[Finding]:
    """Tell the layout, and for each resource where our groups go or why there are none."""
    yield _layout(host, files)
    for resource in Resource:
        name = f"{resource.value}_cgroup"
        place = next((p for p in layout.places if resource in p.resources), None)
        if place is not None:
            value = f"v{place.version}, below {place.path}"
            yield Finding(name=name, level=Level.OK, value=value)
        elif resource in layout.why_not:
            why = layout.why_not[resource]
            remedies = around.cgroup_remedies(why)
            yield Finding(
                name=name, level=Level.MISSING, value="none", why=why.missing, remedies=remedies
            )


def _layout(host: Host, files: Files) -> Finding:
    versions = {mount.version for mount in host.cgroup_mounts}
    if not versions:
        why = "no cgroup file system is mounted"
        remedy = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        return Finding(
            name="cgroups", level=Level.MISSING, value="none", why=why, remedies=(remedy,)
        )
    words = ["hybrid" if len(versions) > 1 else f"v{versions.pop()}"]
    controllers = {name for name in host.cgroup_paths if name and "=" not in name}
    for mount in host.cgroup_mounts:
        own = own_directory(mount, host.cgroup_paths.get("")) if mount.version == 2 else None
        if own is not None:
            controllers |= set((files.read(f"{own}/cgroup.controllers") or "").split())
            # systemd's mark of a group that is its owner's to divide (CGROUP_DELEGATION.md).
            if b"1" in {files.attribute(own, f"{space}.delegate") for space in _SPACES}:
                words.append("delegated")
    readonly = all(mount.readonly for mount in host.cgroup_mounts)
    if readonly:
        words.append("read-only")
    words.append("with " + (", ".join(sorted(controllers)) or "no controllers"))
    value = " ".join(words)
    if readonly:
        why = "all that is mounted of them is read-only"
        return Finding(name="cgroups", level=Level.WEAK, value=value, why=why)
    return Finding(name="cgroups", level=Level.OK, value=value)


_SPACES: Final = ("user", "trusted")


def calls(probed: Probed, files: Files, around: Surroundings) -> Iterator[Finding]:
    """Tell which system calls the kernel has and lets us use."""
    for name, error, since in (
        ("open_tree", probed.open_tree, "5.2"),
        ("mount_setattr", probed.mount_setattr, "5.12"),
        ("pidfds", probed.pidfds, "5.3"),
    ):
        yield _call(name, error, since, around)
    yield _seccomp(files)
    if probed.landlock:
        finding = _call("landlock", probed.landlock, "5.13", around)
        if probed.landlock == errno.EOPNOTSUPP:
            remedy = "add landlock to lsm= on the kernel's command line"
            finding = _missing("landlock", "it is switched off", remedy)
        yield finding
    else:
        yield Finding(name="landlock", level=Level.OK, value=f"ABI {probed.landlock_abi}")
    yield _perf(probed.perf_instructions, files, around)


def _call(name: str, error: int, since: str, around: Surroundings) -> Finding:
    if error == 0:
        return Finding(name=name, level=Level.OK, value="works")
    remedies = around.confinement_remedies()
    if error == errno.ENOSYS:  # which engines answer too, for what they do not know
        remedies = (f"Linux {since} has it", *remedies)
    return Finding(
        name=name, level=Level.MISSING, value="none", why=os.strerror(error), remedies=remedies
    )


def _missing(name: str, why: str, *remedies: str) -> Finding:
    return Finding(name=name, level=Level.MISSING, value="none", why=why, remedies=remedies)


def _seccomp(files: Files) -> Finding:
    status = files.read("/proc/self/status") or ""
    mode = next((x.split()[1] for x in status.splitlines() if x.startswith("Seccomp:")), None)
    if mode is None:
        remedy = "a kernel with CONFIG_SECCOMP_FILTER"
        return _missing("seccomp", "this kernel has no seccomp filters", remedy)
    actions = files.read("/proc/sys/kernel/seccomp/actions_avail") or "filters"
    outer = "; this process is under one itself" if mode == "2" else ""
    return Finding(name="seccomp", level=Level.OK, value=actions + outer)


def _perf(error: int, files: Files, around: Surroundings) -> Finding:
    name = "perf_instructions"
    if error == 0:
        return Finding(name=name, level=Level.OK, value="retired instructions can be counted")
    if error in {errno.EACCES, errno.EPERM}:
        paranoid = files.read(_PARANOID) or "unknown"
        return _missing(
            name,
            f"kernel.perf_event_paranoid is {paranoid}, or a filter refuses it",
            "as root: sysctl -w kernel.perf_event_paranoid=2",
            *around.confinement_remedies(),
        )
    if error in {errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV}:
        why = "this CPU, or the virtual machine, has no such counter"
        return _missing(name, why, "give the virtual machine its CPU's counters (a vPMU)")
    return _missing(name, os.strerror(error), *around.confinement_remedies())


def id_maps(host: Host) -> Iterator[Finding]:
    """Tell for both kinds of ids whether delegated ones can be mapped."""
    for kind, namespace in (
        (subid.Kind.UID, host.uid_map),
        (subid.Kind.GID, host.gid_map),
    ):
        if host.maps_ids:
            value = "not needed: you may map any id"
            yield Finding(name=kind.helper, level=Level.OK, value=value)
            continue
        try:
            helper = subid.find_helper(kind)
            grant = subid.read_grant(kind, namespace)
        except HostError as error:
            yield _missing(kind.helper, f"it cannot be used: {error}", *_hint(error))
        except OSError as error:
            yield _missing(kind.helper, f"{error.filename}: {error.strerror}")
        else:
            yield _granted(grant, helper)


def _granted(grant: subid.Grant, helper: str) -> Finding:
    name, kind = grant.kind.helper, grant.kind
    if grant.user is None:
        remedy = "add it to passwd: only to a name ids can be delegated"
        return _missing(name, "your uid has no name", remedy)
    if not grant.ranges:
        remedy = f"as root: usermod --add-sub{kind.value}s 100000-165535 {grant.user}"
        return _missing(name, f"{kind.file} delegates none to {grant.user}", remedy)
    ids = ", ".join(f"{ids.start}-{ids.stop - 1}" for ids in grant.ranges)
    return Finding(name=name, level=Level.OK, value=f"{helper}, for {ids}")


def _hint(error: SandboxError) -> tuple[str, ...]:
    return () if error.hint is None else (error.hint,)


def tools() -> Iterator[Finding]:
    """Tell which programs of others there are."""
    try:
        hook = network.pasta()
    except HostError as error:
        yield _missing("pasta", f"there is no {error.missing}", *_hint(error))
    else:
        yield Finding(name="pasta", level=Level.OK, value=hook.args[0])
