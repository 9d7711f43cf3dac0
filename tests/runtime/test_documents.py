"""Passages of documents, and their vectors in the context of the whole text."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import Encoder, OptionError, TextError
from embedge.documents import Stretch, encode_in_context
from embedge.text.passages import Passage

SENTENCES = "The committee met again. Lentil soup is on the menu. It rains in Zurich today. "


def test_passages_fit_and_join_to_the_text(default: Encoder) -> None:
    text = SENTENCES * 20
    found = default.passages(text, 48)
    assert "".join(passage.text for passage in found) == text
    assert all(passage.text.rstrip().endswith(".") for passage in found)
    counts = default.count_tokens([passage.text for passage in found])
    assert max(counts) <= 48
    assert max(default.count_tokens([p.text for p in default.passages(text)])) <= 256


@pytest.mark.parametrize(
    ("max_tokens", "overlap", "message"),
    [
        (0, 0, "expected max_tokens from 1 to 256, what the model takes, got 0"),
        (257, 0, "got 257"),
        (9, 0, "at least 8 tokens of text in a passage, got 7"),
        (48, 24, "an overlap from 0 to 23 tokens"),
        ("48", 0, "expected max_tokens from 1 to 256, what the model takes, got '48'"),
        (True, 0, "got True"),
        (48, "4", "an overlap from 0 to 23 tokens, half of a passage, got '4'"),
        (48, None, "got None"),
    ],
)
def test_what_makes_no_sense_is_refused(
    default: Encoder, max_tokens: Any, overlap: Any, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        default.passages("text", max_tokens, overlap)


def test_numbers_of_numpy_are_numbers(default: Encoder) -> None:
    expected = default.passages(SENTENCES, 16, 2)
    assert default.passages(SENTENCES, np.int64(16), np.int32(2)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, b"A text.", ["A text."]])
def test_what_is_no_text_has_no_passages(encoder: Encoder, text: Any) -> None:
    for call in (encoder.passages, encoder.encode_passages):
        with pytest.raises(
            TextError, match=f"expected text 0 to be a str, got {type(text).__name__}"
        ):
            call(text)


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize(
    "parts",
    [["a"], [None], 5, "a", {"a": 1}, np.array(["a", "b"]), [Passage("b", 0, 1)], [[]]],
    ids=repr,
)
def test_parts_are_passages_of_the_text(encoder: Encoder, parts: Any, context: bool) -> None:
    with pytest.raises(OptionError, match="expected parts to be passages of this text"):
        encoder.encode_passages("a b", parts, context=context)


@pytest.mark.parametrize("context", [True, False])
def test_parts_may_come_one_by_one(encoder: Encoder, context: bool) -> None:
    parts = [Passage("a ", 0, 2), Passage("b", 2, 3)]
    expected = encoder.encode_passages("a b", parts, context=context)
    found = encoder.encode_passages("a b", iter(parts), context=context)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected)


def test_a_passage_in_context_is_the_mean_of_its_tokens(tiny_file: Path) -> None:
    """Tokens are (2, 0) for a, (0, 4) for b, (-2, 0) for c: no special token or prompt counts."""
    parts = [Passage("a ", 0, 2), Passage("b a ", 2, 6), Passage("c", 6, 7)]
    vectors = Encoder(tiny_file).encode_passages("a b a c", parts)
    expected = [[1, 0], [2 / np.sqrt(20), 4 / np.sqrt(20)], [-1, 0]]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_windows_of_a_long_text_give_what_one_would(tiny_file: Path) -> None:
    """The tiny model has no context, so windows change nothing: 5 tokens fit with the prompt."""
    words = ["a", "b", "c", "b", "a", "a", "c", "b", "b", "a", "c", "c", "b"]
    text = " ".join(words)
    parts = [Passage(word, 2 * i, 2 * i + 1) for i, word in enumerate(words)]
    rows = {"a": [1, 0], "b": [0, 1], "c": [-1, 0]}
    vectors = Encoder(tiny_file).encode_passages(text, parts)
    np.testing.assert_allclose(vectors, [rows[word] for word in words], atol=1e-6)


def test_context_against_the_token_vectors_themselves(default: Encoder) -> None:
    parts = default.passages(SENTENCES, 16)
    vectors = default.encode_passages(SENTENCES, parts)
    pipeline = default._pipeline
    (ids,) = pipeline.tokenizer.ids([SENTENCES])
    rows = pipeline.session.token_vectors(np.array([pipeline.tokenizer.wrap(ids)], np.int64))[0]
    begin = 1  # behind [CLS]
    for part, vector in zip(parts, vectors, strict=True):
        end = begin + default.count_tokens(part.text) - 2
        mean = rows[begin:end].mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
        begin = end


@pytest.mark.parametrize("threads", [1, 2])
def test_windows_of_equal_length_run_together_and_give_the_same_bits(
    default: Encoder, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Five texts of 21 tokens, and one that is read in several windows of 256."""
    pipeline, front = default._pipeline, ""
    long = "".join(f"{number} of {SENTENCES}" for number in range(40))
    texts = [SENTENCES, SENTENCES.upper(), long, *(SENTENCES.replace("soup", w) for w in "abc")]
    stretches = [Stretch(text, default.passages(text, 16)) for text in texts]
    alone = [encode_in_context(pipeline, [one], front, 384, 1) for one in stretches]
    shapes: list[tuple[int, int]] = []
    token_vectors = pipeline.session.token_vectors

    def noted(ids: Any) -> Any:
        shapes.append(ids.shape)
        return token_vectors(ids)

    monkeypatch.setattr(pipeline.session, "token_vectors", noted)
    done: list[int] = []
    together = encode_in_context(pipeline, stretches, front, 384, threads, done.append)
    np.testing.assert_array_equal(together, np.concatenate(alone))
    windows = sum(rows for rows, _ in shapes)
    assert [rows for rows, length in shapes if length == 256] == [1] * (windows - 6)
    assert max(rows for rows, _ in shapes) > 1
    assert done == sorted(done)
    assert done[-1] == len(together)


def test_without_context_a_passage_is_a_text_of_its_own(default: Encoder) -> None:
    parts = default.passages(SENTENCES, 16)
    expected = default.encode_document([part.text for part in parts])
    np.testing.assert_array_equal(
        default.encode_passages(SENTENCES, parts, context=False), expected
    )
    assert not np.allclose(default.encode_passages(SENTENCES, parts), expected, atol=0.01)


def test_a_passage_without_tokens_has_the_vector_of_an_empty_text(default: Encoder) -> None:
    text = "   a river    a bank   "
    parts = [Passage(text[a:b], a, b) for a, b in ((0, 3), (3, 10), (10, 14), (14, 20), (20, 23))]
    vectors = default.encode_passages(text, parts)
    np.testing.assert_allclose(vectors[::2], default.encode([""] * 3), atol=1e-6)
    filled = default.encode_passages(text, [parts[1], parts[3]])
    np.testing.assert_array_equal(vectors[1::2], filled)
