"""Exact search over documents of which each passage has a vector.

A document's score is the cosine of its best passage plus that of the whole document, where that has
a vector. A passage's vector lacks what its document is about; the vector of a whole document lacks
detail.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embedge.corpus.search import (
    MARGIN,
    Progress,
    Rows,
    check_top,
    exact_scores,
    longest_of,
    near_best,
)
from embedge.corpus.vectors import StoredVectors
from embedge.errors import OptionError
from embedge.similarity import Vectors, similarity

_BLOCK = 16384  # rows that are compared at a time
_QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class DocumentMatch:
    """One document that is like a query.

    Attributes:
        row: of its best passage; the document's own where it has no other.
        score: best_passage + document, or twice the one that there is where only some documents
            have both.
        best_passage: similarity of the best passage.
        document: similarity of the whole document; None where it has no vector.
    """

    row: int
    score: float
    best_passage: float
    document: float | None


@dataclass(frozen=True)
class Documents:
    """Which rows belong to one document.

    Attributes:
        starts: the first row of each document, and the number of rows: (documents + 1,).
        wholes: the row of the whole document, -1 where it has none: (documents,).
    """

    starts: Rows
    wholes: Rows

    def spans(self) -> Iterator[tuple[int, int]]:
        """Consecutive documents (first, end) of at most _BLOCK rows, or one larger document."""
        first, count = 0, len(self.wholes)
        while first < count:
            most = self.starts[first] + _BLOCK
            end = max(first + 1, int(np.searchsorted(self.starts, most, side="right")) - 1)
            yield first, end
            first = end


def find_documents(vectors: StoredVectors) -> Documents:
    """Group rows: a document is a run of one id, whole document first, then passages in order.

    Raises:
        OptionError: the vectors are not those of passages.
    """
    if vectors.places is None:
        raise OptionError(
            "the vectors are not those of passages; make them with embedge embed --passages "
            "--with-document"
        )
    starts, wholes = array("q"), array("q")
    key, before = None, -1
    for row, place in enumerate(vectors.places()):
        number = -1 if place.passage is None else place.passage
        if row == 0 or place.id != key or number <= before:
            starts.append(row)
            wholes.append(row if place.passage is None else -1)
        key, before = place.id, number
    starts.append(len(vectors))
    return Documents(np.array(starts, np.intp), np.array(wholes, np.intp))


def search_documents(
    queries: Vectors, vectors: StoredVectors, top: int = 10, progress: Progress | None = None
) -> list[list[DocumentMatch]]:
    """The ``top`` documents most like each query, best first; ties in the order of their rows.

    Args:
        queries: float32 (queries, dim).
        vectors: of passages, and of whole documents where there are; at their stored precision.
        top: how many documents; memory grows with it, with the queries, and by 16 bytes a document.
        progress: is called with the rows done and all rows.

    Returns:
        A list for each query, of min(top, documents) matches.

    Raises:
        OptionError: ``top`` is below 1, or the vectors are not those of passages.
        CorpusError: a row holds values that are not finite.
    """
    check_top(top)
    documents = find_documents(vectors)
    best: list[list[DocumentMatch]] = [[] for _ in queries]
    longest = longest_of(queries, 0, "query")
    for first, end in documents.spans():
        span = _Span(vectors, documents, first, end)
        for i, near in enumerate(span.candidates(queries, longest, best, top)):
            found = [span.match(queries[i], number) for number in near]
            # Stable: those found before stand in front, and are of lower rows.
            best[i] = sorted([*best[i], *found], key=lambda match: -match.score)[:top]
        if progress:
            progress(int(documents.starts[end]), len(vectors))
    return best


class _Span:
    """Some consecutive documents, whose rows are in memory unless it is one that is too large."""

    def __init__(self, vectors: StoredVectors, documents: Documents, first: int, end: int) -> None:
        self._vectors, self._documents = vectors, documents
        self._numbers = range(first, end)
        self._start = int(documents.starts[first])
        rows = int(documents.starts[end]) - self._start
        self._block = vectors.block(self._start, rows) if rows <= _BLOCK else None
        self._both = bool((documents.wholes >= 0).any())

    def candidates(
        self, queries: Vectors, longest: float, best: list[list[DocumentMatch]], top: int
    ) -> Iterator[Sequence[int]]:
        """The documents that may be among the best of each query, by a float32 product."""
        if self._block is None:
            yield from [self._numbers] * len(queries)
            return
        margin = 2 * MARGIN * longest * longest_of(self._block, self._start)
        documents, part = self._documents, slice(self._numbers.start, self._numbers.stop)
        starts = documents.starts[part] - self._start
        wholes = documents.wholes[part] - self._start
        has_whole = wholes >= 0
        for first in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[first : first + _QUERIES_AT_ONCE]
            rough = similarity(some, self._block, self._vectors.similarity)  # (queries, rows)
            whole = rough[:, wholes * has_whole]  # (queries, documents)
            rough[:, wholes[has_whole]] = -np.inf
            passage = np.maximum.reduceat(rough, starts, axis=1)
            passage = np.where(np.isinf(passage), whole, passage)
            scores = passage + np.where(has_whole, whole, passage) * self._both
            for i, row in enumerate(scores, first):
                known = np.array([match.score for match in best[i]])
                yield [self._numbers.start + int(n) for n in near_best(row, known, top, margin)]

    def match(self, query: Vectors, number: int) -> DocumentMatch:
        """The score of one document, in float64."""
        start, end = self._documents.starts[number : number + 2].tolist()
        whole = int(self._documents.wholes[number])
        row, passage, document = whole, -np.inf, None
        for first in range(start, end, _BLOCK):
            block = self._read(first, min(_BLOCK, end - first))
            own = np.arange(len(block))
            measure = self._vectors.similarity
            scores = exact_scores(query[None], block, np.zeros_like(own), own, measure)
            if first <= whole < first + len(block):
                document = float(scores[whole - first])
                scores[whole - first] = -np.inf
            highest = int(np.argmax(scores))
            if scores[highest] > passage:
                row, passage = first + highest, float(scores[highest])
        if row == whole and document is not None:
            passage = document
        other = passage if document is None else document
        return DocumentMatch(row, passage + other * self._both, passage, document)

    def _read(self, first: int, size: int) -> Vectors:
        if self._block is not None:
            return self._block[first - self._start : first - self._start + size]
        block = self._vectors.block(first, size)
        longest_of(block, first)
        return block
