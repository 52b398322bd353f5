"""From bench/data/compare.json to the tables and pictures of docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from bench import record, svg
from bench.compare.contestants import BARE, CONTESTANTS
from bench.measure import percentile
from bench.record import describe, draw

HOW = {"live": "a run in a live sandbox", "once": "a sandbox used once"}


def read() -> dict[str, Any]:
    """Give all that was measured, the guarantees at a time of their own."""
    parts = record.read("guarantees")
    return record.read("compare") | {
        "guarantees": parts["guarantees"],
        "parts_measured": parts["measured"],
    }


def duration(us: float) -> str:
    """Write a time with three digits."""
    if us < 1000:
        return f"{us:.0f} µs"
    return f"{us / 1000:.{2 if us < 10_000 else 1 if us < 100_000 else 0}f} ms"


def latency_table(data: dict[str, Any]) -> Iterator[str]:
    bare = {
        each["program"]: each["us"] for each in data["latency"] if each["contestant"] == BARE
    }
    yield "| program | run by | n | p10 | p50 | p99 | p10, to the bare loop's | p50 |"
    yield "|---|---|---|---|---|---|---|---|"
    for each in data["latency"]:
        us = each["us"]
        shown = [duration(percentile(us, percent)) for percent in (10, 50, 99)]
        ratios = [
            f"{percentile(us, percent) / percentile(bare[each['program']], percent):.1f}"
            for percent in (10, 50)
        ]
        cells = [each["program"], each["contestant"], str(len(us)), *shown, *ratios]
        yield f"| {' | '.join(cells)} |"


def throughput_table(data: dict[str, Any]) -> Iterator[str]:
    numbers = sorted({each["at_a_time"] for each in data["throughput"]})
    yield f"| runs per second, at a time | {' | '.join(map(str, numbers))} |"
    yield f"|---|{'---|' * len(numbers)}"
    for name, points in throughput(data).items():
        yield f"| {name} | {' | '.join(f'{rate:.0f}' for _, rate in points)} |"


def throughput(data: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Give the medians of each contestant, by how many ran at a time."""
    found: dict[str, list[tuple[float, float]]] = {}
    for each in data["throughput"]:
        rate = statistics.median(each["per_second"])
        found.setdefault(each["contestant"], []).append((each["at_a_time"], rate))
    return {name: sorted(points) for name, points in found.items()}


def guarantee_table(data: dict[str, Any]) -> Iterator[str]:
    yield "| | n | p5 | p50 | p99 | the guarantee costs, by p5 | by p50 |"
    yield "|---|---|---|---|---|---|---|"
    whole: dict[tuple[str, str], tuple[float, float]] = {}
    for each in data["guarantees"]:
        us = each["us"]
        p5, p50, p99 = (percentile(us, percent) for percent in (5, 50, 99))
        kind, costs = (each["how"], each["program"]), ["", ""]
        if kind in whole:
            costs = [f"{whole[kind][0] - p5:+.0f} µs", f"{whole[kind][1] - p50:+.0f} µs"]
        else:
            whole[kind] = p5, p50
            yield f"| **{HOW[each['how']]}: {each['program']}** | | | | | | |"
        shown = [duration(p5), duration(p50), duration(p99)]
        cells = [each["variant"], str(len(us)), *shown, *costs]
        yield f"| {' | '.join(cells)} |"


def pictures(data: dict[str, Any]) -> None:
    """Draw the distributions into docs/pictures."""
    note = describe(data["measured"])
    names = [contestant.name for contestant in CONTESTANTS]
    rows = [
        svg.Strip(
            f"{each['program']}: {each['contestant']}",
            [us / 1000 for us in each["us"]],
            names.index(each["contestant"]),
        )
        for each in data["latency"]
    ]
    draw("performance-latency", _strips("How long a run takes", note, rows))
    curves = [
        svg.Curve(name, points, names.index(name)) for name, points in throughput(data).items()
    ]
    numbers = tuple(sorted({each["at_a_time"] for each in data["throughput"]}))
    across = svg.Axis("at a time", 0.9, numbers[-1] * 1.1, log=True, own_ticks=numbers)
    rates = [rate for curve in curves for _, rate in curve.points]
    up = svg.around("runs per second", rates, log=True)
    title = "Runs per second of a static C program that does nothing"
    picture = svg.curves(title, note, across, up, curves, marks=True)
    draw("performance-throughput", picture)
    kinds = list(dict.fromkeys((each["how"], each["program"]) for each in data["guarantees"]))
    rows = [
        svg.Strip(
            f"{each['how']}{', writes' if 'writes' in each['program'] else ''}: "
            f"{each['variant']}",
            [us / 1000 for us in each["us"]],
            kinds.index((each["how"], each["program"])),
        )
        for each in data["guarantees"]
    ]
    note = describe(data["parts_measured"])
    draw("performance-guarantees", _strips("A run with one guarantee left out", note, rows))


def _strips(title: str, note: str, rows: list[svg.Strip]) -> str:
    values = [value for row in rows for value in row.values]
    return svg.strips(title, note, svg.around("ms", values, log=True), rows)


def lines(data: dict[str, Any]) -> Iterator[str]:
    """Give all of it, as Markdown."""
    for where, table in (
        ("measured", latency_table),
        ("measured", throughput_table),
        ("parts_measured", guarantee_table),
    ):
        yield describe(data[where])
        yield ""
        yield from table(data)
        yield ""
    for name, why in data["missing"].items():
        yield f"- {name}: not measured, for want of {why}"
