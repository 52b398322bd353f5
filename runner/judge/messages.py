"""The messages of the worker pool, and how a stream of them is read and written.

Each message is a map with `type` and `v` (1). As JSON it is a line, as msgpack an object, one
after the other. What is not understood is refused, not guessed: a wrong field, another version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import msgpack  # type: ignore[import-untyped] # it ships no types
import msgspec

from runner.errors import ConfigError
from runner.judge.verdict import Verdict
from runner.units import MiB, format_size

MAX_MESSAGE_BYTES: Final = 16 * MiB

Format = Literal["jsonl", "msgpack"]


class Message(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True
):
    """What all messages have."""

    v: Literal[1] = 1


class Submission(Message, tag="submission", frozen=True, kw_only=True):
    """In: judge this. A source that is not UTF-8 comes as `source_bytes` (in JSON: base64)."""

    id: str
    problem: str
    language: str
    source: str = ""
    source_bytes: bytes = b""

    def __post_init__(self) -> None:
        if self.source and self.source_bytes:
            raise ValueError("give source or source_bytes, not both")

    @property
    def code(self) -> bytes:
        """The source as bytes."""
        return self.source_bytes or self.source.encode()


class CaseResult(Message, tag="test", frozen=True, kw_only=True):
    """Out, one for each test that was run. A figure that could not be measured is null.

    `status` is the sandbox's, or "sandbox_error"; `feedback` is for the jury only.
    """

    id: str
    test: str
    verdict: Verdict
    status: str
    cpu_ns: int | None = None
    wall_ns: int | None = None
    memory_bytes: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    feedback: str = ""


class SubmissionResult(Message, tag="result", frozen=True, kw_only=True):
    """Out, one for each submission that was judged, after those of its tests.

    verdict        of the first test that was not AC; CE and IE where there was none
    tests_run      of tests_total
    cpu_ns, wall_ns, memory_bytes   the largest of all tests
    enforced       each guarantee and what held it in the last test, or null
    message        the compiler's, or what we failed to do
    error          with verdict IE: the failure, as in the JSON form of a result, and its `step`
    """

    id: str
    problem: str
    language: str
    verdict: Verdict
    tests_run: int = 0
    tests_total: int = 0
    cpu_ns: int | None = None
    wall_ns: int | None = None
    memory_bytes: int | None = None
    enforced: dict[str, str | None] = {}
    message: str = ""
    error: dict[str, Any] | None = None  # Any: JSON values, of several kinds of failure


class Cancelled(Message, tag="cancelled", frozen=True, kw_only=True):
    """Out, instead of a result, for a submission that was dropped."""

    id: str
    problem: str


class Refused(Message, tag="refused", frozen=True, kw_only=True):
    """Out, for what came in and is no submission that can be judged; `number` counts from 1."""

    number: int
    error: str
    id: str | None = None


Output = CaseResult | SubmissionResult | Cancelled | Refused


def encoder(form: Format) -> Callable[[Message], bytes]:
    """Give the function that writes one message."""
    if form == "msgpack":
        return msgspec.msgpack.Encoder().encode
    json = msgspec.json.Encoder()
    return lambda message: json.encode(message) + b"\n"


def read_submissions(
    blocks: Iterable[bytes], form: Format, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> Iterator[Submission | Refused]:
    """Cut a stream into submissions, as its blocks come; a bad message is one Refused.

    Raises ConfigError where the stream cannot be followed any further.
    """
    if form == "msgpack":
        items = _frames(blocks, max_bytes)
        decode = msgspec.msgpack.Decoder(Submission).decode
    else:
        items = _lines(blocks, max_bytes)
        decode = msgspec.json.Decoder(Submission).decode
    for number, item in enumerate(items, start=1):
        yield _decode(decode, item, number)


def _decode(
    decode: Callable[[bytes], Submission], item: bytes, number: int
) -> Submission | Refused:
    try:
        return decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Refused(number=number, error=str(error))


def _lines(blocks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Yield the lines that are not blank; the last one needs no newline."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        *ended, rest = block.split(b"\n")
        for line in ended:
            whole = b"".join([*held, line])
            held, size = [], 0
            _check_size(len(whole), max_bytes)
            if whole.strip():
                yield whole
        held.append(rest)
        size += len(rest)
        _check_size(size, max_bytes)
    whole = b"".join(held)
    if whole.strip():
        yield whole


def _frames(blocks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Cut a stream into messages without looking into them: a bad one harms no other."""
    unpacker = msgpack.Unpacker(max_buffer_size=2 * max_bytes)
    held = bytearray()
    start = 0  # where in the stream `held` begins
    for block in blocks:
        held += block
        for end in _ends(unpacker, block):
            yield bytes(held[: end - start])
            del held[: end - start]
            start = end
        _check_size(len(held), max_bytes)
    if held:
        raise ConfigError("the stream ends in the middle of a message")


def _ends(unpacker: msgpack.Unpacker, block: bytes) -> Iterator[int]:
    try:
        unpacker.feed(block)
        while True:
            unpacker.skip()
            yield unpacker.tell()
    except msgpack.OutOfData:
        return
    except (msgpack.UnpackException, ValueError) as error:
        raise ConfigError(f"message not understood, nor what follows: {error!r}") from error


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ConfigError(
            f"a message is larger than {format_size(max_bytes)}, the most we take"
        )
