"""The doctor: what this host can enforce as this user, and what makes timing noisy here.

What can be tried is tried, by whoever can start sandboxes, and is an argument; the rest is read
from /proc and /sys, of which every file may be missing. Nothing here raises.

    finding        what is said, and its JSON form
    guarantees     what was enforced in a sandbox that was started
    features       what the host has of what some features need
    noise          what makes timing unsteady
    surroundings   container or host, systemd or not, and what helps there
    probes, files  system calls that are tried; files that may be missing
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from runner.cgroup import Resource, WhyNot
from runner.cgroup.layout import Layout, choose
from runner.doctor import features, guarantees, noise, surroundings
from runner.doctor.files import Files
from runner.doctor.finding import Finding, Level, Report
from runner.doctor.probes import Probed, probe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.config import Namespace
    from runner.errors import SandboxError
    from runner.host import Host

__all__ = ["Finding", "Level", "Probed", "Report", "Tried", "examine", "probe"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What happened when it was tried: an error, or None where it worked.

    sandbox      what was enforced in a default sandbox, or why there was none
    namespaces   a program in a user namespace and one of this kind
    mounts       proc_mount, overlay, idmapped_mounts; not there where it is not needed
    probed       system calls
    """

    sandbox: Mapping[str, str | None] | SandboxError
    namespaces: Mapping[Namespace, SandboxError | None]
    mounts: Mapping[str, SandboxError | None]
    probed: Probed


def examine(host: Host, tried: Tried, *, environ: Mapping[str, str], root: str = "/") -> Report:
    """Put the report together; `root` is where proc and sys are looked for."""
    files = Files(root)
    around = surroundings.look(files, environ, uid=host.euid)
    layout = _layout(host)
    return Report(
        kernel=os.uname().release,
        uid=host.euid,
        container=around.container,
        systemd=around.systemd,
        guarantees=guarantees.examine(tried.sandbox, host, layout.why_not, around),
        features=(
            *features.namespaces(tried.namespaces, host, files, around),
            *features.mounts(tried.mounts, around),
            *features.cgroups(host, layout, files, around),
            *features.calls(tried.probed, files, around),
            *features.id_maps(host),
            *features.tools(),
        ),
        noise=noise.examine(files, host),
    )


def _layout(host: Host) -> Layout:
    try:
        return choose(host)
    except OSError as error:  # a cgroup file system that hides its files, or lost them just now
        why = WhyNot(f"{error.filename}: {error.strerror}", "mount a whole cgroup file system")
        return Layout((), dict.fromkeys(Resource, why))
