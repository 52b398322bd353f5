"""Where this process runs, a container or a host with systemd, and what helps there."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.cgroup import WhyNot
    from runner.doctor.files import Files

# What a container engine leaves in the root directory of each of its containers.
_MARKS: Final = (("/run/.containerenv", "podman"), ("/.dockerenv", "docker"))

_WRITABLE_CGROUPS: Final = {
    "docker": (
        "Docker 28: docker run --cgroupns=private --security-opt writable-cgroups=true",
        "before it: docker run --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw",
    ),
    "podman": ("podman run --cgroupns=private --security-opt unmask=/sys/fs/cgroup",),
    "kubernetes": (
        (
            "containerd 2.1: cgroup_writable = true in a runtime's section of its config.toml, "
            "and that runtime as the pod's runtimeClassName"
        ),
        'CRI-O: the pod\'s annotation io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw: "true"',
    ),
}

_CONFINEMENT: Final = {
    "docker": (
        (
            "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unmasked"
        ),
    ),
    "podman": ("podman run --security-opt seccomp=unconfined --security-opt unmask=ALL",),
    "kubernetes": (
        (
            "the container's securityContext: seccompProfile and appArmorProfile of type "
            "Unconfined, procMount: Unmasked; with it hostUsers: false of the pod"
        ),
    ),
}

_DELEGATED: Final = "/etc/systemd/system/user@.service.d/delegate.conf"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The engine of our container or None, whether systemd runs the system, our user."""

    container: str | None = None
    systemd: bool = False
    uid: int = 0

    def cgroup_remedies(self, why: WhyNot) -> tuple[str, ...]:
        """Say how to get a cgroup that we may write to: the cause's own remedy first."""
        if self.container is not None:
            return (why.remedy, *self._of_the_engine(_WRITABLE_CGROUPS))
        if self.uid == 0:
            return (why.remedy,)
        if not self.systemd:
            group = "/sys/fs/cgroup/judge"
            return (
                why.remedy,
                (
                    f"as root: mkdir -p {group}/main && echo '+memory +pids' > "
                    f"/sys/fs/cgroup/cgroup.subtree_control && chown -R {self.uid} {group} && "
                    f"echo $PID > {group}/main/cgroup.procs, PID being your shell"
                ),
            )
        return (
            "systemd-run --user --scope -p Delegate=yes COMMAND",
            (
                "for a service: systemctl edit NAME, and add [Service] Delegate=yes "
                "DelegateSubgroup=main"
            ),
            (
                "where users get too few controllers, as root: "
                f"mkdir -p {os.path.dirname(_DELEGATED)} && printf "
                f"'[Service]\\nDelegate=cpu cpuset io memory pids\\n' > {_DELEGATED} && "
                "systemctl daemon-reload, then log in anew"
            ),
        )

    def confinement_remedies(self) -> tuple[str, ...]:
        """Say how to have a container's engine allow namespaces and mounts."""
        return () if self.container is None else self._of_the_engine(_CONFINEMENT)

    def _of_the_engine(self, remedies: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        own = remedies.get(self.container or "")
        return remedies["docker"] + remedies["podman"] if own is None else own


def look(files: Files, environ: Mapping[str, str], *, uid: int) -> Surroundings:
    """Find out by the marks that engines and systemd leave."""
    return Surroundings(
        container=_container(files, environ),
        systemd=files.exists("/run/systemd/system"),
        uid=uid,
    )


def _container(files: Files, environ: Mapping[str, str]) -> str | None:
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    for path, name in _MARKS:
        if files.exists(path):
            return name
    # systemd(1), "$container": set for pid 1 by what starts a container with an init.
    return environ.get("container") or files.read("/run/systemd/container") or None
