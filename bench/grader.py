"""A grader in a process of its own: `python -m bench.grader PROGRAM RESIDENT`.

It holds RESIDENT bytes of touched memory and a live sandbox. For each line "N" on stdin it runs
PROGRAM N times, and prints how long each run took, in nanoseconds, as a JSON list.
"""

from __future__ import annotations

import json
import sys

from bench.measure import LIMITS, timed
from runner.config import Mount
from runner.sandbox import Sandbox


def main() -> None:
    program, resident = sys.argv[1], int(sys.argv[2])
    ballast = bytearray(resident)
    ballast[::4096] = b"\1" * len(ballast[::4096])  # touched, so that it is resident
    with Sandbox(mounts=[Mount.bind(program, "/bench")], limits=LIMITS) as sandbox:
        sandbox.start()
        print("ready", flush=True)
        for line in sys.stdin:
            samples = timed(
                lambda: sandbox.run(["/bench"], stdout=None, stderr=None), int(line)
            )
            print(json.dumps(samples), flush=True)


if __name__ == "__main__":
    main()
