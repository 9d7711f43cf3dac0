"""Every pass keeps the function, and does what it is for."""

import numpy as np
import pytest
from tests.export import traced

from embedge_export.graph.ir import Graph
from embedge_export.graph.passes import attention
from embedge_export.graph.passes.constants import fold_constants, lift_constants
from embedge_export.graph.passes.gelu import fuse_gelu
from embedge_export.graph.passes.reshapes import fix_reshapes
from embedge_export.graph.passes.scales import fold_scales
from embedge_export.graph.passes.simplify import simplify
from embedge_export.graph.passes.tables import trim_tables
from embedge_export.graph.passes.token_types import fold_token_types

SHAPES = [(1, 1, None), (1, 9, None), (4, 9, None), (4, 9, "right"), (4, 9, "left"), (2, 100, None)]


def after(model, *passes):
    """The model after `passes` alone."""
    work = Graph(model)
    for one in passes:
        one(work)
        work.prune()
    return work.finish()


def same(one, other, atol=2e-6):
    for batch, length, padding in SHAPES:
        feed = traced.feeds(batch, length, padding)
        np.testing.assert_allclose(
            traced.compute(one, feed), traced.compute(other, feed), rtol=0, atol=atol
        )


@pytest.fixture(scope="module")
def encoder():
    return traced.encoder()


def test_simplify_keeps_the_function_and_leaves_few_operators(encoder):
    result = traced.checked(simplify(encoder))
    same(encoder, result)
    counts = traced.operators(result)
    assert len(encoder.graph.node) > 200
    assert len(result.graph.node) < 60
    assert counts["If"] == counts["Gelu"] == 2
    assert not {"Constant", "Erf", "Softmax", "Transpose", "Reshape", "Where"} & set(counts)


def test_simplify_does_not_change_its_input_and_gives_the_same_bytes(encoder):
    before = encoder.SerializeToString()
    first, second = simplify(encoder), simplify(encoder)
    assert encoder.SerializeToString() == before
    assert first.SerializeToString() == second.SerializeToString()
    assert first.ir_version <= 10
    assert all(item.version <= 21 for item in first.opset_import)


def test_simplify_twice_changes_nothing_more(encoder):
    once = simplify(encoder)
    assert traced.operators(simplify(once)) == traced.operators(once)
    same(once, simplify(once))


def test_fold_constants(encoder):
    result = after(encoder, lift_constants, fold_constants)
    same(encoder, result)
    counts = traced.operators(result)
    assert traced.operators(encoder)["Sqrt"] == 4
    assert counts["Constant"] == counts["Sqrt"] == 0  # sqrt(1 / sqrt(width)), by way of Shape


def test_a_value_that_follows_the_length_is_no_constant(encoder):
    work = Graph(encoder)
    lift_constants(work)
    slices = [node.output[0] for node in work.nodes if len(node.input) == 5]
    fold_constants(work)
    assert slices
    assert not set(slices) & set(work.initializers)


def test_fix_reshapes(encoder):
    result = after(encoder, lift_constants, fold_constants, fix_reshapes)
    same(encoder, result)
    targets = {
        tuple(traced.weight_of(result, node.input[1]))
        for node in result.graph.node
        if node.op_type == "Reshape"
    }
    assert targets == {(0, 0, 4, 12), (0, 0, 48)}


GELUS = {
    "x * (1 + erf) * 0.5": lambda t, x, e, half: t.op("Mul", t.op("Mul", x, e), half),
    "(x * 0.5) * (1 + erf)": lambda t, x, e, half: t.op("Mul", t.op("Mul", x, half), e),
    "x * (0.5 * (1 + erf))": lambda t, x, e, half: t.op("Mul", x, t.op("Mul", half, e)),
}


def gelu_model(spelling, factor=0.5, root=2**0.5, opset=18):
    t = traced.Trace()
    x = t.embeddings()
    erf = t.op("Erf", t.op("Div", x, t.const(root, np.float32)))
    plus = t.op("Add", erf, t.const(1.0, np.float32))
    return t.model(GELUS[spelling](t, x, plus, t.const(factor, np.float32)), opset)


@pytest.mark.parametrize("spelling", GELUS)
def test_fuse_gelu(spelling):
    model = gelu_model(spelling)
    result = traced.checked(after(model, lift_constants, fuse_gelu))
    same(model, result)
    assert traced.operators(result)["Gelu"] == 1
    assert traced.operators(result)["Erf"] == 0


@pytest.mark.parametrize("change", [{"factor": 0.4}, {"root": 1.5}, {"opset": 17}])
def test_what_is_not_gelu_stays(change):
    if change.get("opset") == 17:
        model = gelu_model("x * (1 + erf) * 0.5")
        model.opset_import[0].version = 17
        assert traced.operators(after(model, lift_constants, fuse_gelu))["Erf"] == 1
        return
    model = gelu_model("x * (1 + erf) * 0.5", **change)
    result = after(model, lift_constants, fuse_gelu)
    same(model, result, atol=0)
    assert traced.operators(result)["Gelu"] == 0


def test_fold_scales(encoder):
    passes = (lift_constants, fold_constants, fix_reshapes)
    before = after(encoder, *passes)
    result = after(before, fold_scales)
    same(encoder, result)
    assert traced.operators(before)["Mul"] - traced.operators(result)["Mul"] == 4  # two a layer


def test_fold_scales_keeps_a_linear_layer_that_others_read():
    t = traced.Trace()
    linear = t.linear(t.embeddings(), traced.HIDDEN, traced.HIDDEN)
    model = t.model(t.op("Add", t.op("Mul", linear, t.const(3.0, np.float32)), linear))
    result = after(model, lift_constants, fold_scales)
    same(model, result, atol=0)
    assert traced.operators(result)["Mul"] == 1


def test_fold_token_types(encoder):
    result = after(encoder, lift_constants, fold_constants, fold_token_types)
    same(encoder, result)
    shapes = [tuple(weight.dims) for weight in result.graph.initializer]
    assert (2, 48) not in shapes
    assert shapes.count((128, 48)) == 1


def test_fold_token_types_that_are_gathered_from_zeros():
    """As PyTorch's exporter writes RoBERTa's: the index is computed, but all it finds is zeros."""
    t = traced.Trace()
    zeros = t.const(np.zeros((1, traced.POSITIONS)), np.int64)
    every = t.op(
        "Expand", zeros, t.op("Concat", t.dimension("input_ids", 0), t.const([1], np.int64), axis=0)
    )
    places = t.op("CumSum", "attention_mask", t.const(1, np.int64))
    kind = t.op("Gather", t.weight(2, traced.HIDDEN), t.op("GatherElements", every, places, axis=1))
    word = t.op("Gather", t.weight(traced.WORDS, traced.HIDDEN), "input_ids")
    place = t.op("Gather", t.weight(traced.POSITIONS, traced.HIDDEN), places)
    model = t.model(t.op("Add", t.op("Add", word, kind), place))
    result = after(model, lift_constants, fold_token_types)
    same(model, result)
    assert (2, traced.HIDDEN) not in [tuple(weight.dims) for weight in result.graph.initializer]
    assert traced.operators(result)["GatherElements"] == 0


def test_fuse_attention_asks_once_whether_there_is_padding(encoder):
    result = traced.checked(simplify(encoder))
    counts = traced.operators(result)
    assert (counts["If"], counts["ReduceMin"], counts["Equal"]) == (2, 1, 1)
    bodies = [a.g for n in result.graph.node if n.op_type == "If" for a in n.attribute]
    assert [[node.op_type for node in body.node] for body in bodies] == [["MultiHeadAttention"]] * 4


def test_attention_without_a_mask_needs_no_branch():
    t = traced.Trace()
    x = t.embeddings()
    model = t.model(t.attention(x, t.const(0.0, np.float32)))
    # Without a mask there is no addition to the scores.
    for node in model.graph.node:
        if node.op_type == "Softmax":
            add = next(n for n in model.graph.node if node.input[0] in n.output)
            node.input[0] = add.input[0]
    result = simplify(model)
    same(model, result)
    assert traced.operators(result)["MultiHeadAttention"] == 1


def test_a_mask_that_hides_too_little_stays():
    model = traced.encoder(lowest=-5.0)
    result = simplify(model)
    same(model, result)
    assert traced.operators(result)["Softmax"] == 2


def test_a_sliding_window_is_no_padding_mask():
    t = traced.Trace()
    x, mask = t.embeddings(), t.mask()
    length = t.op("Squeeze", t.dimension("input_ids", 1), t.const([0], np.int64))
    zero, one = t.const(0, np.int64), t.const(1, np.int64)
    place = t.op("Range", zero, length, one)
    column = t.op("Unsqueeze", place, t.const([1], np.int64))
    far = t.op("Greater", t.op("Abs", t.op("Sub", place, column)), t.const(40, np.int64))
    window = t.op("Where", far, t.const(-3e38, np.float32), t.const(0.0, np.float32))
    model = t.model(t.layer(x, t.op("Add", mask, window)))
    result = simplify(model)
    same(model, result)
    assert traced.operators(result)["Softmax"] == 1


@pytest.mark.parametrize(("lowest", "expected"), [(-3.4e38, True), (-10000.0, True), (-9.0, False)])
def test_is_padding_mask(lowest, expected):
    t = traced.Trace()
    mask = t.mask(lowest)
    x = t.op("Squeeze", mask, t.const([1], np.int64))
    work = Graph(t.model(x))
    assert attention.is_padding_mask(work, mask) is expected


def test_an_unknown_graph_comes_through():
    t = traced.Trace()
    x = t.embeddings()
    model = t.model(t.op("Tanh", t.op("Einsum", x, t.weight(48, 48), equation="bsh,hk->bsk")))
    result = simplify(model)
    same(model, result)
    assert traced.operators(result)["Einsum"] == 1


def test_replace_reaches_graph_outputs():
    t = traced.Trace()
    work = Graph(t.model(t.embeddings()))
    old = work.producers["sentence_embedding"]
    new = work.add("Neg", [old.output[0]], "negated")
    assert new == "negated"
    again = work.add("Div", list(old.input), "again")
    work.replace("sentence_embedding", again)
    result = work.finish()
    assert [node.op_type for node in result.graph.node].count("Neg") == 0
    assert result.graph.node[-1].output[0] == "sentence_embedding"


def test_trim_tables_keeps_what_the_longest_text_reaches(encoder):
    whole = simplify(encoder)
    result = traced.checked(trim_tables(whole, 20))
    before, after = (
        sorted(weight.dims[0] for weight in model.graph.initializer if len(weight.dims) == 2)
        for model in (whole, result)
    )
    assert (before.count(128), after.count(128), after.count(20)) == (1, 0, 1)
    inputs = traced.feeds(3, 20)
    np.testing.assert_array_equal(traced.compute(whole, inputs), traced.compute(result, inputs))


def test_a_key_needs_no_bias(encoder):
    """Softmax does not see it; queries and values keep theirs."""
    biases = [
        sum(weight.dims[:] == [48] for weight in model.graph.initializer)
        for model in (encoder, simplify(encoder))
    ]
    assert biases[0] - biases[1] == 2  # one for each layer
