"""Handles, threads, memory and CPU time that encoding, loading and idling leave behind."""

import os
import random
import threading
import time
from collections.abc import Callable

from common import Options, Result, single_calls, texts, usage

from embedge import Encoder


def left(options: Options) -> Result:
    """handles, threads and memory after encodes, and after loads"""
    encodes, loads = (600, 12) if options.quick else (10_000, 200)
    encoder, given = Encoder(options.model, threads=2), texts(40)

    def load() -> None:
        single_calls(Encoder(options.model, threads=2), given)

    def one() -> None:
        start = random.randrange(len(given) - 4)
        encoder.encode(given[start] if start % 2 else given[start : start + 4])

    figures = [growth(one, encodes, "encodes"), growth(load, loads, "loads")]
    return all(good for good, _ in figures), "; ".join(figure for _, figure in figures)


def growth(work: Callable[[], None], times: int, name: str) -> Result:
    for _ in range(max(5, times // 5)):
        work()  # fills the caches
    time.sleep(0.2)  # a joined thread may still be listed for a moment
    before = usage()
    for _ in range(times):
        work()
    time.sleep(0.2)
    handles, started, megabytes = (now - then for now, then in zip(usage(), before, strict=True))
    good = handles <= 0 and started <= 0 and megabytes < 20
    kilobytes = 1024 * megabytes * 1000 / times
    return good, (
        f"{times:,} {name}: {handles:+d} handles, {started:+d} threads, {megabytes:+.1f} MB "
        f"({kilobytes:+,.0f} kB a thousand)"
    )


def closed(options: Options) -> Result:
    """memory and threads after close, above those of the libraries"""
    Encoder(options.model, threads=2).close()  # loads the libraries
    before = usage()
    with Encoder(options.model, threads=2) as encoder:
        encoder.encode(texts(2000))
        loaded = usage()
    after = usage()
    return after[2] - before[2] < 20 and after[1] <= before[1] + 2, (
        f"{loaded[2] - before[2]:+.0f} MB loaded, {after[2] - before[2]:+.0f} MB and "
        f"{after[1] - before[1]:+d} threads after (the tokenizer's own stay)"
    )


def affinity(options: Options) -> Result:
    """threads that encode where one CPU of several is allowed"""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        encoder = Encoder(options.model)
        encoder.encode(texts())  # the tokenizer's own threads start
        before, most, stop = usage()[1], 0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not stop.is_set():
                most = max(most, usage()[1])

        watcher = threading.Thread(target=watch)
        watcher.start()
        encoder.encode(texts(2000))
        stop.set()
        watcher.join()
    finally:
        os.sched_setaffinity(0, allowed)
    return (
        most <= before + 1,
        f"{len(allowed)} CPUs here, 1 allowed: {most - before - 1} more threads",
    )


def idle(options: Options) -> Result:
    """CPU time of an idle Encoder"""
    encoder = Encoder(options.model, threads=2)
    encoder.encode(texts())
    for _ in range(3):
        encoder.encode(texts()[0])  # a single-text call
    seconds = 1 if options.quick else options.idle
    before = time.process_time()
    time.sleep(seconds)
    used = time.process_time() - before
    return used < 0.01 + seconds / 10_000, f"{seconds:.0f} s idle, {1000 * used:.1f} ms of CPU time"
