"""Programs started for a test, and what they say of themselves."""

from __future__ import annotations

import os
from typing import Any

import runner
from runner import Runner


def output_of(*args: str, stderr: bool = False, **fields: Any) -> str:  # noqa: ANN401
    """Start a program with its stdout in a pipe and give what it wrote."""
    reading, writing = os.pipe()
    try:
        options = {"files": (0, writing, writing if stderr else 2)} | fields
        with runner.start(Runner(args=args, **options)) as process:
            os.close(writing)
            writing = -1
            with open(reading, closefd=False) as pipe:
                text = pipe.read()
            process.wait()
        return text
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def script(text: str, **fields: Any) -> str:  # noqa: ANN401
    return output_of("/bin/sh", "-c", text, **fields)


def status_fields(**fields: Any) -> dict[str, str]:  # noqa: ANN401
    lines = output_of("/bin/cat", "/proc/self/status", **fields).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
