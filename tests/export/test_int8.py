"""int8: which products cannot saturate, what stays the same, and how close it comes."""

import numpy as np
import onnx
import pytest
from tests.export import traced

from embedge.errors import ExportError
from embedge_export.graph.ir import Graph
from embedge_export.quantization import int8 as quantize
from embedge_export.quantization.calibration import (
    calibration_texts,
    held_back_texts,
    samples,
    split,
)
from embedge_export.quantization.int8 import find_activations, quantize_int8
from embedge_export.quantization.products import fold_smoothing
from embedge_export.quantization.ranges import (
    ALPHAS,
    fake_quantize,
    full_range,
    search_range,
    smoothing,
)
from embedge_export.quantization.rounding import (
    gptq,
    round_to_fp16,
    saturation_safe,
    search_scales,
)
from embedge_export.quantization.tables import row_error, store_as_fp16
from embedge_export.texts import read_lines

PADDED = [traced.feeds(4, 20, "right", seed=1)]


def weights(model):
    """The int8 weights (K, N) of all products."""
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    return [traced.weight_of(model, node.input[1]) for node in products]


def pair_sums(quantized):
    """Largest sum of one sign in a pair of neighbouring rows."""
    even = np.asarray(quantized, np.int64)[: len(quantized) // 2 * 2]
    pairs = even.reshape(-1, 2, even.shape[1])
    return max(np.maximum(pairs, 0).sum(1).max(), np.maximum(-pairs, 0).sum(1).max())


def test_saturation_safe_by_hand():
    values = np.array([[127, -127, 127, 100, 64.0], [127, -127, -127, 29, 64.0], [300, 0, 0, 0, 0]])
    expected = [[64, -64, 127, 100, 64], [64, -64, -127, 28, 64], [127, 0, 0, 0, 0]]
    assert saturation_safe(values).tolist() == expected


@pytest.mark.parametrize("rows", [16, 33])
def test_rounded_weights_are_saturation_safe(rows):
    rng = np.random.default_rng(rows)
    weight = rng.standard_t(2, (rows, 24)).astype(np.float32)
    moments = np.cov(rng.standard_normal((rows, 200)))
    scales = search_scales(weight, np.diag(moments))
    q = gptq(weight, scales, moments)
    assert q.dtype == np.int8
    assert pair_sums(q) <= 128
    assert np.abs(q.astype(int)).max() <= 127
    assert np.abs(q.astype(int)).max() > 100


def test_adaptive_rounding_beats_the_nearest():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 8)) @ rng.standard_normal((8, 64)) + rng.normal(0, 0.1, (500, 64))
    weight = rng.standard_normal((64, 16)).astype(np.float32)
    moments = x.T @ x / len(x)
    scales = search_scales(weight, np.diag(moments))
    nearest = saturation_safe(np.rint(weight / scales))
    adaptive = gptq(weight, scales, moments)
    error = [((x @ (q * scales - weight)) ** 2).sum() for q in (nearest, adaptive)]
    assert error[1] < 0.5 * error[0]


def test_a_column_of_zeros_stays_zero():
    weight = np.zeros((8, 3), np.float32)
    scales = search_scales(weight, np.ones(8))
    assert np.isfinite(scales).all()
    assert not gptq(weight, scales, np.eye(8)).any()


def test_moments_that_rounding_errors_made_indefinite_are_damped_more():
    weight = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    moments = np.ones((8, 8)) - 0.05 * np.eye(8)  # an eigenvalue is -0.05; their mean is 0.95
    q = gptq(weight, np.full(3, 0.02, np.float32), moments)
    assert np.abs(q * 0.02 - weight).mean() < 0.5
    with pytest.raises(ExportError, match="an activation is not finite"):
        gptq(weight, np.full(3, 0.02, np.float32), np.full((8, 8), np.nan))


def test_full_range_by_hand():
    rows = np.array([[-1.0, 0.0], [0.5, 1.55]], np.float32)
    scale, zero_point = full_range(rows)
    assert scale == pytest.approx(0.01)
    assert zero_point == 100
    assert fake_quantize(rows, scale, zero_point) == pytest.approx(rows, abs=1e-6)
    assert full_range(rows, 2.0) == (pytest.approx(0.02), 100)


def test_smoothing_by_hand():
    rows, weight = np.array([[4.0, -1.0]], np.float32), np.ones((2, 3), np.float32)
    large = [4, 3.25]  # the smaller is raised to the third quartile
    expected = (large[0] * large[1]) ** 0.25 / np.sqrt(large)
    assert smoothing(rows, weight, 0.5) == pytest.approx(expected, rel=2**-11)
    assert smoothing(rows, weight, 0.0) == pytest.approx([1, 1])


def test_a_range_is_not_chosen_by_the_rows_that_it_is_judged_by():
    """A channel that only one block of rows knows: most smoothing fits that block, and clips the
    others; least smoothing does not."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (64, 16)).astype(np.float32)
    for block in range(8):  # blocks are dealt to the halves in turn
        rows[8 * block : 8 * block + 8, 2 * block : 2 * block + 2] *= 30
    weight = rng.normal(0, 1, (16, 4)).astype(np.float32)
    found = search_range(rows, weight, np.full(64, 1 / 64, np.float32))
    own = min(ALPHAS, key=lambda alpha: range_error(rows, rows, weight, alpha))
    assert np.array_equal(found.factor, smoothing(rows, weight, ALPHAS[0]))
    assert own != ALPHAS[0]


def range_error(fitted, test, weight, alpha):
    """The squared error on `test` of the range that `fitted` gives."""
    factor = smoothing(fitted, weight, alpha)
    smooth = test * factor
    error = fake_quantize(smooth, *full_range(fitted * factor)) - smooth
    return float((error**2).sum(0) @ ((weight / factor[:, None]) ** 2).sum(1))


def test_round_to_fp16_by_hand():
    """float16 has 11 bits: 2049 is between two of its numbers, and 1e-6 is below its full range."""
    values = np.array([1.0, 2049.0, 1e-6, 1e6, 0.0], np.float32)
    assert round_to_fp16(values).tolist() == np.float32([1, 2048, 1e-6, 1e6, 0]).tolist()
    small = float(np.float16(1e-6))
    assert (
        round_to_fp16(values, smallest=0.0).tolist()
        == np.float32([1, 2048, small, 1e6, 0]).tolist()
    )


def test_constants_that_half_holds_are_stored_so(plain):
    wide = np.array([1.0] * 40, np.float32)
    exact = Graph(plain)
    name, other = exact.add_constant(wide, "wide"), exact.add_constant(wide * 0.1, "other")
    store_as_fp16(exact)
    assert exact.producer(name, "Cast") is not None
    assert exact.constant(f"{name}_half").dtype == np.float16
    assert exact.constant(other).dtype == np.float32


def test_every_linear_layer_and_table_is_int8(plain, int8):
    counts = traced.operators(int8)
    assert counts["MatMulIntegerToFloat"] == 12
    assert counts["QuantizeLinear"] == 8  # query, key and value share one
    assert counts["MatMul"] == 1  # the pooling
    sizes = {tuple(w.dims): w.data_type for w in int8.graph.initializer if len(w.dims) == 2}
    assert sizes[300, 48] == sizes[128, 48] == 3  # TensorProto.INT8
    assert len(int8.SerializeToString()) < 0.4 * len(plain.SerializeToString())


def test_int8_is_close(plain, int8):
    for feed in [*traced.FEEDS, *PADDED, traced.feeds(4, 20, "left", seed=2)]:
        one, other = traced.compute(plain, feed), traced.compute(int8, feed)
        assert (one * other).sum(1).min() > 0.995


def test_the_factor_of_an_attention_is_in_its_values(int8):
    def scaled(model):
        """How many attentions are multiplied by something."""
        outputs = {node.output[0] for node in model.graph.node if node.op_type == "If"}
        return sum(node.op_type == "Mul" and node.input[0] in outputs for node in model.graph.node)

    assert scaled(int8) == 0


@pytest.mark.parametrize(
    ("places", "shape", "folded"),
    [
        ((0, 1, 2), (48,), True),
        ((0, 1, 2), (1,), True),
        ((0, 1, 2), (1, 1, 48), False),
        ((0, 2, 2), (48,), False),  # the values are the keys as well
        ((2, 1, 2), (48,), False),
    ],
)
def test_folding_a_factor_keeps_the_function(places, shape, folded):
    rng = np.random.default_rng(0)
    t = traced.Trace()
    quantized = t.op("QuantizeLinear", t.embeddings(), "scale", "zero")
    weight = rng.integers(-60, 60, (3, 48, 48)).astype(np.int8)
    factor = (rng.random(shape) + 0.5).astype(np.float32)
    constants = {"scale": np.float32(0.03), "zero": np.uint8(128), "factor": factor}
    values = []
    for index in range(3):
        names = [f"{name}{index}" for name in ("weight", "scales", "bias")]
        numbers = rng.random((2, 48)).astype(np.float32) / [[99], [1]]
        given = (weight[index], *numbers.astype(np.float32))
        constants |= dict(zip(names, given, strict=True))
        inputs = [quantized, names[0], "scale", names[1], "zero", "", names[2]]
        values.append(t.op("MatMulIntegerToFloat", *inputs, domain="com.microsoft"))
    mixed = t.op(
        "MultiHeadAttention",
        *(values[place] for place in places),
        domain="com.microsoft",
        num_heads=4,
        scale=0.3,
    )
    model = t.model(t.op("Mul", mixed, "factor"), opset=20)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    work = Graph(model)
    fold_smoothing(work)
    result = work.finish()
    assert traced.operators(result)["Mul"] == traced.operators(model)["Mul"] - folded
    for feed in traced.FEEDS:
        one, other = traced.compute(model, feed), traced.compute(result, feed)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_no_weight_of_a_model_can_saturate(int8):
    assert max(pair_sums(q) for q in weights(int8)) <= 128


def test_exact_with_and_without_the_option_against_saturation(int8):
    careful = traced.session(int8, session_x64quantprecision="1")
    for feed in traced.FEEDS:
        assert np.array_equal(traced.compute(int8, feed), careful.run(None, feed)[0])


def test_vectors_do_not_depend_on_the_batch_or_the_threads(int8):
    traced.assert_invariant(int8)


@pytest.mark.parametrize("cpus", [1, 2, 7])
def test_the_same_bytes_every_time_on_any_number_of_cpus(plain, int8, cpus, monkeypatch):
    monkeypatch.setattr("embedge_export.quantization.parallel.available_cpus", lambda: cpus)
    monkeypatch.setattr(
        "embedge_export.quantization.calibration.BYTES", 1 << 24
    )  # samples in several groups
    before = plain.SerializeToString()
    assert quantize_int8(plain, traced.FEEDS).SerializeToString() == int8.SerializeToString()
    assert plain.SerializeToString() == before


def test_progress_counts_the_activations(plain, monkeypatch):
    monkeypatch.setattr(quantize, "EVERY", 3)
    quantizer, lines = quantize.Quantizer(plain, traced.FEEDS), []
    quantizer.quantize(quantizer.activations, notify=lines.append)
    assert lines == [f"{n} of 8 activations quantized" for n in (3, 6, 8)]


def test_a_graph_without_linear_layers_comes_through():
    t = traced.Trace()
    model = t.model(t.op("Tanh", t.op("Abs", t.embeddings())))
    result = quantize_int8(model, traced.FEEDS)
    assert traced.operators(result)["QuantizeLinear"] == 0
    for feed in traced.FEEDS:
        one, other = traced.compute(model, feed), traced.compute(result, feed)
        assert (one * other).sum(1).min() > 0.999


def test_an_unsimplified_graph_is_quantized_too():
    model = traced.encoder(layers=1)
    result = quantize_int8(model, traced.FEEDS)
    assert traced.operators(result)["MatMulIntegerToFloat"] > 0
    for feed in [*traced.FEEDS, *PADDED]:
        one, other = traced.compute(model, feed), traced.compute(result, feed)
        assert (one * other).sum(1).min() > 0.995


def test_a_linear_layer_without_bias_and_a_small_one():
    t = traced.Trace()
    x = t.op("MatMul", t.embeddings(), t.weight(48, 64))
    x = t.op("MatMul", t.op("MatMul", x, t.weight(64, 4)), t.weight(4, 48))
    model = t.model(x)
    assert len(find_activations(Graph(model))) == 1
    result = quantize_int8(model, traced.FEEDS)
    assert traced.operators(result)["MatMulIntegerToFloat"] == 1
    one, other = traced.compute(model, traced.FEEDS[0]), traced.compute(result, traced.FEEDS[0])
    assert (one * other).sum(1).min() > 0.99


def test_samples_leave_padding_out(plain, monkeypatch):
    work = Graph(plain)
    name = next(iter(find_activations(work)))
    [(_, rows)] = samples(work, {name: 48}, PADDED)
    assert rows.shape == (int(PADDED[0]["attention_mask"].sum()), 48)
    monkeypatch.setattr("embedge_export.quantization.calibration.ROWS", 30)
    [(_, fewer)] = samples(work, {name: 48}, PADDED)
    assert 30 <= len(fewer) < len(rows)


def test_table_centre_is_used_where_a_few_columns_are_large():
    rng = np.random.default_rng(0)
    table = rng.normal(0, 0.1, (200, 48)).astype(np.float32)
    assert row_error(table - np.median(table, 0)) > 0.5 * row_error(table)
    table[:, 3] += 5
    assert row_error(table - np.median(table, 0)) < 0.5 * row_error(table)


@pytest.mark.parametrize("texts", [calibration_texts(), held_back_texts()])
def test_shipped_texts(texts):
    """Those to choose ranges with and those to measure on are of the same kinds."""
    assert len(texts) >= 100
    assert len(set(texts)) == len(texts)
    assert "" in texts
    assert sum(0 < len(text.split()) <= 3 and len(text) < 20 for text in texts) >= 5
    assert max(map(len, texts)) > 400
    assert any(text.isupper() for text in texts)
    assert any(text.startswith(("def ", "import ")) for text in texts)
    assert set("0яاनの天τ") <= set("".join(texts))
    assert any("가" <= letter <= "힣" for letter in "".join(texts))


def test_held_back_texts_choose_no_ranges():
    assert set(calibration_texts()) & set(held_back_texts()) == {""}
    assert split(["a", "b", "c"]) == (["a", "c"], ["b"])
    assert split(["a"]) == (["a"], ["a"])  # there is nothing else to measure on


def test_blank_lines_are_the_empty_text():
    assert read_lines("a\n\nb \r\n") == ["a", "", "b "]
    assert read_lines("a\n\n") == ["a", ""]
    assert read_lines("a") == ["a"]
    assert read_lines("") == []
