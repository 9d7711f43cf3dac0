"""Source against file: an export that does not reproduce its source leaves no file."""

from importlib.metadata import version
from platform import python_version
from typing import Any

import numpy as np
from numpy.typing import NDArray

import embedge
from embedge.errors import ExportError

Vectors = NDArray[np.float32]

# The tracer changes nothing but the order of sums.
FP32_MIN_COSINE = 0.99999
# Below this mean something is broken; a good int8 file has 0.998 and more.
QUANTIZED_MEAN_COSINE = 0.99
_UNIT_TOLERANCE = 1e-4

_TOOLS = ("numpy", "onnx", "onnxruntime", "optimum-onnx", "sentence-transformers", "tokenizers")


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Cosine of each row of ``a`` with the same row of ``b``, in double precision: (n,)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    result: NDArray[np.float64] = (x * y).sum(1) / np.maximum(norms, 1e-30)
    return result


def compare(
    what: str,
    got: Vectors,
    reference: Vectors,
    *,
    normalized: bool,
    min_cosine: float = -1.0,
    mean_cosine: float = -1.0,
) -> dict[str, float]:
    """Compare vectors with their reference, both float32 (n, dim).

    Returns:
        Mean and minimum cosine and the largest difference of a component, rounded.

    Raises:
        ExportError: a shape, a length or a cosine is not what it should be.
    """
    if got.shape != reference.shape:
        raise ExportError("verify", f"{what}: shape {got.shape} instead of {reference.shape}")
    if not np.isfinite(got).all():
        raise ExportError("verify", f"{what}: the vectors are not finite")
    lengths = np.linalg.norm(got, axis=1)
    if normalized and np.abs(lengths - 1).max() > _UNIT_TOLERANCE:
        raise ExportError("verify", f"{what}: a vector has the length {lengths.max():.6f}, not 1")
    cosine = cosines(got, reference)
    for name, value, least in (
        ("minimum", float(cosine.min()), min_cosine),
        ("mean", float(cosine.mean()), mean_cosine),
    ):
        if value < least:
            raise ExportError(
                "verify",
                f"{what}: {name} cosine {value:.6f} on the probes, but at least {least} is needed",
            )
    return {
        "cosine_mean": round(float(cosine.mean()), 6),
        "cosine_min": round(float(cosine.min()), 6),
        "largest_difference": round(float(np.abs(got - reference).max()), 6),
    }


def tools() -> dict[str, Any]:
    """Versions of everything that decides the bytes of a file."""
    versions = {name: version(name) for name in (*_TOOLS, "torch", "transformers")}
    return {"embedge": embedge.__version__, "python": python_version(), **versions}
