"""A model without its weights, and the weights where they lie in the file.

Given a whole file, onnxruntime parses it into messages and copies these into tensors: for a moment
every weight is there three times. Given the model alone, and the weights as arrays, it copies them
once, and in less time.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.modelfile.protobuf import encode, message, numbers, spans, text
from embedge.modelfile.validate import DATA_LOCATION, DATA_TYPE, DIMS, EXTERNAL_DATA, NAME, RAW_DATA

# Smaller ones stay in the model, for shapes are inferred from them.
_SMALLEST = 1024  # bytes
_DTYPES: dict[int, type[np.generic]] = {1: np.float32, 2: np.uint8, 3: np.int8, 10: np.float16}

# Field numbers of ModelProto, and of GraphProto and NodeProto.
_GRAPH, _METADATA = 7, 14
_NODE, _INITIALIZER, _NODE_INPUT = 1, 5, 1
_EXTERNAL = 1
# Of a file that nobody opens: onnxruntime is given an array in its place.
_PLACE = encode(1, b"location") + encode(2, b"embedge")


@dataclass(frozen=True)
class Parts:
    """A model file in two parts.

    Attributes:
        model: a serialized ModelProto whose large initializers are said to be elsewhere.
        weights: those initializers by name, views of the file's bytes: not always aligned.
    """

    model: bytes = field(repr=False)
    weights: dict[str, NDArray[Any]] = field(repr=False)


def split(data: memoryview) -> Parts:
    """Split the bytes of a model file that `wire.walk` has found to be sound."""
    model: list[bytes | memoryview] = []
    weights: dict[str, NDArray[Any]] = {}
    for number, value, whole in spans(data):
        if number == _GRAPH:
            model.append(encode(_GRAPH, _without_weights(message(value), weights)))
        elif number != _METADATA:
            model.append(whole)
    return Parts(b"".join(model), weights)


def _without_weights(graph: memoryview, weights: dict[str, NDArray[Any]]) -> bytes:
    """The graph with its large initializers elsewhere; they are put into ``weights``."""
    rest: list[bytes | memoryview] = []
    read = _read(graph)
    for number, value, whole in spans(graph):
        weight = _weight(message(value)) if number == _INITIALIZER else None
        if weight is None or weight[0] not in read:  # onnxruntime drops it before it looks for it
            rest.append(whole)
        else:
            name, kind, array = weight
            weights[name] = array
            rest.append(encode(_INITIALIZER, _elsewhere(name, kind, array.shape)))
    return b"".join(rest)


def _read(graph: memoryview) -> set[str]:
    """What the nodes of a graph read, those of inner graphs aside."""
    nodes = (message(value) for number, value, _ in spans(graph) if number == _NODE)
    return {
        text(value) for node in nodes for number, value, _ in spans(node) if number == _NODE_INPUT
    }


def _weight(tensor: memoryview) -> tuple[str, int, NDArray[Any]] | None:
    """(name, element type, values) of a TensorProto that is taken out of the graph, or None."""
    dims: list[int] = []
    seen: dict[int, Any] = {}
    for number, value, _ in spans(tensor):
        if number == DIMS:
            dims += numbers(value)
        elif number in seen or number not in (DATA_TYPE, NAME, RAW_DATA):
            return None
        else:
            seen[number] = value
    dtype = _DTYPES.get(seen.get(DATA_TYPE, 0))
    if dtype is None or NAME not in seen or len(seen.get(RAW_DATA, b"")) < _SMALLEST:
        return None
    values = np.frombuffer(seen[RAW_DATA], np.dtype(dtype).newbyteorder("<")).reshape(dims)
    return text(seen[NAME]), seen[DATA_TYPE], values


def _elsewhere(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    """A TensorProto that says its values are in another file."""
    dims = b"".join(encode(DIMS, size) for size in shape)
    return (
        dims
        + encode(DATA_TYPE, kind)
        + encode(NAME, name.encode())
        + encode(EXTERNAL_DATA, _PLACE)
        + encode(DATA_LOCATION, _EXTERNAL)
    )
