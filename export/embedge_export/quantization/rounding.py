"""Numbers to eight bits: saturation-safe weights, and ranges of activations.

x86 CPUs without VNNI multiply u8 by s8 with `vpmaddubsw`, which adds the products of two
neighbouring rows of the weight, (0, 1), (2, 3), ..., in 16 signed bits and saturates. With
activations up to 255 no sum can leave 16 bits if the positive weights of each pair add up to at
most 128 and the negative ones to at least -128: 128 * 255 = 32640. A weight whose pairs all hold to
that is called saturation-safe: its product is exact on every CPU. It costs a fraction of a bit
where 7-bit weights cost a whole one.
"""

from __future__ import annotations

import numpy as np

from embedge.errors import ExportError
from embedge_export.graph.ir import Array

PAIR_LIMIT = 128
DAMPINGS = (0.01, 0.1, 1.0)  # of the mean moment; the first that works is taken
BLOCK = 64  # rows of a weight rounded before the rest is updated
SHRINKS = tuple(1 - 0.025 * i for i in range(17))


def search_scales(weight: Array, importance: Array) -> Array:
    """Scale float32 (N,) of weight float32 (K, N) for the least squared error of each column.

    Rows count by importance (K,), the mean square of their activation.
    """
    padded = np.concatenate([weight, np.zeros((len(weight) % 2, weight.shape[1]), np.float32)])
    pairs = padded.reshape(-1, 2, weight.shape[1])
    sums = np.maximum(np.maximum(pairs, 0).sum(1), np.maximum(-pairs, 0).sum(1)).max(0)
    full = np.maximum(np.abs(weight).max(0) / 127, sums / PAIR_LIMIT)
    full = np.where(full > 0, full, 1).astype(np.float32)
    best = np.full(weight.shape[1], np.inf)
    scales = full
    for shrink in SHRINKS:
        trial = full * np.float32(shrink)
        error = weight - saturation_safe(np.rint(weight / trial)) * trial
        cost = importance @ (error * error)
        scales = np.where(cost < best, trial, scales)
        best = np.minimum(cost, best)
    return round_to_fp16(scales)


def gptq(weight: Array, scales: Array, moments: Array) -> Array:
    """Round weight float32 (K, N) with scales (N,) to int8 (K, N), row by row, saturation-safe.

    The rows that follow make up for the error of each, by the second moments X^T X (K, K) of the
    activation: GPTQ (Frantar et al., 2022, https://arxiv.org/abs/2210.17323), algorithm 1.
    """
    size = len(weight)
    upper = _inverse_root(moments)
    left = weight / scales
    values = np.zeros_like(left)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.zeros_like(left[start:stop])
        for row in range(start, stop):
            value = np.clip(np.rint(left[row]), -127, 127)
            if row % 2:
                before = values[row - 1]
                room = np.where(value * before > 0, PAIR_LIMIT - np.abs(before), 127)
                value = np.clip(value, -room, room)
            values[row] = value
            error = (left[row] - value) / upper[row, row]
            left[row + 1 : stop] -= np.outer(upper[row, row + 1 : stop], error)
            errors[row - start] = error
        left[stop:] -= upper[start:stop, stop:].T @ errors
    return values.astype(np.int8)


def _inverse_root(moments: Array) -> Array:
    """U, upper triangular float32 (K, K), with U^T U = (moments + damping)^-1.

    Moments of a wide activation that hardly varies are singular but for rounding errors, which may
    make them indefinite; they get more damping.
    """
    size = len(moments)
    for damping in DAMPINGS if np.isfinite(moments).all() else ():
        damped = moments.astype(np.float64)
        damped[np.diag_indices(size)] += damping * np.trace(damped) / size + 1e-12
        try:
            root = np.linalg.cholesky(np.linalg.inv(damped))
        except np.linalg.LinAlgError:
            continue
        return np.asarray(root.T, np.float32)
    raise ExportError("quantize", "an activation is not finite on the calibration texts")


def saturation_safe(values: Array) -> Array:
    """The nearest whole numbers to `values` (K, N) for which no pair of rows can saturate."""
    values = np.clip(values, -127, 127)
    even, odd = values[0 : values.shape[0] // 2 * 2 : 2], values[1::2]  # views
    excess = np.where(even * odd > 0, np.maximum(np.abs(even + odd) - PAIR_LIMIT, 0), 0)
    first = np.floor(excess / 2)
    even -= np.sign(even) * first
    odd -= np.sign(odd) * (excess - first)
    return values


def full_range(rows: Array) -> tuple[np.float32, np.uint8]:
    """(scale, zero point) of the u8 range that covers all of `rows`, zero included.

    Narrower ranges have less error on the samples, and clip text that is unlike them.
    """
    low, high = min(float(rows.min()), 0.0), max(float(rows.max()), 1e-6)
    scale = np.float32((high - low) / 255)
    return scale, np.uint8(np.rint(-low / scale))


def round_to_fp16(values: Array, smallest: float = 2.0**-14) -> Array:
    """Round float32 values to what float16 holds; those outside its range are kept.

    Scales and biases need no more digits, and the file gets smaller: `tables.store_as_fp16`.
    Below 2**-14 float16 loses digits: that matters for a factor, not for a term.
    """
    size = np.abs(values)
    rounded = np.where(size < 2.0**15, values, 0).astype(np.float16).astype(np.float32)
    return np.where((size >= smallest) & (size < 2.0**15), rounded, values)


def fake_quantize(rows: Array, scale: np.float32, zero: np.uint8) -> Array:
    """`rows` after QuantizeLinear and back, float32."""
    values = rows / scale
    np.rint(values, out=values)  # in place: rows may take hundreds of megabytes
    values += np.float32(zero)
    np.clip(values, 0, 255, out=values)
    values -= np.float32(zero)
    values *= scale
    return values


def smoothing(rows: Array, weight: Array, alpha: float) -> Array:
    """Per-channel factor float32 (K,) of an activation, and divisor of its weight's rows.

    1 / s of s = max|x|^alpha / max|w|^(1 - alpha): Xiao et al., 2022, equation 4,
    https://arxiv.org/abs/2211.10438.
    """
    large = np.maximum(np.abs(rows).max(0), 1e-5)
    heavy = np.maximum(np.abs(weight).max(1), 1e-5)
    scale = large**alpha / heavy ** (1 - alpha)
    return round_to_fp16(np.asarray(np.exp(np.log(scale).mean()) / scale, np.float32))
