"""The token checker."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ConfigError
from runner.judge import checkers
from runner.judge.checkers import Outcome

WORDS = st.lists(
    st.binary(min_size=1, max_size=5).filter(
        lambda w: len(w.split()) == 1 and w.split()[0] == w
    )
)
SPACES = st.text(" \t\n\r\v\f", min_size=1, max_size=4).map(str.encode)


def check(answer: bytes, output: bytes) -> Outcome:
    return checkers.tokens(io.BytesIO(answer), output)


@st.composite
def spaced(draw: st.DrawFn, words: list[bytes]) -> bytes:
    """Join words by whatever whitespace."""
    text = draw(st.just(b"") | SPACES)
    for word in words:
        text += word + draw(SPACES)
    return text if draw(st.booleans()) else text.rstrip()


@given(st.data(), WORDS, st.integers(1, 7))
def test_tokens_with_other_whitespace_are_equal(
    data: st.DataObject, words: list[bytes], block: int
) -> None:
    answer, output = data.draw(spaced(words)), data.draw(spaced(words))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkers, "BLOCK_BYTES", block)  # words then span blocks
        assert check(answer, output) == Outcome(accepted=True)


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(1, 7))
def test_tokens_agree_with_split(answer: bytes, output: bytes, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkers, "BLOCK_BYTES", block)
        assert check(answer, output).accepted is (answer.split() == output.split())


@given(st.data(), WORDS.filter(bool))
def test_tokens_with_one_changed_names_it(data: st.DataObject, words: list[bytes]) -> None:
    at = data.draw(st.integers(0, len(words) - 1))
    changed = [*words[:at], words[at] + b"!", *words[at + 1 :]]
    outcome = check(b" ".join(words), b"\n".join(changed))
    assert not outcome.accepted
    assert outcome.feedback.startswith(f"token {at + 1}: expected '")


@pytest.mark.parametrize(
    ("answer", "output", "feedback"),
    [
        (b"1 2 3", b"1 2 4", "token 3: expected '3', got '4'"),
        (b"yes", b"YES", "token 1: expected 'yes', got 'YES'"),
        (b"1 2", b"1", "token 2: expected '2', got the end of the output"),
        (b"1", b"1 2", "token 2: expected the end of the output, got '2'"),
        (b"", b"x", "token 1: expected the end of the output, got 'x'"),
        (b"\xff", b"\xfe", r"token 1: expected '\xff', got '\xfe'"),
        (b"1 2", b"12", "token 1: expected '1', got '12'"),
        (
            b"a" * 41,
            b"a" * 40,
            f"token 1: expected '{'a' * 40}'… (41 bytes), got '{'a' * 40}'",
        ),
    ],
)
def test_tokens_that_differ_are_shown(answer: bytes, output: bytes, feedback: str) -> None:
    assert check(answer, output) == Outcome(accepted=False, feedback=feedback)


def test_tokens_do_not_split_at_non_ascii_space() -> None:
    assert not check(b"a\xc2\xa0b", b"a b").accepted
    assert not check(b"a\x1cb", b"a b").accepted


@pytest.mark.parametrize(
    ("word", "space"), [(b"7", b" "), (b"7" * 20_000_000, b""), (b"7", b" " * 1000)]
)
def test_tokens_of_large_output_take_time_in_proportion(word: bytes, space: bytes) -> None:
    # 20 MB; splitting costs less than 2 s of CPU time, anything quadratic would take hours.
    text = (word + space) * (20_000_000 // len(word + space))
    start = time.process_time()
    assert check(text + b" 1", text + b"\n2").feedback.endswith("expected '1', got '2'")
    assert time.process_time() - start < 10


def test_find_with_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError) as caught:
        checkers.find("fuzzy")
    assert str(caught.value) == "checker 'fuzzy' is not known: write one of tokens"
