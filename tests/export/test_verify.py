import numpy as np
import pytest

from embedge.errors import ExportError
from embedge_export.checks.verify import compare, tools

TEXTS = ["a text", "b " * 50]
REFERENCE = np.array([[1, 0], [0, 1]], np.float32)


def test_the_figures_by_hand() -> None:
    got = np.array([[1, 0], [0.6, 0.8]], np.float32)
    assert compare("x", got, REFERENCE, TEXTS, normalized=True) == {
        "cosine_mean": 0.9,
        "cosine_min": 0.8,
        "largest_difference": 0.6,
    }


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (np.eye(3, dtype=np.float32), r"x: expected shape \(2, 2\), got \(3, 3\)"),
        (np.full((2, 2), np.nan, np.float32), "x: the vectors are not finite"),
        (REFERENCE * 2, "x: a vector has the length 2.000000, not 1"),
        (REFERENCE[::-1], "x: minimum cosine 0.000000 on the probes, but at least 0.99999"),
    ],
)
def test_what_is_refused(got: np.ndarray, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        compare("x", got, REFERENCE, TEXTS, normalized=True, min_cosine=0.99999)


def test_the_mean_may_hold_where_the_minimum_does_not() -> None:
    got = np.array([[1, 0], [0.2, 0.98]], np.float32)
    compare("x", got, REFERENCE, TEXTS, normalized=False, mean_cosine=0.98)
    with pytest.raises(ExportError, match=r"mean cosine 0\.98"):
        compare("x", got, REFERENCE, TEXTS, normalized=False, mean_cosine=0.995)


def test_the_versions_of_all_tools_are_named() -> None:
    assert {"embedge", "python", "onnx", "onnxruntime", "torch", "transformers"} <= set(tools())
