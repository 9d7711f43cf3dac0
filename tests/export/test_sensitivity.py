"""More than eight bits: what each precision computes, and when it is used."""

from threading import Event
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from tests.export import traced
from tests.export.test_int8 import pair_sums, weights

from embedge.similarity import cosines
from embedge_export.graph.passes.portable import portable_attention, portable_softmax
from embedge_export.graph.passes.simplify import simplify
from embedge_export.quantization import sensitivity
from embedge_export.quantization.int8 import Quantizer, quantize_int8
from embedge_export.quantization.products import Precision
from embedge_export.quantization.sensitivity import Target, adapt, cost
from embedge_export.steps import step

HELD_BACK = [traced.feeds(2, length, seed=100 + length) for length in range(3, 40, 3)]


@pytest.fixture(scope="module")
def spiky() -> onnx.ModelProto:
    """An encoder whose GELU outputs have one channel far beyond the others."""
    model = traced.encoder()
    for item in model.graph.initializer:
        if list(item.dims) == [traced.HIDDEN, traced.INNER]:
            value = onnx.numpy_helper.to_array(item).copy()
            value[:, 5] *= 40
            item.CopyFrom(onnx.numpy_helper.from_array(value, item.name))
    return simplify(model)


@pytest.fixture(scope="module")
def quantizer(spiky: onnx.ModelProto) -> Quantizer:
    quantizer = Quantizer(spiky, traced.FEEDS)
    quantizer.quantize(quantizer.activations)
    quantizer.quantize(quantizer.activations, outliers=True)
    return quantizer


def closeness(model: onnx.ModelProto, other: onnx.ModelProto) -> float:
    pairs = ((traced.compute(model, f), traced.compute(other, f)) for f in HELD_BACK)
    return float(np.concatenate([cosines(a, b) for a, b in pairs]).mean())


def everywhere(quantizer: Quantizer, precision: Precision) -> onnx.ModelProto:
    return quantizer.assemble(dict.fromkeys(quantizer.activations, precision))


def test_more_precision_is_closer(spiky: onnx.ModelProto, quantizer: Quantizer) -> None:
    losses = [1 - closeness(spiky, everywhere(quantizer, precision)) for precision in Precision]
    assert losses == sorted(losses, reverse=True)
    assert losses[Precision.FP32_CHANNELS] < 0.5 * losses[Precision.INT8]
    assert losses[Precision.INT16] < 0.9 * losses[Precision.FP32_CHANNELS]


@pytest.mark.parametrize("precision", Precision)
def test_a_vector_does_not_depend_on_its_batch(precision: Precision, quantizer: Quantizer) -> None:
    traced.assert_invariant(everywhere(quantizer, precision))


@pytest.mark.parametrize("precision", Precision)
def test_no_sum_depends_on_the_vector_width(precision: Precision, quantizer: Quantizer) -> None:
    """`scripts/check_portability` runs a file of all precisions on other CPUs."""
    made = portable_softmax(portable_attention(everywhere(quantizer, precision), 128))
    assert traced.by_lanes(made) == set()


def test_no_product_can_saturate(quantizer: Quantizer) -> None:
    model = everywhere(quantizer, Precision.FP32_CHANNELS)
    careful = traced.session(model, session_x64quantprecision="1")
    for feed in HELD_BACK:
        assert np.array_equal(traced.compute(model, feed), careful.run(None, feed)[0])
    sixteen = everywhere(quantizer, Precision.INT16)  # the very weights of the model above
    assert int8_weights(sixteen) == int8_weights(model)


@pytest.mark.parametrize("precision", [p for p in Precision if p != Precision.FP32])
def test_two_neighbouring_products_fit_sixteen_bits(
    precision: Precision, quantizer: Quantizer
) -> None:
    """What AVX2 adds in an int16: 255 times each weight of a pair of rows."""
    stored = weights(everywhere(quantizer, precision))
    assert len(stored) >= 12
    assert 255 * max(map(pair_sums, stored)) <= 2**15 - 1


def int8_weights(model: onnx.ModelProto) -> list[bytes]:
    return sorted(w.raw_data for w in model.graph.initializer if w.data_type == w.INT8)


def test_both_products_of_sixteen_bits_share_one_weight(quantizer: Quantizer) -> None:
    model = everywhere(quantizer, Precision.INT16)
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 24
    assert len({node.input[1] for node in products}) == 12


def test_a_model_that_meets_the_target_stays_plain(plain: onnx.ModelProto) -> None:
    quantizer = Quantizer(plain, traced.FEEDS)
    quantizer.quantize(quantizer.activations)
    lines: list[str] = []
    made = adapt(plain, quantizer, HELD_BACK, Target(0.99), lines.append)
    assert made.model.SerializeToString() == quantize_int8(plain, traced.FEEDS).SerializeToString()
    assert made.report["met"]
    assert made.report["higher_precision"] == {}
    assert made.report["estimated_added_time"] == made.report["added_bytes"] == 0
    assert len(lines) == 1
    assert lines[0].startswith("all activations in 8 bits: cosine mean 0.99")
    assert lines[0].endswith(" on 26 held-back texts")


def test_precision_is_spent_until_the_target_is_met(spiky: onnx.ModelProto) -> None:
    quantizer = Quantizer(spiky, traced.FEEDS)
    quantizer.quantize(quantizer.activations)
    reports = []
    for goal in (0.999, 0.9995, 1 - 1e-9):
        lines: list[str] = []
        made = adapt(spiky, quantizer, HELD_BACK, Target(goal), lines.append)
        reached = made.report["reached"]["mean"]
        assert closeness(spiky, made.model) == pytest.approx(reached, abs=2e-6)
        reports.append(made.report)
    assert [report["met"] for report in reports] == [True, True, False]  # tables stay in int8
    costs = [report["estimated_added_time"] for report in reports]
    assert costs[0] == 0 < costs[1] < costs[2]
    assert reports[1]["higher_precision"]
    assert reports[1]["added_bytes"] > 0
    assert "sensitivity of 8 of 8 activations measured" in lines


def test_the_target_by_hand() -> None:
    target = Target(0.998)
    assert target.percentile_1 == pytest.approx(0.995)
    assert target.excess(np.full(100, 0.998)) == pytest.approx(1)
    assert target.excess(np.full(100, 0.996)) == pytest.approx(2)
    few_bad = np.array([1.0] * 98 + [0.99] * 2)
    assert target.excess(few_bad) == pytest.approx(0.01 / 0.005, rel=0.02)


def test_costs_by_hand() -> None:
    """Of 64 channels and 32 columns, in int8 multiply-adds for one token."""
    assert cost((64, 32), Precision.INT8) == 0
    assert cost((64, 32), Precision.FP32_CHANNELS) == 8 * (7.5 * 32 + 150) + 150 * 32
    assert cost((64, 32), Precision.INT16) == 64 * 32 + 150 * (3 * 64 + 32)
    assert cost((64, 32), Precision.FP32) == 6.5 * 64 * 32 - 150 * 64


def test_upgrades_are_taken_until_they_promise_enough() -> None:
    gains = {"a": 0.3, "b": 0.2, "c": 0.1}
    upgrades = [sensitivity.Upgrade(name, Precision.INT16, gain) for name, gain in gains.items()]
    precisions: dict[str, Precision] = {}
    sensitivity.take(precisions, upgrades, 0.4)
    assert list(precisions) == ["a", "b"]
    sensitivity.take(precisions, upgrades, 0.9)
    assert list(precisions) == ["a", "b", "c"]
    assert upgrades == []


def test_a_long_step_says_that_it_is_still_running(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    begun, spoken = Event(), Event()

    class Beats(Event):
        """Waits for the step's first line, and then no longer."""

        def wait(self, timeout: float | None = None) -> bool:
            return begun.wait(60) and self.is_set()

    monkeypatch.setattr("embedge_export.steps.Event", Beats)
    monkeypatch.setattr("embedge_export.steps.time", SimpleNamespace(monotonic=lambda: 0.0))

    def notify(line: str) -> None:
        lines.append(line)
        if "still running" in line:
            spoken.set()

    with step("trace", notify) as say:
        say("BertModel")
        begun.set()
        assert spoken.wait(60)
    assert lines[0] == "trace     BertModel"
    assert lines[1] == "trace     still running, 0 s"
