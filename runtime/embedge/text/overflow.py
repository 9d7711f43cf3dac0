"""Texts of more tokens than the model takes: truncated and counted, refused, or averaged."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedge.errors import OptionError, TextError, TextTooLongError, warn
from embedge.similarity import Vectors, unit
from embedge.text.tokenizer import TextTokenizer

Overflow = Literal["truncate", "error", "mean"]


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
        self.count = 0

    def add(self, texts: int) -> None:
        """Count more texts."""
        with self._lock:
            first = self.count == 0
            self.count += texts
        if first:
            warn(
                f"{texts} of the texts have more than {self._max_tokens} tokens and were "
                "truncated; use overflow='mean' or 'error' if they should not be. Shown once per "
                "Encoder; Encoder.truncated counts them",
                TruncationWarning,
            )


def check_overflow(overflow: Overflow) -> Overflow:
    """Return ``overflow``, or raise OptionError where it is not one of the three."""
    if overflow not in get_args(Overflow):
        raise OptionError(
            f"expected overflow to be one of {', '.join(map(repr, get_args(Overflow)))}, "
            f"got {overflow!r}"
        )
    return overflow


@dataclass(frozen=True)
class Sequences:
    """What the model is given for some texts: one sequence of token ids a text, or several.

    Attributes:
        ids: token ids with special tokens, each at most the model's ``max_tokens`` long.
        first: whether a sequence is the first of its text, shape (sequences,).
        weights: tokens of its text in each of several sequences of a text, without the prompt and
            special tokens; 1 for the only sequence of a text. Shape (sequences,).
        cut: how many texts were truncated.
    """

    ids: Sequence[Sequence[int] | NDArray[np.int32]]
    first: NDArray[np.bool_]
    weights: NDArray[np.int64]
    cut: int


def sequences(
    tokenizer: TextTokenizer, texts: Sequence[str], start: int, overflow: Overflow, prompt: str = ""
) -> Sequences:
    """Token id sequences that fit the model; ``start`` is the position of the first text.

    The prompt is in front of every text, and under "mean" of every window of a text.

    Raises:
        TextTooLongError: a text does not fit, under "error"; the prompt fills a window.
        TextError: a text has no tokens at all, or is not valid Unicode.
    """
    found: list[list[int] | NDArray[np.int32]] = []
    first: list[bool] = []
    weights: list[int] = []
    cut = 0
    for index, ids in enumerate(tokenizer.ids(texts, start, tokenizer.capacity, prompt)):
        position, own = start + index, len(found)
        if len(ids) > tokenizer.capacity:
            if overflow == "error":
                raise _too_long(position, tokenizer.max_tokens)
            if overflow == "mean":
                for front, run in tokenizer.windows(texts[index], position, prompt):
                    sequence = tokenizer.wrap([*front, *run])
                    found.append(np.array(sequence, np.int32))  # a ninth of a list
                    weights.append(len(run))
            else:
                cut += 1
        if len(found) == own:
            found.append(tokenizer.wrap(ids))
            weights.append(1)
        first += [True] + [False] * (len(found) - own - 1)
        if len(found[-1]) == 0:
            raise TextError(
                f"text {position} has no tokens for this model, which knows no special "
                "tokens either; leave it out",
                position,
            )
    return Sequences(found, np.array(first, np.bool_), np.array(weights, np.int64), cut)


def _too_long(position: int, max_tokens: int) -> TextTooLongError:
    return TextTooLongError(
        f"text {position} has more than {max_tokens} tokens, which is all that the model takes; "
        "shorten it, or use overflow='truncate' or 'mean'",
        position,
    )


def mean_of_windows(
    vectors: Vectors, weights: NDArray[np.int64], first: NDArray[np.bool_], normalize: bool
) -> Vectors:
    """The weighted mean of each text's windows.

    Args:
        vectors: float32 (windows, dim), the windows of a text one after the other.
        weights: tokens of the text in each window, shape (windows,).
        first: whether a window is the first of its text, shape (windows,).
        normalize: scale the means to length 1.

    Returns:
        float32 (texts, dim); the vector of a text of one window is that window's, to the last bit.
    """
    starts = np.flatnonzero(first)  # (texts,)
    single = np.diff(starts, append=len(first)) == 1
    scale = np.maximum(weights, 1).astype(np.float64)
    sums = np.add.reduceat(vectors * scale[:, None], starts, axis=0)  # (texts, dim) float64
    means = (sums / np.add.reduceat(scale, starts)[:, None]).astype(np.float32)
    if normalize:
        means = unit(means)
    means[single] = vectors[starts[single]]
    return means
