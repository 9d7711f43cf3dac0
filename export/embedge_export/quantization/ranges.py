"""Ranges of activations in eight bits, chosen on other texts than those that they are measured on.

A range that covers the samples best fits them too well: what is large in one text only, another
text exceeds and is clipped. So smoothing and headroom are cross-validated: both are chosen on one
half of the samples by their error on the other half, and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedge_export.graph.ir import Array
from embedge_export.quantization.rounding import round_to_fp16

ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9)
HEADROOMS = (1.0, 1.2)  # width of the range in widths of the samples
FLOOR = 0.75  # quantile of the channels' largest values; none counts as smaller
SEARCH_ROWS = 1024  # rows of each half that errors are measured on
BLOCKS = 8  # of neighbouring rows, dealt to the halves in turn: a text is hardly ever in both


@dataclass(frozen=True)
class Range:
    """x * factor (K,) is quantized to u8 with `scale` and `zero_point`."""

    factor: Array
    scale: np.float32
    zero_point: np.uint8


def search_range(rows: Array, weight: Array, share: Array) -> Range:
    """Find the range of activation `rows` (T, K) for the least error of rows @ weight.

    The squared errors of each row count by `share` (T,).
    """
    first = np.arange(len(rows)) * BLOCKS // len(rows) % 2 == 0
    errors = np.zeros((len(ALPHAS), len(HEADROOMS)))
    for fitted in (first, ~first) if len(rows) >= BLOCKS else (first,):
        test = np.flatnonzero(~fitted) if len(rows) >= BLOCKS else np.flatnonzero(fitted)
        test = test[:: -(-len(test) // SEARCH_ROWS)]
        errors += _errors(rows[fitted], rows[test], weight, share[test])
    alpha, headroom = np.unravel_index(errors.argmin(), errors.shape)
    factor = smoothing(rows, weight, ALPHAS[alpha])
    return Range(factor, *full_range(rows * factor, HEADROOMS[headroom]))


def _errors(fitted: Array, test: Array, weight: Array, share: Array) -> Array:
    """Errors on `test` of ranges chosen on `fitted`, float64 (alphas, headrooms)."""
    errors = np.zeros((len(ALPHAS), len(HEADROOMS)))
    extremes = np.stack([fitted.min(0), fitted.max(0)])
    for i, alpha in enumerate(ALPHAS):
        factor = smoothing(fitted, weight, alpha)
        cost = np.square(weight / factor[:, None]).sum(1)
        smooth = test * factor
        for j, headroom in enumerate(HEADROOMS):
            found = fake_quantize(smooth, *full_range(extremes * factor, headroom))
            errors[i, j] = (np.square(smooth - found) @ cost) @ share
    return errors


def full_range(rows: Array, headroom: float = 1.0) -> tuple[np.float32, np.uint8]:
    """(scale, zero point) of the u8 range that covers all of `rows`, zero included."""
    low, high = min(float(rows.min()), 0.0), max(float(rows.max()), 1e-6)
    scale = np.float32((high - low) * headroom / 255)
    return scale, np.uint8(np.rint(-low * headroom / scale))


def fake_quantize(rows: Array, scale: np.float32, zero_point: np.uint8) -> Array:
    """`rows` after QuantizeLinear and back, float32."""
    values = rows / scale
    np.rint(values, out=values)  # in place: rows may take hundreds of megabytes
    values += np.float32(zero_point)
    np.clip(values, 0, 255, out=values)
    values -= np.float32(zero_point)
    values *= scale
    return values


def smoothing(rows: Array, weight: Array, alpha: float) -> Array:
    """Per-channel factor float32 (K,) of an activation, and divisor of its weight's rows.

    1 / s of s = max|x|^alpha / max|w|^(1 - alpha): Xiao et al., 2022, equation 4,
    https://arxiv.org/abs/2211.10438. A channel that is small in the samples may be large in another
    text, so max|x| has a floor: without it, on held-back texts, all-mpnet-base-v2 clips 10 percent
    of the tokens that a GELU puts out.
    """
    large = np.maximum(np.abs(rows).max(0), 1e-5)
    large = np.maximum(large, np.quantile(large, FLOOR))
    heavy = np.maximum(np.abs(weight).max(1), 1e-5)
    scale = large**alpha / heavy ** (1 - alpha)
    return round_to_fp16(np.asarray(np.exp(np.log(scale).mean()) / scale, np.float32))
