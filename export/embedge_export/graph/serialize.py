"""Models to bytes, weight by weight.

protobuf's serializer fills a buffer that doubles as it grows, and copies it: for a moment four
times the weights, the most memory that an export would take. The bytes made here are the same,
with the fields in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import onnx

from embedge.modelfile.protobuf import head
from embedge.modelfile.schema import GraphProto, ModelProto, TensorProto

Message = onnx.ModelProto | onnx.GraphProto | onnx.TensorProto


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` that has everything but initializers."""
    copy = onnx.ModelProto()
    _copy(model, copy, ModelProto.GRAPH.__ne__)
    _copy(model.graph, copy.graph, GraphProto.INITIALIZER.__ne__)
    return copy


def graph_bytes(graph: onnx.GraphProto, weights: Iterable[onnx.TensorProto]) -> bytearray:
    """`graph`, which has no initializers, with `weights` as its initializers, serialized."""
    before, after = _around(graph, GraphProto.INITIALIZER)
    data = bytearray(before)
    for weight in weights:
        pieces = _tensor(weight)
        data += head(GraphProto.INITIALIZER, sum(map(len, pieces)))
        for piece in pieces:
            data += piece
    data += after
    return data


def model_bytes(model: onnx.ModelProto, graph: bytes | bytearray) -> bytes:
    """`model` with the serialized `graph` instead of its own, serialized."""
    before, after = _around(model, ModelProto.GRAPH)
    return b"".join((before, head(ModelProto.GRAPH, len(graph)), graph, after))


def _tensor(weight: onnx.TensorProto) -> list[bytes]:
    """`weight` serialized, in pieces; the values are one of them."""
    raw = weight.raw_data
    if not raw:
        return [weight.SerializeToString(deterministic=True)]
    before, after = _around(weight, TensorProto.RAW_DATA)
    return [before, head(TensorProto.RAW_DATA, len(raw)), raw, after]


def _copy(source: Message, target: Message, wanted: Callable[[int], bool]) -> None:
    """Copy the fields whose number is `wanted`."""
    for field, value in source.ListFields():
        if not wanted(field.number):
            continue
        if isinstance(value, str | int):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)


def _around(message: Message, number: int) -> Iterator[bytes]:
    """What comes before the field `number` of a serialized message, and what comes after it."""
    for wanted in (number.__gt__, number.__lt__):
        part = type(message)()
        _copy(message, part, wanted)
        yield part.SerializeToString(deterministic=True)
