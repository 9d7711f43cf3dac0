"""What one model file does on this machine: measured in a process of its own."""

import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np

from embedge.cli.memory import peak_bytes
from embedge.encoder import Encoder
from embedge.errors import EmbedgeError
from embedge.modelfile.file import read
from embedge.ort.probes import verify
from embedge.ort.threads import available_cpus
from embedge.text.overflow import TruncationWarning

LIMIT_S = 120.0  # after which a file is given up
_LONG_WORDS = 150  # about 200 tokens: most models take them whole
_MOST_TEXTS = {"short": 256, "long": 64}  # encoded by one call
_LATENCY_CALLS = 200

Clock = Callable[[], float]


class Encodes(Protocol):
    """What is measured, for example an Encoder."""

    def encode(self, texts: list[str], /) -> object:
        """Vectors of texts."""
        ...


@dataclass(frozen=True)
class Measurement:
    """Figures of one file with one provider; None where it was not measured.

    Attributes:
        file: path of the model file.
        provider: as it was asked for.
        load_s: from a process without onnxruntime to the first vector.
        latency_ms: median of single-text calls with short texts.
        latency_p95_ms: their 95th percentile.
        short_1, short_all: short texts a second, at one thread and at all.
        long_1, long_all: the same for texts of about 200 tokens.
        peak_mb: most memory the process held, in 10^6 bytes.
        cosine: smallest of the probes to the file's own vectors; 1 is what it should be.
        cosine_fp32: mean of the probes to the fp32 source's vectors.
        problem: why there are no figures or wrong ones; else the empty string.
    """

    file: str
    provider: str
    load_s: float | None = None
    latency_ms: float | None = None
    latency_p95_ms: float | None = None
    short_1: float | None = None
    short_all: float | None = None
    long_1: float | None = None
    long_all: float | None = None
    peak_mb: float | None = None
    cosine: float | None = None
    cosine_fp32: float | None = None
    problem: str = ""


def bench_texts() -> dict[str, list[str]]:
    """Texts of this package: "short" ones, a sentence each, and "long" ones of them."""
    data = resources.files("embedge.cli").joinpath("bench.txt").read_text(encoding="utf-8")
    short = data.splitlines()
    words = data.split()
    starts = range(0, len(words), len(words) // len(short))
    long = [" ".join((words[start:] + words)[:_LONG_WORDS]) for start in starts]
    return {"short": short, "long": long}


def measure_apart(path: Path, provider: str, seconds: float, limit: float = LIMIT_S) -> Measurement:
    """`measure` in a fresh process, so that load time and memory are those of this file."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(sender, path, provider, seconds), daemon=True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the worker inherits
    try:
        worker.start()
    finally:
        signal.signal(signal.SIGINT, before)
    sender.close()
    try:
        if not receiver.poll(limit):
            return Measurement(str(path), provider, problem=f"not finished after {limit:.0f} s")
        found: Measurement = receiver.recv()
    except EOFError:
        worker.join()
        problem = f"its process ended with status {worker.exitcode}"
        return Measurement(str(path), provider, problem=problem)
    else:
        return found
    finally:
        worker.kill()
        worker.join()
        receiver.close()


def _work(sender: Connection, path: Path, provider: str, seconds: float) -> None:
    sender.send(measure(path, provider, seconds))


def measure(path: Path, provider: str, seconds: float) -> Measurement:
    """Measure a file in this process, each figure for about ``seconds``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # of models with short limits
            return _measure(path, provider, seconds)
    except EmbedgeError as error:
        return Measurement(str(path), provider, problem=str(error))


def _measure(path: Path, provider: str, seconds: float) -> Measurement:
    texts = bench_texts()
    start = time.perf_counter()
    encoder = Encoder(path, providers=provider)
    encoder.encode(texts["short"][:1])
    load = time.perf_counter() - start
    latencies = 1000 * np.array(latencies_of(encoder, texts["short"], seconds))
    every = {kind: rate(encoder, texts[kind], seconds, kind) for kind in texts}
    peak = peak_bytes()  # before there is a second Encoder
    one = every
    if available_cpus() > 1:
        single = Encoder(path, providers=provider, threads=1)
        one = {kind: rate(single, texts[kind], seconds, kind) for kind in texts}
    return replace(
        _probed(path, provider, encoder),
        load_s=round(load, 3),
        latency_ms=round(float(np.median(latencies)), 3),
        latency_p95_ms=round(float(np.percentile(latencies, 95)), 3),
        short_1=round(one["short"], 1),
        short_all=round(every["short"], 1),
        long_1=round(one["long"], 1),
        long_all=round(every["long"], 1),
        peak_mb=round(peak / 1e6, 1),
    )


def _probed(path: Path, provider: str, encoder: Encoder) -> Measurement:
    """The cosines of the file's probes, without timings."""
    file = read(path)
    if not file.probes:
        return Measurement(str(path), provider)
    result = verify(file, encoder)
    reference = float(np.mean([probe.reference for probe in result.probes]))
    return Measurement(
        str(path),
        provider,
        cosine=round(result.cosine, 6),
        cosine_fp32=round(reference, 6),
        problem="" if result.holds else "wrong vectors: the probes failed",
    )


def latencies_of(
    encoder: Encodes, texts: Sequence[str], seconds: float, clock: Clock = time.perf_counter
) -> list[float]:
    """Seconds of single-text calls, one after the other, for about ``seconds``."""
    found: list[float] = []
    begin = clock()
    while len(found) < _LATENCY_CALLS:
        start = clock()
        encoder.encode([texts[len(found) % len(texts)]])
        end = clock()
        found.append(end - start)
        if end - begin >= seconds:
            break
    return found


def rate(
    encoder: Encodes,
    texts: Sequence[str],
    seconds: float,
    kind: str = "short",
    clock: Clock = time.perf_counter,
) -> float:
    """Texts a second, in calls that hold many texts but take no longer than ``seconds``."""
    encoder.encode(list(texts[:1]))  # allocates, and on some providers compiles
    start = clock()
    encoder.encode(list(texts[:1]))
    fitting = int(seconds / max(clock() - start, 1e-9))
    size = max(1, min(_MOST_TEXTS[kind], fitting))
    many = (list(texts) * -(-size // len(texts)))[:size]
    done, start = 0, clock()
    while (passed := clock() - start) < seconds:
        encoder.encode(many)
        done += size
    return done / passed
