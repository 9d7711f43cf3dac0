"""fp16 graphs: types, what stays in float32, and values that sixteen bits do not hold."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedge.similarity import cosines
from embedge_export.quantization.fp16 import convert_to_fp16

from .traced import FLOAT, HIDDEN, INT64, Trace, compute, encoder, feeds, operators

HALF = TensorProto.FLOAT16


def types(model: onnx.ModelProto) -> Counter[int]:
    return Counter(item.data_type for item in model.graph.initializer)


def test_the_weights_are_half_and_the_vectors_are_close() -> None:
    model = encoder()
    half = convert_to_fp16(model)
    onnx.checker.check_model(half)
    assert types(half)[HALF] > 20
    assert types(half)[FLOAT] == 0
    assert len(half.SerializeToString()) < 0.6 * len(model.SerializeToString())
    for padding in (None, "left", "right"):
        inputs = feeds(4, 12, padding)
        whole, small = compute(model, inputs), compute(half, inputs)
        assert small.dtype == np.float32
        assert (cosines(whole, small) > 0.9999).all()
        assert not np.array_equal(whole, small)


def test_the_signature_keeps_its_types() -> None:
    graph = convert_to_fp16(encoder()).graph
    assert [i.type.tensor_type.elem_type for i in graph.input] == [INT64, INT64]
    assert [o.type.tensor_type.elem_type for o in graph.output] == [FLOAT]


def built(trace: Trace, result: str) -> onnx.ModelProto:
    """A model of one value (batch, sequence, hidden), pooled by the sum of its tokens."""
    pooled = trace.op("ReduceSum", result, trace.const([1], np.int64), keepdims=0)
    trace.nodes.append(helper.make_node("Identity", [pooled], ["sentence_embedding"]))
    shape = ["batch", "sequence"]
    graph = helper.make_graph(
        trace.nodes,
        "built",
        [helper.make_tensor_value_info(n, INT64, shape) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("sentence_embedding", FLOAT, ["batch", HIDDEN])],
        trace.weights,
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_squares_beyond_the_range_of_fp16_do_not_overflow() -> None:
    """RMS normalization of values near 1000: their squares are near a million."""
    trace = Trace()
    x = trace.op("Gather", trace.weight(300, HIDDEN, scale=1000.0), "input_ids")
    square = trace.op("Pow", x, trace.const(2.0, np.float32))
    mean = trace.op("ReduceMean", square, trace.const([-1], np.int64), keepdims=1)
    root = trace.op("Sqrt", trace.op("Add", mean, trace.const(1e-6, np.float32)))
    model = built(trace, trace.op("Div", x, root))
    inputs = feeds(2, 7)
    np.testing.assert_allclose(
        compute(convert_to_fp16(model), inputs), compute(model, inputs), atol=0.02
    )


def test_positions_stay_exact() -> None:
    """The sine of position 2049 is not that of 2048, the nearest fp16 number."""
    trace = Trace()
    length = trace.op("Gather", trace.op("Shape", "input_ids"), trace.const(1, np.int64))
    steps = [trace.const(v, np.int64) for v in (0, 1)]
    position = trace.op("Cast", trace.op("Range", steps[0], length, steps[1]), to=FLOAT)
    column = trace.op("Unsqueeze", position, trace.const([1], np.int64))
    wave = trace.op("Sin", trace.op("Mul", column, trace.const([1.0] * HIDDEN, np.float32)))
    row = trace.op("Unsqueeze", wave, trace.const([0], np.int64))
    last = trace.op("Slice", row, *(trace.const([v], np.int64) for v in (-1, 2**31, 1)))
    model = built(trace, last)
    inputs = {name: np.ones((1, 2050), np.int64) for name in ("input_ids", "attention_mask")}
    expected = np.full((1, HIDDEN), np.sin(2049.0))
    np.testing.assert_allclose(compute(convert_to_fp16(model), inputs), expected, atol=1e-3)


def test_masks_of_the_lowest_number_become_finite() -> None:
    trace = Trace()
    x, mask = trace.embeddings(), trace.mask(lowest=-3.4028235e38)
    half = convert_to_fp16(trace.model(trace.layer(x, mask)))
    values = [
        numpy_helper.to_array(a.t)
        for node in half.graph.node
        for a in node.attribute
        if a.HasField("t")
    ]
    numbers = [v for v in values if v.dtype == np.float16]
    assert any((v == -1e4).any() for v in numbers)
    assert np.isfinite(compute(half, feeds(3, 6, "left"))).all()


def test_branches_are_converted_too() -> None:
    trace = Trace()
    x = trace.op("Gather", trace.weight(300, HIDDEN), "input_ids")
    bodies = []
    for name, factor in (("then", 2.0), ("else", 3.0)):
        constant = numpy_helper.from_array(np.array(factor, np.float32))
        nodes = [
            helper.make_node("Constant", [], [f"{name}_factor"], value=constant),
            helper.make_node("Mul", [x, f"{name}_factor"], [f"{name}_out"]),
        ]
        output = helper.make_tensor_value_info(f"{name}_out", FLOAT, ["b", "s", HIDDEN])
        bodies.append(helper.make_graph(nodes, name, [], [output]))
    size = trace.op("Size", "input_ids")
    small = trace.op("Less", size, trace.const(10, np.int64))
    chosen = trace.op("If", small, then_branch=bodies[0], else_branch=bodies[1])
    model = built(trace, trace.op("Add", chosen, x))
    half = convert_to_fp16(model)
    assert operators(half)["If"] == 1
    for length in (3, 30):
        inputs = feeds(1, length)
        expected = compute(model, inputs)
        np.testing.assert_allclose(compute(half, inputs), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("portable", [True, False])
def test_a_portable_graph_has_onnx_operators_only(portable: bool) -> None:
    from embedge_export.graph.passes.simplify import simplify

    model = simplify(encoder(), portable=portable)
    domains = {node.domain for node in model.graph.node}
    names = operators(model)
    assert ("com.microsoft" in domains or "If" in names) is not portable
    np.testing.assert_allclose(
        compute(model, feeds(3, 9, "right")), compute(encoder(), feeds(3, 9, "right")), atol=1e-5
    )
