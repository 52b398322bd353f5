"""Runs a program by Python: `python -m bench.compare.ours HOW PLACE COMMAND…`.

HOW is "subprocess" for subprocess.run, "live" for one sandbox that runs it each time, "once"
for a sandbox each, "ahead" for one each that is made while another runs; and, after a colon
each, what the sandbox goes without (see WITHOUT). For each line "N" on stdin it runs the
command N times, and prints how long each took, in ns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

from bench.measure import LIMITS, timed
from runner import Mount, Sandbox, rootfs, run
from runner.cgroup import Parent
from runner.host import detect

PLACE = "/bench"  # of the programs, in the sandbox
Options = dict[str, Any]


def without_seccomp(options: Options, _: str) -> None:
    options["policy"] = None


def without_network(options: Options, _: str) -> None:
    options["network"] = "host"


def without_cgroups(_: Options, __: str) -> None:
    mock.patch.object(Parent, "find", return_value=None).start()


def without_tmp(options: Options, place: str) -> None:
    """Have a directory of the host's in place of what is fresh for each run."""
    scratch = tempfile.mkdtemp(dir=place)
    os.chmod(scratch, 0o777)
    options["root"] = [
        *rootfs.system_directories(detect().root_entries),
        *rootfs.etc(),
        *rootfs.kernel_file_systems(),
        Mount.bind(scratch, "/tmp", readonly=False),
    ]


WITHOUT = {
    "seccomp": without_seccomp,
    "network": without_network,
    "cgroups": without_cgroups,
    "tmp": without_tmp,
}


def runs(how: str, place: str, command: list[str]) -> Callable[[], object]:
    kind, *without = how.split(":")
    if kind == "subprocess":
        return lambda: subprocess.run(command, env={}, stdout=subprocess.DEVNULL, check=True)
    options: Options = {"mounts": [Mount.bind(place, PLACE)], "limits": LIMITS}
    for name in without:
        WITHOUT[name](options, place)
    if kind == "once":
        return lambda: run(command, stdout=None, stderr=None, **options)
    live = Sandbox(fresh="sandbox" if kind == "ahead" else "run", **options)
    return lambda: live.run(command, stdout=None, stderr=None)


def main() -> None:
    how, place, *command = sys.argv[1:]
    once = runs(how, place, command)
    result = once()
    assert getattr(result, "ok", True), result
    for line in sys.stdin:
        print(*timed(once, int(line)), flush=True)


if __name__ == "__main__":
    main()
