"""Judge all examples and compare each verdict with its label: `make demo`.

Writes what is missing of the tests, judges on two workers, shows a table; fails if a verdict is
not the expected one.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runner.errors import ConfigError
from runner.judge import jobs as sources
from runner.judge import languages
from runner.judge import problem as problems
from runner.judge.arguments import EXIT_FAILURE, Parser, worker_count
from runner.judge.jobs import Job
from runner.judge.messages import Output, SubmissionResult
from runner.judge.session import Session
from runner.judge.verdict import Verdict
from runner.units import format_ns, format_size

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"
EXIT_DIFFERENT: Final = 1
_HEADINGS: Final = (
    "Problem",
    "Submission",
    "Language",
    "Verdict",
    "Expected",
    "CPU time",
    "Wall time",
    "Memory",
    "",
)
_RIGHT_ALIGNED: Final = frozenset({"CPU time", "Wall time", "Memory"})


@dataclasses.dataclass(slots=True)
class Row:
    """One labelled submission, and its result once it is there."""

    job: Job
    language: str
    expected: Verdict
    missing: tuple[str, ...] = ()  # programs without which it is skipped
    result: SubmissionResult | None = None

    @property
    def as_expected(self) -> bool:
        """Tell whether the verdict is the label; False for what was not judged."""
        return self.result is not None and self.result.verdict is self.expected

    @property
    def cells(self) -> list[str]:
        """Give the row of the table."""
        found = "skipped" if self.missing else "cancelled"
        figures = ["", "", ""]
        if self.result is not None:
            found = self.result.verdict.value
            figures = [
                _or_dash(self.result.cpu_ns, format_ns),
                _or_dash(self.result.wall_ns, format_ns),
                _or_dash(self.result.memory_bytes, format_size),
            ]
        problem, name = self.job.submission.id.split("/", 1)
        mark = "" if self.as_expected else "<-- differs"
        return [problem, name, self.language, found, self.expected.value, *figures, mark]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo, give its exit status."""
    parser = Parser(prog="demo", description="Judge the labelled examples.")
    add = parser.add_argument
    add("folder", nargs="?", type=Path, default=EXAMPLES, help="default: %(default)s")
    add("-j", "--jobs", type=worker_count, default=2, metavar="N", help="workers; default: 2")
    add(
        "--allow-missing", action="store_true", help="a language without compiler is no failure"
    )
    options = parser.parse_args(argv)
    console = Console()
    try:
        rows = _find_rows(options.folder)
        caught = _judge(rows, options.jobs, console)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return EXIT_FAILURE
    except KeyboardInterrupt:  # before the session took the signal over
        return 128 + signal.SIGINT
    _show(rows, console)
    if caught:
        return 128 + caught
    bad = [row for row in rows if not row.as_expected]
    if options.allow_missing:
        bad = [row for row in bad if not row.missing]
    _show_reasons(rows, bad, console)
    return EXIT_DIFFERENT if bad else 0


def _find_rows(folder: Path) -> list[Row]:
    known = languages.load()
    missing = {name: tuple(one.missing_programs()) for name, one in known.items()}
    rows = []
    for path in problems.folders(folder.resolve()):
        problems.generate(path)
        labels = problems.load_labels(path)
        jobs = {Path(job.submission.id).name: job for job in sources.of_path(path, known)}
        unlabelled = sorted(jobs.keys() - labels.keys())
        if unlabelled:
            raise ConfigError(f"{path / problems.LABELS}: no label for {', '.join(unlabelled)}")
        for name, expected in labels.items():
            language = jobs[name].submission.language
            rows.append(Row(jobs[name], known[language].name, expected, missing[language]))
    return rows


def _judge(rows: Sequence[Row], workers: int, console: Console) -> int:
    by_id = {row.job.submission.id: row for row in rows}
    todo = [row.job for row in rows if not row.missing]
    console.out(f"Judging {len(todo)} submissions on {workers} workers.", highlight=False)
    with _progress(len(todo), console) as advance:

        def on_message(message: Output) -> None:
            if isinstance(message, SubmissionResult):
                by_id[message.id].result = message
                advance(message.id)

        return Session(workers, on_message).run(todo)


@contextmanager
def _progress(total: int, console: Console) -> Iterator[Callable[[str], None]]:
    """Show a bar on a terminal, nothing elsewhere; gives what to call for each submission."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    visible = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not visible) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, advance=1, description=done)


def _show(rows: Sequence[Row], console: Console) -> None:
    if not console.is_terminal:
        _show_plain([list(_HEADINGS), *(row.cells for row in rows)], console)
        return
    table = Table()
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in _RIGHT_ALIGNED else "left")
    last = ""
    for row in rows:
        problem, *others = row.cells
        if last not in {"", problem}:
            table.add_section()
        style = "" if row.as_expected else "bold red"
        table.add_row("" if problem == last else problem, *others, style=style)
        last = problem
    console.print(table)


def _show_plain(lines: Sequence[Sequence[str]], console: Console) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.rjust(width) if heading in _RIGHT_ALIGNED else cell.ljust(width)
            for cell, width, heading in zip(line, widths, _HEADINGS, strict=True)
        ]
        console.out("  ".join(cells).rstrip(), highlight=False)


def _show_reasons(rows: Sequence[Row], bad: Sequence[Row], console: Console) -> None:
    for row in bad:
        if row.result is not None and row.result.message:
            console.out(f"\n{row.job.submission.id}: {row.result.message}", highlight=False)
    known = languages.load()
    for name in sorted({row.job.submission.language for row in rows if row.missing}):
        language = known[name]
        lacking = ", ".join(language.missing_programs())
        console.out(
            f"\n{language.name} was skipped: no {lacking} here. Try: {language.remedy}",
            highlight=False,
        )
    enforced = [row.result.enforced for row in rows if row.result is not None]
    weak = sorted({name for held in enforced for name, by in held.items() if by is None})
    if weak:
        console.out(f"\nNot enforced here: {', '.join(weak)}", highlight=False)
    good = sum(row.as_expected for row in rows)
    console.out(f"\n{good} of {len(rows)} verdicts as expected.", highlight=False)


def _or_dash(figure: int | None, write: Callable[[int], str]) -> str:
    return "-" if figure is None else write(figure)


if __name__ == "__main__":
    sys.exit(main())
