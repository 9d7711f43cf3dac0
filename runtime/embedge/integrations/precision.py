"""Vectors in the precisions of sentence_transformers.quantize_embeddings, value by value."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedge.errors import OptionError

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]


def check_precision(precision: Any) -> None:
    """Raise OptionError where ``precision`` is neither None nor a Precision."""
    if precision is not None and precision not in get_args(Precision):
        known = ", ".join(map(repr, get_args(Precision)))
        raise OptionError(f"expected precision to be one of {known}, got {precision!r}")


def quantize(vectors: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """Quantize float32 (n, dim), to (n, dim), or to (n, dim / 8) for "binary" and "ubinary".

    int8 and uint8 divide each component's range, from its lowest to its highest value in these
    vectors, into 256 parts. binary and ubinary keep signs, the first component in the highest bit.

    Raises:
        OptionError: int8 or uint8 of one vector, which has no range.
    """
    if precision == "float32":
        return vectors
    if precision in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=1)
        return bits if precision == "ubinary" else (bits ^ np.uint8(128)).view(np.int8)
    if len(vectors) == 1:
        raise OptionError(
            f"precision={precision!r} takes its ranges from the texts of the call, and one text "
            "has none; give more texts, or quantize with ranges of your own"
        )
    values = _divide(vectors) if len(vectors) else vectors
    return values.astype(np.uint8) if precision == "uint8" else (values - 128).astype(np.int8)


def _divide(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    low = vectors.min(0)
    steps = (vectors.max(0) - low) / 255
    steps = np.where(steps == 0, 1, steps)
    values: NDArray[np.float32] = np.clip(np.floor((vectors - low) / steps), 0, 255)
    return values
