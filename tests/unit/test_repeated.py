"""Several runs as one result: which one it is, and how the figures spread."""

from __future__ import annotations

import json

import pytest

from runner.repeated import Spread, together
from runner.result import Result, Status


def results(*cpu_ns: int | None) -> list[Result]:
    return [Result(status=Status.OK, exit_code=0, cpu_ns=time, wall_ns=7) for time in cpu_ns]


@pytest.mark.parametrize(
    ("times", "median"),
    [((5,), 5), ((9, 5), 5), ((9, 1, 5), 5), ((4, 9, 1, 5), 4), ((3, 3, 3, 3, 1), 3)],
)
def test_result_of_runs_that_are_ok_is_the_one_with_the_median_cpu_time(
    times: tuple[int, ...], median: int
) -> None:
    result = together(results(*times))
    assert result.repeated is not None
    assert result.cpu_ns == median
    assert result.repeated.cpu_ns == Spread(min(times), median, max(times))
    assert [each.cpu_ns for each in result.repeated.results] == list(times)


def test_result_is_the_last_if_that_is_not_ok_and_its_figures_are_left_out() -> None:
    failed = Result(status=Status.NONZERO_EXIT, exit_code=3, cpu_ns=1, wall_ns=100)
    result = together([*results(8, 9), failed])
    assert (result.status, result.cpu_ns) == (Status.NONZERO_EXIT, 1)
    assert result.repeated is not None
    assert (result.repeated.cpu_ns, result.repeated.wall_ns) == ((8, 8, 9), (7, 7, 7))
    assert len(result.repeated.results) == 3


def test_spread_is_none_where_nothing_was_measured_or_no_run_was_ok() -> None:
    some = together(results(5, None)).repeated
    failed = together([Result(status=Status.CANCELLED, cpu_ns=1)]).repeated
    assert some is not None
    assert failed is not None
    assert (some.cpu_ns, some.memory_bytes, failed.cpu_ns) == (None, None, None)


def test_repeated_runs_are_in_the_json_form_as_their_spread() -> None:
    form = json.loads(together(results(3, 1)).to_json())
    assert form["repeated"] == {
        "runs": 2,
        "cpu_ns": {"min": 1, "median": 1, "max": 3},
        "wall_ns": {"min": 7, "median": 7, "max": 7},
        **dict.fromkeys(("user_ns", "system_ns", "memory_bytes"), None),
        **dict.fromkeys(("max_rss_bytes", "instructions"), None),
    }
    assert json.loads(Result(status=Status.OK).to_json())["repeated"] is None
