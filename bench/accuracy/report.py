"""From bench/data/accuracy.json to the tables and pictures of docs/accuracy.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from bench import record, svg
from bench.accuracy.cases import Case, Sample, Series, bound
from bench.accuracy.kills import LOADS
from bench.accuracy.languages import ALLOCATORS, BURNERS, LANGUAGES
from bench.measure import percentile
from bench.record import describe, draw

MS, MIB = 1e6, 2.0**20
BOUNDS = {
    "CPU time": "bound (green): 1 % or 2 ms",
    "memory": "bound (green): 2 % or 1 MiB",
}


def read() -> dict[str, Any]:
    """Give all that was measured."""
    return record.read("accuracy")


def series(data: dict[str, Any]) -> list[Series]:
    """Give the samples, as they were measured."""
    runtimes = {language.name: language.runtime for language in LANGUAGES}
    return [
        Series(
            Case(
                each["language"], (), each["kind"], each["amount"], runtimes[each["language"]]
            ),
            [Sample(*s) for s in zip(each["truth"], each["figure"], each["said"], strict=True)],
        )
        for each in data["figures"]
    ]


def table(data: dict[str, Any], *, burns: bool) -> Iterator[str]:
    """Give a Markdown table of errors, for CPU time or for memory: median and worst."""
    size = MS if burns else MIB
    found = {
        (each.case.kind, each.case.amount, each.case.language): each
        for each in series(data)
        if each.case.burns is burns
    }
    languages = [each.name for each in LANGUAGES if each.name not in data["missing"]]
    yield f"| {'ms' if burns else 'MiB'} | {' | '.join(languages)} |"
    yield f"|---|{'---|' * len(languages)}"
    for kind, amount in dict.fromkeys((kind, amount) for kind, amount, _ in found):
        cells = [cell(found.get((kind, amount, name)), size) for name in languages]
        yield f"| {kind}, {amount} | {' | '.join(cells)} |"


def cell(each: Series | None, size: float) -> str:
    """Say how far off it was, and how often by more than its bound."""
    if each is None:
        return ""
    text = f"{each.median_error / size:+.2f}, {each.worst.error / size:+.2f}"
    outside = len(each.samples) - each.held
    return f"{text} ({outside} of {len(each.samples)} outside)" if outside else text


def missing(data: dict[str, Any]) -> Iterator[str]:
    """Name what could not be measured, and why."""
    for language, why in data["missing"].items():
        yield f"- {language}: not measured, for want of {why}"
    for language in LANGUAGES:
        if language.cannot and language.name not in data["missing"]:
            yield f"- {language.name}: its library has no {', '.join(language.cannot)}"


def kill_table(data: dict[str, Any]) -> Iterator[str]:
    yield "| limit | load | n | p50 | p99 | worst |"
    yield "|---|---|---|---|---|---|"
    for each in data["kills"]:
        late = each["late_ms"]
        figures = [f"{percentile(late, percent):.2f} ms" for percent in (50, 99, 100)]
        load = LOADS[each["load"]]
        yield f"| {' | '.join([each['limit'], load, str(len(late)), *figures])} |"


def pictures(data: dict[str, Any]) -> None:
    """Draw the distributions into docs/pictures."""
    note = describe(data["measured"])
    for name, kinds, size, unit in (
        ("CPU time", BURNERS, MS, "ms"),
        ("memory", ALLOCATORS, MIB, "MiB"),
    ):
        rows = []
        names = [language.name for language in LANGUAGES]
        for each in series(data):
            if each.case.kind in kinds:
                errors = [sample.error / size for sample in each.samples]
                truth = statistics.median(sample.truth for sample in each.samples)
                off = bound(each.case, truth) / size
                colour = names.index(each.case.language)
                rows.append(svg.Strip(each.case.name, errors, colour, (-off, off)))
        if rows:
            # Wide enough for all that was off, not for every bound: those of large figures are.
            furthest = max(abs(value) for row in rows for value in row.values)
            typical = statistics.median(row.band[1] for row in rows if row.band)
            reach = 1.1 * max(furthest, typical)
            axis = svg.Axis(f"figure less truth, {unit}; {BOUNDS[name]}", -reach, reach)
            picture = svg.strips(f"How far the figure for {name} is off", note, axis, rows)
            draw(f"accuracy-{name.split()[0].lower()}", picture)
    if data["kills"]:
        draw("accuracy-kills", kill_picture(data, note))


def kill_picture(data: dict[str, Any], note: str) -> str:
    limits = list(dict.fromkeys(each["limit"] for each in data["kills"]))
    curves = [
        svg.Curve(
            f"{each['limit']}, {LOADS[each['load']]}",
            svg.cumulative([max(late, 0.01) for late in each["late_ms"]]),
            limits.index(each["limit"]),
            dashed=each["load"] == "busy",
        )
        for each in data["kills"]
    ]
    spread = [x for curve in curves for x, _ in curve.points]
    axis = svg.around("ms past the limit", spread, log=True)
    title = "How late a kill lands: % of the kills that were not later"
    return svg.curves(title, note, axis, svg.Axis("%", 0, 100), curves)


def lines(data: dict[str, Any]) -> Iterator[str]:
    """Give all of it, as Markdown."""
    yield describe(data["measured"])
    yield ""
    runs = len(data["figures"][0]["truth"])
    yield f"What the result says less the truth: median and worst of {runs} runs of each."
    yield ""
    yield from table(data, burns=True)
    yield ""
    yield from table(data, burns=False)
    yield ""
    yield from kill_table(data)
    yield ""
    yield from missing(data)
