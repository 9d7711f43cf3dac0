"""Search over documents: the best passage and the whole, compared with all scores computed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedge import Encoder, OptionError
from embedge.corpus import (
    DocumentMatch,
    PassageOptions,
    Place,
    RowOptions,
    StoredVectors,
    documents,
    embed_now,
    open_vectors,
    search_documents,
)

from .conftest import MakeCorpus, embed_corpus

pytestmark = pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")


def stored(sizes: Sequence[int], wholes: bool, seed: int = 0) -> StoredVectors:
    """Random unit vectors of documents with so many passages; all ids are equal."""
    rows: list[Place] = []
    for size in sizes:
        rows += [Place("id", None, 0, 9)] * wholes
        rows += [Place("id", number, 0, 1) for number in range(size)]
    vectors = np.random.default_rng(seed).normal(size=(len(rows), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def places() -> Iterator[Place]:
        return iter(rows)

    return StoredVectors(vectors, 8, places=places)


def expected(
    queries: np.ndarray, vectors: StoredVectors, sizes: Sequence[int], wholes: bool
) -> list[list[tuple[int, float]]]:
    """Best passage's row and score of all documents, by NumPy."""
    found = []
    for scores in queries.astype(np.float64) @ np.asarray(vectors.rows, np.float64).T:
        row, ranked = 0, []
        for size in sizes:
            first = row + wholes
            best = first + int(np.argmax(scores[first : first + size]))
            ranked.append((best, scores[best] + (scores[row] if wholes else 0)))
            row = first + size
        found.append(sorted(ranked, key=lambda item: -item[1]))
    return found


@pytest.mark.parametrize("wholes", [False, True])
@pytest.mark.parametrize("block", [3, 16, 16384])
def test_agrees_with_a_direct_computation(
    wholes: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_BLOCK", block)
    monkeypatch.setattr(documents, "_QUERIES_AT_ONCE", 2)
    sizes = [1, 4, 2, 7, 1, 3, 5, 2, 2, 1, 9]
    vectors = stored(sizes, wholes)
    queries = np.asarray(stored([5], False, seed=1).rows)
    seen: list[tuple[int, int]] = []
    found = search_documents(queries, vectors, 4, lambda done, total: seen.append((done, total)))
    wanted = expected(queries, vectors, sizes, wholes)
    for matches, ranked in zip(found, wanted, strict=True):
        assert [match.row for match in matches] == [row for row, _ in ranked[:4]]
        np.testing.assert_allclose([m.score for m in matches], [s for _, s in ranked[:4]], 1e-6)
        assert all((match.document is not None) == wholes for match in matches)
    assert seen[-1] == (len(vectors), len(vectors))


def test_ties_are_in_the_order_of_rows() -> None:
    vectors = stored([2] * 40, True)
    rows = np.tile(np.asarray(vectors.rows)[:3], (40, 1))
    found = search_documents(np.asarray(rows[:1]), replace(vectors, rows=rows), 5)[0]
    assert [match.row // 3 for match in found] == [0, 1, 2, 3, 4]
    assert len({match.score for match in found}) == 1


def test_a_document_that_lacks_one_of_both() -> None:
    places = [Place(0, None, 0, 2), Place(0, 0, 0, 2), Place(1, 0, 0, 2), Place(2, None, 0, 2)]
    angles = np.array([0.0, 0.2, 0.1, 0.3])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    vectors = StoredVectors(rows, 2, places=lambda: iter(places))
    (found,) = search_documents(np.array([[1, 0]], np.float32), vectors)
    cos = np.cos(angles)
    scores = {1: cos[0] + cos[1], 2: 2 * cos[2], 3: 2 * cos[3]}
    assert [match.row for match in found] == sorted(scores, key=lambda row: -scores[row])
    for match in found:
        assert match.score == pytest.approx(scores[match.row], abs=1e-6)
    assert found[0].document is None or found[1].document is None


def test_stored_and_encoded_now_give_the_same(
    encoder: Encoder, corpus: MakeCorpus, tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {"d.txt": "\n".join(["a b c " * 9, "b b a", "c c a b " * 8])}
    options = PassageOptions(tokens=12, with_document=True)
    query = encoder.encode_query(["c c"])
    found: list[list[DocumentMatch]] = []
    places: list[list[Place]] = []
    with embed_now(encoder, corpus(files), RowOptions(passages=options)) as vectors:
        found += search_documents(query, vectors)
        assert vectors.places is not None
        places.append(list(vectors.places()))
    for name in ("v.jsonl", "v.parquet", "v.arrow"):
        if name != "v.jsonl":
            pytest.importorskip("pyarrow", reason="needs embedge[corpus]")
        embed_corpus(encoder, corpus(files), tmp_path / name, passages=options)
        with open_vectors(tmp_path / name) as vectors:
            found += search_documents(query, vectors)
            assert vectors.places is not None
            places.append(list(vectors.places()))
    assert len(found[0]) == 3
    assert all(other == found[0] for other in found)
    assert all(other == places[0] for other in places)


def test_what_cannot_be_searched_by_documents_is_refused() -> None:
    rows = np.eye(2, dtype=np.float32)
    with pytest.raises(OptionError, match=r"not those of passages; make them with embedge embed"):
        search_documents(rows, StoredVectors(rows, 2))
    with pytest.raises(OptionError, match=r"a top of 1 or more, got 0"):
        search_documents(np.eye(8, dtype=np.float32), stored([1], True), 0)
