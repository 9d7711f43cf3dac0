"""Texts of more tokens than the model takes: truncated and counted, refused, or averaged."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from embedge.errors import OptionError, TextError, TextTooLongError, warn
from embedge.similarity import Vectors, unit
from embedge.text.tokenizer import TextTokenizer, Window

Overflow = Literal["truncate", "error", "mean"]

# Tokens of the sequences that are given at a time.
_PART_TOKENS = 2**15


class TruncationWarning(UserWarning):
    """A text was longer than the model takes and was truncated."""


class TruncationCounter:
    """Counts truncated texts of several threads, and warns of the first.

    Attributes:
        count: texts truncated so far.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._has_warned = False
        self.count = 0

    def add(self, texts: int) -> None:
        """Count more texts."""
        with self._lock:
            first = not self._has_warned
            self._has_warned = True
            self.count += texts
        if first:
            self._warn(texts)

    def _warn(self, texts: int) -> None:
        try:
            warn(
                f"{texts} of the texts have more than {self._max_tokens} tokens and were "
                "truncated; use overflow='mean' or 'error' if they should not be. Shown once per "
                "Encoder; Encoder.truncated counts them",
                TruncationWarning,
            )
        except TruncationWarning:  # a filter makes it an error: every call's, not the first one's
            self._has_warned = False
            raise


def check_overflow(overflow: Overflow) -> Overflow:
    """Return ``overflow``, or raise OptionError where it is not one of the three."""
    if not isinstance(overflow, str) or overflow not in get_args(Overflow):
        raise OptionError(
            f"expected overflow to be one of {', '.join(map(repr, get_args(Overflow)))}, "
            f"got {overflow!r}"
        )
    return overflow


@dataclass(frozen=True)
class Sequences:
    """What the model is given for consecutive texts: a sequence of token ids a text, or several.

    Attributes:
        ids: token ids with special tokens, each at most the model's ``max_tokens`` long.
        last: whether a sequence is the last of its text, shape (sequences,).
        weights: tokens of its text in each of several sequences of a text, without the prompt and
            special tokens; 1 for the only sequence of a text. Shape (sequences,).
        cut: how many texts were truncated.
    """

    ids: Sequence[Sequence[int] | NDArray[np.int32]]
    last: NDArray[np.bool_]
    weights: NDArray[np.int64]
    cut: int


def sequences(
    tokenizer: TextTokenizer, texts: Sequence[str], start: int, overflow: Overflow, prompt: str = ""
) -> Iterator[Sequences]:
    """Token id sequences that fit the model; ``start`` is the position of the first text.

    The prompt is in front of every text, and under "mean" of every window of a text. The sequences
    come in parts of some thousand tokens, in order, so that memory does not grow with the windows
    of a text: one text's may be in several parts. What comes before an error is given first.

    Raises:
        TextTooLongError: a text does not fit, under "error"; the prompt fills a window.
        TextError: a text has no tokens at all, or is not valid Unicode.
    """
    some: list[_Sequence] = []
    tokens = 0
    try:
        for sequence in _of_texts(tokenizer, texts, start, overflow, prompt):
            some.append(sequence)
            tokens += len(sequence.ids)
            if tokens >= _PART_TOKENS:
                yield _join(some)
                some, tokens = [], 0
    except TextError:
        if some:
            yield _join(some)
        raise
    if some:
        yield _join(some)


class _Sequence(NamedTuple):
    ids: Sequence[int] | NDArray[np.int32]
    weight: int = 1
    last: bool = True
    cut: bool = False


def _join(some: Sequence[_Sequence]) -> Sequences:
    ids, weights, last, cut = zip(*some, strict=True)
    return Sequences(ids, np.array(last, np.bool_), np.array(weights, np.int64), sum(cut))


def _of_texts(
    tokenizer: TextTokenizer, texts: Sequence[str], start: int, overflow: Overflow, prompt: str
) -> Iterator[_Sequence]:
    try:
        found = tokenizer.ids(texts, start, tokenizer.capacity, prompt)
    except TextError as error:
        yield from _of_texts(tokenizer, texts[: error.position - start], start, overflow, prompt)
        raise
    for position, (text, ids) in enumerate(zip(texts, found, strict=True), start):
        cut = len(ids) > tokenizer.capacity
        if cut and overflow == "error":
            raise _too_long(position, tokenizer.max_tokens)
        if cut and overflow == "mean":
            yield from _windows(tokenizer, text, position, prompt)
        else:
            yield _Sequence(_not_empty(tokenizer.wrap(ids), position), cut=cut)


def _windows(
    tokenizer: TextTokenizer, text: str, position: int, prompt: str
) -> Iterator[_Sequence]:
    windows = tokenizer.windows(text, position, prompt)
    window: Window | None = next(windows)
    while window is not None:
        following = next(windows, None)
        sequence = tokenizer.wrap([*window.prompt, *window.ids])
        ids = np.array(sequence, np.int32)  # a ninth of a list
        yield _Sequence(ids, len(window.ids), following is None)
        window = following


def _not_empty(sequence: list[int], position: int) -> list[int]:
    if not sequence:
        raise TextError(
            f"text {position} has no tokens for this model, which knows no special "
            "tokens either; leave it out",
            position,
        )
    return sequence


def _too_long(position: int, max_tokens: int) -> TextTooLongError:
    return TextTooLongError(
        f"text {position} has more than {max_tokens} tokens, which is all that the model takes; "
        "shorten it, or use overflow='truncate' or 'mean'",
        position,
    )


class TextVectors:
    """Vectors of sequences to those of their texts: the weighted means of a text's windows.

    What is known of a text whose last window has not come is one sum: memory does not grow with
    its windows.

    Args:
        normalize: scale the means to length 1.
    """

    def __init__(self, normalize: bool) -> None:
        self._normalize = normalize
        self._sum: NDArray[np.float64] | None = None  # (dim,), of the text's windows so far
        self._weight = 0

    def add(self, vectors: Vectors, weights: NDArray[np.int64], last: NDArray[np.bool_]) -> Vectors:
        """The vectors of the texts that end among these sequences.

        Args:
            vectors: float32 (sequences, dim), the next ones in the order of the texts.
            weights: tokens of its text in each window, shape (sequences,).
            last: whether a sequence is the last of its text, shape (sequences,).

        Returns:
            float32 (texts, dim); the vector of a text of one sequence is that sequence's, to the
            last bit.
        """
        if self._sum is None and last.all():
            return vectors
        found = np.empty((int(last.sum()), vectors.shape[1]), np.float32)  # (texts, dim)
        row = 0
        for vector, weight, is_last in zip(vectors, weights.tolist(), last.tolist(), strict=True):
            if not is_last:
                self._extend(vector, weight)
                continue
            found[row] = vector if self._sum is None else self._finish(vector, weight)
            row += 1
        return found

    def _extend(self, vector: Vectors, weight: int) -> NDArray[np.float64]:
        scaled = vector.astype(np.float64) * max(weight, 1)
        self._sum = scaled if self._sum is None else self._sum + scaled
        self._weight += max(weight, 1)
        return self._sum

    def _finish(self, vector: Vectors, weight: int) -> Vectors:
        mean = (self._extend(vector, weight) / self._weight).astype(np.float32)  # (dim,)
        self._sum, self._weight = None, 0
        return unit(mean) if self._normalize else mean
