"""fp32 graph to int8 graph: u8 activations with calibrated ranges, s8 weights.

Every product of an activation with a constant weight becomes QuantizeLinear and
MatMulIntegerToFloat (com.microsoft): one scale and zero point per activation, one scale per column
of the weight, the bias inside. No range depends on the batch, so neither does a vector. Large
embedding tables become int8 with one scale per row (`tables.py`). Anything else stays fp32.

An activation can be kept in more than eight bits (`sensitivity.py` decides which): its outlier
channels in fp32, the rest in int8; twice eight bits, where the rounding error of the first
eight is quantized again and meets the same weights; or fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from embedge_export.graph.ir import Array, Graph
from embedge_export.quantization.calibration import samples
from embedge_export.quantization.parallel import parallel_map
from embedge_export.quantization.products import (
    LinearLayer,
    Precision,
    QuantizedActivation,
    fold_smoothing,
    replace_products,
)
from embedge_export.quantization.ranges import fake_quantize, search_range
from embedge_export.quantization.rounding import gptq, round_to_fp16, search_scales
from embedge_export.quantization.tables import quantize_tables, store_as_fp16

QUANTIZATION_SCHEME = "int8-static"

SMALLEST = 32  # rows and columns of the smallest weight worth quantizing
OUTLIERS = 8  # channels of an activation kept in fp32; 32 were no better
EVERY = 8  # activations between two lines of progress
WORKERS = 4  # concurrent activations; each takes up to half a gigabyte


class Quantizer:
    """The int8 forms of one model's activations, and the graphs that they make."""

    def __init__(self, model: onnx.ModelProto, feeds: Sequence[Mapping[str, Array]]) -> None:
        """Find the activations of `model`; `feeds` are inputs typical of what it will meet."""
        graph = Graph(model)
        graph.prune()
        self.activations = find_activations(graph)
        self._feeds, self._source = feeds, model
        self._made: dict[tuple[str, bool], QuantizedActivation] = {}
        quantize_tables(graph)
        self._base = graph.finish()

    def quantize(
        self,
        names: Iterable[str],
        *,
        outliers: bool = False,
        notify: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Quantize activations, with their outlier channels left out or not.

        `notify` is called with a line for every `EVERY` of them.
        """
        names = list(names)
        graph = Graph(self._source)
        graph.prune()
        widths = {n: len(graph.value(self.activations[n][0].weight)) for n in names}
        # From the last to the first: what samples a late activation needs the whole graph.
        rows = samples(graph, dict(reversed(widths.items())), self._feeds)
        work = (
            (name, outliers, seen, _layers(graph, self.activations[name])) for name, seen in rows
        )
        # BLAS on one thread: the last bits of a product depend on the number, so the bytes would.
        with threadpool_limits(1):
            done = parallel_map(_quantized, work, most=WORKERS)
            for count, (name, quantized) in enumerate(done, 1):
                self._made[name, outliers] = quantized
                if count % EVERY == 0 or count == len(names):
                    notify(f"{count} of {len(names)} activations quantized")

    def outlier_ratio(self, name: str) -> float:
        """The outlier ratio of an activation that has been quantized."""
        return self._made[name, False].outlier_ratio

    def weights(self, name: str) -> tuple[int, int]:
        """(K, N) of an activation: its channels, and the columns of all its layers."""
        shapes = [weight.shape for weight, *_ in self._made[name, False].layers]
        return shapes[0][0], sum(shape[1] for shape in shapes)

    def assemble(self, precisions: Mapping[str, Precision]) -> onnx.ModelProto:
        """Make the graph in which each activation has its precision, INT8 where none is given."""
        graph = Graph(self._base)
        for name, layers in self.activations.items():
            precision = precisions.get(name, Precision.INT8)
            if precision != Precision.FP32:
                with_outliers = (name, True) in self._made and precision >= Precision.FP32_CHANNELS
                replace_products(graph, name, layers, self._made[name, with_outliers], precision)
        fold_smoothing(graph)
        store_as_fp16(graph)
        return graph.finish()


def quantize_int8(model: onnx.ModelProto, feeds: Sequence[Mapping[str, Array]]) -> onnx.ModelProto:
    """Return `model` with every activation in eight bits; `feeds` are typical inputs."""
    quantizer = Quantizer(model, feeds)
    quantizer.quantize(quantizer.activations)
    return quantizer.assemble({})


def find_activations(graph: Graph) -> dict[str, list[LinearLayer]]:
    """Map each activation that meets constant weights to its linear layers, in graph order."""
    activations: dict[str, list[LinearLayer]] = {}
    for node in graph.nodes:
        weight = graph.constant(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            continue
        if min(weight.shape) < SMALLEST or node.input[0] in graph.initializers:
            continue
        output, bias = node.output[0], None
        add = graph.consumer(output, "Add")
        pair = graph.operand(add) if add is not None else None
        if add is not None and pair and graph.value(pair[1]).shape == weight.shape[1:]:
            output, bias = add.output[0], pair[1]
        layer = LinearLayer(node.input[1], bias, output)
        activations.setdefault(node.input[0], []).append(layer)
    return activations


def _layers(graph: Graph, layers: Sequence[LinearLayer]) -> list[tuple[Array, Array | None]]:
    """Weight (K, N) and bias (N,) or None of each layer."""
    return [
        (graph.value(layer.weight), graph.value(layer.bias) if layer.bias else None)
        for layer in layers
    ]


def _quantized(
    work: tuple[str, bool, Array, Sequence[tuple[Array, Array | None]]],
) -> tuple[str, QuantizedActivation]:
    """Quantize an activation, of which `rows` (T, K) are samples, and the layers' weights."""
    name, without_outliers, rows, layers = work
    # Each token counts by its relative error, so that the few huge ones do not dominate.
    energy = sum(np.square(rows @ weight).sum(1) for weight, _ in layers)
    share = 1 / (energy + np.median(energy) + 1e-12)
    share = (share / share.sum()).astype(np.float32)
    peaks = np.abs(rows).max(0)
    largest = np.argsort(-peaks, kind="stable")
    outliers = np.sort(largest[: OUTLIERS * without_outliers])
    if without_outliers:
        kept = np.ones(len(peaks), np.float32)
        kept[outliers] = 0
        rows = rows * kept
        layers = [(weight * kept[:, None], bias) for weight, bias in layers]
    found = search_range(rows, np.concatenate([weight for weight, _ in layers], 1), share)
    seen = fake_quantize(rows * found.factor, found.scale, found.zero_point)  # as products see it
    moments = (seen * share[:, None]).T @ seen  # (K, K)
    mean, seen_mean = rows.mean(0), seen.mean(0)
    made = []
    for weight, bias in layers:
        smooth = weight / found.factor[:, None]
        scales = search_scales(smooth, np.diag(moments))
        quantized = gptq(smooth, scales, moments)
        bias_correction = mean @ weight - seen_mean @ (quantized * scales)  # the mean error
        if bias is not None:
            bias_correction += bias
        total = round_to_fp16(np.asarray(bias_correction, np.float32), smallest=0.0)
        made.append((quantized, scales, total))
    ratio = float(peaks[largest[min(OUTLIERS, len(peaks) - 1)]] / max(peaks[largest[0]], 1e-12))
    return name, QuantizedActivation(found, made, outliers, ratio)
