"""Verify and time a file on every available provider."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from embedge.encoder import Encoder
from embedge.errors import ModelError, ProviderError
from embedge.modelfile.file import ModelFile
from embedge.ort.probes import verify
from embedge.ort.providers import available

_SECONDS = 1.0  # measured for at least this long
_TEXTS = 256


@dataclass(frozen=True)
class Trial:
    """What a file does on one provider.

    Attributes:
        provider: its name.
        cosine: the smallest cosine of a probe to the file's own vector; None where it is refused.
        load_s: seconds until the Encoder has passed its self-test.
        texts_per_s: throughput on the probes' texts, repeated.
        problem: why it is refused, or the empty string.
    """

    provider: str
    cosine: float | None = None
    load_s: float | None = None
    texts_per_s: float | None = None
    problem: str = ""


def survey(
    file: ModelFile, providers: Sequence[str] | None = None, threads: int | None = None
) -> list[Trial]:
    """Try a file on ``providers``; None is every one that is available here.

    Raises:
        ModelError: the file has no probes.
    """
    if not file.probes:
        raise ModelError(f"{file.path}: the file has no probes to verify; export it again")
    return [_trial(file, name, threads) for name in providers or available()]


def _trial(file: ModelFile, name: str, threads: int | None) -> Trial:
    start = time.perf_counter()
    try:
        encoder = Encoder(file.path, providers=name, threads=threads)
        load = time.perf_counter() - start
        result = verify(file, encoder)
        if not result.holds:
            wrong = "the probes failed; 'embedge verify' shows them one by one"
            return Trial(name, result.cosine, load, problem=wrong)
        texts = [probe.text for probe in file.probes]
        return Trial(name, result.cosine, load, _texts_per_second(encoder, texts))
    except (ModelError, ProviderError) as error:
        return Trial(name, problem=str(error))


def _texts_per_second(encoder: Encoder, texts: list[str]) -> float:
    many = (texts * -(-_TEXTS // len(texts)))[:_TEXTS]
    encoder.encode(many)  # the first call allocates, and on some providers compiles
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < _SECONDS:
        encoder.encode(many)
        done += len(many)
    return done / passed
