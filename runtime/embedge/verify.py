"""The probes of a model file, run on this machine."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.encoder import Encoder
from embedge.errors import ModelError
from embedge.modelfile import ModelFile

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

    def describe(self) -> dict[str, Any]:
        """The verdict, ready for JSON."""
        return {"holds": self.holds, "min_cosine": MIN_COSINE, **asdict(self)}


def verify(file: ModelFile, encoder: Encoder) -> Verdict:
    """Encode a file's probes and compare them with what the file says.

    Raises:
        ModelError: the file has no probes.
    """
    if not file.probes:
        raise ModelError(f"{file.path}: the file has no probes to verify; export it again")
    vectors = encoder.encode([probe.text for probe in file.probes])
    return Verdict(
        tuple(
            ProbeResult(probe.text, _cosine(vector, probe.output), _cosine(vector, probe.reference))
            for probe, vector in zip(file.probes, vectors, strict=True)
        )
    )


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(x @ y) / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-30)
