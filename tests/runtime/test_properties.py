"""What holds for every text, tried on whatever hypothesis comes up with."""

import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedge import Encoder, TextError, TruncationWarning

# The same texts in every run; a text that fails is printed, and belongs into a test of its own.
tried = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# st.text() has no surrogates; blocks of odd characters are what it seldom finds by itself.
odd = st.sampled_from(
    ["\u202e", "\u200d", "\ufeff", "\0", "\u0301" * 40, "🇩🇪", "ﷺ", "İ", "ß", "\U0010ffff", "[SEP]"]
)  # fmt: skip
text = st.lists(st.text(max_size=30) | odd, max_size=4).map("".join) | st.text(max_size=300)
any_str = st.text(st.characters(categories=None, codec=None), max_size=30)  # surrogates as well


@pytest.fixture(scope="module")
def small(tiny_file: Path) -> Encoder:
    return Encoder(tiny_file, threads=1)


def encode(encoder: Encoder, texts: list[str]) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        return encoder.encode(texts)


def assert_unit(vectors: np.ndarray) -> None:
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@tried
@given(st.lists(text, max_size=6), st.randoms(use_true_random=False))
def test_unit_vectors_that_follow_their_texts(
    default: Encoder, texts: list[str], chance: random.Random
) -> None:
    vectors = encode(default, texts)
    assert vectors.shape == (len(texts), default.dim)
    assert_unit(vectors)
    order = chance.sample(range(len(texts)), len(texts))
    np.testing.assert_array_equal(encode(default, [texts[i] for i in order]), vectors[order])
    np.testing.assert_array_equal(encode(default, texts + texts), np.concatenate([vectors] * 2))


@tried
@given(text)
def test_count_tokens_agrees_with_what_is_encoded(default: Encoder, string: str) -> None:
    count = default.count_tokens(string)
    before = default.truncated
    assert_unit(encode(default, [string]))
    assert default.truncated - before == (count > default.max_tokens)
    ids = default._pipeline.tokenizer.ids([string])[0]
    assert count == len(ids) + default.max_tokens - default._pipeline.tokenizer.capacity
    assert len(default._pipeline.tokenizer.wrap(ids)) == min(count, default.max_tokens)


@tried
@given(st.lists(any_str, max_size=5))
def test_any_str_gives_vectors_or_our_error(small: Encoder, texts: list[str]) -> None:
    """Only surrogates are refused, and the first text that has one is named."""
    bad = [i for i, t in enumerate(texts) if any("\ud800" <= c <= "\udfff" for c in t)]
    if not bad:
        assert np.isfinite(encode(small, texts)).all()
        assert len(small.count_tokens(texts)) == len(texts)
        return
    for method in (small.encode, small.count_tokens):
        with pytest.raises(TextError, match=f"text {bad[0]} holds a lone surrogate") as caught:
            method(texts)
        assert caught.value.position == bad[0]


@tried
@given(st.text("ab c\t\n", max_size=200))
def test_windows_lose_no_token_and_fit(small: Encoder, string: str) -> None:
    tokenizer = small._pipeline.tokenizer
    runs = [window.ids for window in tokenizer.windows(string)]
    assert [i for run in runs for i in run] == tokenizer.ids([string])[0]
    assert all(len(run) <= tokenizer.capacity for run in runs)


def test_all_naughty_strings_and_odd_texts(default: Encoder, eval_data: Path) -> None:
    lines = (eval_data / "text/odd_text.jsonl").read_text("utf-8").split("\n")
    texts = [json.loads(line)["text"] for line in lines if line]
    texts += json.loads((eval_data / "text/blns.json").read_text("utf-8"))
    good = [text for text in texts if not any("\ud800" <= c <= "\udfff" for c in text)]
    vectors = encode(default, good)
    assert_unit(vectors)
    assert len(good) > 1000
    np.testing.assert_array_equal(encode(default, good[::-9]), vectors[::-9])
    counts = default.count_tokens(good)
    assert [count - 2 for count in counts] == [*map(len, default._pipeline.tokenizer.ids(good))]
