from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedge import Encoder, OptionError
from embedge.similarity import SIMILARITIES, cosines, similarity, similarity_pairwise, unit

from . import tiny

LEFT = np.array([[3, 4], [0, 2]], np.float32)
RIGHT = np.array([[4, 3], [0, 1], [-3, -4]], np.float32)


def test_cosines_of_rows_by_hand() -> None:
    a = np.array([[3, 4], [1, 0], [0, 0], [np.inf, 1], [np.nan, 1]], np.float32)
    b = np.array([[4, 3], [0, 2], [1, 0], [1, 1], [1, 1]], np.float32)
    np.testing.assert_allclose(cosines(a, b), [24 / 25, 0, 0, np.nan, np.nan])


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        # (3*4 + 4*3) / (5*5), 4/5, -25/25; 3/5, 1, -4/5
        ("cosine", [[0.96, 0.8, -1], [0.6, 1, -0.8]]),
        ("dot", [[24, 4, -25], [6, 2, -8]]),
        # sqrt(1+1), sqrt(9+9), sqrt(36+64); sqrt(16+1), 1, sqrt(9+36)
        ("euclidean", [[-(2**0.5), -(18**0.5), -10], [-(17**0.5), -1, -(45**0.5)]]),
        ("manhattan", [[-2, -6, -14], [-5, -1, -9]]),
    ],
)
def test_measures_by_hand(measure: str, expected: list[list[float]]) -> None:
    found = similarity(LEFT, RIGHT, measure)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("measure", SIMILARITIES)
def test_shapes_of_single_vectors_and_of_none(measure: str) -> None:
    none = np.empty((0, 2), np.float32)
    shapes = [
        similarity(a, b, measure).shape
        for a, b in [(LEFT[0], RIGHT[0]), (LEFT[0], RIGHT), (none, RIGHT), (LEFT, none)]
    ]
    assert shapes == [(1, 1), (1, 3), (0, 3), (2, 0)]
    assert similarity(none, RIGHT, measure).dtype == np.float32


@pytest.mark.parametrize("measure", SIMILARITIES)
def test_pairs_are_the_diagonal(measure: str) -> None:
    rows = np.concatenate([LEFT, np.zeros((1, 2), np.float32)])  # cosine of zeros is 0
    pairs = similarity_pairwise(rows, RIGHT, measure)
    assert pairs.dtype == np.float32
    np.testing.assert_allclose(pairs, np.diag(similarity(rows, RIGHT, measure)), atol=1e-6)
    assert similarity_pairwise(LEFT[0], RIGHT[0], measure).shape == (1,)
    assert similarity_pairwise(LEFT[:0], RIGHT[:0], measure).shape == (0,)


def test_near_pairs_keep_their_distance() -> None:
    far, near = np.array([[1000, 0]], np.float32), np.array([[1000, 0.001]], np.float32)
    assert similarity_pairwise(far, near, "euclidean")[0] == pytest.approx(-0.001, rel=1e-3)


@pytest.mark.parametrize("measure", ["euclidean", "manhattan"])
def test_a_vector_is_at_no_distance_from_itself(measure: str) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((50, 384)).astype(np.float32))
    np.testing.assert_allclose(np.diag(similarity(vectors, vectors, measure)), 0, atol=1e-7)


def test_near_neighbours_keep_their_distance() -> None:
    far = np.array([[1000, 0]], np.float32)
    near = np.array([[1000, 0.001]], np.float32)
    assert similarity(far, near, "euclidean")[0, 0] == pytest.approx(-0.001, rel=1e-3)


def test_unit_by_hand() -> None:
    np.testing.assert_allclose(unit(LEFT), [[0.6, 0.8], [0, 1]], atol=1e-7)
    assert unit(np.zeros((1, 3), np.float32)).tolist() == [[0, 0, 0]]
    assert unit(LEFT).dtype == np.float32


@pytest.mark.parametrize(
    ("a", "b"), [(LEFT, np.ones((1, 3), np.float32)), (np.ones((1, 1, 2), np.float32), LEFT)]
)
def test_shapes_that_do_not_fit_are_named(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    with pytest.raises(OptionError, match=r"expected vectors of shape .* got \(.*\) and \("):
        similarity(a, b)
    with pytest.raises(OptionError, match=r"expected vectors of equal shapes .* got \(.*\) and \("):
        similarity_pairwise(a, b)


@pytest.mark.parametrize("vectors", ["a text", ["a", "b"], [[1, 2], [3]]])
def test_what_is_no_vector_is_refused(vectors: Any) -> None:
    with pytest.raises(OptionError, match="expected vectors of numbers; "):
        similarity(LEFT, vectors)


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(
        OptionError, match="expected a measure of cosine, dot, euclidean, manhattan, got 'jaccard'"
    ):
        similarity(LEFT, RIGHT, "jaccard")
    with pytest.raises(OptionError, match="expected a measure of cosine, dot, eucl"):
        similarity_pairwise(LEFT, LEFT, "jaccard")


@pytest.mark.parametrize("measure", SIMILARITIES)
def test_an_encoder_uses_the_measure_of_its_model(measure: str, tmp_path: Path) -> None:
    data = tiny.model(settings=replace(tiny.SETTINGS, similarity=measure))
    encoder = Encoder(tiny.write(tmp_path / "x.onnx", data))
    np.testing.assert_array_equal(encoder.similarity(LEFT, RIGHT), similarity(LEFT, RIGHT, measure))
