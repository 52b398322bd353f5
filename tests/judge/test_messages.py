"""Messages: round trips, and streams cut anywhere."""

from __future__ import annotations

import json
from typing import get_args

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ConfigError
from runner.judge import messages
from runner.judge.messages import (
    Cancelled,
    CaseResult,
    Format,
    Message,
    Refused,
    Submission,
    SubmissionResult,
    read_submissions,
)
from runner.judge.verdict import Verdict

FORMATS = get_args(Format)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SUBMISSIONS = st.builds(
    Submission, id=TEXT, problem=TEXT, language=TEXT, source=TEXT
) | st.builds(Submission, id=TEXT, problem=TEXT, language=TEXT, source_bytes=st.binary())
ONE = Submission(id="1", problem="sum", language="c", source="int main;")


def blocks(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def read(data: bytes, form: Format, *, max_bytes: int = 1000) -> list[Submission | Refused]:
    return list(read_submissions(blocks(data, 7), form, max_bytes=max_bytes))


@pytest.mark.parametrize("form", FORMATS)
@given(sent=st.lists(SUBMISSIONS, max_size=5), size=st.integers(1, 40))
def test_stream_cut_anywhere_gives_what_was_sent(
    form: Format, sent: list[Submission], size: int
) -> None:
    data = b"".join(map(messages.encoder(form), sent))
    assert list(read_submissions(blocks(data, size), form)) == sent


@pytest.mark.parametrize(
    "message",
    [
        CaseResult(id="1", test="01", verdict=Verdict.RTE, status="signalled", signal=11),
        SubmissionResult(
            id="1",
            problem="sum",
            language="c",
            verdict=Verdict.IE,
            enforced={"memory": "cgroup", "user": None},
            error={"step": "compile", "type": "ChildError", "index": None, "errno": "ENOENT"},
        ),
        Cancelled(id="1", problem="sum"),
        Refused(number=3, error="no"),
    ],
)
def test_output_message_survives_both_formats(message: Message) -> None:
    line = messages.encoder("jsonl")(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=type(message)) == message
    packed = messages.encoder("msgpack")(message)
    assert msgspec.msgpack.decode(packed, type=type(message)) == message
    assert msgpack.unpackb(packed) == json.loads(line)


def test_test_message_has_the_documented_fields() -> None:
    line = messages.encoder("jsonl")(
        CaseResult(id="1", test="01", verdict=Verdict.AC, status="ok", cpu_ns=5)
    )
    assert json.loads(line) == {
        "type": "test",
        "v": 1,
        "id": "1",
        "test": "01",
        "verdict": "AC",
        "status": "ok",
        "cpu_ns": 5,
        "wall_ns": None,
        "memory_bytes": None,
        "exit_code": None,
        "signal": None,
        "feedback": "",
    }


def test_submission_source_as_text_or_bytes_is_the_same_code() -> None:
    assert ONE.code == b"int main;"
    assert Submission(id="1", problem="p", language="c", source_bytes=b"\xff").code == b"\xff"


GOOD = b'{"id":"1","problem":"sum","language":"c","source":"int main;"}'


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"{id:1}", "JSON is malformed: object keys must be strings (byte 1)"),
        (b"7", "Expected `object`, got `int`"),
        (b'{"id":"1"}', "Object missing required field `problem`"),
        (GOOD.replace(b'"1"', b"1"), "Expected `str`, got `int` - at `$.id`"),
        (GOOD.replace(b"{", b'{"v":2,'), "Invalid enum value 2 - at `$.v`"),
        (GOOD.replace(b"{", b'{"type":"test",'), "Invalid value 'test' - at `$.type`"),
        (GOOD.replace(b"{", b'{"langauge":1,'), "Object contains unknown field `langauge`"),
        (
            GOOD.replace(b"{", b'{"source_bytes":"YQ==",'),
            "give source or source_bytes, not both",
        ),
        (GOOD.replace(b"main", b"\xff"), None),
    ],
)
def test_bad_line_is_refused_and_the_next_is_read(line: bytes, error: str | None) -> None:
    refused, after = read(line + b"\n" + GOOD + b"\n", "jsonl")
    assert isinstance(refused, Refused)
    assert refused.number == 1
    assert error in {refused.error, None}
    assert after == ONE


def test_blank_lines_are_skipped_and_the_last_needs_no_newline() -> None:
    assert read(b"\n  \r\n" + GOOD + b"\r\n\n" + GOOD, "jsonl") == [ONE, ONE]


@pytest.mark.parametrize("ended", [b"", b"\n"])
def test_line_above_the_bound_ends_the_stream(ended: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        read(b"x" * 1001 + ended, "jsonl")
    assert str(caught.value) == "a message is larger than 1000 B, the most we take"


def test_bad_object_is_refused_and_the_next_is_read() -> None:
    good = messages.encoder("msgpack")(ONE)
    refused, after = read(msgpack.packb({"id": 1}) + good, "msgpack")
    assert refused == Refused(number=1, error="Expected `str`, got `int` - at `$.id`")
    assert after == ONE


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xc1", "message not understood, nor what follows: FormatError()"),
        (messages.encoder("msgpack")(ONE)[:-1], "the stream ends in the middle of a message"),
        (
            msgpack.packb({"id": "x" * 1100}),
            "a message is larger than 1000 B, the most we take",
        ),
        # Many small elements: the unpacker looks at each at once and buffers nothing.
        (b"\x81\xa1a" + b"\x9e" * 1100, "a message is larger than 1000 B, the most we take"),
        (b"\xdd\x7f\xff\xff\xff", None),
    ],
)
def test_stream_that_cannot_be_followed_is_an_error(data: bytes, error: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        read(data, "msgpack")
    assert error in {str(caught.value), None}


@pytest.mark.parametrize(
    "bad",
    [
        b"\x81\xa4type\xa3\xff\xfe\xfd",  # text that is not UTF-8
        msgpack.packb({"a": {1: 2}}),  # a key that is no text
        b"\x81\x91\x01\x01",  # a key that is a list
        msgpack.packb(["x"] * 100),
    ],
)
def test_message_of_any_form_is_refused_alone(bad: bytes) -> None:
    good = messages.encoder("msgpack")(ONE)
    refused, after = read(bad + good, "msgpack")
    assert isinstance(refused, Refused)
    assert after == ONE
