import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import CorpusError, OptionError
from embedge.corpus.layout import LAYOUTS
from embedge.corpus.search import Match, duplicates, search
from embedge.corpus.vectors import StoredVectors
from embedge.similarity import SIMILARITIES, unit

module = importlib.import_module(search.__module__)  # the package has a function of that name

RANDOM = np.random.default_rng(0)
ROWS = 300


def vectors(
    values: Any, measure: str = "cosine", dtype: str = "float32", dim: int | None = None
) -> StoredVectors:
    values = np.asarray(values, np.float32)
    rows = LAYOUTS[dtype].store(values)
    return StoredVectors(rows, dim or values.shape[1], dtype, measure, lambda rows: {})


@pytest.fixture(params=[7, 64, 100_000])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks from a few rows to all rows; none may change a result."""
    monkeypatch.setattr(module, "_SEARCH_BLOCK", request.param)
    monkeypatch.setattr(module, "_PAIR_BLOCK", request.param)
    monkeypatch.setattr(module, "_EXACT_AT_ONCE", 5)
    return int(request.param)


def different(rows: int, dim: int = 24) -> Any:
    """Random unit vectors."""
    return unit(RANDOM.standard_normal((rows, dim)).astype(np.float32))


def some(rows: int = ROWS, dim: int = 24) -> Any:
    """Random unit vectors, a third of which are copies or near-copies of others."""
    values = different(rows, dim)
    values[rows // 2 : rows // 2 + rows // 6] = values[: rows // 6]
    noise = RANDOM.standard_normal((rows // 6, dim)).astype(np.float32) / 100
    values[-(rows // 6) :] = unit(values[: rows // 6] + noise)
    return values[RANDOM.permutation(rows)]


def pair_score(a: Any, b: Any, measure: str) -> float:
    """The similarity of two vectors, the slow way."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if measure == "cosine":
        return float(x @ y / np.sqrt((x @ x) * (y @ y)))
    if measure == "dot":
        return float(x @ y)
    return -float(np.linalg.norm(x - y, ord=2 if measure == "euclidean" else 1))


@pytest.mark.parametrize("measure", SIMILARITIES)
@pytest.mark.parametrize("top", [1, 10, 1000])
def test_search_is_brute_force(block: int, measure: str, top: int) -> None:
    values, queries = some(), different(5)
    if measure in ("dot", "euclidean"):  # lengths count
        values = values * RANDOM.uniform(0.5, 50, (ROWS, 1)).astype(np.float32)
    for query, found in zip(queries, search(queries, vectors(values, measure), top), strict=True):
        scores = [pair_score(query, value, measure) for value in values]
        expected = sorted(range(ROWS), key=lambda row: (-scores[row], row))[:top]
        assert [match.score for match in found] == pytest.approx([scores[row] for row in expected])
        # Rows of one score may be swapped by the last bit of the slow way, and by nothing else.
        for match, row in zip(found, expected, strict=True):
            assert match.row == row or scores[match.row] == pytest.approx(scores[row], abs=1e-12)


def test_equal_vectors_tie_and_come_in_the_order_of_their_rows(block: int) -> None:
    values = np.tile(different(7), (40, 1))[:271]
    (found,) = search(values[3:4], vectors(values), 39)
    assert [match.row for match in found] == list(range(3, 271, 7))
    assert {match.score for match in found} == {1.0}
    (fewer,) = search(values[3:4], vectors(values), 5)
    assert fewer == found[:5]


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_search_in_every_dtype(block: int, dtype: str) -> None:
    values = some()
    stored = vectors(values, dtype=dtype)
    loaded = stored.block(0, ROWS)
    (found,) = search(values[:1], stored, 3)
    scores = loaded @ values[0] / np.linalg.norm(loaded, axis=1)
    assert [match.score for match in found] == pytest.approx(sorted(scores)[:-4:-1], abs=1e-6)
    assert found[0].row == 0 or np.array_equal(stored.rows[found[0].row], stored.rows[0])


def test_search_by_hand() -> None:
    found = search(
        np.array([[1, 0], [0, -1]], np.float32), vectors([[0.6, 0.8], [0, 1], [1, 0]]), 2
    )
    scores = [[(match.row, round(match.score, 6)) for match in matches] for matches in found]
    assert scores == [[(2, 1.0), (0, 0.6)], [(2, 0.0), (0, -0.8)]]
    assert search(np.ones((1, 2), np.float32), vectors(np.empty((0, 2)))) == [[]]
    assert search(np.empty((0, 2), np.float32), vectors([[0, 1]])) == []
    assert found[0][0] == Match(2, 1.0)


def test_search_refuses_what_makes_no_sense() -> None:
    with pytest.raises(OptionError, match="expected a top of 1 or more, got 0"):
        search(np.ones((1, 2), np.float32), vectors([[0, 1]]), 0)
    with pytest.raises(OptionError, match=r"expected vectors of shape \(n, dim\)"):
        search(np.ones((1, 3), np.float32), vectors([[0, 1]]), 1)


def test_many_queries_are_searched_as_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUERIES_AT_ONCE", 3)
    stored, queries = vectors(some()), different(10)
    done: list[tuple[int, int]] = []
    found = search(queries, stored, 4, lambda *counts: done.append(counts))
    assert found == [search(query[None], stored, 4)[0] for query in queries]
    assert done == [(ROWS, ROWS)]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_row_that_is_not_finite_is_an_error(block: int, value: float) -> None:
    values = different(150)
    values[70, 3] = value
    message = "row 70 holds values that are not finite"
    with pytest.raises(CorpusError, match=message):
        search(values[:1], vectors(values), 3)
    with pytest.raises(CorpusError, match=message):
        duplicates(vectors(values), 0.9)
    with pytest.raises(CorpusError, match="query 1 holds values that are not finite"):
        search(values[69:71], vectors(values[:50]), 3)


@pytest.mark.parametrize("threshold", [95, 1.01, -2, float("nan"), float("inf")])
def test_an_invalid_threshold(threshold: float) -> None:
    with pytest.raises(OptionError, match=r"expected a threshold from -1 to 1, got .* give 0"):
        duplicates(vectors(different(3)), threshold)


def brute_force_groups(values: Any, threshold: float, measure: str) -> list[list[int]]:
    """Connected components, the slow way."""
    groups = [{row} for row in range(len(values))]
    for i in range(len(values)):
        for j in range(i):
            alike = np.array_equal(values[i], values[j]) and measure == "cosine" and threshold <= 1
            if alike or pair_score(values[i], values[j], measure) >= threshold:
                a, b = (next(group for group in groups if row in group) for row in (i, j))
                if a is not b:
                    a |= b
                    groups.remove(b)
    return sorted(sorted(group) for group in groups if len(group) > 1)


@pytest.mark.parametrize(
    ("measure", "threshold"),
    [
        ("cosine", 0.95),
        ("cosine", 0.5),
        ("cosine", 1.0),
        ("cosine", -1.0),
        ("dot", 0.95),
        ("euclidean", -0.2),
        ("manhattan", -0.3),
    ],
)
def test_duplicates_are_brute_force(block: int, measure: str, threshold: float) -> None:
    values = some(150)
    found = duplicates(vectors(values, measure), threshold)
    assert found == brute_force_groups(values, threshold, measure)
    if threshold == 1.0:
        assert len(found) == 25  # the exact copies


def test_a_chain_of_pairs_is_one_group(block: int) -> None:
    angles = RANDOM.permutation(np.arange(0, 200)) / 200
    values = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert duplicates(vectors(values), float(np.cos(0.0051))) == [list(range(200))]
    assert duplicates(vectors(values), float(np.cos(0.0049))) == []


def test_a_cosine_equal_to_the_threshold_is_enough() -> None:
    values = [[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, 0, -1]]  # 0.5, exactly
    assert duplicates(vectors(values), 0.5) == [[0, 1]]
    assert duplicates(vectors(values), float(np.nextafter(0.5, 1))) == []


def test_duplicates_of_nothing() -> None:
    assert duplicates(vectors(np.empty((0, 4))), 0.9) == []
    assert duplicates(vectors(np.ones((1, 4))), 0.9) == []


def test_thousands_of_equal_rows_are_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAIR_BLOCK", 512)
    assert duplicates(vectors(np.tile(different(1, 8), (3000, 1))), 1.0) == [list(range(3000))]


def test_equal_rows_are_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def counted(a: Any, b: Any, measure: str) -> Any:
        nonlocal compared
        compared += len(a) * len(b)
        return SIMILARITIES[measure](a, b)

    monkeypatch.setattr(module, "similarity", counted)
    values = np.tile(different(5, 8), (1000, 1))
    groups = [list(range(row, 5000, 5)) for row in range(5)]
    assert duplicates(vectors(values), 1.0) == groups
    assert compared == 25
    values[::5] = 0  # a row of zeros is like nothing, not even itself
    assert duplicates(vectors(values), 1.0) == groups[1:]


def test_progress_counts_all_pairs() -> None:
    done: list[tuple[int, int]] = []
    duplicates(vectors(different(5000, 4)), 1.0, lambda *counts: done.append(counts))
    assert len(done) == 6
    assert done[-1] == (5000 * 4999 // 2, 5000 * 4999 // 2)


def test_memory_does_not_grow_with_the_groups() -> None:
    import tracemalloc

    base, noise = different(1, 8), RANDOM.standard_normal((4096, 8)) / 1e4
    stored = vectors(unit((base + noise).astype(np.float32)))
    tracemalloc.start()
    assert duplicates(stored, 0.9) == [list(range(4096))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # a block of scores has 17 MB; all its pairs would have 67


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "v.npy"
    np.save(path, np.tile(some(100, 64), (1000, 1)))
    with mapped(path) as rows:
        stored = StoredVectors(rows, 64, "float32", "cosine", lambda rows: {})
        tracemalloc.start()
        search(np.ones((1, 64), np.float32), stored, 10)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20e6  # of a file of 25.6 MB


@contextmanager
def mapped(path: Path) -> Iterator[Any]:
    yield np.load(path, mmap_mode="r")
