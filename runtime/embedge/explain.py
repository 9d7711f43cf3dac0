"""Why two texts match: the share of each token of a text in the cosine.

With token vectors t_1 to t_n, their mean m and the text's vector v = m / |m|, a query's vector q
of unit length has the cosine

    q . v = sum over i of (q . t_i) / (n |m|),

exactly, since a mean is linear. Windows of a long text (``overflow="mean"``) are weighted means of
such means, so the same holds for them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedge.errors import OptionError
from embedge.pipeline import Pipeline
from embedge.similarity import Vectors
from embedge.text.inputs import check_text
from embedge.text.overflow import Overflow
from embedge.text.tokenizer import Token

# How far the sum of the shares may be from the cosine of the file's own vector.
_TOLERANCE = 1e-3

Of = Literal["text", "query"]


def check_of(of: Of) -> Of:
    """Return ``of``, or raise OptionError where it is neither "text" nor "query"."""
    if not isinstance(of, str) or of not in get_args(Of):
        raise OptionError(f"expected of='text' or of='query', got {of!r}")
    return of


@dataclass(frozen=True)
class Share:
    """A token's or a word's part of a cosine.

    Attributes:
        text: the slice of the text, empty for special tokens and the prompt.
        start, end: the slice in characters.
        share: what it adds to the score; negative where it lowers it.
    """

    text: str
    start: int
    end: int
    share: float


@dataclass(frozen=True)
class Explanation:
    """A cosine and the shares that add up to it.

    Attributes:
        score: the cosine of the two vectors.
        tokens: shares of the text's tokens, special tokens and prompt included.
        words: the same, the tokens of a word added up.
    """

    score: float
    tokens: tuple[Share, ...]
    words: tuple[Share, ...]


@dataclass(frozen=True)
class Reading:
    """How texts are read that are to be explained.

    Attributes:
        prompt: what is put in front of a text.
        overflow: as for `Encoder.encode`.
        count_truncated: called with how many more texts were truncated.
    """

    prompt: str
    overflow: Overflow
    count_truncated: Callable[[int], None]


def explain(
    pipeline: Pipeline, query: Vectors, text: str, number: int, reading: Reading
) -> Explanation:
    """Explain the cosine of a query's vector with a text's, in one pass of the model over the text.

    Args:
        pipeline: of the model that made ``query``; `check_linear` has passed.
        query: float32 (dim,), dim being at most the model's.
        text: the text.
        number: its place among the texts, for error messages.
        reading: how it is read.

    Raises:
        TextError: the text is not valid Unicode, or too long under "error".
    """
    prompt = reading.prompt
    parts = list(pipeline.tokenize([check_text(text, number)], number, reading.overflow, prompt))
    if cut := sum(part.cut for part in parts):
        reading.count_truncated(cut)
    sequences = [list(map(int, ids)) for part in parts for ids in part.ids]
    counts = np.concatenate([part.weights for part in parts])  # (sequences,)
    tokens = iter(pipeline.tokens(prompt + text))
    q = query.astype(np.float64) / max(float(np.linalg.norm(query)), 1e-30)  # (dim,)
    weights = counts / counts.sum()
    found: list[tuple[Token | None, float]] = []
    mean = np.zeros(len(q))  # (dim,) of all windows
    for index, (ids, weight) in enumerate(zip(sequences, weights, strict=True)):
        shares, vector = _window(pipeline, ids, q, len(sequences) > 1)
        own = int(counts[index]) if index else None
        places = _places(pipeline, len(ids), own, tokens)
        found += zip(places, (shares * weight).tolist(), strict=True)
        mean += weight * vector
    length = max(float(np.linalg.norm(mean)), 1e-30)
    score = float(q @ mean) / length
    scaled = [(token, share / length) for token, share in found]
    return Explanation(score, *_shares(text, len(prompt), scaled))


def _window(
    pipeline: Pipeline, ids: list[int], q: NDArray[np.float64], unit_length: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of a sequence's tokens in q . vector, float64 (sequence,), and the vector, (dim,).

    The vector is the mean of the token vectors, of unit length where it is one of several windows
    of a model that normalizes.
    """
    input_ids = np.array([ids], np.int64)  # (1, sequence)
    (vector,), (hidden,) = pipeline.session.run_with_tokens(input_ids)
    rows = hidden.astype(np.float64)  # (sequence, hidden)
    pooled = _pooled(pipeline, ids, rows, vector)
    rows *= (pooled / pooled.sum())[:, None]  # (sequence, hidden), whose sum is the mean
    if unit_length and pipeline.settings.normalized:
        rows /= max(float(np.linalg.norm(rows.sum(0))), 1e-30)
    kept = rows[:, : len(q)]  # (sequence, dim)
    return kept @ q, kept.sum(0)


def _pooled(
    pipeline: Pipeline, ids: list[int], rows: NDArray[np.float64], vector: NDArray[np.float32]
) -> NDArray[np.float64]:
    """1 for the tokens whose mean is the direction of ``vector``, 0 for the others: (sequence,)."""
    every = np.ones(len(ids))
    for left_out in range(len(ids) if "without the prompt" in pipeline.settings.pooling else 1):
        pooled = every.copy()
        pooled[:left_out] = 0
        mean = pooled @ rows  # (hidden,)
        cosine = mean @ vector / max(float(np.linalg.norm(mean) * np.linalg.norm(vector)), 1e-30)
        if cosine >= 1 - _TOLERANCE**2:
            return pooled
    raise OptionError(
        f"the vectors of {pipeline.settings.name} are not means of its token vectors, so a token "
        "has no share of its own: something follows the pooling"
    )


def _places(
    pipeline: Pipeline, length: int, own: int | None, tokens: Iterator[Token]
) -> Iterator[Token | None]:
    """The token at each place of a sequence, None for special tokens and a repeated prompt.

    ``own`` is how many of ``tokens`` are in the sequence; None where it has the prompt's as well.
    """
    before, behind = len(pipeline.tokenizer.prefix_ids), len(pipeline.tokenizer.suffix_ids)
    own = length - before - behind if own is None else own
    yield from [None] * (length - behind - own)
    for _ in range(own):
        yield next(tokens)
    yield from [None] * behind


def _shares(
    text: str, prompt: int, found: Sequence[tuple[Token | None, float]]
) -> tuple[tuple[Share, ...], tuple[Share, ...]]:
    """Shares of tokens and of words; ``prompt`` characters of it stand in front of the text."""
    tokens = tuple(_share(text, prompt, [item]) for item in found)
    groups = groupby(enumerate(found), lambda item: _word(item, prompt))
    return tokens, tuple(_share(text, prompt, [item for _, item in group]) for _, group in groups)


def _word(item: tuple[int, tuple[Token | None, float]], prompt: int) -> tuple[int, int]:
    """The key that groups tokens into words; a special token or one of the prompt has its own."""
    position, (token, _) = item
    return (position, -1) if token is None or token.end <= prompt else (-1, token.word)


def _share(text: str, prompt: int, items: Sequence[tuple[Token | None, float]]) -> Share:
    places = [token for token, _ in items if token is not None and token.end > prompt]
    start = max(0, places[0].start - prompt) if places else 0
    end = places[-1].end - prompt if places else 0
    return Share(text[start:end], start, end, sum(share for _, share in items))
