"""What the judge's commands have in common in reading their arguments."""

from __future__ import annotations

import argparse
from typing import Final, NoReturn

EXIT_FAILURE: Final = 125
_MAX_WORKERS: Final = 1024


class Parser(argparse.ArgumentParser):
    """A parser whose refusals end with our exit status instead of 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_FAILURE, f"{self.format_usage()}{self.prog}: {message}\n")


def worker_count(text: str) -> int:
    """Read a number of workers."""
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) <= _MAX_WORKERS:
        message = f"{text!r}: give a number from 1 to {_MAX_WORKERS}"
        raise argparse.ArgumentTypeError(message)
    return int(text)
