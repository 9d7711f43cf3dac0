"""Long texts: the passages of a document, and vectors of passages in their context.

Passages in context ("late chunking", https://arxiv.org/abs/2409.04701): the transformer reads the
whole document once, and a passage's vector is the mean of its own tokens' vectors, normalized.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from embedge.errors import OptionError, is_integer
from embedge.ort.batching import TokenSequence, Waiting
from embedge.ort.workers import Workers
from embedge.pipeline import Pipeline, Vectors
from embedge.similarity import check_vectors, shorten, unit
from embedge.text.inputs import check_text
from embedge.text.passages import Passage, Tokens, check_limits, split

# Tokens of the windows that are read ahead.
_AHEAD_TOKENS = 2**15
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
        return list(pipeline.placed(piece).starts)

    def count(piece: str) -> int:
        return pipeline.count([piece], 0, "")[0] - special

    return split(text, Tokens(starts, count), limit, overlap)


def check_parts(parts: Any, text: str) -> list[Passage]:
    """Return the passages of ``text``, or raise OptionError where ``parts`` is anything else."""
    found = list(parts) if isinstance(parts, Iterable) else [parts]
    if not all(isinstance(part, Passage) for part in found) or any(
        part.text != text[part.start : part.end] for part in found
    ):
        raise OptionError("expected parts to be passages of this text, as `passages` gives them")
    return found


@dataclass(frozen=True, eq=False)
class Stretch:
    """What the model reads of a document, and the passages whose vectors come from it.

    Attributes:
        text: a slice of the document; all of it, unless it is very long.
        parts: the passages, at their places in ``text``.
    """

    text: str
    parts: Sequence[Passage]


def encode_in_context(
    pipeline: Pipeline,
    stretches: Sequence[Stretch],
    prompt: str,
    dim: int,
    threads: int,
    encoded: Callable[[int], object] = lambda passages: None,
) -> Vectors:
    """Vectors of the passages of texts, each the mean of its tokens in the whole text.

    A text that is too long for the model is read in overlapping windows; each passage is taken
    from one that begins at least a quarter of a window before it, where it is that far into the
    text. Special tokens and the prompt belong to no passage; one without tokens has their vector.

    Args:
        stretches: the texts and their passages.
        prompt: is put in front of every window.
        dim: components to keep.
        threads: concurrent micro-batches.
        encoded: is called after each passage, with how many are done.

    Returns float32 (passages of all texts, dim).

    Raises:
        OptionError: the model does not pool by the mean, or something follows the pooling.
        ModelError: a vector is not finite.
    """
    check_linear(pipeline)
    shape = sum(len(stretch.parts) for stretch in stretches), pipeline.settings.dim
    found = np.zeros(shape, np.float32)  # (passages, dim)
    with closing(_means(pipeline, stretches, prompt, threads)) as means:
        for done, (passage, vector) in enumerate(means, 1):
            found[passage] = vector
            encoded(done)
    normalized = pipeline.settings.normalized
    found = unit(found) if normalized else found
    check_vectors(found, normalized)
    return cast(Vectors, shorten(found, dim, normalized))


def _means(
    pipeline: Pipeline, stretches: Sequence[Stretch], prompt: str, threads: int
) -> Generator[tuple[int, Vectors | NDArray[np.float64]], None, None]:
    """Numbers of passages and their vectors, (dim,), as they are finished, not normalized."""
    front = pipeline.placed(prompt).ids
    before = len(pipeline.tokenizer.prefix_ids) + len(front)
    without_tokens = list[int]()
    source = _Source(_windows(pipeline, stretches, front, without_tokens), threads)

    def run(batch: list[TokenSequence]) -> NDArray[np.float32]:
        return pipeline.session.token_vectors(np.array([window.ids for window in batch], np.int64))

    with Workers(run, threads) as workers:
        while source.read() or not workers.is_idle:
            while source.waiting and workers.wants_work:
                workers.submit(source.waiting.take(oldest=True))
            for batch, rows in workers.step():  # rows: (batch, sequence, hidden)
                for window, row in zip(batch, rows, strict=True):
                    for passage, first, end in source.spans.pop(window.number):
                        own = row[before + first : before + end]
                        yield passage, own.mean(0, dtype=np.float64)
    if without_tokens:
        (vector,) = pipeline.run([_wrap(pipeline, front, np.empty(0, np.int32))])
        yield from ((passage, vector) for passage in without_tokens)


class _Span(NamedTuple):
    """A passage, by its number among all, and its tokens within a window: from first to end."""

    passage: int
    first: int
    end: int


_Window = tuple[NDArray[np.int32], list[_Span]]  # token ids, and the passages taken from it


def _windows(
    pipeline: Pipeline,
    stretches: Iterable[Stretch],
    front: NDArray[np.int32],
    without_tokens: list[int],
) -> Iterator[_Window]:
    """The windows of texts, each with the passages that are taken from it.

    The numbers of passages that have no tokens are added to ``without_tokens``.
    """
    size, count = pipeline.tokenizer.capacity - len(front), 0
    for stretch in stretches:
        tokens = pipeline.placed(stretch.text)
        begin, spans = 0, list[_Span]()
        for number, part in enumerate(stretch.parts, count):
            first, end = np.searchsorted(tokens.starts, (part.start, part.end)).tolist()
            if first == end:
                without_tokens.append(number)
                continue
            if not spans or end > begin + size:
                if spans:
                    yield _wrap(pipeline, front, tokens.ids[begin : begin + size]), spans
                lead = size // _CONTEXT if end - first <= size - size // _CONTEXT else 0
                begin, spans = max(0, first - lead), []
            spans.append(_Span(number, first - begin, min(end - begin, size)))
        if spans:
            yield _wrap(pipeline, front, tokens.ids[begin : begin + size]), spans
        count += len(stretch.parts)


def _wrap(
    pipeline: Pipeline, front: NDArray[np.int32], ids: NDArray[np.int32]
) -> NDArray[np.int32]:
    return np.array(pipeline.tokenizer.wrap([*front.tolist(), *ids.tolist()]), np.int32)


class _Source:
    """Windows as they are needed: memory grows with the passages, and not with the windows.

    Attributes:
        waiting: windows that may run.
        spans: of those that wait or run, by their numbers.
    """

    def __init__(self, windows: Iterator[_Window], threads: int) -> None:
        self._windows, self._threads = enumerate(windows), threads
        self.waiting = Waiting()
        self.spans: dict[int, list[_Span]] = {}

    def read(self) -> bool:
        """Read ahead; whether any window waits."""
        while self.waiting.tokens < _AHEAD_TOKENS:
            number, window = next(self._windows, (0, None))
            if window is None:
                self.waiting.split_between(self._threads)
                break
            ids, self.spans[number] = window
            self.waiting.add(TokenSequence(number, ids, last=True))
        return bool(self.waiting)


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
