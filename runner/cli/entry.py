"""The entry point of `run-sandboxed`: how its process begins and ends.

Until it can cancel a run, Ctrl-C simply ends it: Python would raise KeyboardInterrupt in the
middle of the imports, and print where.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# What is imported stays: the first look for garbage shall come when there may be some.
gc.set_threshold(100_000)

from runner.cli import main as command  # noqa: E402 - the above is for it too

__all__ = ["main"]


def main() -> int:
    """Run the command; the process ends here, for Python takes long to take itself apart."""
    status = command.main()
    atexit._run_exitfuncs()  # noqa: SLF001 - as the standard library does before its _exit
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # the caller has closed it
                stream.flush()
    except OSError:
        return status  # Python's own end tells
    os._exit(status)
