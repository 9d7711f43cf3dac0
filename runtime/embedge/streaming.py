"""Texts to vectors, in order and in bounded memory: tokenize, group, encode, put in order.

Texts are read ahead up to a bound and tokenized some at a time. What waits is grouped by length
into micro-batches, which run concurrently and end in any order; vectors are given in the order of
the texts. Between any two micro-batches the call can be stopped, by an exception from the caller's
progress function, by Ctrl-C or by `Pipeline.close`.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedge.errors import TextError, resource_errors
from embedge.ort.batching import InOrder, TokenSequence, Waiting
from embedge.ort.workers import Workers
from embedge.pipeline import Pipeline, Vectors
from embedge.progress import Progress, reporting
from embedge.text.inputs import check_text
from embedge.text.overflow import Overflow, Sequences

# Texts and tokens read ahead of the vectors given: enough for long runs of equal length, few enough
# that memory does not grow with the number of texts.
_AHEAD_TEXTS = 4096
_AHEAD_TOKENS = 2**20
# Texts and characters tokenized at a time; between these a call can be stopped, and the first
# vectors need no more than the first of them.
_SLICE_TEXTS = 128
_SLICE_CHARACTERS = 2**18


@dataclass(frozen=True)
class Request:
    """How some texts are to be encoded.

    Attributes:
        prompt: what is put in front of every text.
        overflow: what happens to texts that are too long.
        dim: components that are kept of every vector.
        threads: how many micro-batches run concurrently.
        in_order: micro-batches run in about the order of the texts, so that the first vectors come
            early; otherwise the longest come first, so that the last to finish is short.
        progress: as `Encoder.encode` takes it.
        count_truncated: called in the calling thread with how many more texts were truncated.
    """

    prompt: str
    overflow: Overflow
    dim: int
    threads: int
    in_order: bool
    progress: Progress
    count_truncated: Callable[[int], None]


def encode_all(pipeline: Pipeline, texts: Sequence[Any], request: Request) -> Vectors:
    """Give the vectors of all texts, float32 (n, dim); arguments and errors of `encode_stream`."""
    with resource_errors():
        vectors = np.empty((len(texts), request.dim), np.float32)  # (n, dim)
    start = 0
    for run in encode_stream(pipeline, texts, len(texts), request):
        vectors[start : start + len(run)] = run
        start += len(run)
    return vectors


def encode_stream(
    pipeline: Pipeline, texts: Iterable[Any], total: int | None, request: Request
) -> Generator[Vectors, None, None]:
    """Give the vectors of consecutive texts, float32 (some, dim), the first text's first.

    An error of a text, or of the iterable, is raised in its place: after the vectors of the texts
    before it where ``request.in_order``, else as soon as it is read.

    Args:
        pipeline: what encodes.
        texts: whatever was given as texts.
        total: how many there are, if that is known.
        request: how to encode them.

    Raises:
        TextError, TextTooLongError: a text cannot be encoded; says which.
        ModelError: the model fails on a text.
        ClosedError: the pipeline was closed.
    """
    pipeline.check_open()
    return _encode(pipeline, texts, total, request)


def _encode(
    pipeline: Pipeline, texts: Iterable[Any], total: int | None, request: Request
) -> Generator[Vectors, None, None]:
    def run(batch: list[TokenSequence]) -> Vectors:
        return pipeline.run([sequence.ids for sequence in batch])

    source = _Source(pipeline, iter(texts), request)
    results = _Results(pipeline, request.dim)
    waiting = Waiting()
    with (
        reporting(request.progress, total) as report,
        Workers(run, request.threads) as workers,
    ):
        while not source.ended or waiting or not workers.is_idle:
            _read_ahead(source, results.given, waiting, request)
            while waiting and workers.wants_work:
                workers.submit(waiting.take(oldest=request.in_order or not source.ended))
            for batch, vectors in workers.step():
                report(results.add(batch, vectors))
            if len(ready := results.ready()):
                yield ready
    if source.error is not None:
        raise source.error


def _read_ahead(source: "_Source", given: int, waiting: Waiting, request: Request) -> None:
    """Read as far ahead of the ``given`` texts as the bounds allow; at least a part.

    Where vectors are wanted early, no more than that.
    """
    while (
        not source.ended
        and source.position - given < _AHEAD_TEXTS
        and waiting.tokens < _AHEAD_TOKENS
    ):
        for sequence in source.read():
            waiting.add(sequence)
        if source.ended:
            waiting.split_between(request.threads)
        if request.in_order:
            return
    if source.ended and source.error is not None and not request.in_order:
        raise source.error


class _Source:
    """The texts, read and tokenized some at a time.

    Attributes:
        position: texts read so far.
        error: what ended it, if that was an error.
    """

    def __init__(self, pipeline: Pipeline, texts: Iterator[Any], request: Request) -> None:
        self._pipeline, self._texts, self._request = pipeline, texts, request
        self._has_more = True
        self._parts: Iterator[Sequences] = iter(())  # of the texts read last
        self._left = 0  # of these texts, those whose last sequence has not come
        self._sequences = 0
        self.position = 0
        self.error: Exception | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be read."""
        return self._left == 0 and not self._has_more

    def read(self) -> Iterator[TokenSequence]:
        """The next part of the texts that were read last, or of further ones."""
        if self._left == 0:
            self._read_slice()
        try:
            part = next(self._parts, None)
        except TextError as error:  # of an earlier text than what ended the iterable
            self._left, self._has_more, self.error = 0, False, error
            return
        if part is None:
            return
        self._left -= int(part.last.sum())
        if part.cut:
            self._request.count_truncated(part.cut)
        marks = zip(part.ids, part.last.tolist(), part.weights.tolist(), strict=True)
        for ids, last, weight in marks:
            yield TokenSequence(self._sequences, np.array(ids, np.int32), last, weight)
            self._sequences += 1

    def _read_slice(self) -> None:
        texts: list[str] = []
        characters, start = 0, self.position
        while len(texts) < _SLICE_TEXTS and characters < _SLICE_CHARACTERS:
            try:
                text = check_text(next(self._texts), start + len(texts))
            except StopIteration:
                self._has_more = False
                break
            except Exception as error:  # whatever the caller's iterable raises
                self._has_more, self.error = False, error
                break
            texts.append(text)
            characters += len(text)
        self.position += len(texts)
        self._left = len(texts)
        request = self._request
        self._parts = self._pipeline.tokenize(texts, start, request.overflow, request.prompt)


class _Results:
    """Vectors that were finished in any order, given in the order of their texts.

    Attributes:
        given: texts whose vectors have been given.
    """

    def __init__(self, pipeline: Pipeline, dim: int) -> None:
        self._pipeline = pipeline
        self._dim = dim
        self._texts = pipeline.text_vectors()
        self._finished = InOrder[tuple[TokenSequence, Vectors]]()
        self.given = 0

    def add(self, batch: list[TokenSequence], vectors: Vectors) -> int:
        """Keep a micro-batch's vectors (batch, dim); returns how many texts end in it."""
        for sequence, vector in zip(batch, vectors, strict=True):
            self._finished.add(sequence.number, (sequence, vector))
        return sum(sequence.last for sequence in batch)

    def ready(self) -> Vectors:
        """The vectors that are next in order, float32 (texts, dim); each is given once."""
        taken = list(self._finished.take())
        if not taken:
            return np.empty((0, self._dim), np.float32)
        last = np.array([sequence.last for sequence, _ in taken])
        weights = np.array([sequence.weight for sequence, _ in taken])
        fitted = Sequences([sequence.ids for sequence, _ in taken], last, weights, cut=0)
        vectors = np.stack([vector for _, vector in taken])
        found = self._pipeline.finish(self._texts, fitted, vectors, self._dim)
        self.given += len(found)
        return found
