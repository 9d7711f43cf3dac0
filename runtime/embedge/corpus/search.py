"""Exact search and near-duplicates over stored vectors: blocked products, bounded memory.

A float32 matrix product of a whole block says which pairs could matter, with a margin for its
rounding, which depends on the block's shape. Those pairs are computed again in float64, row by
row, so that scores and their order depend on the two vectors only, and equal vectors tie exactly.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.corpus.vectors import RowFile, StoredVectors, no_room, temporary
from embedge.errors import CorpusError, OptionError
from embedge.similarity import Vectors, similarity

Scores = NDArray[np.float64]
Rows = NDArray[np.intp]
Progress = Callable[[int, int], None]  # called with the work done and the total

# Far above the rounding of a float32 product of unit vectors, far below any relevant difference.
MARGIN = 1e-4
_SEARCH_BLOCK = 16384
_QUERIES_AT_ONCE = 256
_PAIR_BLOCK = 2048
_PAIR_ROWS = 128  # of a block, whose pairs are listed at a time
_EXACT_AT_ONCE = 8192  # pairs


@dataclass(frozen=True)
class Match:
    """One row that is like a query; a larger score is more alike."""

    row: int
    score: float


@dataclass
class _Best:
    """The best rows of one query so far, best first."""

    rows: Rows
    scores: Scores

    def add(self, rows: Rows, scores: Scores, top: int) -> None:
        """Keep the ``top`` best of these rows and those so far; ties in the order of the rows."""
        rows, scores = np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores])
        order = np.lexsort((rows, -scores))[:top]
        self.rows, self.scores = rows[order], scores[order]

    def matches(self) -> list[Match]:
        """The rows as what `search` returns."""
        pairs = zip(self.rows, self.scores, strict=True)
        return [Match(int(row), float(score)) for row, score in pairs]


def search(
    queries: Vectors, vectors: StoredVectors, top: int = 10, progress: Progress | None = None
) -> list[list[Match]]:
    """The ``top`` rows most like each query, best first; ties in the order of their rows.

    Args:
        queries: float32 (queries, dim).
        vectors: what is searched, at its stored precision; queries keep theirs.
        top: how many rows; memory grows with it and with the queries, and not with the vectors.
        progress: is called with the rows done and the total.

    Returns:
        A list for each query, of min(top, rows) matches.

    Raises:
        OptionError: ``top`` is below 1, or the queries have another dim.
        CorpusError: a row holds values that are not finite.
    """
    check_top(top)
    best = [_Best(np.empty(0, np.intp), np.empty(0)) for _ in queries]
    for start in range(0, len(vectors), _SEARCH_BLOCK):
        block = vectors.block(start, _SEARCH_BLOCK)  # (block, dim)
        longest = longest_of(block, start)
        for first in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[first : first + _QUERIES_AT_ONCE]
            margin = MARGIN * longest * longest_of(some, first, "query")
            rough = similarity(some, block, vectors.similarity)  # (queries, block)
            for i, query in enumerate(some):
                found = best[first + i]
                near = near_best(rough[i], found.scores, top, margin)
                exact = exact_scores(
                    query[None], block, np.zeros_like(near), near, vectors.similarity
                )
                found.add(start + near, exact, top)
        if progress:
            progress(min(start + _SEARCH_BLOCK, len(vectors)), len(vectors))
    return [found.matches() for found in best]


def check_top(top: int) -> None:
    """Raise OptionError where ``top`` is below 1."""
    if top < 1:
        raise OptionError(f"expected a top of 1 or more, got {top}")


def check_threshold(threshold: float, measure: str) -> None:
    """Raise OptionError where no similarity by ``measure`` can be ``threshold``."""
    if not isfinite(threshold) or (measure == "cosine" and not -1 <= threshold <= 1):
        raise OptionError(
            f"expected a threshold from -1 to 1, got {threshold}; for 95 percent give 0.95"
        )


def near_best(rough: Vectors, best: Scores, top: int, margin: float) -> Rows:
    """Rows of a block that may be among the best of one query."""
    if len(best) == top:
        return np.flatnonzero(rough >= best[-1] - margin)
    if len(rough) > top:
        return np.flatnonzero(rough >= np.partition(rough, -top)[-top] - 2 * margin)
    return np.arange(len(rough))


def duplicates(
    vectors: StoredVectors, threshold: float, progress: Progress | None = None
) -> list[list[int]]:
    """Groups of rows that are near-duplicates.

    Two rows belong to one group if their similarity is ``threshold`` or more, or if a chain of such
    pairs leads from one to the other. Equal rows are found by their hash; all pairs of the others
    are compared, so that the time grows with the square of their number. Memory does not grow with
    the size of the groups.

    Args:
        vectors: what is compared, at its stored precision.
        threshold: for cosine from -1 to 1.
        progress: is called with the pairs done and the total.

    Returns:
        Groups of two rows or more, each in ascending order, by their first rows.

    Raises:
        OptionError: the threshold is out of range.
        CorpusError: a row holds values that are not finite.
    """
    check_threshold(threshold, vectors.similarity)
    leader = _equal_rows(vectors, threshold)  # of each row: a lower row of its group, or itself
    distinct = np.flatnonzero(leader == np.arange(len(vectors)))
    with _only(vectors, distinct) as rest:
        own = np.arange(len(distinct))
        for i, j in _pairs(rest, threshold, own, progress):
            _unite(own, i, j)
    leader[distinct] = distinct[_leaders(own, own)]
    leader = _leaders(leader, leader)
    order = np.argsort(leader, kind="stable")
    starts = np.flatnonzero(np.diff(leader[order], prepend=-1))
    groups = np.split(order, starts[1:]) if len(order) else []
    return [group.tolist() for group in groups if len(group) > 1]


def _equal_rows(vectors: StoredVectors, threshold: float) -> Rows:
    """The first row that is equal to each row, where such rows are near-duplicates."""
    hashes = np.empty((len(vectors), 2), np.uint64)
    alike = np.empty(len(vectors), np.bool_)  # to itself: not so for zeros, or by the dot product
    for start in range(0, len(vectors), _PAIR_BLOCK):
        block = vectors.block(start, _PAIR_BLOCK)
        longest_of(block, start)
        part = slice(start, start + len(block))
        digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in block)
        hashes[part] = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
        own = np.arange(len(block))
        alike[part] = exact_scores(block, block, own, own, vectors.similarity) >= threshold
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal rows stay in their order
    ordered = hashes[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    leader = np.empty(len(order), np.intp)
    leader[order] = order[np.flatnonzero(is_first)][np.cumsum(is_first) - 1]
    return np.where(alike, leader, np.arange(len(order)))


@contextmanager
def _only(vectors: StoredVectors, rows: Rows) -> Iterator[StoredVectors]:
    """Some rows of stored vectors, in a temporary file unless they are all."""
    if len(rows) == len(vectors):
        yield vectors
        return
    with temporary() as stream:
        for start in range(0, len(vectors), _PAIR_BLOCK):
            block = vectors.block(start, _PAIR_BLOCK)
            first, end = np.searchsorted(rows, (start, start + len(block)))
            with no_room():
                stream.write(block[rows[first:end] - start].tobytes())
        shape = (len(rows), vectors.dim)
        kept = RowFile(stream, 0, shape, np.dtype(np.float32))
        yield StoredVectors(kept, vectors.dim, "float32", vectors.similarity)


def _pairs(
    vectors: StoredVectors, threshold: float, leader: Rows, progress: Progress | None
) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of rows i < j at or above the threshold, of different groups, some at a time."""
    done, count = 0, len(vectors)
    for first in range(0, count, _PAIR_BLOCK):
        a = vectors.block(first, _PAIR_BLOCK)
        longest = longest_of(a, first)
        for second in range(first, count, _PAIR_BLOCK):
            b = a if second == first else vectors.block(second, _PAIR_BLOCK)
            margin = MARGIN * longest * longest_of(b, second)
            rough = similarity(a, b, vectors.similarity)  # (a, b)
            near = rough >= threshold - margin
            for top in range(0, len(a), _PAIR_ROWS):
                i, j = np.nonzero(near[top : top + _PAIR_ROWS])
                i += top
                # Rows that are in one group by now need not be compared.
                apart = leader[first + i] != leader[second + j]
                if second == first:
                    apart &= i < j
                i, j = i[apart], j[apart]
                sure = rough[i, j] > threshold + margin
                unsure = np.flatnonzero(~sure)
                exact = exact_scores(a, b, i[unsure], j[unsure], vectors.similarity)
                sure[unsure] = exact >= threshold
                if sure.any():
                    yield first + i[sure], second + j[sure]
            done += len(a) * len(b) if second > first else len(a) * (len(a) - 1) // 2
            if progress:
                progress(done, count * (count - 1) // 2)


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
        leader[i], leader[j] = a, b  # path compression
        apart = a != b
        if not apart.any():
            return
        i, j = i[apart], j[apart]
        low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(leader, high, low)


def longest_of(vectors: Vectors, first: int, what: str = "row") -> float:
    """Length of the longest vector; raises CorpusError for one that is not finite."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    if not np.isfinite(squares).all():
        bad = first + int(np.argmin(np.isfinite(squares)))
        raise CorpusError(
            f"{what} {bad} holds values that are not finite, or too large; make the vectors again"
        )
    return float(np.sqrt(squares.max(initial=1)))


def exact_scores(a: Vectors, b: Vectors, i: Rows, j: Rows, measure: str) -> Scores:
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
