"""Validate input texts item by item, and read them in windows of bounded size."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from embedge.errors import TextError

# Texts tokenized and sorted at a time: enough for long runs of equal length, few enough that
# memory does not grow with the number of texts.
_WINDOW_TEXTS = 4096
_WINDOW_CHARACTERS = 2**22


def iterate(texts: Any) -> Iterator[Any]:
    """Iterate over an iterable of str.

    Raises:
        TextError: ``texts`` is bytes, not iterable, or iterates over its keys or column names.
    """
    if _has_keys(texts):
        raise TextError(
            f"expected an iterable of str, got {type(texts).__name__}, which iterates over keys or "
            "column names; give the texts themselves: data.values(), or one column (data['text'])",
            0,
        )
    if not isinstance(texts, (bytes, bytearray)):
        try:
            return iter(texts)
        except TypeError:
            pass
    raise TextError(f"expected a str or an iterable of str, got {type(texts).__name__}", 0)


def _has_keys(texts: Any) -> bool:
    """Whether ``texts`` is a mapping or a table: a dict, a data frame, a data set."""
    return isinstance(texts, Mapping) or any(
        hasattr(type(texts), name) for name in ("columns", "column_names")
    )


def length(texts: Any) -> int | None:
    """How many texts there are; None where ``texts`` does not know, as a stream of a data set."""
    try:
        return len(texts)
    except TypeError:
        return None


def windows(items: Iterable[Any]) -> Iterator[tuple[int, list[str]]]:
    """Yield (position of its first text, texts) in lists of bounded size.

    A window ends after _WINDOW_TEXTS texts, or with the text that exceeds _WINDOW_CHARACTERS.

    Raises:
        TextError: an item is not a str; says which.
    """
    iterator = enumerate(items)
    while first := next(iterator, None):
        window = [check_text(first[1], first[0])]
        characters = len(window[0])
        while len(window) < _WINDOW_TEXTS and characters <= _WINDOW_CHARACTERS:
            item = next(iterator, None)
            if item is None:
                break
            window.append(check_text(item[1], item[0]))
            characters += len(window[-1])
        yield first[0], window


def check_text(text: Any, position: int) -> str:
    """Return ``text``, or raise TextError with its ``position`` where it is not a str."""
    if isinstance(text, str):
        return text
    advice = "; decode it first" if isinstance(text, bytes) else ""
    raise TextError(
        f"expected text {position} to be a str, got {type(text).__name__}{advice}", position
    )
