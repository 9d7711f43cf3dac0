"""A model in two parts: onnxruntime computes the same of them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from embedge import ModelError
from embedge.modelfile.default import default_model
from embedge.modelfile.file import parse, read
from embedge.modelfile.validate import walk
from embedge.modelfile.weights import split
from embedge.ort.session import Session

from . import tiny
from .tiny import CLS, FLOAT32, SEP, A, B, attribute, field, node

# The tiny model's table in int8, of 512 rows: with 1024 bytes the smallest that is taken out.
TABLE = np.resize(tiny.TABLE.astype(np.int8), (512, 2))
NODES = [
    node("Gather", ["int8", "input_ids"], "integers"),  # (batch, sequence, 2)
    node("Cast", ["integers"], "last_hidden_state", attribute("to", FLOAT32)),
    *tiny.NODES[1:],
]


def model(table: NDArray[Any] = TABLE, *extra: bytes) -> bytes:
    weight = field(5, tiny.tensor("int8", table, *extra))
    return tiny.model(tiny.graph(nodes=NODES, extra=weight))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, np.float32])
def test_large_weights_are_taken_out_and_seen_where_they_lie(dtype: type[np.generic]) -> None:
    table = np.abs(TABLE).astype(dtype)
    data = memoryview(model(table))
    parts = split(walk(data))
    assert list(parts.weights) == ["int8"]
    assert parts.weights["int8"].dtype == dtype
    assert np.array_equal(parts.weights["int8"], table)
    assert np.shares_memory(parts.weights["int8"], np.frombuffer(data, np.uint8))
    assert table.tobytes() not in parts.model
    assert b"embedge.tokenizer" not in parts.model  # onnxruntime needs no metadata


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32])
@pytest.mark.parametrize("shift", range(4))
def test_the_parts_compute_what_the_whole_does(dtype: type[np.generic], shift: int) -> None:
    """Wherever the weights lie: a longer graph name shifts them by so many bytes."""
    weight = field(5, tiny.tensor("int8", TABLE.astype(dtype)))
    data = tiny.model(tiny.graph(nodes=NODES, extra=field(10, "x" * shift) + weight))
    ids = np.array([[CLS, A, B, SEP], [CLS, B, B, SEP]])
    run = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run
    (whole,) = run(["sentence_embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    session = Session(parse(data, Path("memory")))
    assert np.array_equal(session.run(ids), whole)
    np.testing.assert_allclose(whole[0], [0.6, 0.8], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(model(TABLE[:-1]), id="small"),
        pytest.param(model(TABLE.astype(np.int64)), id="of another type"),
        pytest.param(model(TABLE, field(12, "a note")), id="with a field that is not copied"),
        pytest.param(model(TABLE, field(9, b"")), id="with its values in two fields"),
    ],
)
def test_any_other_weight_stays_in_the_model(data: bytes) -> None:
    parts = split(walk(data))
    assert parts.weights == {}
    weight = parts.model.index(b"int8", parts.model.index(b"sentence_embedding"))
    assert parts.model[weight:] in data


@pytest.mark.parametrize("name", ["nobody reads it", ""])
def test_a_weight_that_no_node_reads_stays_in_the_model(name: str) -> None:
    """onnxruntime would not find the place to put it."""
    extra = field(5, tiny.tensor(name, TABLE))
    file = parse(tiny.model(tiny.graph(extra=extra)), Path("memory"))
    assert split(file.walked).weights == {}
    vectors = Session(file).run(np.array([[CLS, A, B, SEP]]))
    np.testing.assert_allclose(vectors, [[0.6, 0.8]], rtol=0, atol=1e-7)


def test_all_that_stays_of_the_default_model_is_its_graph() -> None:
    file = read(default_model())
    parts = split(file.walked)
    tables = {name: array for name, array in parts.weights.items() if array.dtype == np.int8}
    assert len(tables) == 38  # six products in each of six layers, and the tables
    assert sum(array.nbytes for array in parts.weights.values()) > 0.97 * file.size
    assert len(parts.model) < 0.005 * file.size


def test_a_number_of_fixed_width_is_no_name() -> None:
    """protobuf would skip it, as a field of another type: the weight would have another name."""
    fixed = bytes([8 << 3 | 1]) + b"8 bytes."
    with pytest.raises(ModelError, match="expected a length-delimited field, got a fixed"):
        parse(model(TABLE, fixed), Path("memory"))


def test_two_weights_of_one_name_are_refused() -> None:
    twice = field(5, tiny.tensor("one", np.array([1], np.int64)))
    with pytest.raises(ModelError, match="the graph has two weights named 'one'"):
        parse(tiny.model(tiny.graph(extra=twice)), Path("memory"))
