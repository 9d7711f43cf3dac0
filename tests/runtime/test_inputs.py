from collections import ChainMap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import embedge.text.inputs
from embedge import Encoder
from embedge.errors import TextError
from embedge.text.inputs import iterate, windows


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b"],
        ("a", "b"),
        iter(["a", "b"]),
        (text for text in "ab"),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        pd.Series(["a", "b"], index=[7, 9]),
        {"a": 1, "b": 2}.keys(),
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_any_container_of_str(texts: Any) -> None:
    assert list(windows(iterate(texts))) == [(0, ["a", "b"])]


@pytest.mark.parametrize(
    "texts",
    [
        {"q1": "What?", "q2": "Where?"},
        ChainMap({"a": "b"}),
        pd.DataFrame({"text": ["one", "two"]}),
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_keys_and_column_names_are_not_taken_for_texts(texts: Any) -> None:
    message = (
        f"got {type(texts).__name__}, which iterates over keys or column names; give the texts"
    )
    with pytest.raises(TextError, match=message):
        iterate(texts)


def test_a_table_with_column_names_of_its_own_kind_is_refused() -> None:
    """As those of datasets and pyarrow: their rows are no texts."""

    class Table:
        column_names = ("text",)

        def __iter__(self) -> Iterator[str]:
            return iter(self.column_names)

    with pytest.raises(TextError, match="one column"):
        iterate(Table())


@pytest.mark.parametrize("texts", [b"ab", bytearray(b"ab"), None, 3, 1.5, object(), np.array("a")])
def test_what_is_no_container_of_str(texts: Any, encoder: Encoder) -> None:
    message = f"expected a str or an iterable of str, got {type(texts).__name__}"
    for call in (iterate, encoder.encode, encoder.encode_iter, encoder.count_tokens):
        with pytest.raises(TextError, match=message):
            call(texts)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "expected text 2 to be a str, got NoneType$"),
        (5, "expected text 2 to be a str, got int$"),
        (float("nan"), "expected text 2 to be a str, got float$"),
        (["a"], "expected text 2 to be a str, got list$"),
        (b"a", "expected text 2 to be a str, got bytes; decode it first"),
    ],
)
def test_an_item_that_is_no_str_is_named(item: Any, message: str) -> None:
    with pytest.raises(TextError, match=message) as caught:
        list(windows(["a", "b", item]))
    assert caught.value.position == 2


def test_no_texts_make_no_window() -> None:
    assert list(windows([])) == []


def test_windows_are_bounded_in_texts_and_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedge.text.inputs, "_WINDOW_TEXTS", 3)
    monkeypatch.setattr(embedge.text.inputs, "_WINDOW_CHARACTERS", 10)
    texts = ["a", "b", "c", "d", "e" * 11, "f", "g" * 5, "h" * 6, "i"]
    assert list(windows(texts)) == [
        (0, ["a", "b", "c"]),
        (3, ["d", "e" * 11]),
        (5, ["f", "g" * 5, "h" * 6]),
        (8, ["i"]),
    ]


def test_only_one_window_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedge.text.inputs, "_WINDOW_TEXTS", 3)
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "a"

    first = windows(endless())
    assert [next(first)[0], read, next(first)[0], read] == [0, 3, 3, 6]
