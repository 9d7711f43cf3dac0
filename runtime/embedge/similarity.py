"""Similarity of vectors, by the measure that a model was trained for."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.errors import ModelError, OptionError, check_integer

Vectors = NDArray[np.float32]


def unit(vectors: Vectors) -> Vectors:
    """Scale each row to length 1; a row of zeros stays: (..., dim) to (..., dim) float32."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(norms, 1e-12)).astype(np.float32, copy=False)
    return scaled


def check_dim(dim: Any, full: int, default: int | None) -> int:
    """Resolve the ``dim`` argument of Encoder, for vectors of ``full`` components.

    Raises:
        OptionError: it is not an integer from 1 to ``full``.
    """
    return default or full if dim is None else check_integer("dim", dim, 1, full)


def shorten(vectors: Vectors, dim: int, normalize: bool) -> Vectors:
    """Keep the leading components: (n, full) to (n, dim), scaled to length 1 if ``normalize``."""
    if dim == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dim]
    return unit(kept) if normalize else kept


def are_unit(vectors: Vectors, tolerance: float = 0.01) -> bool:
    """Whether every row has length 1 within ``tolerance``; rounding to fp16 needs a tenth of it."""
    return bool((np.abs(np.linalg.norm(vectors, axis=-1) - 1) <= tolerance).all())


def check_vectors(vectors: Vectors, normalized: bool) -> None:
    """Raise ModelError for vectors that are not finite, or not of the length 1 they should have."""
    if normalized and are_unit(vectors):
        return
    if not np.isfinite(vectors).all():
        raise ModelError("the model returned vectors that are not finite; export it again")
    if normalized:
        raise ModelError(
            "the model declares unit-length vectors but returned others; export it again"
        )


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Cosine of each row of ``a`` with the same row of ``b``, both (n, dim): float64 (n,).

    NaN where a component is NaN or infinite; 0 for a row of zeros.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        found: NDArray[np.float64] = (x * y).sum(1) / np.maximum(norms, 1e-30)
    return found


def _euclidean(a: Vectors, b: Vectors) -> Vectors:
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab: (n, m) without an (n, m, dim) temporary. In float64, as the
    # difference of near neighbours would drown in float32.
    x, y = a.astype(np.float64), b.astype(np.float64)
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2 * (x @ y.T)
    distances: Vectors = np.sqrt(np.maximum(squares, 0)).astype(np.float32)
    return distances


def _manhattan(a: Vectors, b: Vectors) -> Vectors:
    return np.stack([np.abs(row - b).sum(1) for row in a]) if len(a) else a @ b.T


# Every measure takes (n, dim) and (m, dim) and gives (n, m); larger is more alike.
SIMILARITIES: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": lambda a, b: unit(a) @ unit(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -_euclidean(a, b),
    "manhattan": lambda a, b: -_manhattan(a, b),
}
# The same measures of each row with the same row: (n, dim) twice gives (n,).
_PAIRWISE: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": lambda a, b: (unit(a) * unit(b)).sum(1),
    "dot": lambda a, b: (a * b).sum(1),
    "euclidean": lambda a, b: -np.linalg.norm(a - b, axis=1),
    "manhattan": lambda a, b: -np.abs(a - b).sum(1),
}


def similarity(a: Vectors, b: Vectors, measure: str = "cosine") -> Vectors:
    """Similarity of every row of ``a`` with every row of ``b``.

    Args:
        a: float32 (n, dim) or (dim,).
        b: float32 (m, dim) or (dim,).
        measure: a key of SIMILARITIES; distances are negated, so that larger is more alike.

    Returns:
        float32 (n, m).

    Raises:
        OptionError: the measure is unknown, or the shapes do not fit each other.
    """
    _check_measure(measure)
    a, b = _rows(a), _rows(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise OptionError(
            f"expected vectors of shape (n, dim) and (m, dim), got {a.shape} and {b.shape}"
        )
    return SIMILARITIES[measure](a, b)


def similarity_pairwise(a: Vectors, b: Vectors, measure: str = "cosine") -> Vectors:
    """Similarity of each row of ``a`` with the same row of ``b``.

    Args:
        a, b: float32 (n, dim) or (dim,), of equal shape.
        measure: as for `similarity`.

    Returns:
        float32 (n,).

    Raises:
        OptionError: the measure is unknown, or the shapes differ.
    """
    _check_measure(measure)
    a, b = _rows(a), _rows(b)
    if a.ndim != 2 or a.shape != b.shape:
        raise OptionError(f"expected vectors of equal shapes (n, dim), got {a.shape} and {b.shape}")
    return _PAIRWISE[measure](a, b)


def _check_measure(measure: str) -> None:
    if measure not in SIMILARITIES:
        raise OptionError(f"expected a measure of {', '.join(SIMILARITIES)}, got {measure!r}")


def _rows(vectors: Any) -> Vectors:
    try:
        return np.atleast_2d(np.asarray(vectors, np.float32))
    except (TypeError, ValueError) as error:
        raise OptionError(f"expected vectors of numbers; {error}") from error
