"""What a search has found, as the command shows it: rows, or documents by their best passages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedge.corpus.documents import DocumentMatch, search_documents
from embedge.corpus.rows import Id
from embedge.corpus.search import Match, Progress, search
from embedge.corpus.vectors import StoredVectors, pick
from embedge.explain import Share
from embedge.similarity import Vectors


@dataclass(frozen=True)
class Found:
    """One match.

    Attributes:
        score: by which it is ranked.
        cosine: of the query and the text that is shown: part of the score, or all of it.
        key: its id.
        text: the row's, or the best passage's; None where it is not known.
        fields: all this and its place, for JSON.
        words: their shares of the cosine; None where nobody asked.
    """

    score: float
    cosine: float
    key: Id
    text: str | None
    fields: dict[str, Any]
    words: tuple[Share, ...] | None = None


def find_rows(
    queries: Vectors, vectors: StoredVectors, top: int, progress: Progress
) -> list[list[Found]]:
    """The rows most like each query, best first."""
    found = search(queries, vectors, top, progress)
    rows = vectors.find(_rows(found))

    def show(match: Match) -> Found:
        key, text = rows[match.row]
        fields = {"score": match.score, "row": match.row, "id": key, "text": text}
        return Found(match.score, match.score, key, text, fields)

    return [[show(match) for match in matches] for matches in found]


def find_documents(
    queries: Vectors, vectors: StoredVectors, top: int, progress: Progress
) -> list[list[Found]]:
    """The documents most like each query, best first, each with its best passage."""
    found = search_documents(queries, vectors, top, progress)
    rows = vectors.find(_rows(found))
    places = {} if vectors.places is None else dict(pick(vectors.places(), _rows(found)))

    def show(match: DocumentMatch) -> Found:
        (key, text), place = rows[match.row], places[match.row]
        fields = {
            "score": match.score,
            "best_passage": match.best_passage,
            "document": match.document,
            "row": match.row,
            "id": key,
            "passage": place.passage,
            "start": place.start,
            "end": place.end,
            "text": text,
        }
        return Found(match.score, match.best_passage, key, text, fields)

    return [[show(match) for match in matches] for matches in found]


def _rows(found: Sequence[Sequence[Match | DocumentMatch]]) -> list[int]:
    return sorted({match.row for matches in found for match in matches})
