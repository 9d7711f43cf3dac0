"""A model without its weights, and its weights as views of the file.

Given a whole file, onnxruntime parses it into messages and copies these into tensors: for a moment
there are three copies of every weight. Given the model without its weights, and the weights as
arrays, it copies them once, and in less time.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.modelfile.protobuf import encode
from embedge.modelfile.schema import (
    FLOAT16,
    FLOAT32,
    INT8,
    UINT8,
    GraphProto,
    ModelProto,
    StringStringEntryProto,
    TensorProto,
)
from embedge.modelfile.validate import Initializer, Walked

# Smaller ones stay in the model, for shapes are inferred from them.
_SMALLEST = 1024  # bytes
_DTYPES = {FLOAT32: np.float32, UINT8: np.uint8, INT8: np.int8, FLOAT16: np.float16}
# The name of a file that is never opened: onnxruntime is given an array in its place.
_PLACE = encode(StringStringEntryProto.KEY, b"location") + encode(
    StringStringEntryProto.VALUE, b"embedge"
)


@dataclass(frozen=True)
class Parts:
    """A model file in two parts.

    Attributes:
        model: a serialized ModelProto whose large initializers are marked as external data.
        weights: those initializers by name, views of the file's bytes: not always aligned.
    """

    model: bytes = field(repr=False)
    weights: dict[str, NDArray[Any]] = field(repr=False)


def split(walked: Walked) -> Parts:
    """Split a model file; its metadata are left out, which onnxruntime does not need."""
    # A weight that no node reads stays: onnxruntime drops it before it looks for its values.
    taken = [
        weight
        for weight in walked.initializers
        if weight.elem_type in _DTYPES
        and len(weight.values) >= _SMALLEST
        and weight.name in walked.read
        and weight.name
    ]
    moved = {id(weight.field): _elsewhere(weight) for weight in taken}
    graph = b"".join(moved.get(id(span), span) for span in walked.graph_fields)
    model = b"".join([*walked.rest, encode(ModelProto.GRAPH, graph)])
    return Parts(model, {weight.name: _array(weight) for weight in taken})


def _array(weight: Initializer) -> NDArray[Any]:
    dtype = np.dtype(_DTYPES[weight.elem_type]).newbyteorder("<")
    return np.frombuffer(weight.values, dtype).reshape(weight.shape)


def _elsewhere(weight: Initializer) -> bytes:
    """The graph's field for a weight, marked as external data."""
    tensor = [encode(TensorProto.DIMS, size) for size in weight.shape] + [
        encode(TensorProto.DATA_TYPE, weight.elem_type),
        encode(TensorProto.NAME, weight.name.encode()),
        encode(TensorProto.EXTERNAL_DATA, _PLACE),
        encode(TensorProto.DATA_LOCATION, TensorProto.EXTERNAL),
    ]
    return encode(GraphProto.INITIALIZER, b"".join(tensor))
