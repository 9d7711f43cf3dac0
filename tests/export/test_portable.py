"""Attention out of operators that give the same bits on every x86 CPU: the same function."""

import numpy as np
import onnx
import pytest
from tests.export import traced
from tests.export.test_graph import same

from embedge_export.graph.passes import portable
from embedge_export.graph.passes.portable import portable_attention, portable_softmax
from embedge_export.graph.passes.simplify import simplify
from embedge_export.quantization.int8 import quantize_int8


def test_the_function_stays_the_same(plain):
    same(plain, traced.checked(portable_attention(plain, 128)))


def test_int8_stays_the_same_but_for_steps_that_a_last_bit_decides(int8):
    made = traced.checked(portable_attention(int8, 128))
    for feed in [*traced.FEEDS, traced.feeds(4, 20, "left"), traced.feeds(4, 20, "right")]:
        one, other = traced.compute(int8, feed), traced.compute(made, feed)
        assert (one * other).sum(1).min() > 0.999


def test_nothing_that_runs_without_padding_depends_on_the_vector_width(int8):
    made = portable_attention(int8, 128)
    assert traced.by_lanes(int8) == {"MultiHeadAttention"}
    assert traced.by_lanes(made) == set()
    assert [len(body.node) for body in traced.bodies(made, "else_branch")] == [12, 12]
    assert [len(body.node) for body in traced.bodies(made, "then_branch")] == [5, 5]


def test_the_layers_swap_their_axes_once_and_back_once(int8):
    made = portable_attention(int8, 128)
    swaps = [node for node in made.graph.node if node.op_type == "Transpose"]
    assert [onnx.helper.get_node_attr_value(node, "perm") for node in swaps] == [[1, 0, 2]] * 2


def test_vectors_do_not_depend_on_the_batch_or_the_threads(int8):
    traced.assert_invariant(portable_attention(int8, 128))


def test_attention_without_a_mask_needs_no_branch():
    t = traced.Trace()
    model = t.model(t.attention(t.embeddings(), t.const(0.0, np.float32)))
    for node in model.graph.node:
        if node.op_type == "Softmax":
            add = next(n for n in model.graph.node if node.input[0] in n.output)
            node.input[0] = add.input[0]
    made = traced.checked(portable_attention(simplify(model), 128))
    same(model, made)
    counts = traced.operators(made)
    assert (counts["If"], counts["MultiHeadAttention"], counts["FusedMatMul"]) == (0, 0, 2)


def test_values_that_others_read_keep_their_axes():
    """Here a factor of each position, the first token, and a hidden state between the layers."""
    t = traced.Trace()
    x, mask = t.embeddings(), t.mask()
    x = t.layer(x, mask)
    zero = t.const([0], np.int64)
    length = t.op("Squeeze", t.dimension("input_ids", 1), zero)
    steps = t.op("Range", t.const(0, np.int64), length, t.const(1, np.int64))
    places = t.op("Unsqueeze", t.op("Cast", steps, to=1), t.const([0, 2], np.int64))
    between = t.op("Mul", x, t.op("Sigmoid", places))  # (1, sequence, 1)
    first = t.op("Slice", between, zero, t.const([1], np.int64), t.const([1], np.int64))
    x = t.layer(t.op("Add", between, first), mask)
    model = t.model(t.op("Add", x, t.op("Gather", between, t.const([0], np.int64), axis=1)))
    before = simplify(model)
    after = traced.checked(portable_attention(before, 128))
    same(before, after)
    assert all(body.node[-1].op_type == "Reshape" for body in traced.bodies(after, "else_branch"))


def test_models_of_long_texts_keep_the_operator_that_stores_no_scores(int8):
    # 4 bytes * 4 heads * tokens * tokens
    most = int((portable.LARGEST_SCORES / 16) ** 0.5)
    assert portable_attention(int8, most + 1) is int8
    assert portable_attention(int8, most) is not int8


def test_a_graph_without_attention_comes_through():
    t = traced.Trace()
    model = t.model(t.norm(t.embeddings()))
    assert portable_attention(model, 128) is model


def test_the_model_is_not_changed_and_gives_the_same_bytes(int8):
    before = int8.SerializeToString()
    first, second = portable_attention(int8, 128), portable_attention(int8, 128)
    assert int8.SerializeToString() == before
    assert first.SerializeToString() == second.SerializeToString()


def test_a_softmax_outside_attention_is_decomposed_too():
    """A mask that hides too little keeps its attention from being recognized."""
    before = simplify(traced.encoder(lowest=-5.0))
    after = traced.checked(portable_softmax(before))
    same(before, after)
    assert traced.operators(before)["Softmax"] == 2
    assert traced.by_lanes(after) == set()


def test_a_softmax_of_scores_that_a_mask_made_huge():
    before = traced.encoder()
    after = traced.checked(portable_softmax(before))
    same(before, after)
    assert traced.by_lanes(before) == {"Softmax"}
    assert traced.by_lanes(after) == set()


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12])
def test_a_text_has_one_vector_wherever_it_is_in_a_batch(heads, monkeypatch):
    """A sum may round by where its row lies; heads in fours put those of all texts alike."""
    monkeypatch.setattr(traced, "HEADS", heads)
    recognized = quantize_int8(simplify(traced.encoder(layers=1)), traced.FEEDS)
    other = quantize_int8(simplify(traced.encoder(layers=1, lowest=-5.0)), traced.FEEDS)
    for made in (portable_attention(recognized, 128), portable_softmax(other)):
        assert (traced.by_lanes(made) == set()) == (heads % 4 == 0)
        session = traced.session(made)
        for length in (33, 99):
            feed = traced.feeds(100, length)
            twice = {name: np.repeat(value, 2, 0) for name, value in feed.items()}
            vectors = session.run(None, twice)[0]
            assert np.array_equal(vectors[::2], vectors[1::2])


def test_another_softmax_stays():
    t = traced.Trace()
    model = t.model(t.op("Softmax", t.embeddings(), axis=-1))
    assert traced.operators(portable_softmax(model))["Softmax"] == 1


def test_a_graph_with_sequences_of_tensors_comes_through():
    t = traced.Trace()
    x = t.layer(t.embeddings(), t.mask())
    parts = t.op("SplitToSequence", x, t.const(1, np.int64), axis=2)
    model = t.model(t.op("Add", x, t.op("SequenceAt", parts, t.const(0, np.int64))))
    before = simplify(model)
    after = portable_attention(before, 128)
    same(before, after)
    assert traced.by_lanes(after) == set()


def test_a_constant_of_the_same_name_and_other_type_is_kept(int8):
    int8 = onnx.ModelProto.FromString(int8.SerializeToString())
    step = np.array([-1.0], np.float32)
    int8.graph.initializer.append(onnx.numpy_helper.from_array(step, "last"))
    before = int8.graph.node[-1].output[0]
    int8.graph.node[-1].output[0] = "whole"
    int8.graph.node.append(onnx.helper.make_node("Mul", ["whole", "last"], [before]))
    made = traced.checked(portable_attention(int8, 128))
    one, other = traced.compute(int8, traced.FEEDS[0]), traced.compute(made, traced.FEEDS[0])
    assert (one * other).sum(1).min() > 0.999
