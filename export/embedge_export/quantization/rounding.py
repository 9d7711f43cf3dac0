"""Weights to eight bits, saturation-safe.

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


def round_to_fp16(values: Array, smallest: float = 2.0**-14) -> Array:
    """Round float32 values to what float16 holds; those outside its range are kept.

    Scales and biases need no more digits, and the file gets smaller: `tables.store_as_fp16`.
    Below 2**-14 float16 loses digits: that matters for a factor, not for a term.
    """
    size = np.abs(values)
    rounded = np.where(size < 2.0**15, values, 0).astype(np.float16).astype(np.float32)
    return np.where((size >= smallest) & (size < 2.0**15), rounded, values)
