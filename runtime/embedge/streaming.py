"""Texts to vectors, in order and in bounded memory: tokenize, group, encode, put in order.

Texts are read ahead up to a bound and tokenized some at a time. What waits is grouped by length
into micro-batches, which run concurrently and end in any order; vectors are given in the order of
the texts. Between any two micro-batches the call can be stopped, by an exception from the caller's
progress function, by Ctrl-C or by `Pipeline.close`.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.errors import TextError, resource_errors
from embedge.ort.batching import TokenSequence, Waiting
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
            _read_ahead(source, results, waiting, request)
            while waiting and workers.wants_work:
                workers.submit(waiting.take(oldest=request.in_order or not source.ended))
            for batch, vectors in workers.step():
                report(results.add(batch, vectors))
            if len(ready := results.ready()):
                yield ready
    if source.error is not None:
        raise source.error


def _read_ahead(source: "_Source", results: "_Results", waiting: Waiting, request: Request) -> None:
    """Read as far ahead as the bounds allow; where vectors are wanted early, a slice at a time."""
    while (
        not source.ended
        and source.position - results.given < _AHEAD_TEXTS
        and waiting.tokens < _AHEAD_TOKENS
    ):
        for sequence in source.read(results):
            waiting.add(sequence)
        if source.ended:
            waiting.split_between(request.threads)
        if request.in_order:
            return
    if source.error is not None and not request.in_order:
        raise source.error


class _Source:
    """The texts, read and tokenized a slice at a time.

    Attributes:
        position: texts read so far.
        ended: nothing more is to be read.
        error: what ended it, if that was an error.
    """

    def __init__(self, pipeline: Pipeline, texts: Iterator[Any], request: Request) -> None:
        self._pipeline, self._texts, self._request = pipeline, texts, request
        self._sequences = 0
        self.position = 0
        self.ended = False
        self.error: Exception | None = None

    def read(self, results: "_Results") -> Iterator[TokenSequence]:
        """Read and tokenize a slice; ``results`` expect its sequences."""
        texts = self._slice()
        try:
            found = self._tokenize(texts)
        except TextError as error:
            self._end(error)
            found = self._tokenize(texts[: error.position - self.position])
        self.position += int(found.first.sum())
        if found.cut:
            self._request.count_truncated(found.cut)
        results.expect(found.first)
        marks = zip(found.ids, found.first.tolist(), found.weights.tolist(), strict=True)
        for ids, first, weight in marks:
            yield TokenSequence(self._sequences, np.array(ids, np.int32), first, weight)
            self._sequences += 1

    def _slice(self) -> list[str]:
        texts: list[str] = []
        characters = 0
        while len(texts) < _SLICE_TEXTS and characters < _SLICE_CHARACTERS:
            position = self.position + len(texts)
            try:
                text = check_text(next(self._texts), position)
            except StopIteration:
                self._end(None)
                break
            except Exception as error:  # whatever the caller's iterable raises
                self._end(error)
                break
            texts.append(text)
            characters += len(text)
        return texts

    def _tokenize(self, texts: list[str]) -> Sequences:
        request = self._request
        return self._pipeline.tokenize(texts, self.position, request.overflow, request.prompt)

    def _end(self, error: Exception | None) -> None:
        self.ended, self.error = True, error


class _Results:
    """Vectors that were finished in any order, given in the order of their texts.

    Attributes:
        given: texts whose vectors have been given.
    """

    def __init__(self, pipeline: Pipeline, dim: int) -> None:
        self._pipeline = pipeline
        self._dim = dim
        self._windows: deque[int] = deque()  # of each text that has not been given
        self._finished: dict[int, tuple[TokenSequence, Vectors]] = {}
        self._next = 0  # the first sequence that has not been given
        self.given = 0

    def expect(self, first: NDArray[np.bool_]) -> None:
        """Sequences will come; ``first`` says which are the first of their text, shape (n,)."""
        self._windows.extend(np.diff(np.flatnonzero(first), append=len(first)).tolist())

    def add(self, batch: list[TokenSequence], vectors: Vectors) -> int:
        """Keep a micro-batch's vectors (batch, dim); returns how many texts began in it."""
        for sequence, vector in zip(batch, vectors, strict=True):
            self._finished[sequence.number] = sequence, vector
        return sum(sequence.first for sequence in batch)

    def ready(self) -> Vectors:
        """The vectors that are next in order, float32 (texts, dim); each is given once."""
        end = self._next
        while self._windows and all(
            number in self._finished for number in range(end, end + self._windows[0])
        ):
            end += self._windows.popleft()
            self.given += 1
        if end == self._next:
            return np.empty((0, self._dim), np.float32)
        taken = [self._finished.pop(number) for number in range(self._next, end)]
        self._next = end
        first = np.array([sequence.first for sequence, _ in taken])
        weights = np.array([sequence.weight for sequence, _ in taken])
        fitted = Sequences([sequence.ids for sequence, _ in taken], first, weights, cut=0)
        return self._pipeline.finish(fitted, np.stack([vector for _, vector in taken]), self._dim)
