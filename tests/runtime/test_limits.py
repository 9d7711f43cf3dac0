"""What a hostile graph can take: when it is loaded, and in a process as SECURITY.md limits it."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from . import tiny
from .conftest import Run
from .tiny import field, node, tensor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and peaks are Linux's")

VERSION = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
SECURITY = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")


def with_zero(nodes: Sequence[bytes], **constants: np.ndarray) -> bytes:
    """The tiny model whose divisor grows by "zero", which ``nodes`` compute."""
    last = [
        node("Add", ["divisor", "zero"], "divisor too"),
        node("Div", ["mean", "divisor too"], "sentence_embedding"),
    ]
    extra = b"".join(field(5, tensor(name, value)) for name, value in constants.items())
    return tiny.model(tiny.graph(nodes=[*tiny.NODES[:-1], *nodes, *last], extra=extra), probes=())


def zeros(elements: int, *, depends_on_text: bool) -> bytes:
    """A file of some bytes that asks for ``elements`` zeros."""
    nodes = [
        node("Shape", ["input_ids"], "shape"),
        node("Mul", ["shape", "times"], "larger"),
        node("ConstantOfShape", ["larger" if depends_on_text else "times"], "zeros"),
        node("ReduceSum", ["zeros"], "zero", tiny.attribute("keepdims", 0)),
    ]
    return with_zero(nodes, times=np.array([elements, 1], np.int64))


def endless() -> bytes:
    """Products of matrices, each of the one before; hours of them."""
    nodes = [
        node("ConstantOfShape", ["size"], "power 0"),
        *(node("MatMul", [f"power {i}"] * 2, f"power {i + 1}") for i in range(10_000)),
        node("ReduceSum", ["power 10000"], "zero", tiny.attribute("keepdims", 0)),
    ]
    return with_zero(nodes, size=np.array([4000, 4000], np.int64))


LOAD = """
import resource, sys
from embedge import Encoder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
encoder = Encoder(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(VERSION < (1, 32), reason="older ones fold constants of any size")
def test_loading_computes_no_huge_constants(python: Run, tmp_path: Path) -> None:
    data = zeros(2**28, depends_on_text=False)
    result = python("-c", LOAD, str(tiny.write(tmp_path / "x.onnx", data)))
    assert int(result.stdout) < 256, result.stderr


@pytest.mark.parametrize(
    ("data", "seconds", "outcome"),
    [
        (tiny.model(), 60, r"^\(1, 2\)$"),
        (zeros(2**32, depends_on_text=False), 60, r"^embedge\.errors\.ResourceError: "),
        (zeros(2**32, depends_on_text=True), 60, r"^embedge\.errors\.ResourceError: "),
        (endless(), 2, r"^concurrent\.futures\.process\.BrokenProcessPool: "),
    ],
    ids=["good", "memory when loaded", "memory when run", "time"],
)
def test_the_process_with_limits_of_the_security_notes(
    python: Run, tmp_path: Path, data: bytes, seconds: int, outcome: str
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", SECURITY, re.M | re.S)
    program = tmp_path / "program.py"
    program.write_text(code.replace("(60, 60)", f"({seconds}, {seconds})"))
    tiny.write(tmp_path / "model.onnx", data)
    result = python(str(program), "")
    assert re.search(outcome, result.stdout + result.stderr, re.M), result.stderr
