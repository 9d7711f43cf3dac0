import numpy as np
import pytest

from embedge.corpus.layout import LAYOUTS
from embedge.similarity import unit

VECTORS = unit(np.random.default_rng(0).standard_normal((50, 19)).astype(np.float32))


def test_by_hand() -> None:
    vector = np.array([[0.6, -0.8, 0.0]], np.float32)
    assert LAYOUTS["float32"].store(vector).tobytes() == vector.astype("<f4").tobytes()
    assert LAYOUTS["float16"].store(vector).tolist() == [[0.60009765625, -0.7998046875, 0]]
    # 127 / 0.8 = 158.75; 0.6 * 158.75 = 95.25
    assert LAYOUTS["int8"].store(vector).tolist() == [[95, -127, 0]]
    # 5 * 127 / 12 = 52.92, which is rounded to the nearest
    assert LAYOUTS["int8"].store(np.float32([[5 / 13, -12 / 13]])).tolist() == [[53, -127]]
    assert LAYOUTS["binary"].store(vector).tolist() == [[0b1000_0000]]
    nine = np.array([[-1, 1, -1, -1, -1, -1, -1, 1, 1]], np.float32)
    assert LAYOUTS["binary"].store(nine).tolist() == [[0b0100_0001, 0b1000_0000]]


@pytest.mark.parametrize(
    ("dtype", "width", "least_cosine"),
    [("float32", 19, 1.0), ("float16", 19, 0.999999), ("int8", 19, 0.9998), ("binary", 3, 0.6)],
)
def test_there_and_back(dtype: str, width: int, least_cosine: float) -> None:
    layout = LAYOUTS[dtype]
    stored = layout.store(VECTORS)
    assert stored.shape == (50, width) == (50, layout.width(19))
    assert stored.dtype == layout.dtype
    loaded = layout.load(stored, 19)
    assert loaded.shape == (50, 19)
    assert loaded.dtype == np.float32
    assert (unit(loaded) * VECTORS).sum(1).min() >= least_cosine - 1e-6
    if dtype == "float32":
        assert np.array_equal(loaded, VECTORS)
    if layout.needs_unit:
        assert np.linalg.norm(loaded, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_no_vectors_and_a_vector_of_zeros(dtype: str) -> None:
    layout = LAYOUTS[dtype]
    none = layout.store(np.empty((0, 19), np.float32))
    assert none.shape == (0, layout.width(19))
    assert layout.load(none, 19).shape == (0, 19)
    zeros = layout.store(np.zeros((1, 19), np.float32))
    assert not zeros.any()
    assert np.isfinite(layout.load(zeros, 19)).all()
