"""The bytes are protobuf's own, whatever a model has."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedge_export.graph.serialize import graph_bytes, model_bytes, without_weights

WEIGHTS = {
    "none": [],
    "raw": [numpy_helper.from_array(np.arange(300, dtype=np.float32).reshape(3, 100), "w")],
    "scalar and empty": [
        numpy_helper.from_array(np.float16(2), "half"),
        numpy_helper.from_array(np.zeros((0, 4), np.int8), "empty"),
    ],
    "typed fields": [
        helper.make_tensor("floats", TensorProto.FLOAT, [2], [1.5, -2.0]),
        helper.make_tensor("numbers", TensorProto.INT64, [200], list(range(200))),
        helper.make_tensor("words", TensorProto.STRING, [1], [b"word"]),
    ],
}


def model(weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    """A model with a field of every kind set, before and behind the graph and its weights."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["inner"])],
        "inner",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(3, np.float32), "inside")],
    )
    nodes = [
        helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Identity", ["y"], ["z"], doc_string="a note"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xyz"]
    graph = helper.make_graph(
        nodes, "graph", ends[:1], ends[2:], weights, doc_string="of the graph", value_info=ends[1:2]
    )
    made = helper.make_model(graph, producer_name="someone", doc_string="of the model")
    made.model_version, made.domain = 7, "example"
    helper.set_model_props(made, {"key": "value" * 100, "another": ""})
    return made


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_the_same_bytes_as_protobuf(weights: list[onnx.TensorProto]) -> None:
    whole = model(weights)
    light = without_weights(whole)
    assert list(whole.graph.initializer) == weights  # the model given is left alone
    graph = graph_bytes(light.graph, weights)
    assert graph == whole.graph.SerializeToString(deterministic=True)
    assert model_bytes(light, graph) == whole.SerializeToString(deterministic=True)


def test_without_weights_nothing_else_is_missing() -> None:
    whole = model(WEIGHTS["raw"])
    light = without_weights(whole)
    assert not light.graph.initializer
    assert light.graph.node[0].attribute[0].g.initializer[0].name == "inside"
    light.graph.initializer.extend(WEIGHTS["raw"])
    assert light == whole


@pytest.mark.parametrize("size", [127, 128, 16_383, 16_384, 2_097_152])
def test_lengths_of_every_width(size: int) -> None:
    weight = numpy_helper.from_array(np.zeros(size, np.int8), "w")
    whole = model([weight])
    expected = whole.graph.SerializeToString(deterministic=True)
    assert graph_bytes(without_weights(whole).graph, [weight]) == expected
