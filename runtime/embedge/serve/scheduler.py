"""One queue of micro-batches for all requests, so that a short one does not wait for a long one.

Workers take turns between the requests, one micro-batch each. Requests that wait at the same time
share micro-batches of equal length; a vector does not depend on its neighbours, so these are the
vectors of a single-request call. Workers that have nothing to do block on a condition.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np

from embedge.encoder import Encoder
from embedge.errors import EmbedgeError
from embedge.ort.batching import TOKEN_BUDGET, InOrder
from embedge.ort.threads import start
from embedge.pipeline import Pipeline, Vectors
from embedge.serve.requests import CancelledError, Request
from embedge.text.overflow import Sequences

# One turn of tokenizing takes at most so much, and rests while so many sequences wait for the
# model: enough for long runs of equal length.
_TURN_TEXTS = 256
_TURN_CHARACTERS = 2**16
_SEQUENCES_AHEAD = 1024


@dataclass(frozen=True)
class Result:
    """Vectors float32 (texts, dim), tokens that the model read, texts that were truncated."""

    vectors: Vectors
    tokens: int
    truncated: int


Done = Callable[[Result | EmbedgeError], None]


class Job:
    """A request on its way. Its scheduler's lock guards everything that changes."""

    def __init__(self, pipeline: Pipeline, request: Request, done: Done) -> None:
        self.done = done
        self.results = _Results(pipeline, request)
        self.parts = _parts(pipeline, request)
        self.part_count = 0
        self.untokenized = len(request.texts)  # texts whose last sequence has not come
        self.tokenizing = False
        self.tokens = self.truncated = 0
        self.waiting: dict[int, deque[tuple[_Part, int]]] = {}  # by length: sequences of parts
        self.waiting_count = 0
        self.queued = self.over = False

    def may_tokenize(self) -> bool:
        """Whether a worker may tokenize the next part."""
        more = self.untokenized > 0
        return more and not self.tokenizing and self.waiting_count < _SEQUENCES_AHEAD


class _Results:
    """The vectors of a job: parts that were finished in any order, put in the order of the texts.

    Attributes:
        vectors: float32 (texts, dim), of which the first ``given`` are there.
    """

    def __init__(self, pipeline: Pipeline, request: Request) -> None:
        self._pipeline = pipeline
        self._texts = pipeline.text_vectors()
        self._lock = threading.Lock()
        self._finished = InOrder[_Part]()
        self.vectors = np.empty((len(request.texts), request.dim), np.float32)
        self.given = 0

    def add(self, part: "_Part") -> bool:
        """Keep a part whose vectors are there; returns whether it made the last text complete."""
        count, dim = self.vectors.shape
        with self._lock:
            self._finished.add(part.number, part)
            for ready in self._finished.take():
                found = self._pipeline.finish(self._texts, ready.fitted, ready.vectors, dim)
                self.vectors[self.given : self.given + len(found)] = found
                self.given += len(found)
            return self.given == count


@dataclass
class _Part:
    """Sequences of a job that were tokenized together, and their vectors."""

    job: Job
    number: int
    fitted: Sequences
    vectors: Vectors = field(init=False)  # (sequences, model's dim)
    left: int = field(init=False)  # sequences without a vector


_Batch = list[tuple[_Part, int]]


class Scheduler:
    """Encodes requests with the threads of an Encoder; use as a context manager.

    Leaving it answers what was submitted, or cancels it where an exception leaves it.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Start the workers; raises ResourceError where the system gives no thread."""
        self._pipeline = encoder._pipeline
        self._turns: deque[Job] = deque()
        self._active: set[Job] = set()
        self._waiting_tokens = 0
        self._closing = False
        self._changed = threading.Condition()
        workers = [
            threading.Thread(target=self._work, name=f"embedge-serve-{i}", daemon=True)
            for i in range(encoder._concurrency)
        ]
        self._workers = start(workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception: object, *_: object) -> None:
        if exception is not None:
            for job in list(self._active):
                self.cancel(job)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def submit(self, request: Request, done: Done) -> Job:
        """Encode a request; ``done`` is called once, on a worker's thread, or on this one."""
        job = Job(self._pipeline, request, done)
        with self._changed:
            self._active.add(job)
            self._queue(job)
        if not request.texts:
            self._end(job)
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job within a micro-batch; ``done`` gets CancelledError unless it was called."""
        self._end(job, CancelledError("the request was cancelled"))

    # Under the lock.

    def _queue(self, job: Job) -> None:
        if not job.queued and not job.over and (job.waiting or job.may_tokenize()):
            job.queued = True
            self._turns.append(job)
            self._changed.notify()

    def _next(self) -> Callable[[], None] | None:
        """Work for one worker: of the job whose turn it is; None where there is none."""
        while self._turns:
            job = self._turns.popleft()
            job.queued = False
            if job.may_tokenize():
                job.tokenizing = True
                self._queue(job)
                return partial(self._tokenize, job)
            if job.waiting:
                batch = self._take(job)
                self._queue(job)
                return partial(self._run, batch)
        return None

    def _take(self, job: Job) -> _Batch:
        """The longest sequences of a job, and sequences of the same length that others wait for."""
        length = max(job.waiting)
        share = -(-self._waiting_tokens // len(self._workers))  # as much for every worker
        size = max(1, min(TOKEN_BUDGET, share) // max(1, length))
        batch: _Batch = []
        for other in (job, *(turn for turn in self._turns if turn is not job)):
            lot = other.waiting.get(length)
            if not lot:
                continue
            count = min(size - len(batch), len(lot))
            batch += [lot.popleft() for _ in range(count)]
            other.waiting_count -= count
            if not lot:
                del other.waiting[length]
            if len(batch) == size:
                break
        self._waiting_tokens -= length * len(batch)
        return batch

    # On the workers' threads.

    def _work(self) -> None:
        while True:
            with self._changed:
                while (work := self._next()) is None:
                    if self._closing and not self._active:
                        return
                    self._changed.wait()
            work()

    def _tokenize(self, job: Job) -> None:
        try:
            part = _Part(job, job.part_count, next(job.parts))
        except Exception as error:
            self._end(job, _own(error))
            return
        part.left = len(part.fitted.ids)
        part.vectors = np.empty((part.left, self._pipeline.settings.dim), np.float32)
        with self._changed:
            job.tokenizing = False
            if job.over:
                return
            job.part_count += 1
            job.untokenized -= int(part.fitted.last.sum())
            job.truncated += part.fitted.cut
            for index, ids in enumerate(part.fitted.ids):
                job.waiting.setdefault(len(ids), deque()).append((part, index))
                job.tokens += len(ids)
                self._waiting_tokens += len(ids)
            job.waiting_count += part.left
            self._queue(job)

    def _run(self, batch: _Batch) -> None:
        try:
            vectors = self._pipeline.run([part.fitted.ids[index] for part, index in batch])
        except Exception as error:
            for job in {part.job for part, _ in batch}:
                self._end(job, _own(error))
            return
        complete: list[_Part] = []
        with self._changed:
            for (part, index), vector in zip(batch, vectors, strict=True):
                part.vectors[index] = vector
                part.left -= 1
                if part.left == 0:
                    complete.append(part)
            for job in {part.job for part, _ in batch}:  # which may tokenize again
                self._queue(job)
        for part in complete:
            self._finish(part)

    def _finish(self, part: _Part) -> None:
        try:
            is_last = part.job.results.add(part)
        except Exception as error:
            self._end(part.job, _own(error))
            return
        if is_last:
            self._end(part.job)

    def _end(self, job: Job, error: EmbedgeError | None = None) -> None:
        """Answer a job, unless it was answered."""
        with self._changed:
            if job.over:
                return
            job.over = True
            self._waiting_tokens -= sum(length * len(lot) for length, lot in job.waiting.items())
            job.waiting.clear()
            self._active.discard(job)
            if self._closing and not self._active:
                self._changed.notify_all()
        job.done(error or Result(job.results.vectors, job.tokens, job.truncated))


def _parts(pipeline: Pipeline, request: Request) -> Iterator[Sequences]:
    """The token ids of a request, some texts at a time, or some windows of a long one."""
    texts, start = request.texts, 0
    while start < len(texts):
        end = _end_of_turn(texts, start)
        some = texts[start:end]
        yield from pipeline.tokenize(some, start, request.overflow, request.prompt)
        start = end


def _end_of_turn(texts: list[str], start: int) -> int:
    """Position after the texts that are tokenized in one turn from ``start``; at least one."""
    end, characters = start + 1, len(texts[start])
    while end < len(texts) and end - start < _TURN_TEXTS:
        characters += len(texts[end])
        if characters > _TURN_CHARACTERS:
            break
        end += 1
    return end


def _own(error: Exception) -> EmbedgeError:
    """An error as a client sees it: ours unchanged, others as an EmbedgeError."""
    if isinstance(error, EmbedgeError):
        return error
    return EmbedgeError(f"{type(error).__name__}: {error}")
