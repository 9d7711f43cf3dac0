"""How vectors are stored: the four dtypes, and back to float32.

float32  (rows, dim) little-endian float32: the vectors, to the last bit
float16  (rows, dim) little-endian float16: rounded to the nearest
int8     (rows, dim): each row scaled by 127 / its largest magnitude, then rounded. The scale is
         not stored: the vector has unit length, so divide the row by its length
binary   (rows, ceil(dim / 8)) uint8: bit 1 where a component is above 0; component 0 is the
         highest bit of byte 0, the last byte is filled up with 0. numpy.packbits(v > 0, axis=1)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.errors import OptionError
from embedge.similarity import Vectors, unit

Stored = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """One dtype: how it is stored, what a row is wide, and both ways.

    Attributes:
        dtype: of the stored values.
        width: values of a row, from dim.
        store: float32 (n, dim) to (n, width).
        load: (n, width) and dim to float32 (n, dim).
        needs_unit: whether only the direction is kept, so that vectors must have unit length.
    """

    dtype: np.dtype[Any]
    width: Callable[[int], int]
    store: Callable[[Vectors], Stored]
    load: Callable[[Stored, int], Vectors]
    needs_unit: bool = False


def _store_float16(vectors: Vectors) -> Stored:
    with np.errstate(over="ignore"):
        stored = vectors.astype("<f2")
    if not np.isfinite(stored).all():
        raise OptionError("a vector has a component that float16 cannot hold; use dtype float32")
    return stored


def _store_int8(vectors: Vectors) -> Stored:
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scale = np.float32(127) / np.where(largest > 0, largest, np.float32(1))
    return np.rint(vectors * scale).astype(np.int8)


def _load_binary(stored: Stored, dim: int) -> Vectors:
    signs = np.unpackbits(stored, axis=1, count=dim).astype(np.float32) * 2 - 1
    return unit(signs)


LAYOUTS: dict[str, Layout] = {
    "float32": Layout(
        np.dtype("<f4"),
        lambda dim: dim,
        lambda vectors: vectors.astype("<f4", copy=False),
        lambda stored, dim: stored.astype(np.float32, copy=False),
    ),
    "float16": Layout(
        np.dtype("<f2"),
        lambda dim: dim,
        _store_float16,
        lambda stored, dim: stored.astype(np.float32),
    ),
    "int8": Layout(
        np.dtype("|i1"),
        lambda dim: dim,
        _store_int8,
        lambda stored, dim: unit(stored.astype(np.float32)),
        needs_unit=True,
    ),
    "binary": Layout(
        np.dtype("|u1"),
        lambda dim: -(-dim // 8),
        lambda vectors: np.packbits(vectors > 0, axis=1),
        _load_binary,
        needs_unit=True,
    ),
}
