"""What makes timing unsteady on this host: each with its value, why, and what changes it.

A finding is weak where the thing is at work; what this kernel does not have is not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.cgroup.place import groups_above
from runner.doctor.finding import Finding, Level
from runner.units import format_size

if TYPE_CHECKING:
    from runner.doctor.files import Files
    from runner.host import Host

_CPU: Final = "/sys/devices/system/cpu"
_STOLEN_SHARE: Final = 0.01
_PRESSURE_PERCENT: Final = 5.0
# v1 has no word for "no limit", but the largest number of pages.
_NO_LIMIT: Final = 2**62


def examine(files: Files, host: Host) -> tuple[Finding, ...]:
    """Look at each; nothing is started, and nothing takes a while."""
    return (
        _cpus(files, host.cpus),
        _load(files, host.cpus),
        *(_pressure(files, kind) for kind in ("cpu", "memory", "io")),
        _steal(files),
        _swap(files),
        _governor(files),
        _turbo(files),
        _smt(files),
        _aslr(files),
        _huge_pages(files),
        _quota_above(files, host),
        _memory_above(files, host),
    )


def _finding(
    name: str, value: str, *, noisy: bool, why: str, remedies: tuple[str, ...]
) -> Finding:
    if not noisy:
        return Finding(name=name, level=Level.OK, value=value)
    return Finding(name=name, level=Level.WEAK, value=value, why=why, remedies=remedies)


def _cpus(files: Files, cpus: int) -> Finding:
    online = _count(files.read(f"{_CPU}/online") or "") or os.cpu_count() or cpus
    return _finding(
        "cpus",
        f"{cpus} of {online} in the affinity mask",
        noisy=cpus < 2,
        why="the program shares its only CPU with whoever watches it",
        remedies=("allow it two or more: taskset, --cpuset-cpus, AllowedCPUs=",),
    )


def _load(files: Files, cpus: int) -> Finding:
    text = files.read("/proc/loadavg") or ""
    try:
        load = float(text.split()[0])
    except (IndexError, ValueError):
        return Finding(name="load", level=Level.OK, value="unknown")
    return _finding(
        "load",
        f"{load:.2f} on {cpus} CPUs",
        noisy=load > cpus / 2,
        why="others run too: they take caches, memory bandwidth and turns on the CPU",
        remedies=("see who with top, and run one program less than there are cores",),
    )


def _pressure(files: Files, kind: str) -> Finding:
    """Read the share of the last 10 s in which somebody waited; psi.rst of the kernel."""
    name = f"{kind}_pressure"
    text = files.read(f"/proc/pressure/{kind}") or ""
    fields = dict(word.split("=", 1) for word in text.split("\n")[0].split() if "=" in word)
    try:
        percent = float(fields["avg10"])
    except (KeyError, ValueError):
        value = "unknown: the kernel has no PSI, or wants psi=1"
        return Finding(name=name, level=Level.OK, value=value)
    return _finding(
        name,
        f"{percent:.1f} % of the last 10 s",
        noisy=percent > _PRESSURE_PERCENT,
        why=f"processes wait for {kind}, and so will the program",
        remedies=(f"find who by {kind}.pressure of the cgroups, and run less at a time",),
    )


def _steal(files: Files) -> Finding:
    """Compare stolen time with all that was used; proc_stat(5)."""
    machine = " (virtual machine)" if _is_virtual(files) else ""
    first = (files.read("/proc/stat") or "").split("\n")[0].split()
    if len(first) < 9 or not all(word.isdecimal() for word in first[1:9]):
        return Finding(name="steal", level=Level.OK, value="unknown" + machine)
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first[1:9])
    wanted = user + nice + system + irq + softirq + steal
    share = steal / wanted if wanted else 0.0
    return _finding(
        "steal",
        f"{share:.1%} of the CPU time since boot{machine}",
        noisy=share > _STOLEN_SHARE,
        why="the hypervisor runs others on our CPUs; wall time grows, and CPU time with it",
        remedies=("take a machine type with dedicated CPUs, or pin its virtual CPUs",),
    )


def _is_virtual(files: Files) -> bool:
    return " hypervisor" in (files.read("/proc/cpuinfo") or "") or files.exists(
        "/sys/hypervisor/type"
    )


def _swap(files: Files) -> Finding:
    areas = (files.read("/proc/swaps") or "").splitlines()[1:]
    return _finding(
        "swap_space",
        ", ".join(line.split()[0] for line in areas) or "off",
        noisy=bool(areas),
        why="a page that has to come back takes milliseconds, and peaks do not count it",
        remedies=("as root: swapoff -a, and remove it from /etc/fstab",),
    )


def _governor(files: Files) -> Finding:
    directory = f"{_CPU}/cpufreq"
    found = {
        governor
        for name in files.names(directory)
        if (governor := files.read(f"{directory}/{name}/scaling_governor"))
    }
    return _finding(
        "governor",
        ", ".join(sorted(found)) or "none: this kernel does not set frequencies",
        noisy=not found <= {"performance"},
        why="the frequency follows the load, so the first milliseconds are slower",
        remedies=(
            (
                "as root: cpupower frequency-set -g performance, or "
                f"echo performance | tee {directory}/policy*/scaling_governor"
            ),
        ),
    )


def _turbo(files: Files) -> Finding:
    for path, off in (
        (f"{_CPU}/intel_pstate/no_turbo", "1"),
        (f"{_CPU}/cpufreq/boost", "0"),
    ):
        value = files.read(path)
        if value is not None:
            return _finding(
                "turbo",
                "off" if value == off else "on",
                noisy=value != off,
                why="the frequency depends on heat, and on how many other cores are busy",
                remedies=(f"as root: echo {off} > {path}",),
            )
    return Finding(name="turbo", level=Level.OK, value="none: this kernel does not set it")


def _smt(files: Files) -> Finding:
    return _finding(
        "smt",
        {"1": "on", "0": "off"}.get(files.read(f"{_CPU}/smt/active") or "", "none"),
        noisy=files.read(f"{_CPU}/smt/active") == "1",
        why="two CPUs share one core: a busy sibling costs up to half of the speed",
        remedies=(
            f"as root: echo off > {_CPU}/smt/control",
            f"or give programs one CPU of each {_CPU}/cpu*/topology/thread_siblings_list",
        ),
    )


def _aslr(files: Files) -> Finding:
    mode = files.read("/proc/sys/kernel/randomize_va_space") or "0"
    return _finding(
        "aslr",
        {"0": "off", "1": "on, but for the heap", "2": "on"}.get(mode, mode),
        noisy=mode != "0",
        why="addresses differ in each run, and with them alignment and cache conflicts",
        remedies=(
            "for one run: --no-aslr, or Sandbox(personality=ADDR_NO_RANDOMIZE)",
            "for the host, which weakens it: sysctl -w kernel.randomize_va_space=0",
        ),
    )


def _huge_pages(files: Files) -> Finding:
    path = "/sys/kernel/mm/transparent_hugepage/enabled"
    modes = (files.read(path) or "[none]").split()
    mode = next((word.strip("[]") for word in modes if word.startswith("[")), "none")
    return _finding(
        "huge_pages",
        mode,
        noisy=mode == "always",
        why="whether memory is at hand in 2 MiB pieces changes times and peaks",
        remedies=(f"as root: echo madvise > {path}",),
    )


def _quota_above(files: Files, host: Host) -> Finding:
    """Find the smallest share of CPU time that our own cgroup or one above it is held to."""
    shares = []
    for directory, version in groups_above(host, "cpu"):
        quota, period = (
            (files.read(f"{directory}/cpu.max") or "max 1").split()[:2]
            if version == 2
            else (
                files.read(f"{directory}/cpu.cfs_quota_us") or "-1",
                files.read(f"{directory}/cpu.cfs_period_us") or "1",
            )
        )
        if quota.isdecimal() and period.isdecimal() and int(period):
            shares.append((int(quota) / int(period), directory))
    share, directory = min(shares, default=(0.0, ""))
    return _finding(
        "cpu_quota",
        f"{share:g} CPUs, by {directory}" if shares else "none",
        noisy=bool(shares),
        why="what has used up its share stands still for the rest of a period, mostly 100 ms",
        remedies=(
            (
                "give whole CPUs in its place: --cpuset-cpus for --cpus, AllowedCPUs= for "
                "CPUQuota=, equal whole requests and limits in Kubernetes"
            ),
        ),
    )


def _memory_above(files: Files, host: Host) -> Finding:
    """Find the smallest memory limit of our own cgroup and those above it."""
    limits = []
    for directory, version in groups_above(host, "memory"):
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        limit = files.number(f"{directory}/{name}")
        if limit is not None and limit < _NO_LIMIT:
            limits.append((limit, directory))
    limit, directory = min(limits, default=(0, ""))
    return _finding(
        "memory_above",
        f"{format_size(limit)}, by {directory}" if limits else "no limit",
        noisy=bool(limits),
        why="all sandboxes together are held to it: at it the kernel reclaims, then kills",
        remedies=("raise it (--memory, MemoryMax=, resources.limits), or run fewer at a time",),
    )


def _count(ranges: str) -> int:
    """Count the CPUs in a list such as 0-3,8."""
    total = 0
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            return 0
        total += int(last or first) - int(first) + 1
    return total
