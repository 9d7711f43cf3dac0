"""Exact search and near-duplicates over stored vectors: blocked products, bounded memory.

A float32 matrix product of a whole block says which pairs could matter, with a margin for its
rounding, which depends on the block's shape. Those pairs are computed again in float64, row by
row, so that scores and their order depend on the two vectors only, and equal vectors tie exactly.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.corpus.vectors import StoredVectors
from embedge.errors import OptionError
from embedge.similarity import Vectors, similarity

Scores = NDArray[np.float64]
Rows = NDArray[np.intp]

# Far above the rounding of a float32 product of unit vectors, far below a difference that matters.
_MARGIN = 1e-4
_SEARCH_BLOCK = 16384
_PAIR_BLOCK = 2048
_EXACT_AT_ONCE = 8192  # pairs


@dataclass(frozen=True)
class Match:
    """One row that is like a query; a larger score is more alike."""

    row: int
    score: float


def search(queries: Vectors, vectors: StoredVectors, top: int = 10) -> list[list[Match]]:
    """The ``top`` rows most like each query, best first; ties in the order of their rows.

    Args:
        queries: float32 (queries, dim).
        vectors: what is searched, at its stored precision; queries keep theirs.
        top: how many rows; memory grows with it, and not with the vectors.

    Returns:
        A list for each query, of min(top, rows) matches.

    Raises:
        OptionError: ``top`` is below 1, or the queries have another dim.
    """
    if top < 1:
        raise OptionError(f"top should be 1 or more, but is {top}")
    rows: list[Rows] = [np.empty(0, np.intp)] * len(queries)
    scores: list[Scores] = [np.empty(0)] * len(queries)
    for start in range(0, len(vectors), _SEARCH_BLOCK):
        block = vectors.block(start, _SEARCH_BLOCK)  # (block, dim)
        rough = similarity(queries, block, vectors.similarity)  # (queries, block)
        margin = _margin(queries, block)
        for i, query in enumerate(queries):
            near = np.arange(len(block))
            if len(scores[i]) == top:
                near = np.flatnonzero(rough[i] >= scores[i][-1] - margin)
            elif len(block) > top:
                near = np.flatnonzero(rough[i] >= np.partition(rough[i], -top)[-top] - 2 * margin)
            exact = _exact(query[None], block, np.zeros_like(near), near, vectors.similarity)
            all_rows = np.concatenate([rows[i], start + near])
            all_scores = np.concatenate([scores[i], exact])
            best = np.lexsort((all_rows, -all_scores))[:top]
            rows[i], scores[i] = all_rows[best], all_scores[best]
    return [
        [Match(int(row), float(score)) for row, score in zip(*found, strict=True)]
        for found in zip(rows, scores, strict=True)
    ]


def duplicates(vectors: StoredVectors, threshold: float) -> list[list[int]]:
    """Groups of rows that are near-duplicates.

    Two rows belong to one group if their similarity is ``threshold`` or more, or if a chain of such
    pairs leads from one to the other. All pairs of rows are compared.

    Args:
        vectors: what is compared, at its stored precision.
        threshold: for cosine from -1 to 1.

    Returns:
        Groups of two rows or more, each in ascending order, by their first rows.
    """
    leader = np.arange(len(vectors))  # of each row: a lower row of its group, or itself
    for i, j in _pairs(vectors, threshold):
        _unite(leader, i, j)
    leader = _leaders(leader, np.arange(len(vectors)))
    order = np.argsort(leader, kind="stable")
    starts = np.flatnonzero(np.diff(leader[order], prepend=-1))
    groups = np.split(order, starts[1:]) if len(order) else []
    return [group.tolist() for group in groups if len(group) > 1]


def _pairs(vectors: StoredVectors, threshold: float) -> Iterator[tuple[Rows, Rows]]:
    """All pairs of rows i < j at or above the threshold, in blocks."""
    measure = vectors.similarity
    for first in range(0, len(vectors), _PAIR_BLOCK):
        a = vectors.block(first, _PAIR_BLOCK)
        for second in range(first, len(vectors), _PAIR_BLOCK):
            b = a if second == first else vectors.block(second, _PAIR_BLOCK)
            rough = similarity(a, b, measure)  # (a, b)
            margin = _margin(a, b)
            i, j = np.nonzero(rough >= threshold - margin)
            if second == first:
                i, j = i[i < j], j[i < j]
            sure = rough[i, j] > threshold + margin
            unsure = np.flatnonzero(~sure)
            sure[unsure] = _exact(a, b, i[unsure], j[unsure], measure) >= threshold
            yield first + i[sure], second + j[sure]


def _leaders(leader: Rows, rows: Rows) -> Rows:
    """The lowest row that can be reached from each of ``rows``."""
    found = leader[rows]
    while True:
        further = leader[found]
        if np.array_equal(further, found):
            return found
        found = further


def _unite(leader: Rows, i: Rows, j: Rows) -> None:
    """Make one group of the groups of i[n] and j[n], for every n."""
    while True:
        a, b = _leaders(leader, i), _leaders(leader, j)
        leader[i], leader[j] = a, b  # shorter ways for the next time
        apart = a != b
        if not apart.any():
            return
        i, j = i[apart], j[apart]
        low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(leader, high, low)


def _margin(a: Vectors, b: Vectors) -> float:
    """More than the rounding of the similarities of these vectors in float32."""
    lengths = [float(np.sqrt(np.einsum("ij,ij->i", v, v).max(initial=1))) for v in (a, b)]
    return _MARGIN * lengths[0] * lengths[1]


def _exact(a: Vectors, b: Vectors, i: Rows, j: Rows, measure: str) -> Scores:
    """Similarity of a[i[n]] and b[j[n]] for every n, in float64."""
    scores = np.empty(len(i))
    for start in range(0, len(i), _EXACT_AT_ONCE):
        part = slice(start, start + _EXACT_AT_ONCE)
        x, y = a[i[part]].astype(np.float64), b[j[part]].astype(np.float64)
        scores[part] = _MEASURES[measure](x, y)
    return scores


def _cosine(x: Scores, y: Scores) -> Any:
    # The root of a square is exact: equal vectors have a cosine of exactly 1.
    squares = (x * x).sum(1) * (y * y).sum(1)
    return (x * y).sum(1) / np.maximum(np.sqrt(squares), 1e-30)


_MEASURES: dict[str, Callable[[Scores, Scores], Any]] = {
    "cosine": _cosine,
    "dot": lambda x, y: (x * y).sum(1),
    "euclidean": lambda x, y: -np.sqrt(((x - y) ** 2).sum(1)),
    "manhattan": lambda x, y: -np.abs(x - y).sum(1),
}
