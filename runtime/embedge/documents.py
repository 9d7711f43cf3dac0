"""Long texts: the passages of a document, and vectors of passages in their context.

Passages in context ("late chunking", https://arxiv.org/abs/2409.04701): the transformer reads the
whole document once, and a passage's vector is the mean of its own tokens' vectors, normalized.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from embedge.errors import OptionError, is_integer
from embedge.pipeline import Pipeline
from embedge.similarity import Vectors, check_vectors, shorten, unit
from embedge.text.inputs import check_text
from embedge.text.passages import Passage, check_limits, split
from embedge.text.tokenizer import Token

# One in so many of a window's tokens precede its first passage, as its context.
_CONTEXT = 4


def split_to_fit(
    pipeline: Pipeline, text: str, prompt: str, max_tokens: int | None, overlap: int
) -> Iterator[Passage]:
    """Split a text into passages that fit the model, each with ``prompt`` in front.

    Raises:
        OptionError: ``max_tokens`` or ``overlap`` makes no sense for this model and prompt.
        TextError: (when iterated over) the text is not valid Unicode.
    """
    check_text(text, 0)
    tokenizer = pipeline.tokenizer
    if max_tokens is None:
        max_tokens = tokenizer.max_tokens
    if not is_integer(max_tokens) or not 1 <= max_tokens <= tokenizer.max_tokens:
        raise OptionError(
            f"expected max_tokens from 1 to {tokenizer.max_tokens}, what the model takes, "
            f"got {max_tokens!r}"
        )
    special = tokenizer.max_tokens - tokenizer.capacity
    limit = max_tokens - special - len(pipeline.tokens(prompt))
    check_limits(limit, overlap)

    def starts(piece: str) -> list[int]:
        return [token.start for token in pipeline.tokens(piece)]

    return split(text, starts, limit, overlap)


def encode_in_context(
    pipeline: Pipeline, text: str, prompt: str, parts: Sequence[Passage], dim: int
) -> Vectors:
    """Vectors of the passages of a text, each the mean of its tokens in the whole text.

    A text that is too long for the model is read in overlapping windows; each passage is taken
    from a window that begins at least a quarter of a window before it, where it is that far into
    the text. Special tokens and the prompt are part of the input, and of no passage.

    Returns:
        float32 (passages, dim).

    Raises:
        OptionError: the model does not pool by the mean, or something follows the pooling.
        ModelError: a vector is not finite.
    """
    check_linear(pipeline)
    if not all(isinstance(part, Passage) for part in parts):
        raise OptionError("expected parts to be passages of this text, as `passages` gives them")
    tokenizer = pipeline.tokenizer
    front = _ids(pipeline.tokens(prompt))
    tokens = pipeline.tokens(check_text(text, 0))
    size = tokenizer.capacity - len(front)
    found = np.zeros((len(parts), pipeline.settings.dim), np.float32)  # (passages, dim)
    begin, rows = 0, None
    for index, part in enumerate(parts):
        first, last = _span(tokens, part)
        if first == last:  # no tokens: the vector of the special tokens
            found[index] = pipeline.run([tokenizer.wrap([*front, *_ids(tokens[first:last])])])[0]
            continue
        if rows is None or last > begin + size:
            begin = first - size // _CONTEXT if last - first <= size - size // _CONTEXT else first
            begin = max(0, begin)
            rows = _token_vectors(pipeline, front, tokens[begin : begin + size])
        found[index] = rows[first - begin : last - begin].mean(0, dtype=np.float64)
    if pipeline.settings.normalized:
        found = unit(found)
    check_vectors(found, pipeline.settings.normalized)
    return shorten(found, dim, pipeline.settings.normalized)


def check_linear(pipeline: Pipeline) -> None:
    """Raise OptionError unless a vector is the normalized mean of its tokens' vectors."""
    settings = pipeline.settings
    if not settings.pooling.startswith("mean") or settings.pooling.startswith("mean_"):
        raise OptionError(
            f"this needs a model whose vectors are means of token vectors; {settings.name} pools "
            f"by {settings.pooling!r}, where a token has no share of its own"
        )
    if settings.transformer.hidden_size != settings.dim:
        raise OptionError(
            f"this needs a model whose vectors are means of token vectors; {settings.name} has a "
            f"layer behind the pooling, from {settings.transformer.hidden_size} to {settings.dim} "
            "components"
        )


def _token_vectors(
    pipeline: Pipeline, front: Sequence[int], tokens: Sequence[Token]
) -> NDArray[np.float32]:
    """Vectors of a window's tokens, float32 (tokens, hidden), without prompt and special tokens."""
    tokenizer = pipeline.tokenizer
    ids = np.array([tokenizer.wrap([*front, *_ids(tokens)])], np.int64)  # (1, sequence)
    before = len(tokenizer.prefix_ids) + len(front)
    rows: NDArray[np.float32] = pipeline.session.token_vectors(ids)[0]  # (sequence, hidden)
    return rows[before : before + len(tokens)]


def _ids(tokens: Sequence[Token]) -> list[int]:
    return [token.id for token in tokens]


def _span(tokens: Sequence[Token], part: Passage) -> tuple[int, int]:
    """Positions of the first token of a passage and of the one behind its last."""
    first = bisect_left(tokens, part.start, key=lambda token: token.start)
    return first, bisect_left(tokens, part.end, key=lambda token: token.start)
