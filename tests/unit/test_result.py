"""`Result`: what is computed from its fields."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from runner.result import Result, Status, sizes_in

STATUS = b"Name:\tVmHWM: 1 kB\nVmHWM:\t    12 kB\nThreads:\t1\nVmSwap:\t0 kB\nState:\tt (x)\n"
SMAPS = b"00400000-0041f000 r--p 00000000 fe:00 2 /usr/a: 7 kB\nRss: 4 kB\n\nRss:   8 kB\n"


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (b"", {}),
        (STATUS, {"VmHWM": 12 * 1024, "VmSwap": 0}),
        (SMAPS, {"Rss": 12 * 1024}),
    ],
)
def test_sizes_are_the_lines_in_kb_and_no_others(text: bytes, sizes: dict[str, int]) -> None:
    assert sizes_in(text) == sizes
    assert Result(status=Status.OK, at_exit={"x": text}).exit_sizes("x") == sizes


def test_sizes_of_a_file_that_is_not_there_are_none() -> None:
    assert Result(status=Status.OK).exit_sizes("status") == {}


def test_files_at_exit_are_text_in_the_json_form() -> None:
    form = json.loads(Result(status=Status.OK, at_exit={"status": b"a\xffb\n"}).to_json())
    assert form["at_exit"] == {"status": "a\\xffb\n"}


def test_instructions_take_what_the_caller_says_they_take() -> None:
    result = Result(status=Status.OK, instructions=3_000_000)
    assert result.instruction_time_ns(1e9) == 3_000_000
    assert result.instruction_time_ns(2e9) == 1_500_000
    assert Result(status=Status.OK).instruction_time_ns(1e9) is None


def test_result_goes_to_other_processes() -> None:
    """As in multiprocessing, or a queue of tasks: what a worker returns is pickled."""
    result = Result(status=Status.SIGNALLED, signal=11, stdout=b"x", enforced={"memory": None})
    for made in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert made == result
        assert type(made) is Result
        assert (made.signal_name, made.files, made.to_json()) == (
            "SIGSEGV",
            {},
            result.to_json(),
        )
