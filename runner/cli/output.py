"""Files written after a run, whose places are settled before it.

The program may write where they are to be: a symbolic link that it, or one of an earlier run,
has put there would lead to any file of its caller's. So their directory is opened first, and
what has the name is replaced, never written through: but for a pipe and what is no file, and
for the links of /dev and /proc, such as /dev/stdout. Whoever reads one finds the whole text;
and none of an earlier run, for that is removed when the place is settled.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

from runner.cli import report
from runner.errors import ConfigError, SandboxError

if TYPE_CHECKING:
    from runner.result import Result

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC


class OutputFile:
    """One such file; `option` names it in messages. A context manager."""

    def __init__(self, option: str, path: str) -> None:
        """Open its directory, or itself if it is a pipe, /dev/fd/3: ConfigError."""
        self._option = option
        self._path = path
        directory, self._name = os.path.split(path)
        try:
            self._replaced = _is_replaceable(path)
            if self._replaced:
                self._fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                self._remove(self._name)
            else:
                self._fd = os.open(path, _NEW, 0o666)
        except OSError as error:
            raise self._failed(error) from None

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def write(self, text: str) -> None:
        """Write all of it, once; raises ConfigError."""
        self.write_bytes(text.encode("utf-8", "surrogateescape"))

    def write_bytes(self, content: bytes) -> None:
        """Write all of it, once; raises ConfigError."""
        try:
            if self._replaced:
                self._replace(content)
                return
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.ftruncate(self._fd, 0)
            _write_all(self._fd, content)
        except OSError as error:
            raise self._failed(error) from None

    def _replace(self, content: bytes) -> None:
        # In the same directory, as rename(2) cannot cross file systems; the pid keeps runs
        # apart, and what has this name already is nothing of ours.
        temporary = f".run-sandboxed.{os.getpid()}.tmp"  # short, where the name is a long one
        directory = self._fd
        self._remove(temporary)
        fd = os.open(temporary, _NEW | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=directory)
        try:
            with contextlib.closing(os.fdopen(fd, "wb")) as file:
                file.write(content)
            os.rename(temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            self._remove(temporary)
            raise

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # mostly there is none
            os.unlink(name, dir_fd=self._fd)

    def _failed(self, error: OSError) -> ConfigError:
        return ConfigError(f"{self._option}: {self._path!r}: {error.strerror}")


def _is_replaceable(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISLNK(mode):
        directory = os.path.realpath(os.path.dirname(path))
        return not (directory == "/dev" or directory.startswith("/proc/"))
    return stat.S_ISREG(mode)


def _write_all(fd: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


class Outputs:
    """What is written of one run for other programs: `--json` and `--meta`; None for neither.

    A context manager. An empty `json` is standard error.
    """

    def __init__(self, *, json: str | None, meta: str | None) -> None:
        self._json_to_stderr = json == ""
        with contextlib.ExitStack() as opened:
            self._json = opened.enter_context(OutputFile("--json", json)) if json else None
            self._meta = opened.enter_context(OutputFile("--meta", meta)) if meta else None
            self._opened = opened.pop_all()

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def write(self, outcome: Result | SandboxError) -> None:
        """Write what was asked for; raises ConfigError."""
        if self._json_to_stderr:
            report.write(2, _json_text(outcome))
        if self._json is not None:
            self._json.write(_json_text(outcome))
        if self._meta is not None:
            from runner.cli import meta

            self._meta.write(meta.render(outcome))


def _json_text(outcome: Result | SandboxError) -> str:
    import json

    from runner.result import error_to_dict

    if isinstance(outcome, SandboxError):
        return json.dumps(error_to_dict(outcome)) + "\n"
    return json.dumps(outcome.to_dict()) + "\n"
