"""A model without its int8 weights, and the weights where they lie.

Given a whole file, onnxruntime parses it into messages and copies these into tensors: for a moment
every weight is there three times, and each session has its own. Given the model alone, and the
weights as arrays that it may read, it copies nothing but what it rearranges for its products.

Weights in floating point stay in the model: a file keeps no alignment, which code for floats
relies on.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.protobuf import encode, message, numbers, spans, text

# Smaller ones stay in the model, for shapes are inferred from them.
_SMALLEST = 1024  # bytes
_DTYPES: dict[int, type[np.generic]] = {2: np.uint8, 3: np.int8}

# Field numbers of ModelProto, of GraphProto and NodeProto, and of TensorProto.
_GRAPH, _METADATA = 7, 14
_NODE, _INITIALIZER, _NODE_INPUT = 1, 5, 1
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_EXTERNAL = 1
# Of a file that nobody opens: onnxruntime is given an array in its place.
_PLACE = encode(1, b"location") + encode(2, b"embedge")


@dataclass(frozen=True)
class Parts:
    """A model file in two parts.

    Attributes:
        model: a serialized ModelProto whose int8 initializers are said to be elsewhere.
        weights: those initializers by name, int8 or uint8: views of the file's bytes.
    """

    model: bytes = field(repr=False)
    weights: dict[str, NDArray[Any]] = field(repr=False)


def split(data: memoryview) -> Parts:
    """Split the bytes of a model file that `wire.walk` has found to be sound."""
    model, weights = bytearray(), dict[str, NDArray[Any]]()
    for number, value, whole in spans(data):
        if number == _GRAPH:
            model += encode(_GRAPH, _without_weights(message(value), weights))
        elif number != _METADATA:
            model += whole
    return Parts(bytes(model), weights)


def _without_weights(graph: memoryview, weights: dict[str, NDArray[Any]]) -> bytes:
    """The graph with its int8 initializers elsewhere; they are put into ``weights``."""
    rest = bytearray()
    read = _read(graph)
    for number, value, whole in spans(graph):
        weight = _weight(message(value)) if number == _INITIALIZER else None
        if weight is None or weight[0] not in read:  # onnxruntime drops it before it looks for it
            rest += whole
        else:
            name, kind, array = weight
            weights[name] = array
            rest += encode(_INITIALIZER, _elsewhere(name, kind, array.shape))
    return bytes(rest)


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
        if number == _DIMS:
            dims += numbers(value)
        elif number in seen or number not in (_DATA_TYPE, _NAME, _RAW_DATA):
            return None
        else:
            seen[number] = value
    dtype = _DTYPES.get(seen.get(_DATA_TYPE, 0))
    if dtype is None or _NAME not in seen or len(seen.get(_RAW_DATA, b"")) < _SMALLEST:
        return None
    values = np.frombuffer(seen[_RAW_DATA], dtype).reshape(dims)
    return text(seen[_NAME]), seen[_DATA_TYPE], values


def _elsewhere(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    """A TensorProto that says its values are in another file."""
    dims = b"".join(encode(_DIMS, size) for size in shape)
    return (
        dims
        + encode(_DATA_TYPE, kind)
        + encode(_NAME, name.encode())
        + encode(_EXTERNAL_DATA, _PLACE)
        + encode(_DATA_LOCATION, _EXTERNAL)
    )
