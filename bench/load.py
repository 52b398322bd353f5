"""What a kill has to come through: a machine with nothing to spare."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def everything_busy(spin: Sequence[str | os.PathLike[str]]) -> Iterator[None]:
    """Keep every core busy with another program, and the GIL with a thread of this one."""
    done = threading.Event()

    def hold_the_gil() -> None:
        while not done.is_set():
            sum(range(1000))

    spinners = [subprocess.Popen(spin) for _ in os.sched_getaffinity(0)]
    thread = threading.Thread(target=hold_the_gil)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
