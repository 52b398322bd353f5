"""What restricts the finished root: masks, paths and mounts that are made read-only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.config import MountKind, Namespace
from runner.errors import ErrorLocation as At
from runner.plan import mounting
from runner.plan.steps import Op, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.config import Mount, Runner
    from runner.plan.places import Site

_EMPTY_FILE: Final = "empty"  # in the stage
_EMPTY_DIRECTORY: Final = "nothing"

# What tells about the host's kernel to its uid 0 although it has no capability there, because
# only a mode of 0400 protects it, or is behind that uid's own name. What is readable for
# everybody tells no more here than anywhere.
_PROC_MASKED: Final = (
    "kcore",  # the host's memory
    "keys",  # root's keyrings, with their names
    "key-users",
    "kmsg",  # where dmesg_restrict is 0
    "kallsyms",  # addresses in the kernel, to who has CAP_SYSLOG
    "modules",
    "timer_list",  # addresses, and every task that waits
    "sched_debug",
    "latency_stats",
    "slabinfo",  # the kernel's allocations, by which attacks on it are timed
    "vmallocinfo",
    "pagetypeinfo",
    "kpagecount",  # who shares memory with whom
    "kpageflags",
    "kpagecgroup",
    "iomem",  # the physical layout of memory
    "ioports",
    "sysrq-trigger",  # write-only: reboots the host
    "acpi",  # these show, and set, devices
    "asound",
    "scsi",
)

# By these the host could be changed, or its devices be reached.
_PROC_READONLY: Final = ("bus", "fs", "irq", "sys", "sysrq-trigger")


def has_masks(site: Site) -> bool:
    """Tell whether anything is masked, for which the stage has what is empty."""
    return any(
        mount.kind is MountKind.MASK or _is_masked(mount, site.runner)
        for _, mount in site.mounts
    )


def all_of(site: Site) -> Iterator[Step]:
    """Restrict, parents first; what is read-only is so at last, as masks are in it."""
    if has_masks(site):
        yield mounting.write_file(_EMPTY_FILE, b"", 0, -1)
        yield mounting.mkdir(_EMPTY_DIRECTORY, -1, 0)
        # What is bound from it is read-only too.
        flags = mounting.MS_NOSUID | mounting.MS_NODEV
        yield mounting.remount_readonly(".", flags, At.MOUNT)
    for index, mount in site.mounts:
        if mount.kind is MountKind.PROC:
            yield from _proc(site, mount, index)
    for index, mount in site.mounts:
        if mount.kind is MountKind.MASK:
            yield _mask(mount.target, index)
        elif mount.kind is MountKind.READONLY:
            yield _read_only(site, mount.target, index, optional=mount.optional)
        elif mount.kind is MountKind.REMOUNT:
            yield _remount(site, mount, index)


def _proc(site: Site, mount: Mount, index: int) -> Iterator[Step]:
    if _is_masked(mount, site.runner):
        for name in _PROC_MASKED:
            yield _mask(f"{mount.target}/{name}", index)
    if not mount.readonly:
        for name in _PROC_READONLY:
            yield _read_only(site, f"{mount.target}/{name}", index, optional=True)


def _is_masked(mount: Mount, runner: Runner) -> bool:
    """By default where it hides something: only from the host's uid 0.

    All masks together take about a tenth of the time of a small sandbox's start, and from other
    uids they would hide what each of their programs can read, or nothing.
    """
    if mount.kind is not MountKind.PROC:
        return False
    if mount.masked is not None:
        return mount.masked
    return Namespace.USER not in runner.namespaces or any(
        m.outside == 0 for m in runner.uid_mappings
    )


def _mask(target: str, index: int) -> Step:
    strings = (os.fsencode(target), _EMPTY_FILE.encode(), _EMPTY_DIRECTORY.encode())
    return Step(Phase.SETUP, Op.MASK, At.MOUNT, strings=strings, item=index, subject=target)


def _read_only(site: Site, target: str, index: int, *, optional: bool) -> Step:
    flags = mounting.BIND_RECURSIVE | (mounting.BIND_OPTIONAL if optional else 0)
    flags |= mounting.BIND_OLD if site.old else 0
    return mounting.bind(target, target, index, attributes=mounting.ATTR_RDONLY, flags=flags)


def _remount(site: Site, mount: Mount, index: int) -> Step:
    attributes = mounting.ATTR_RDONLY if mount.readonly else 0
    attributes |= 0 if mount.devices else mounting.ATTR_NODEV
    attributes |= 0 if mount.executable else mounting.ATTR_NOEXEC
    flags = mounting.BIND_RECURSIVE if mount.recursive else 0
    flags |= mounting.BIND_OLD if site.old else 0
    return Step(
        Phase.SETUP,
        Op.REMOUNT,
        At.MOUNT_ATTRIBUTES,
        (attributes, flags),
        (os.fsencode(mount.target),),
        item=index,
        subject=mount.target,
    )
