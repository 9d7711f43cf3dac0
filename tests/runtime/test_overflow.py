"""Texts longer than the model takes; the tiny model takes 8 tokens, 2 of them special."""

import re
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

import embedge.streaming
import embedge.text.overflow
import embedge.text.tokenizer
from embedge import Encoder, OptionError, TextError, TextTooLongError, TruncationWarning
from embedge.similarity import unit
from embedge.text.overflow import TextVectors, sequences
from embedge.text.tokenizer import TextTokenizer

from . import tiny
from .tiny import CLS, PART_A, PART_B, SEP, A, B, C

SEVEN = "a b a b a b a"


def test_truncate_cuts_warns_once_and_counts(encoder: Encoder) -> None:
    """Six of the seven words are left: 1 + 3 * 2 = 7 and 3 * 4 = 12, so (7, 12) / sqrt(193)."""
    message = (
        "1 of the texts have more than 8 tokens and were truncated; use overflow='mean' or 'error'"
    )
    with pytest.warns(TruncationWarning, match=message) as told:
        vectors = encoder.encode([SEVEN, "a b"])
    np.testing.assert_allclose(vectors[0], np.array([7, 12]) / 193**0.5, atol=1e-6)
    np.testing.assert_allclose(vectors[1], tiny.A_B, atol=1e-6)
    assert len(told) == 1
    assert encoder.truncated == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode([SEVEN, SEVEN])
    assert encoder.truncated == 3


def test_a_warning_that_is_an_error_is_one_in_every_call(encoder: Encoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncationWarning)
        for _ in range(3):
            with pytest.raises(TruncationWarning, match="1 of the texts"):
                encoder.encode(SEVEN)
    with pytest.warns(TruncationWarning, match="1 of the texts"):
        encoder.encode(SEVEN)
    assert encoder.truncated == 4


def test_a_text_that_just_fits_is_not_cut(encoder: Encoder) -> None:
    assert encoder.count_tokens("a b a b a b") == 8
    encoder.encode(["a b a b a b"], overflow="error")
    encoder.encode(["a b a b a b"])
    assert encoder.truncated == 0


@pytest.mark.parametrize("repeats", [1, 20_000])
def test_error_names_the_text_and_the_limit(encoder: Encoder, repeats: int) -> None:
    message = (
        "text 5001 has more than 8 tokens, which is all that the model takes; shorten it, or use "
        "overflow='truncate' or 'mean'"
    )
    texts = ["a"] * 5001 + [f"{SEVEN} " * repeats, SEVEN]
    with pytest.raises(TextTooLongError, match=message) as caught:
        encoder.encode(texts, overflow="error")
    assert caught.value.position == 5001
    assert isinstance(caught.value, ValueError)
    assert encoder.truncated == 0


def test_mean_by_hand(encoder: Encoder) -> None:
    """Windows "a b a b a b" and "a": unit vectors (7, 12) / sqrt(193) and (1, 0), weights 6 and 1.

    Their weighted sum is 6 (7, 12) / sqrt(193) + (1, 0) = (4.0233, 5.1827), here normalized.
    """
    expected = 6 * np.array([7, 12]) / 193**0.5 + np.array([1, 0])
    expected /= np.linalg.norm(expected)
    vectors = encoder.encode(["b", SEVEN, "a"], overflow="mean")
    np.testing.assert_allclose(vectors[1], expected, atol=1e-6)
    np.testing.assert_array_equal(vectors[[0, 2]], encoder.encode(["b", "a"]))
    assert encoder.truncated == 0


def test_the_mean_of_a_model_that_does_not_normalize_is_not_normalized(tmp_path: Path) -> None:
    """As before, without the last division: means (7, 12) / 8 and (3, 0) / 3, weights 6 and 1."""
    nodes = [*tiny.NODES[:-4], tiny.node("Div", ["sum", "count"], "sentence_embedding")]
    settings = replace(tiny.SETTINGS, normalized=False)
    data = tiny.model(tiny.graph(nodes=nodes), settings)
    vector = Encoder(tiny.write(tmp_path / "x.onnx", data)).encode(SEVEN, overflow="mean")
    expected = (6 * np.array([7, 12]) / 8 + np.array([1, 0])) / 7
    np.testing.assert_allclose(vector, expected, rtol=1e-6)


def test_mean_agrees_with_a_direct_computation(default: Encoder) -> None:
    """Windows cut by hand at word ends, encoded one by one as texts of their own."""
    words = [f"word{i % 17} river" if i % 3 else "password," for i in range(400)]
    text = " ".join(words)
    capacity = default.max_tokens - 2
    windows: list[str] = []
    for word in text.replace(",", " ,").split(" "):
        longer = f"{windows[-1]} {word}" if windows else word
        if windows and default.count_tokens(longer) - 2 <= capacity:
            windows[-1] = longer
        else:
            windows.append(word)
    weights = np.array(default.count_tokens(windows)) - 2
    assert len(windows) > 3
    assert weights.sum() + 2 == default.count_tokens(text)
    expected = unit((weights @ default.encode(windows) / weights.sum())[None])[0]
    np.testing.assert_allclose(default.encode(text, overflow="mean"), expected, atol=1e-6)


def test_the_prompt_is_in_front_of_every_window_and_has_no_weight(encoder: Encoder) -> None:
    """Behind "a " five tokens are left: "b c b c b" and "c c".

    With the prompt they are (1 + 2 - 4, 12) and (1 + 2 - 4, 0), of the lengths sqrt(145) and 1.
    """
    text = "b c b c b c c"
    expected = 5 * np.array([-1, 12]) / 145**0.5 + 2 * np.array([-1, 0])
    expected /= np.linalg.norm(expected)
    vector = encoder.encode(text, prompt="query", overflow="mean")
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert encoder.truncated == 0


def test_windows_behind_a_prompt_are_texts_of_their_own(encoder: Encoder) -> None:
    """On a text whose windows are cut by hand; each is encoded with the prompt, on its own."""
    words = ["abc", "cab", "bb", "a", "c"]
    text = " ".join(words[i * i % 5] for i in range(40))
    room = encoder.max_tokens - 2 - 1
    windows: list[str] = []
    for word in text.split():
        longer = f"{windows[-1]} {word}" if windows else word
        if windows and encoder.count_tokens(longer) - 2 <= room:
            windows[-1] = longer
        else:
            windows.append(word)
    assert len(windows) > 3
    weights = np.array(encoder.count_tokens(windows)) - 2
    vectors = encoder.encode(windows, prompt="passage")
    expected = unit((weights @ vectors / weights.sum())[None])[0]
    found = encoder.encode(["a", text], prompt="passage", overflow="mean")
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    np.testing.assert_array_equal(found[0], encoder.encode("a", prompt="passage"))


def test_a_prompt_that_fills_a_window_is_refused(tmp_path: Path) -> None:
    settings = replace(tiny.SETTINGS, prompts={"query": "a b c a b c "})
    encoder = Encoder(tiny.write(tmp_path / "x.onnx", tiny.model(settings=settings)))
    message = "text 1 does not fit into windows of 8 tokens: its prompt has 6; use another prompt"
    with pytest.raises(TextTooLongError, match=message):
        encoder.encode(["", "a"], prompt="query", overflow="mean")


def test_mean_does_not_depend_on_neighbours_nor_threads(default: Encoder) -> None:
    texts = [" ".join(f"w{i * j % 29}" for j in range(i * 45)) for i in range(6)]
    alone = np.stack([default.encode(text, overflow="mean") for text in texts])
    together = default.encode(texts, overflow="mean")
    np.testing.assert_array_equal(together, alone)
    reverse = Encoder(threads=1).encode(texts[::-1], overflow="mean")[::-1]
    np.testing.assert_array_equal(reverse, alone)


def test_weighted_means_by_hand() -> None:
    """Three texts of one, two and one windows: (3 (1, 0) + 1 (0, 1)) / 4 = (0.75, 0.25)."""
    vectors = np.array([[5, 5], [1, 0], [0, 1], [7, 7]], np.float32)
    weights, last = np.array([1, 3, 1, 9]), np.array([True, False, True, True])
    means = TextVectors(normalize=False).add(vectors, weights, last)
    np.testing.assert_array_equal(means, np.array([[5, 5], [0.75, 0.25], [7, 7]], np.float32))
    scaled = TextVectors(normalize=True).add(vectors, weights, last)
    np.testing.assert_allclose(scaled[1], np.array([3, 1]) / 10**0.5, atol=1e-6)
    np.testing.assert_array_equal(scaled[[0, 2]], vectors[[0, 3]])


def test_means_do_not_depend_on_how_the_windows_are_dealt_out() -> None:
    """Also against NumPy's own mean of all windows at once."""
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((200, 5)).astype(np.float32)
    weights, last = chance.integers(1, 250, 200), chance.random(200) < 0.1
    last[-1] = True
    whole = TextVectors(normalize=True).add(vectors, weights, last)
    for size in (1, 3, 64):
        texts = TextVectors(normalize=True)
        parts = [slice(start, start + size) for start in range(0, 200, size)]
        found = [texts.add(vectors[part], weights[part], last[part]) for part in parts]
        np.testing.assert_array_equal(np.concatenate(found), whole)
    starts = [0, *(np.flatnonzero(last)[:-1] + 1)]
    sums = np.add.reduceat(vectors * weights[:, None].astype(np.float64), starts, axis=0)
    means = unit((sums / np.add.reduceat(weights, starts)[:, None]).astype(np.float32))
    single = np.diff(starts, append=200) == 1
    means[single] = vectors[np.array(starts)[single]]
    np.testing.assert_array_equal(whole, means)


def test_windows_are_read_as_the_model_gets_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits to be encoded does not grow with the text."""
    monkeypatch.setattr(embedge.text.overflow, "_PART_TOKENS", 2**9)
    monkeypatch.setattr(embedge.streaming, "_AHEAD_TOKENS", 2**11)
    encoder = Encoder(tiny.write(tmp_path / "x.onnx"), threads=1)
    pipeline = encoder._pipeline
    read, windows, run = [0], pipeline.tokenizer.windows, pipeline.run
    waiting: list[int] = []

    def counted_windows(*arguments: Any) -> Iterator[Any]:
        for window in windows(*arguments):
            read[0] += 1
            yield window

    def counted_run(ids: Any) -> Any:
        waiting.append(read[0])
        read[0] -= len(ids)
        return run(ids)

    monkeypatch.setattr(pipeline.tokenizer, "windows", counted_windows)
    monkeypatch.setattr(pipeline, "run", counted_run)
    text = "a b c cab " * 5_000  # 5,000 windows of 8 tokens
    found = encoder.encode(["b", text, "a"], overflow="mean")
    assert len(waiting) > 100
    assert max(waiting) < 1_000
    monkeypatch.undo()
    np.testing.assert_array_equal(found, encoder.encode(["b", text, "a"], overflow="mean"))


@pytest.mark.parametrize("overflow", ["cut", "", None, "TRUNCATE"])
def test_an_overflow_that_there_is_not_is_refused(encoder: Encoder, overflow: Any) -> None:
    message = f"expected overflow to be one of 'truncate', 'error', 'mean', got {overflow!r}"
    with pytest.raises(OptionError, match=message):
        encoder.encode([], overflow=overflow)
    with pytest.raises(OptionError, match=message):
        encoder.encode_iter([], overflow=overflow)


def test_sequences_know_their_texts() -> None:
    tokenizer = TextTokenizer(tiny.TOKENIZER, 4)
    (fitted,) = sequences(tokenizer, ["a", "a b a b b", ""], 0, "mean")
    assert [list(ids) for ids in fitted.ids] == [
        [CLS, A, SEP], [CLS, A, B, SEP], [CLS, A, B, SEP], [CLS, B, SEP], [CLS, SEP]
    ]  # fmt: skip
    assert fitted.last.tolist() == [True, False, False, True, True]
    assert fitted.cut == 0


def test_sequences_come_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is before an error as well."""
    monkeypatch.setattr(embedge.text.overflow, "_PART_TOKENS", 8)
    tokenizer = TextTokenizer(tiny.TOKENIZER, 4)
    found = sequences(tokenizer, ["a", "a b a b b", "b", "\ud800"], 0, "mean")
    for ids, last in (
        ([[CLS, A, SEP], [CLS, A, B, SEP], [CLS, A, B, SEP]], [True, False, False]),
        ([[CLS, B, SEP], [CLS, B, SEP]], [True, True]),
    ):
        part = next(found)
        assert [list(row) for row in part.ids] == ids
        assert part.last.tolist() == last
    with pytest.raises(TextError, match=r"text 3 holds a lone surrogate"):
        next(found)


def test_weights_are_the_tokens_of_the_text() -> None:
    tokenizer = TextTokenizer(tiny.TOKENIZER, 5)
    (fitted,) = sequences(tokenizer, ["b", "cab b a"], 0, "mean", "a ")
    assert [list(ids) for ids in fitted.ids] == [
        [CLS, A, B, SEP], [CLS, A, C, PART_A, SEP], [CLS, A, PART_B, B, SEP], [CLS, A, A, SEP]
    ]  # fmt: skip
    assert fitted.weights.tolist() == [1, 2, 2, 1]


def test_a_surrogate_far_inside_a_long_text_is_named(encoder: Encoder) -> None:
    text = "a b " * 30_000 + "\ud800"
    message = re.escape("text 2 holds a lone surrogate (U+D800) at character 120000")
    with pytest.raises(TextError, match=message) as caught:
        encoder.encode(["a", "b", text], overflow="mean")
    assert caught.value.position == 2


@pytest.mark.parametrize("overflow", ["truncate", "error"])
def test_a_long_text_is_read_only_until_it_is_too_long(
    overflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred pieces the first is enough to know."""
    monkeypatch.setattr(embedge.text.tokenizer, "_PIECE_CHARACTERS", 20)
    tokenizer = TextTokenizer(tiny.TOKENIZER, 8)
    read: list[str] = []
    encode = tokenizer._encode

    def noted(batch: list[str], *rest: Any, **more: Any) -> list[Any]:
        read.extend(text for text in batch if text)
        return encode(batch, *rest, **more)

    monkeypatch.setattr(tokenizer, "_encode", noted)
    try:
        list(sequences(tokenizer, ["a " * 1000], 0, overflow))
    except TextTooLongError:
        assert overflow == "error"
    assert len(read) == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda tokenizer, text: tokenizer.count([text]),
        lambda tokenizer, text: sum(1 for _ in tokenizer.windows(text)),
        lambda tokenizer, text: list(sequences(tokenizer, [text], 0, "truncate")),
        lambda tokenizer, text: sum(
            len(part.ids) for part in sequences(tokenizer, [text], 0, "mean")
        ),
    ],
    ids=["count", "windows", "truncate", "mean"],
)
def test_memory_does_not_grow_with_the_length_of_a_text(work: Any) -> None:
    """A list of all token ids would be 7.2 MB of references and 25 MB of integers."""
    tokenizer = TextTokenizer(tiny.TOKENIZER, 8)
    text = "a b c cab " * 150_000  # 900,000 tokens
    work(tokenizer, "a")
    tracemalloc.start()
    work(tokenizer, text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 2**20


def test_a_text_without_tokens_for_a_model_without_special_tokens_is_named(tmp_path: Path) -> None:
    own = tiny.tokenizer()
    own.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    encoder = Encoder(tiny.write(tmp_path / "x.onnx", tiny.model(tokenizer=own.to_str())))
    assert encoder.encode("b").tolist() == [0, 1]
    with pytest.raises(TextError, match=r"text 1 has no tokens for this model.*leave it out"):
        encoder.encode(["b", "  ", "a"])


@pytest.mark.parametrize(
    "call",
    [
        lambda encoder: encoder.encode("a " * 50),
        lambda encoder: encoder.encode(["a " * 50]),
        lambda encoder: list(encoder.encode_iter(["a " * 50])),
        lambda encoder: encoder.encode_query("a " * 50),
        lambda encoder: encoder.encode_document(["a " * 50]),
    ],
    ids=["one", "many", "iter", "query", "document"],
)
def test_the_warning_points_at_the_caller(call: Any, encoder: Encoder) -> None:
    with pytest.warns(TruncationWarning) as told:
        call(encoder)
    assert [warning.filename for warning in told] == [__file__]
