"""Files of the caller's that a run gets and leaves: --copy-in, --copy-out.

Where a file is to be written is settled before the program can write there (output.py).
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli import report
from runner.cli.output import OutputFile
from runner.config.files import FILE_LIMIT, FileIn, FileOut, check_file_name
from runner.errors import ConfigError
from runner.quick import NamedTuple
from runner.result import FileState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import SimpleNamespace

    from runner.result import OutFile, Result


class Copy(NamedTuple):
    """A file outside, and its name in the working directory."""

    path: str
    name: str
    optional: bool = False


def copy_in(text: str) -> Copy:
    """Read SRC[:NAME]; the name is that of the file otherwise."""
    path, colon, name = text.rpartition(":")
    if not colon:
        path, name = text, os.path.basename(text)
    return _copy(text, Copy(path, name))


def copy_out(text: str) -> Copy:
    """Read NAME[:DST][?]; it goes into the current directory otherwise."""
    whole = text.removesuffix("?")
    name, colon, path = whole.rpartition(":")
    if not colon:
        name, path = whole, os.path.basename(whole)
    return _copy(text, Copy(path, name, optional=whole != text))


def _copy(text: str, copy: Copy) -> Copy:
    if not copy.path:
        raise ConfigError(f"{text!r}: a name is empty")
    try:
        check_file_name("name", copy.name)
    except ConfigError as error:
        raise ConfigError(f"{text!r}: {str(error).partition(': ')[2]}") from None
    return copy


def given(copies: Sequence[Copy]) -> dict[str, FileIn]:
    """Give what goes in; each has the permissions of its file."""
    files = {}
    for copy in copies:
        try:
            status = os.stat(copy.path)
        except OSError as error:
            raise ConfigError(f"--copy-in: {copy.path!r}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"--copy-in: {copy.path!r}: it is no regular file")
        files[copy.name] = FileIn(Path(copy.path), status.st_mode & 0o777)
    return files


def wanted(options: SimpleNamespace) -> list[FileOut]:
    """Give what comes out."""
    limit = options.copy_limit or FILE_LIMIT
    return [FileOut(copy.name, limit, optional=copy.optional) for copy in options.copy_out]


class CopiesOut:
    """Where files are to be written that come out. A context manager."""

    def __init__(self, copies: Sequence[Copy]) -> None:
        """Settle the places: ConfigError."""
        self._files: dict[str, OutputFile] = {}
        with contextlib.ExitStack() as opened:
            for copy in copies:
                file = opened.enter_context(OutputFile("--copy-out", copy.path))
                self._files[copy.name] = file
            self._opened = opened.pop_all()

    def __enter__(self) -> CopiesOut:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def write(self, result: Result) -> None:
        """Write what there is, and say what is not there; ConfigError if it cannot be."""
        for name, file in result.files.items():
            if file.state in {FileState.OK, FileState.TRUNCATED}:
                self._files[name].write_bytes(file.content)
            if not file.ok:
                report.say(f"--copy-out: {name!r}: {_why(file)}")


def _why(file: OutFile) -> str:
    if file.state is FileState.TRUNCATED:
        return f"it has {file.size} bytes, of which {len(file.content)} were copied"
    return file.why
