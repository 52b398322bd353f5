"""Where submissions come from: folders and files on this host, or a stream of messages."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from runner.errors import ConfigError
from runner.judge import languages as known
from runner.judge import problem as problems
from runner.judge.languages import Language
from runner.judge.messages import Format, Refused, Submission, read_submissions
from runner.judge.problem import Problem

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A submission, and the problem that it wants to solve."""

    submission: Submission
    problem: Problem


class ProblemDirectory:
    """The problem folders in a directory, by their folders' names; each is read once."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._loaded: Final[dict[str, Problem]] = {}

    def find(self, name: str) -> Problem:
        """Give a problem; raises ConfigError for a name that is none, or a bad folder."""
        if not _NAME.fullmatch(name):  # it comes from outside and becomes a path
            raise ConfigError(f"problem {name!r}: a name is letters, digits, and inside . - _")
        if name not in self._loaded:
            self._loaded[name] = problems.load(self._path / name)
        return self._loaded[name]


def of_path(path: Path, languages: Mapping[str, Language]) -> list[Job]:
    """Find the submissions of a problem folder, of a folder of such, or the one file.

    A file belongs to the nearest problem folder above it. Raises ConfigError.
    """
    path = path.resolve()
    if path.is_file():
        return [_of_file(path, problems.load(_folder_above(path)), languages)]
    jobs = []
    for folder in problems.folders(path):
        problem = problems.load(folder)
        jobs += [_of_file(file, problem, languages) for file in problems.submissions(folder)]
    return jobs


def of_stream(
    blocks: Iterable[bytes],
    form: Format,
    *,
    directory: ProblemDirectory,
    languages: Mapping[str, Language],
) -> Iterator[Job | Refused]:
    """Read submissions as they come; one that cannot be judged is Refused.

    Raises ConfigError where the stream cannot be followed any further.
    """
    for number, item in enumerate(read_submissions(blocks, form), start=1):
        if isinstance(item, Refused):
            yield item
            continue
        try:
            known.find(languages, item.language)
            job = Job(item, directory.find(item.problem))
        except ConfigError as error:
            yield Refused(number=number, id=item.id, error=str(error))
        else:
            yield job


def _folder_above(file: Path) -> Path:
    for folder in file.parents:
        if (folder / problems.FILE).is_file():
            return folder
    raise ConfigError(f"{file}: no folder above it has a {problems.FILE}: which problem is it?")


def _of_file(path: Path, problem: Problem, languages: Mapping[str, Language]) -> Job:
    submission = Submission(
        id=f"{problem.folder.name}/{path.name}",
        problem=problem.folder.name,
        language=known.of_file(languages, path),
        source_bytes=path.read_bytes(),
    )
    return Job(submission, problem)
