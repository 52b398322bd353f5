"""What a supervised call costs: `python -m bench.supervision`.

The same static program makes calls that are supervised, and calls that are not, in a sandbox
without rules, with rules by either way, and under strace, which stops at what it is told
to (--seccomp-bpf) as we do. The four take turns; medians.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench.conftest import compile_static
from runner import Limits, Mount, Sandbox, Supervision

ROUNDS = 15
COUNTS = {"open": 2000, "getppid": 200_000}
SETS = {"stat": ("/",), "read": ("/usr/",), "refuse": "EACCES"}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        program = str(compile_static("calls", Path(directory), libc="glibc"))
        figures: dict[tuple[str, str], list[int]] = {}
        mounts = [Mount.bind(program, "/calls")]
        with (
            Sandbox(mounts=mounts) as free,
            Sandbox(mounts=mounts, supervision=Supervision(**SETS)) as traced,  # type: ignore[arg-type]
            Sandbox(mounts=mounts, supervision=Supervision(**SETS, by="notify")) as noticed,  # type: ignore[arg-type]
        ):
            boxes = {"without rules": free, "ptrace": traced, "notify": noticed}
            for _ in range(ROUNDS):
                for call, count in COUNTS.items():
                    for name, box in boxes.items():
                        result = box.run(["/calls", call, str(count)], limits=Limits())
                        figures.setdefault((call, name), []).append(int(result.stdout))
                    if shutil.which("strace"):
                        figures.setdefault((call, "strace"), []).append(
                            under_strace(program, call, count)
                        )
    print(f"load {os.getloadavg()[0]:.1f}, {ROUNDS} rounds, ns a call, medians")
    for (call, name), samples in figures.items():
        median = statistics.median(samples)
        ratio = median / statistics.median(figures[call, "without rules"])
        print(f"{call:8} {name:14} {median:8.0f} {ratio:6.1f}")


def under_strace(program: str, call: str, count: int) -> int:
    command = ["strace", "-f", "--seccomp-bpf", "-e", "trace=open,openat", "-o", "/dev/null"]
    done = subprocess.run(
        [*command, program, call, str(count)], capture_output=True, check=True
    )
    return int(done.stdout)


if __name__ == "__main__":
    main()
