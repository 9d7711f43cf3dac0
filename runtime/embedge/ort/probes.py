"""The probes of a model file, run on this machine: to ask, and to load what has to prove itself."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedge.errors import ModelError, ProviderError
from embedge.modelfile.file import ModelFile
from embedge.ort.inference import instead_of
from embedge.ort.providers import short_name
from embedge.ort.session import Session
from embedge.similarity import cosines
from embedge.text.overflow import sequences
from embedge.text.tokenizer import TextTokenizer

# Between CPU families int8 rounding flips leave 0.9998 and more; a wrong kernel is far below.
MIN_COSINE = 0.999


@dataclass(frozen=True)
class ProbeResult:
    """Cosines of one probe: to the vector the file gave when made, and to the fp32 source's."""

    text: str
    output: float
    reference: float


@dataclass(frozen=True)
class Verdict:
    """What the probes say of a file on this machine."""

    probes: tuple[ProbeResult, ...]

    @property
    def holds(self) -> bool:
        """Whether every vector is the one that the file gave when it was made."""
        return all(probe.output >= MIN_COSINE for probe in self.probes)

    @property
    def cosine(self) -> float:
        """The smallest cosine to the file's own vectors; not a number where one of them is not."""
        return float(np.min([probe.output for probe in self.probes]))

    def describe(self) -> dict[str, Any]:
        """The verdict, ready for JSON."""
        return {"holds": self.holds, "min_cosine": MIN_COSINE, **asdict(self)}


class Encodes(Protocol):
    """What can be verified: an Encoder, say."""

    def encode(self, texts: list[str], /) -> NDArray[np.float32]:
        """Vectors of texts, float32 (n, dim)."""
        ...


def verify(file: ModelFile, encoder: Encodes) -> Verdict:
    """Encode a file's probes and compare them with what the file says.

    Vectors that an Encoder has cut to its ``dim`` are compared with the file's cut likewise.

    Raises:
        ModelError: the file has no probes.
    """
    if not file.probes:
        raise ModelError(f"{file.path}: the file has no probes to verify; export it again")
    texts = [probe.text for probe in file.probes]
    vectors = encoder.encode(texts)  # (probes, dim)
    outputs = np.stack([probe.output for probe in file.probes])[:, : vectors.shape[1]]
    references = np.stack([probe.reference for probe in file.probes])[:, : vectors.shape[1]]
    found = cosines(vectors, outputs).tolist(), cosines(vectors, references).tolist()
    return Verdict(tuple(map(ProbeResult, texts, *found)))


def prove(file: ModelFile, tokenizer: TextTokenizer, session: Session) -> float:
    """The smallest cosine of the probes' vectors to the file's own, on a provider.

    Raises:
        ProviderError: it is too small, or there are no probes, or they cannot be run.
    """
    name = short_name(session.providers[0])
    if not file.probes:
        raise ProviderError(
            f"{file.path}: the file has no probes, so {name} cannot prove that its vectors are "
            "right; export the file again, or use providers='cpu'"
        )
    try:
        verdicts = [verify(file, _Direct(file, tokenizer, session, batch)) for batch in (1, 2)]
    except ModelError as error:  # it took the graph, and cannot run it: a GPU without float16, say
        raise ProviderError(
            f"{file.path}: {name} cannot run it: {error}; {instead_of(file)}"
        ) from error
    results = [probe for verdict in verdicts for probe in verdict.probes]
    if all(verdict.holds for verdict in verdicts):
        return min(verdict.cosine for verdict in verdicts)
    wrong = [probe for probe in results if not probe.output >= MIN_COSINE]
    texts = len({probe.text for probe in wrong})
    raise ProviderError(
        f"{file.path}: {name} gives wrong vectors for {texts} of {len(file.probes)} probes: "
        f"cosine to the file's own {wrong[0].output:.6f} ({wrong[0].text[:40]!r}), but at least "
        f"{MIN_COSINE} is needed; {instead_of(file)}"
    )


@dataclass(frozen=True)
class _Direct:
    """The probes' own way to a session, one text at a time, as the last row of a small batch."""

    file: ModelFile
    tokenizer: TextTokenizer
    session: Session
    batch: int

    def encode(self, texts: list[str], /) -> NDArray[np.float32]:
        settings = self.file.settings
        front = settings.prompts[settings.default_prompt] if settings.default_prompt else ""
        fitted = sequences(self.tokenizer, [front + text for text in texts], 0, "truncate")
        rows = [self.session.run(np.array([ids] * self.batch, np.int64))[-1] for ids in fitted.ids]
        return np.stack(rows)  # (n, dim)
