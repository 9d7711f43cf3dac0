"""The scheduler: whose turn it is, what is shared, cancelling, faults, and the same bits."""

import io
import pickle
import queue
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import (
    EmbedgeError,
    Encoder,
    ModelError,
    ResourceError,
    TextError,
    TextTooLongError,
)
from embedge.serve.requests import CancelledError, Request
from embedge.serve.scheduler import Result, Scheduler
from embedge.serve.stdio import StdioServer

from .conftest import GatedPipeline


class Answers:
    """What `done` was called with, in its order."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue()

    def named(self, name: str) -> Any:
        return lambda result: self._queue.put((name, result))

    def next(self) -> tuple[str, Any]:
        return self._queue.get(timeout=60)


@pytest.fixture
def answers() -> Answers:
    return Answers()


def request(texts: list[str], **changes: Any) -> Request:
    values = {"texts": texts, "prompt": "", "overflow": "truncate", "dim": 2, **changes}
    return Request(**values)


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A system that gives as many more threads as the first item says."""
    left = [0]
    begin = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    yield left
    left[0] = 1000


def test_fewer_threads_than_asked_for_are_enough(
    tiny_file: Path, answers: Answers, few_threads: list[int]
) -> None:
    few_threads[0] = 1
    encoder = Encoder(tiny_file, threads=3)
    with Scheduler(encoder) as scheduler:
        scheduler.submit(request(["a b"] * 50), answers.named("it"))
        assert answers.next()[1].vectors.shape == (50, 2)


def test_without_any_thread_the_server_says_so(encoder: Encoder, few_threads: list[int]) -> None:
    with pytest.raises(ResourceError, match=r"a thread could not be started \(can't start new"):
        Scheduler(encoder)
    few_threads[0] = encoder._concurrency  # and none for the one that writes
    with pytest.raises(ResourceError, match="raise this user's or container's limit"):
        StdioServer(encoder, io.BytesIO(), io.BytesIO()).serve()


def test_a_short_request_is_answered_before_the_long_one_that_came_first(
    encoder: Encoder, gated: GatedPipeline, answers: Answers
) -> None:
    with Scheduler(encoder) as scheduler:
        scheduler.submit(request(["a b c a"] * 1000), answers.named("long"))
        gated.wait_for_batch()
        scheduler.submit(request(["b"]), answers.named("short"))
        gated.let_through(4)  # the first, two more of the long one, the short one
        name, result = answers.next()
        assert name == "short"
        assert np.array_equal(result.vectors, encoder_of(encoder).encode(["b"]))
        gated.let_through()
        assert answers.next()[0] == "long"


def encoder_of(encoder: Encoder) -> Encoder:
    """The same model, without a gate."""
    return pickle.loads(pickle.dumps(encoder))


def test_waiting_requests_share_micro_batches_of_equal_length(
    encoder: Encoder, gated: GatedPipeline, answers: Answers
) -> None:
    with Scheduler(encoder) as scheduler:
        scheduler.submit(request(["a b c"]), answers.named("first"))
        gated.wait_for_batch()
        for text in ("a", "b", "c a", "c"):
            scheduler.submit(request([text]), answers.named(text))
        gated.let_through()
        got = dict(answers.next() for _ in range(5))
    assert max(map(len, gated.batches)) > 1
    for text in ("a", "b", "c a", "c"):
        assert np.array_equal(got[text].vectors, encoder_of(encoder).encode([text]))


def test_cancelling_stops_within_a_micro_batch(
    encoder: Encoder, gated: GatedPipeline, answers: Answers
) -> None:
    with Scheduler(encoder) as scheduler:
        job = scheduler.submit(request(["a b c a"] * 1000), answers.named("long"))
        gated.wait_for_batch()
        scheduler.cancel(job)
        name, error = answers.next()
        assert (name, type(error)) == ("long", CancelledError)
        scheduler.submit(request(["b"]), answers.named("next"))
        gated.let_through()
        assert answers.next()[0] == "next"
        scheduler.cancel(job)  # which changes nothing
    assert len(gated.batches) == 2
    assert scheduler._waiting_tokens == 0


def test_a_fault_of_one_request_does_not_affect_the_others(
    encoder: Encoder, answers: Answers
) -> None:
    with Scheduler(encoder) as scheduler:
        scheduler.submit(request(["a"] * 300 + ["\ud800"]), answers.named("bad"))
        scheduler.submit(request(["a " * 20], overflow="error"), answers.named("long"))
        scheduler.submit(request(["a"]), answers.named("good"))
        got = dict(answers.next() for _ in range(3))
    assert type(got["bad"]) is TextError
    assert got["bad"].position == 300
    assert type(got["long"]) is TextTooLongError
    assert isinstance(got["good"], Result)


@pytest.mark.parametrize(
    ("fault", "shown"),
    [(ModelError("no memory"), "no memory"), (RuntimeError("oh"), "RuntimeError: oh")],
)
def test_a_model_that_fails_is_an_answer_and_the_worker_goes_on(
    encoder: Encoder, gated: GatedPipeline, answers: Answers, fault: Exception, shown: str
) -> None:
    gated.fault = fault
    gated.let_through()
    with Scheduler(encoder) as scheduler:
        scheduler.submit(request(["a"]), answers.named("bad"))
        error = answers.next()[1]
        assert isinstance(error, EmbedgeError)
        assert str(error) == shown
        gated.fault = None
        scheduler.submit(request(["a"]), answers.named("good"))
        assert isinstance(answers.next()[1], Result)


def test_leaving_answers_what_was_submitted(encoder: Encoder, answers: Answers) -> None:
    with Scheduler(encoder) as scheduler:
        for number in range(20):
            scheduler.submit(request(["a b"] * 50), answers.named(str(number)))
    assert all(isinstance(answers.next()[1], Result) for _ in range(20))


def test_leaving_by_an_exception_cancels(
    encoder: Encoder, gated: GatedPipeline, answers: Answers
) -> None:
    def leave() -> None:
        with Scheduler(encoder) as scheduler:
            scheduler.submit(request(["a b c a"] * 1000), answers.named("long"))
            gated.wait_for_batch()
            gated.let_through()
            raise RuntimeError("a fault of the server")

    with pytest.raises(RuntimeError, match="a fault of the server"):
        leave()
    assert type(answers.next()[1]) is CancelledError


def test_no_texts_have_no_vectors(encoder: Encoder, answers: Answers) -> None:
    with Scheduler(encoder) as scheduler:
        scheduler.submit(request([]), answers.named("none"))
        assert answers.next()[1].vectors.shape == (0, 2)


def test_a_result_counts_tokens_and_truncated_texts(encoder: Encoder, answers: Answers) -> None:
    with Scheduler(encoder) as scheduler:
        scheduler.submit(request(["a b", "a " * 20, ""]), answers.named("some"))
        result = answers.next()[1]
    assert (result.tokens, result.truncated) == (4 + 8 + 2, 1)


@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
@pytest.mark.parametrize("threads", [1, 3])
def test_many_requests_at_once_get_the_bits_of_encode(
    wide_file: Path, answers: Answers, threads: int
) -> None:
    chance = random.Random(threads)
    encoder = Encoder(wide_file, threads=threads)
    wanted = {}
    with Scheduler(encoder) as scheduler:
        for number in range(60):
            texts = [
                " ".join(chance.choices(["a", "b", "c", "ab"], k=chance.randrange(40)))
                for _ in range(chance.randrange(1, 700) if number % 10 == 0 else 2)
            ]
            overflow = chance.choice(["truncate", "mean"])
            dim = chance.choice([16, 5])
            wanted[str(number)] = (texts, overflow, dim)
            scheduler.submit(request(texts, overflow=overflow, dim=dim), answers.named(str(number)))
    for _ in range(60):
        name, result = answers.next()
        texts, overflow, dim = wanted[name]
        expected = Encoder(wide_file, threads=1, dim=dim).encode(texts, overflow=overflow)
        assert np.array_equal(result.vectors, expected), (name, overflow, dim)


def test_idle_workers_block_without_a_timeout(
    encoder: Encoder, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[float | None] = []
    wait = threading.Condition.wait

    def noted(self: threading.Condition, timeout: float | None = None) -> bool:
        if threading.current_thread().name.startswith("embedge-serve"):
            timeouts.append(timeout)
        return wait(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", noted)
    with Scheduler(encoder) as scheduler:
        for _ in range(3):
            scheduler.submit(request(["a"]), answers.named("one"))
            answers.next()
    assert timeouts
    assert set(timeouts) == {None}
