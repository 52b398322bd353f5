"""`--console`: the program on a terminal of its own, joined to ours."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from runner.config import Mount
from runner.console import Console
from runner.errors import ConfigError
from runner.host import detect

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from runner.result import Result
    from runner.sandbox import Sandbox


class Terminal:
    """A console and the thread that runs a program on it; a context manager.

    While it is open the size of the window is followed, by a handler for SIGWINCH.
    """

    def __init__(self) -> None:
        self._console = Console()
        self._previous = signal.signal(signal.SIGWINCH, self._resized)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGWINCH, self._previous)
        self._console.close()

    @property
    def mount(self) -> Mount:
        """A /dev that has it as /dev/console, and terminals of its own where that may be."""
        # The kernel mounts a devpts only where id 0 is mapped.
        return Mount.dev(pts=detect().maps_ids, console=self._console.path)

    def run(self, sandbox: Sandbox, command: Sequence[str]) -> Result:
        """Run a program to its end, with what is typed here, and show what it writes."""
        results: list[Result | BaseException] = []
        ended, end = os.pipe()
        thread = threading.Thread(target=self._run, args=(sandbox, command, results, end))
        thread.start()
        try:
            self._console.relay(ended=ended)
        except BrokenPipeError:
            sandbox.cancel()  # nobody reads what it writes
        except OSError as error:
            sandbox.cancel()
            message = f"--console: your terminal, or what stands for it: {error.strerror}"
            raise ConfigError(message) from None
        except BaseException:
            sandbox.cancel()
            raise
        finally:
            thread.join()
            os.close(ended)
        (result,) = results
        if isinstance(result, BaseException):
            raise result
        return result

    def _run(
        self,
        sandbox: Sandbox,
        command: Sequence[str],
        results: list[Result | BaseException],
        end: int,
    ) -> None:
        stdin, stdout, stderr = self._console.files
        try:
            results.append(sandbox.run(command, stdin=stdin, stdout=stdout, stderr=stderr))
        except BaseException as error:  # noqa: BLE001 - raised again, by who waits
            results.append(error)
        finally:
            os.close(end)

    def _resized(self, _number: int, _frame: FrameType | None) -> None:
        self._console.follow_size()
