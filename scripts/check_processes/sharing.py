"""One Encoder in many threads, forks and spawned processes."""

import os
import pickle
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from common import SINGLE, TIMEOUT, Options, Result, Vectors, single_calls, texts

from embedge import Encoder


def threads(options: Options) -> Result:
    """32 threads share an Encoder"""
    encoder, given = Encoder(options.model, threads=2), texts()
    right = encoder.encode(given)
    seconds = 1 if options.quick else 60
    end = time.monotonic() + seconds

    def work(seed: int) -> tuple[int, int]:
        chance, tried, wrong = random.Random(seed), 0, 0
        while time.monotonic() < end:
            some = chance.sample(range(len(given)), chance.randrange(1, 20))
            vectors = encoder.encode([given[i] for i in some])
            tried, wrong = tried + 1, wrong + (not np.array_equal(vectors, right[some]))
        return tried, wrong

    with ThreadPoolExecutor(32) as pool:
        tried, wrong = map(sum, zip(*pool.map(work, range(32)), strict=True))
    return wrong == 0, f"{tried:,} encodes in {seconds} s, {wrong} wrong"


def fork(options: Options) -> Result:
    """fork before loading, after it, and while threads encode"""
    given = texts(50)
    tried = [forked(lambda: single_calls(Encoder(options.model, threads=2), given), sys.exit)]
    encoder = Encoder(options.model, threads=2)
    right = encoder.encode(given)[:SINGLE]
    tried.append(forked(lambda: encoder.encode(given)[:SINGLE], sys.exit))
    stop = threading.Event()

    def busy(work: Callable[[Encoder, list[str]], Vectors]) -> None:
        while not stop.is_set():
            work(encoder, given)

    with ThreadPoolExecutor(4) as pool:
        for work in (batched, single_calls, batched, single_calls):
            pool.submit(busy, work)
        try:
            for number in range(5 if options.quick else 100):
                work = single_calls if number % 2 else batched
                tried.append(forked(lambda work=work: work(encoder, given)[:SINGLE], os._exit))
        finally:
            stop.set()
    for _ in range(2 if options.quick else 20):
        single_calls(encoder, given)
        tried.append(forked(lambda: single_calls(encoder, given), sys.exit))
    good = sum(answer == right.tobytes() for answer in tried)
    hung = sum(answer is None for answer in tried)
    return good == len(tried), f"{len(tried)} forks, {good} right, {hung} hung"


def forked(work: Callable[[], Vectors], leave: Callable[[int], object]) -> bytes | None:
    """The bytes of ``work`` in a forked process that ends with ``leave``; None if it hangs.

    With sys.exit it ends as a program does, which joins the threads that it believes to have.
    """
    source, sink = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forks of threaded processes
        child = os.fork()
    if child == 0:
        signal.alarm(TIMEOUT // 3)
        try:
            os.write(sink, work().tobytes())
        finally:
            leave(0)
    os.close(sink)
    with os.fdopen(source, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    return answer if status == 0 else b""


def encode(model: Path | None, given: list[str]) -> Vectors:
    return Encoder(model, threads=2).encode(given)


def batched(encoder: Encoder, given: list[str]) -> Vectors:
    return encoder.encode(given)


def spawn(options: Options) -> Result:
    """spawned processes, with a path and with a pickled Encoder"""
    given = texts(50)
    encoder = Encoder(options.model, threads=2)
    right = encoder.encode(given)
    with get_context("spawn").Pool(2) as pool:
        answers = [
            pool.apply_async(encode, (options.model, given)),
            pool.apply_async(batched, (encoder, given)),
        ]
        good = sum(np.array_equal(answer.get(TIMEOUT), right) for answer in answers)
    return (
        good == 2,
        f"2 processes, {good} right; a pickled Encoder has {len(pickle.dumps(encoder))} bytes",
    )


def query(options: Options) -> Result:
    """a query while another thread encodes documents"""
    encoder, stop = Encoder(options.model, threads=2), threading.Event()
    documents = [" ".join(texts(40)[i % 40 :]) for i in range(400)]
    idle = latencies(encoder, 20 if options.quick else 200)

    def busy() -> None:
        while not stop.is_set():
            encoder.encode(documents)

    thread = threading.Thread(target=busy)
    thread.start()
    time.sleep(0.5)
    busy_ms = latencies(encoder, 20 if options.quick else 500)
    stop.set()
    thread.join()
    figures = [
        f"{np.median(found):.1f} / {np.quantile(found, 0.99):.1f}" for found in (idle, busy_ms)
    ]
    return True, f"median / 99th percentile, ms: {figures[0]} on idle cores, {figures[1]} meanwhile"


def latencies(encoder: Encoder, count: int) -> list[float]:
    """Milliseconds of each of ``count`` single-text calls."""
    found = []
    for number in range(count):
        start = time.perf_counter()
        encoder.encode(f"how do I reset password {number}")
        found.append(1000 * (time.perf_counter() - start))
        time.sleep(0.01)
    return found
