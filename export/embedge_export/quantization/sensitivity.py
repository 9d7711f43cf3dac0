"""What each activation costs in eight bits, and more precision where it matters most.

The plain scheme is measured on texts that were not used to choose ranges. If it misses the target,
outlier channels go to fp32 (some percent of the time at most); if that is not enough, each
activation's share in the error is measured by giving only it more precision, and those that give
most for their cost get it, until the target is met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from embedge.modelfile.signature import OUTPUT
from embedge.similarity import cosines
from embedge_export.graph.ir import Array, Graph
from embedge_export.quantization.calibration import MASK
from embedge_export.quantization.int8 import Quantizer
from embedge_export.quantization.parallel import parallel_map
from embedge_export.quantization.products import Precision

MEAN_COSINE = 0.998
PERCENTILE_SHARE = 2.5  # the 1st percentile may miss 1 by so many times what the mean may
OUTLIER_RATIO = 0.5  # channels are outliers if the others stay below this share of the largest
SAMPLE_TOKENS, SAMPLE_TEXTS = 64, 24  # that a single activation is measured with
ROUNDS = 6  # of more precision and a full measurement
WORKERS = 2  # graphs that run at a time

# Costs in int8 multiply-adds, measured on AVX-512-VNNI; scripts/profile_operators shows operators.
PASS = 150  # of reading and writing one fp32 value
FP32_PRODUCT = 7.5  # of one fp32 multiply-add
PRODUCT_SHARE = 0.55  # of the time of a whole model that its int8 products and their inputs take


@dataclass(frozen=True)
class Target:
    """The least mean and 1st percentile of the cosines to fp32 vectors."""

    mean: float = MEAN_COSINE

    @property
    def percentile_1(self) -> float:
        """0.995 for a mean of 0.998."""
        return 1 - PERCENTILE_SHARE * (1 - self.mean)

    def excess(self, cosine: Array) -> float:
        """How many times the error is what it may be: at most 1 where the target is met."""
        mean = (1 - float(cosine.mean())) / (1 - self.mean)
        return max(mean, (1 - float(np.percentile(cosine, 1))) / (1 - self.percentile_1))


@dataclass(frozen=True)
class Adapted:
    """A quantized graph, and what its report says of the precision in it."""

    model: onnx.ModelProto
    report: dict[str, Any]


class _Meter:
    """Cosines of quantized graphs' vectors to those of the fp32 graph."""

    def __init__(self, model: onnx.ModelProto, feeds: Sequence[Mapping[str, Array]]) -> None:
        self._feeds = feeds
        short = [feed for feed in feeds if feed[MASK].shape[1] <= SAMPLE_TOKENS] or feeds[:1]
        few = max(1, SAMPLE_TEXTS // len(short))
        self._sample = [{name: value[:few] for name, value in feed.items()} for feed in short]
        self._reference = self._encode(model, feeds)
        self._sample_reference = self._encode(model, self._sample)

    def all(self, model: onnx.ModelProto) -> Array:
        """Cosines of all texts, (texts,)."""
        return cosines(self._encode(model, self._feeds), self._reference)

    def loss(self, model: onnx.ModelProto) -> float:
        """1 - the mean cosine of a few short texts."""
        run = Graph(model).runner([OUTPUT])
        found = np.concatenate([run(feed)[0] for feed in self._sample])
        return 1 - float(cosines(found, self._sample_reference).mean())

    @staticmethod
    def _encode(model: onnx.ModelProto, feeds: Sequence[Mapping[str, Array]]) -> Array:
        run = Graph(model).runner([OUTPUT])
        return np.concatenate([values[0] for values in parallel_map(run, feeds, most=WORKERS)])


def adapt(
    model: onnx.ModelProto,
    quantizer: Quantizer,
    held_back: Sequence[Mapping[str, Array]],
    target: Target,
    notify: Callable[[str], None],
) -> Adapted:
    """Give activations more precision until `target` is met on the `held_back` feeds.

    Args:
        model: the fp32 graph.
        quantizer: of the same graph; every activation is quantized.
        held_back: inputs of texts that ranges were not chosen by.
        target: what to reach; if nothing reaches it, the best that was found is returned.
        notify: called with a line for each step.
    """
    meter = _Meter(model, held_back)
    precisions: dict[str, Precision] = {}

    def measured(what: str) -> tuple[onnx.ModelProto, Array]:
        made = quantizer.assemble(precisions)
        notify(_figures(what, cosine := meter.all(made)))
        return made, cosine

    plain, cosine = measured("all activations in 8 bits")
    made = plain
    if target.excess(cosine) > 1:
        count = _keep_outliers(quantizer, precisions, notify)
        made, cosine = measured(f"outlier channels of {count} activations in fp32")
    if target.excess(cosine) > 1:
        upgrades = _upgrades(quantizer, precisions, meter, notify)
        for _ in range(ROUNDS):
            if target.excess(cosine) <= 1 or not upgrades:
                break
            take(precisions, upgrades, 1 - 1 / target.excess(cosine))
            raised = sum(p > Precision.FP32_CHANNELS for p in precisions.values())
            made, cosine = measured(f"{raised} activations in more than 8 bits")
    report = _report(quantizer, precisions, cosine, target)
    report["added_bytes"] = _bytes(made) - _bytes(plain)
    return Adapted(made, report)


def _keep_outliers(
    quantizer: Quantizer, precisions: dict[str, Precision], notify: Callable[[str], None]
) -> int:
    """Keep the outlier channels of activations in fp32; returns of how many activations."""
    outliers = [n for n in quantizer.activations if quantizer.outlier_ratio(n) < OUTLIER_RATIO]
    quantizer.quantize(outliers, outliers=True, notify=notify)
    precisions.update(dict.fromkeys(outliers, Precision.FP32_CHANNELS))
    return len(outliers)


@dataclass(frozen=True)
class Upgrade:
    """More precision for one activation."""

    name: str
    precision: Precision
    gain: float  # the share of the whole error that goes


def _upgrades(
    quantizer: Quantizer,
    precisions: Mapping[str, Precision],
    meter: _Meter,
    notify: Callable[[str], None],
) -> list[Upgrade]:
    """The upgrade of each activation that gives most for its cost, best first."""
    before = meter.loss(quantizer.assemble(precisions))
    trials = [(n, p) for n in quantizer.activations for p in (Precision.INT16, Precision.FP32)]

    def gain(trial: tuple[str, Precision]) -> float:
        loss = meter.loss(quantizer.assemble({**precisions, trial[0]: trial[1]}))
        return float(f"{1 - loss / before:.2g}")  # last digits depend on the CPU

    best: dict[str, tuple[float, Upgrade]] = {}
    for count, found in enumerate(parallel_map(gain, trials, most=WORKERS), 1):
        name, precision = trials[count - 1]
        worth = found / cost(quantizer.weights(name), precision)
        if found > 0 and worth > best.get(name, (0.0,))[0]:
            best[name] = worth, Upgrade(name, precision, found)
        if count % 16 == 0 or count == len(trials):
            notify(f"sensitivity of {count // 2} of {len(trials) // 2} activations measured")
    ranked = sorted(best.values(), key=lambda item: -item[0])
    return [upgrade for _, upgrade in ranked]


def take(precisions: dict[str, Precision], upgrades: list[Upgrade], share: float) -> None:
    """Move upgrades, best first, into `precisions`, until they promise to remove `share`."""
    promised = 0.0
    while upgrades and promised < share:
        upgrade = upgrades.pop(0)
        precisions[upgrade.name] = upgrade.precision
        promised += upgrade.gain


def cost(shape: tuple[int, int], precision: Precision, outliers: int = 8) -> float:
    """Cost per token of a product of (K, N) beyond that in INT8, in int8 multiply-adds."""
    k, n = shape
    added = {
        Precision.INT8: 0.0,
        Precision.FP32_CHANNELS: outliers * (FP32_PRODUCT * n + PASS) + PASS * n,
        Precision.INT16: k * n + PASS * (3 * k + n),
        Precision.FP32: (FP32_PRODUCT - 1) * k * n - PASS * k,
    }
    return added[precision]


def _report(
    quantizer: Quantizer, precisions: Mapping[str, Precision], cosine: Array, target: Target
) -> dict[str, Any]:
    raised = {
        label: sum(precision == kind for precision in precisions.values())
        for label, kind in (
            ("fp32_channels", Precision.FP32_CHANNELS),
            ("int16", Precision.INT16),
            ("fp32", Precision.FP32),
        )
    }
    shapes = {name: quantizer.weights(name) for name in quantizer.activations}
    plain = sum(k * n + PASS * (k + n) for k, n in shapes.values()) / PRODUCT_SHARE
    added = sum(cost(shapes[name], precision) for name, precision in precisions.items())
    return {
        "target": {"mean": target.mean, "percentile_1": round(target.percentile_1, 6)},
        "reached": {
            "mean": round(float(cosine.mean()), 6),
            "percentile_1": round(float(np.percentile(cosine, 1)), 6),
        },
        "met": target.excess(cosine) <= 1,
        "texts": len(cosine),
        "activations": len(shapes),
        "higher_precision": {label: count for label, count in raised.items() if count},
        "estimated_added_time": round(added / plain, 3) if shapes else 0.0,
    }


def _bytes(model: onnx.ModelProto) -> int:
    return sum(len(item.raw_data) for item in model.graph.initializer)


def _figures(what: str, cosine: Array) -> str:
    return (
        f"{what}: cosine mean {cosine.mean():.5f}, 1st percentile {np.percentile(cosine, 1):.5f} "
        f"on {len(cosine)} held-back texts"
    )
