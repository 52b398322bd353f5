"""The entry point of `run-sandboxed`: until it can cancel a run, Ctrl-C simply ends it.

Python would raise KeyboardInterrupt in the middle of the imports, and print where.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from runner.cli.main import main

__all__ = ["main"]
