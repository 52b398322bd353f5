"""Pictures of measured data: well formed, and each point where its value is."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from bench import svg

SVG = "{http://www.w3.org/2000/svg}"


def dots(picture: str) -> list[float]:
    return [float(dot.attrib["cx"]) for dot in ET.fromstring(picture).iter(f"{SVG}circle")]


def test_strip_has_a_dot_where_each_value_is() -> None:
    axis = svg.Axis("ms", 0, 10)
    picture = svg.strips("<title>", "note", axis, [svg.Strip("a & b", [0, 5, 10], band=(2, 4))])
    middle = (svg.LEFT + svg.WIDTH - svg.RIGHT) / 2
    right = svg.WIDTH - svg.RIGHT
    assert sorted(set(dots(picture))) == [svg.LEFT, middle, right]
    assert "a &amp; b" in picture
    assert "&lt;title&gt;" in picture


def test_strip_of_many_values_keeps_both_ends() -> None:
    axis = svg.Axis("ms", 0, 10_000)
    picture = svg.strips("t", "n", axis, [svg.Strip("many", list(range(10_001)))])
    places = dots(picture)
    assert len(places) <= 2 * svg.POINTS
    assert (min(places), max(places)) == (svg.LEFT, svg.WIDTH - svg.RIGHT)


def test_axis_by_logarithm_has_equal_steps_for_equal_ratios() -> None:
    axis = svg.Axis("ms", 1, 100, log=True)
    assert axis.x(10) - axis.x(1) == pytest.approx(axis.x(100) - axis.x(10))
    assert axis.ticks() == [1, 2, 5, 10, 20, 50, 100]


def test_ticks_of_a_linear_axis_are_round_and_have_zero() -> None:
    assert svg.Axis("ms", -2.2, 5.1).ticks() == [-2, 0, 2, 4]


def test_ticks_that_are_given_are_all_there_are() -> None:
    assert svg.Axis("n", 1, 8, log=True, own_ticks=(1, 2, 4, 8)).ticks() == [1, 2, 4, 8]


def test_cumulative_distribution_ends_at_all_of_them() -> None:
    assert svg.cumulative([3.0, 1.0]) == [(1.0, 0), (1.0, 50), (3.0, 50), (3.0, 100)]


def test_curve_goes_from_corner_to_corner_of_its_axes() -> None:
    curve = svg.Curve("runs", [(1, 0), (2, 100)], 0, dashed=True)
    picture = svg.curves("t", "n", svg.Axis("n", 1, 2), svg.Axis("runs/s", 0, 100), [curve])
    points = re.findall(r'points="([^"]+)"', picture)[0]
    bottom, right = svg.TOP + svg.PLOT_HEIGHT, svg.WIDTH - svg.RIGHT
    assert points == f"{svg.LEFT:.1f},{bottom:.1f} {right:.1f},{svg.TOP:.1f}"
    assert "stroke-dasharray" in picture


def test_pictures_are_legible_on_dark_pages_too() -> None:
    assert "prefers-color-scheme: dark" in svg.strips("t", "n", svg.Axis("", 0, 1), [])
