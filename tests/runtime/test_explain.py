"""Shares of tokens in a cosine, worked by hand on the tiny model, and adding up on a real one."""

from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedge import Encoder, OptionError, TextError, TextTooLongError, TruncationWarning
from embedge.explain import Explanation, Of, Share
from embedge.text.overflow import Overflow

from . import tiny

LONG = "The committee met again, and then once more. " * 40 + "Lentil soup is on the menu. "


def close(found: Explanation, score: float, tokens: list[Share], words: list[Share]) -> None:
    assert found.score == pytest.approx(score, abs=1e-6)
    for got, expected in ((found.tokens, tokens), (found.words, words)):
        assert [replace(share, share=0) for share in got] == [replace(s, share=0) for s in expected]
        assert [s.share for s in got] == pytest.approx([s.share for s in expected], abs=1e-6)


def test_shares_of_a_text_by_hand(tiny_file: Path) -> None:
    """The query is "a a", (1, 0); the text [CLS] b aa [SEP], whose sum is (1 + 2 + 4, 4)."""
    length = sqrt(7**2 + 4**2)
    rest = [Share("", 0, 0, 1 / length), Share("", 0, 0, 0)]  # [CLS], and the prompt "b "
    close(
        Encoder(tiny_file).explain("a", "aa"),
        7 / length,
        [*rest, Share("a", 0, 1, 2 / length), Share("a", 1, 2, 4 / length), Share("", 0, 0, 0)],
        [*rest, Share("aa", 0, 2, 6 / length), Share("", 0, 0, 0)],
    )


def test_shares_of_the_query_by_hand(tiny_file: Path) -> None:
    """Text [CLS] b b [SEP] is (1, 8) / sqrt(65); query [CLS] a b [SEP] adds up to (3, 4)."""
    scale = 5 * sqrt(65)
    rest = [Share("", 0, 0, 1 / scale), Share("", 0, 0, 2 / scale)]  # [CLS], and the prompt "a "
    tokens = [*rest, Share("b", 0, 1, 4 * 8 / scale), Share("", 0, 0, 0)]
    close(Encoder(tiny_file).explain("b", "b", of="query"), 35 / scale, tokens, tokens)


def test_many_texts(tiny_file: Path) -> None:
    encoder = Encoder(tiny_file)
    assert encoder.explain("a", ["b", "c a"]) == [
        encoder.explain("a", "b"),
        encoder.explain("a", "c a"),
    ]
    assert encoder.explain("a", []) == []


@pytest.mark.parametrize("text", ["Lentil soup, café, 日本語 and 👩‍👩‍👧.", "", " x ", LONG])
@pytest.mark.parametrize("overflow", ["truncate", "mean"])
@pytest.mark.parametrize("dim", [384, 64])
@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_shares_add_up_to_the_cosine_of_the_vectors(text: str, overflow: str, dim: int) -> None:
    encoder = Encoder(dim=dim)
    found = encoder.explain("What can I cook?", text, overflow=overflow)
    query, vector = encoder.encode("What can I cook?"), encoder.encode(text, overflow=overflow)
    assert found.score == pytest.approx(float(query @ vector), abs=1e-5)
    for shares in (found.tokens, found.words):
        assert sum(share.share for share in shares) == pytest.approx(found.score, abs=1e-5)
        assert all(text[share.start : share.end] == share.text for share in shares)
        places = [share.start for share in shares if share.text]
        assert places == sorted(places)


@pytest.mark.parametrize("overflow", ["truncate", "mean"])
@pytest.mark.parametrize("text", ["b c cab bca bb a b cccc aa b", "cabcabcabcabcabcabc", "a", ""])
@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_shares_add_up_where_a_prompt_is_in_every_window(
    tiny_file: Path, text: str, overflow: Overflow
) -> None:
    encoder = Encoder(tiny_file)
    found = encoder.explain("a b", text, overflow=overflow)
    vector = encoder.encode_document(text, overflow=overflow)
    assert found.score == pytest.approx(float(encoder.encode_query("a b") @ vector), abs=1e-6)
    assert sum(share.share for share in found.tokens) == pytest.approx(found.score, abs=1e-6)
    if overflow == "mean":
        assert "".join(share.text for share in found.tokens) == text.replace(" ", "")


def test_words_are_whole(default: Encoder) -> None:
    found = default.explain("food", "Unquestionably, risotto.")
    assert [share.text for share in found.words] == ["", "Unquestionably", ",", "risotto", ".", ""]
    assert len(found.tokens) > len(found.words)


def test_a_text_has_the_same_shares_in_a_call_of_one_or_of_many(default: Encoder) -> None:
    texts = ["A man is eating.", "It rains.", "A man is eating."]
    assert default.explain("food", texts)[2] == default.explain("food", texts[0])


@pytest.mark.parametrize("of", ["text", "query"])
def test_a_truncated_text_is_counted_once(of: Of) -> None:
    encoder = Encoder()
    texts = ("soup", LONG) if of == "text" else (LONG, "soup")
    with pytest.warns(TruncationWarning, match="1 of the texts have more than 256 tokens"):
        encoder.explain(*texts, of=of)
    assert encoder.truncated == 1


def test_a_text_that_is_too_long_is_named(tiny_file: Path) -> None:
    with pytest.raises(TextTooLongError, match="text 1 has"):
        Encoder(tiny_file).explain("a", ["b", LONG], overflow="error")


def test_a_model_that_pools_otherwise_has_no_shares(tmp_path: Path) -> None:
    settings = replace(tiny.SETTINGS, pooling="cls")
    file = tiny.write(tmp_path / "x.onnx", tiny.model(settings=settings))
    with pytest.raises(OptionError, match="tiny pools by 'cls', where a token has no share"):
        Encoder(file).explain("a", "b")


def test_a_layer_behind_the_pooling_is_noticed(tiny_file: Path) -> None:
    encoder = Encoder(tiny_file)
    transformer = replace(tiny.SETTINGS.transformer, hidden_size=3)
    encoder._pipeline.settings = replace(tiny.SETTINGS, transformer=transformer)
    with pytest.raises(OptionError, match="layer behind the pooling, from 3 to 2 components"):
        encoder.encode_passages("a b", [])


def test_what_is_explained_has_to_be_a_text(tiny_file: Path) -> None:
    with pytest.raises(TextError, match="expected text 1 to be a str, got int"):
        Encoder(tiny_file).explain("a", ["b", 3])  # type: ignore[list-item]
    with pytest.raises(OptionError, match="expected of='text' or of='query', got 'both'"):
        Encoder(tiny_file).explain("a", "b", of="both")  # type: ignore[arg-type]


@pytest.mark.parametrize("query", [["a"], ["a", "b"], {"a"}, np.array(["a"]), b"a", None, 5])
@pytest.mark.parametrize("of", ["text", "query"])
def test_the_query_is_one_str(tiny_file: Path, query: Any, of: Of) -> None:
    with pytest.raises(TextError, match=f"expected query to be a str, got {type(query).__name__}"):
        Encoder(tiny_file).explain(query, ["a"], of=of)


@pytest.mark.parametrize(
    "value", [np.array(["text", "mean"]), pd.Series(["text", "mean"]), ["mean"]]
)
def test_options_that_compare_item_by_item_are_refused(tiny_file: Path, value: Any) -> None:
    encoder = Encoder(tiny_file)
    with pytest.raises(OptionError, match="expected of='text' or of='query'"):
        encoder.explain("a", "b", of=value)
    with pytest.raises(OptionError, match="expected overflow to be one of"):
        encoder.encode("a", overflow=value)


def test_a_mean_that_is_not_the_files_vector_is_noticed(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(tiny_file)
    found = np.array([[1, 0]], np.float32), np.array([[[0, 1]] * 4], np.float32)
    monkeypatch.setattr(encoder._pipeline.session, "run_with_tokens", lambda ids: found)
    with pytest.raises(OptionError, match="not means of its token vectors"):
        encoder.explain("a", "a")
