"""Run the probes of a model file: for `embedge verify`, and as the self-test of a provider."""

import warnings
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedge.errors import ModelError, ProviderError
from embedge.modelfile.file import ModelFile
from embedge.modelfile.probe import Probe
from embedge.ort.fork_guard import ort_call
from embedge.ort.inference import instead_of
from embedge.ort.providers import short_name
from embedge.ort.session import Session
from embedge.similarity import cosines
from embedge.text.overflow import TruncationWarning, sequences
from embedge.text.tokenizer import TextTokenizer

# Between CPU families int8 rounding flips leave 0.9998 and more; a wrong kernel is far below.
MIN_COSINE = 0.999


@dataclass(frozen=True)
class ProbeResult:
    """One probe on this machine: its token ids, its cosines.

    Attributes:
        text: the probe's text.
        prompt: name of its prompt, None for the model's default.
        same_ids: whether the tokenizer gives the file's token ids.
        output: cosine to the vector that the file gave when it was made.
        reference: cosine to the fp32 source's vector.
    """

    text: str
    prompt: str | None
    same_ids: bool
    output: float
    reference: float

    @property
    def holds(self) -> bool:
        """Whether the token ids are the file's, and the vector is."""
        return self.same_ids and self.output >= MIN_COSINE


@dataclass(frozen=True)
class SelfTestResult:
    """What a file's probes give on this machine."""

    probes: tuple[ProbeResult, ...]

    @property
    def holds(self) -> bool:
        """Whether all token ids and vectors are those of the file when it was made."""
        return all(probe.holds for probe in self.probes)

    @property
    def cosine(self) -> float:
        """The smallest cosine to the file's own vectors; NaN where one of them is NaN."""
        return float(np.min([probe.output for probe in self.probes]))

    def difference(self) -> str:
        """What differs, for a message: token ids first, as all vectors depend on them."""
        ids = [probe for probe in self.probes if not probe.same_ids]
        wrong = ids or [probe for probe in self.probes if not probe.holds]
        what = "token ids" if ids else "vectors"
        text = f"wrong {what} for {len(wrong)} of {len(self.probes)} probes"
        if ids:
            return f"{text} (the first: {wrong[0].text[:40]!r})"
        cosines = [f"{probe.output:.6f} ({probe.text[:40]!r})" for probe in wrong]
        return f"{text}: cosine to the file's own {cosines[0]}, but at least {MIN_COSINE} is needed"

    def describe(self) -> dict[str, Any]:
        """The result, ready for JSON."""
        return {"holds": self.holds, "min_cosine": MIN_COSINE, **asdict(self)}


class Encodes(Protocol):
    """What can be verified, for example an Encoder."""

    def encode(self, texts: list[str], /, *, prompt: str | None = None) -> NDArray[np.float32]:
        """Vectors of texts, float32 (n, dim)."""
        ...


def probe_ids(tokenizer: TextTokenizer, prompt: str, text: str) -> tuple[int, ...]:
    """The token ids that the graph is given for a probe with the text of its ``prompt``."""
    (fitted,) = sequences(tokenizer, [text], 0, "truncate", prompt)
    return tuple(fitted.ids[0])


def verify(file: ModelFile, encoder: Encodes) -> SelfTestResult:
    """Encode a file's probes and compare the vectors with those in the file.

    Vectors that an Encoder has cut to its ``dim`` are compared with the file's cut likewise.

    Raises:
        ModelError: the file has no probes.
    """
    if not file.probes:
        raise ModelError(f"{file.path}: the file has no probes to verify; export it again")
    tokenizer = TextTokenizer(file.tokenizer_json, file.settings.max_tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # one probe is meant to be truncated
        return SelfTestResult(
            tuple(_result(file, tokenizer, encoder, probe) for probe in file.probes)
        )


def _result(
    file: ModelFile, tokenizer: TextTokenizer, encoder: Encodes, probe: Probe
) -> ProbeResult:
    settings = file.settings
    name = settings.default_prompt if probe.prompt is None else probe.prompt
    ids = probe_ids(tokenizer, settings.prompts[name] if name else "", probe.text)
    vector = encoder.encode([probe.text], prompt=probe.prompt)  # (1, dim)
    dim = vector.shape[1]
    output, reference = (
        cosines(vector, values[None, :dim]).item() for values in (probe.output, probe.reference)
    )
    return ProbeResult(probe.text, probe.prompt, ids == probe.ids, output, reference)


def self_test(file: ModelFile, tokenizer: TextTokenizer, session: Session) -> float:
    """The smallest cosine of the probes' vectors to the file's own, on a provider.

    Raises:
        ProviderError: it is too small, or there are no probes, or they cannot be run.
    """
    name = short_name(session.providers[0])
    if not file.probes:
        raise ProviderError(
            f"{file.path}: the file has no probes, so the vectors of {name} cannot be "
            "verified; export the file again, or use providers='cpu'"
        )
    try:
        results = [
            verify(file, _SessionEncoder(file, tokenizer, session, batch)) for batch in (1, 2)
        ]
    except ModelError as error:  # the graph was loaded, but fails: a GPU without float16
        raise ProviderError(
            f"{file.path}: {name} cannot run it: {error}; {instead_of(file)}"
        ) from error
    if all(result.holds for result in results):
        return min(result.cosine for result in results)
    wrong = next(result for result in results if not result.holds)
    raise ProviderError(f"{file.path}: {name} gives {wrong.difference()}; {instead_of(file)}")


@dataclass(frozen=True)
class _SessionEncoder:
    """Encodes one text at a time with a session, as the last row of a small batch."""

    file: ModelFile
    tokenizer: TextTokenizer
    session: Session
    batch: int

    def encode(self, texts: list[str], /, *, prompt: str | None = None) -> NDArray[np.float32]:
        settings = self.file.settings
        name = settings.default_prompt if prompt is None else prompt
        front = settings.prompts[name] if name else ""
        ids = [ort_call(partial(probe_ids, self.tokenizer, front, text)) for text in texts]
        rows = [self.session.run(np.array([row] * self.batch, np.int64))[-1] for row in ids]
        return np.stack(rows)  # (n, dim)
