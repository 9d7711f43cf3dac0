"""fp32 graph to int8 graph: u8 activations with calibrated ranges, s8 weights.

Every product of an activation with a constant weight becomes QuantizeLinear and
MatMulIntegerToFloat (com.microsoft): one scale and zero point per activation, one scale per column
of the weight, the bias inside. No range depends on the batch, so neither does a vector. Large
embedding tables become int8 with one scale per row (`tables.py`). Anything else stays fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from embedge.progress import ProgressBar
from embedge_export.graph.ir import Array, Graph
from embedge_export.graph.passes.attention import fused
from embedge_export.quantization.calibration import samples
from embedge_export.quantization.parallel import parallel_map
from embedge_export.quantization.rounding import (
    fake_quantize,
    full_range,
    gptq,
    round_to_fp16,
    search_scales,
    smoothing,
)
from embedge_export.quantization.tables import quantize_tables, store_as_fp16

QUANTIZATION_SCHEME = "int8-static"

SMALLEST = 32  # rows and columns of the smallest weight worth quantizing
ALPHAS = (0.5, 0.6, 0.7, 0.8)  # more fits the samples better, and unseen text worse
SEARCH_ROWS = 4096
WORKERS = 4  # concurrent activations; each takes up to half a gigabyte


@dataclass(frozen=True)
class LinearLayer:
    """x W + b: a MatMul, the name of its weight, its bias (or None) and the result's name."""

    weight: str
    bias: str | None
    output: str


@dataclass(frozen=True)
class QuantizedActivation:
    """An activation x in eight bits, and the linear layers that consume it.

    x * factor (K,) becomes u8 with `scale` and `zero_point`; `layers` are weight int8 (K, N),
    scales (N,) and bias (N,).
    """

    factor: Array
    scale: np.float32
    zero_point: np.uint8
    layers: list[tuple[Array, Array, Array]]


def quantize_int8(
    model: onnx.ModelProto,
    feeds: Sequence[Mapping[str, Array]],
    *,
    progress: bool = False,
) -> onnx.ModelProto:
    """Return `model` in int8; `feeds` are inputs typical of what it will meet."""
    graph = Graph(model)
    graph.prune()
    activations = find_activations(graph)
    widths = {name: len(_value(graph, found[0].weight)) for name, found in activations.items()}
    # From the last to the first, so that every sample is of fp32 values.
    rows = samples(graph, dict(reversed(widths.items())), feeds)
    work = ((name, seen, _layers(graph, activations[name])) for name, seen in rows)
    # BLAS on one thread: the last bits of a product, and so the file's bytes, depend on the number.
    with (
        threadpool_limits(1),
        ProgressBar(len(activations), progress, unit="activations") as bar,
    ):
        for name, quantized in parallel_map(_quantized, work, most=WORKERS):
            _replace(graph, name, activations[name], quantized)
            bar.advance(1)
    fold_smoothing(graph)
    quantize_tables(graph)
    store_as_fp16(graph)
    return graph.finish()


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
        add = graph.reader(output, "Add")
        pair = graph.operand(add) if add is not None else None
        if add is not None and pair and _value(graph, pair[1]).shape == weight.shape[1:]:
            output, bias = add.output[0], pair[1]
        layer = LinearLayer(node.input[1], bias, output)
        activations.setdefault(node.input[0], []).append(layer)
    return activations


def _value(graph: Graph, name: str) -> Array:
    value = graph.constant(name)
    assert value is not None
    return value


def _layers(graph: Graph, layers: Sequence[LinearLayer]) -> list[tuple[Array, Array | None]]:
    """Weight (K, N) and bias (N,) or None of each layer."""
    return [
        (_value(graph, layer.weight), _value(graph, layer.bias) if layer.bias else None)
        for layer in layers
    ]


def _quantized(
    work: tuple[str, Array, Sequence[tuple[Array, Array | None]]],
) -> tuple[str, QuantizedActivation]:
    """Quantize an activation, of which `rows` (T, K) are samples, and the layers' weights."""
    name, rows, layers = work
    factor, scale, zero_point = _search_range(rows, np.concatenate([w for w, _ in layers], 1))
    seen = fake_quantize(rows * factor, scale, zero_point)  # (T, K), what the products will see
    # Each token counts by its relative error, so that the few huge ones do not decide alone.
    energy = sum(np.square(rows @ weight).sum(1) for weight, _ in layers)
    share = 1 / (energy + np.median(energy) + 1e-12)
    moments = (seen * (share / share.sum())[:, None]).T @ seen  # (K, K)
    mean, seen_mean = rows.mean(0), seen.mean(0)
    made = []
    for weight, bias in layers:
        smooth = weight / factor[:, None]
        scales = search_scales(smooth, np.diag(moments))
        quantized = gptq(smooth, scales, moments)
        bias_correction = mean @ weight - seen_mean @ (quantized * scales)  # the mean error
        if bias is not None:
            bias_correction += bias
        total = round_to_fp16(np.asarray(bias_correction, np.float32), smallest=0.0)
        made.append((quantized, scales, total))
    return name, QuantizedActivation(factor, scale, zero_point, made)


def _replace(
    graph: Graph, name: str, layers: Sequence[LinearLayer], quantized: QuantizedActivation
) -> None:
    """Replace the layers that consume the activation `name` with their eight-bit form."""
    source = graph.add("Mul", [name, graph.add_constant(quantized.factor, "smooth")], "smooth_x")
    scale = graph.add_constant(np.array(quantized.scale), "x_scale")
    zero_point = graph.add_constant(np.array(quantized.zero_point), "x_zero")
    values = graph.add("QuantizeLinear", [source, scale, zero_point], "x_u8")
    for layer, (weight, scales, bias) in zip(layers, quantized.layers, strict=True):
        constants = [
            graph.add_constant(weight, f"{layer.weight}_s8"),
            scale,
            graph.add_constant(scales, "w_scale"),
            zero_point,
            "",
            graph.add_constant(bias, "bias"),
        ]
        product = graph.add(
            "MatMulIntegerToFloat", [values, *constants], "linear", domain="com.microsoft"
        )
        graph.replace(layer.output, product)
    graph.require(1, "com.microsoft")


def _search_range(rows: Array, weight: Array) -> tuple[Array, np.float32, np.uint8]:
    """(factor (K,), scale, zero point) of `rows` (T, K) for the least error of rows @ weight."""
    few = rows[:: -(-len(rows) // SEARCH_ROWS)]
    best: tuple[float, Array, np.float32, np.uint8] | None = None
    for alpha in ALPHAS:
        factor = smoothing(rows, weight, alpha)
        cost = ((weight / factor[:, None]) ** 2).sum(1)
        smooth = few * factor
        scale, zero_point = full_range(smooth)
        error = float(((smooth - fake_quantize(smooth, scale, zero_point)) ** 2).sum(0) @ cost)
        if best is None or error < best[0]:
            best = (error, factor, scale, zero_point)
    assert best is not None
    return best[1:]


def fold_smoothing(graph: Graph) -> None:
    """Fold the factor of an attention's output into the values that it is a mean of.

    (P V) * f = P (V * f), and V = q W * scale + bias: one pass over the activations less.
    """
    graph.prune()  # what was replaced would count as a consumer
    for node in [node for node in graph.nodes if node.op_type == "Mul"]:
        pair = graph.operand(node)
        producer = graph.maker(pair[0]) if pair else None
        attention = fused(producer) if producer is not None else None
        if not pair or attention is None or graph.reader(pair[0]) is None:
            continue
        value, factor = attention.values[2], _value(graph, pair[1])
        linear = graph.maker(value, "MatMulIntegerToFloat")
        if linear is None or graph.reader(value) is None or factor.ndim > 1:
            continue
        if attention.values.count(value) > 1:  # it is the keys as well
            continue
        for index in (3, 6):  # scales and bias, both (N,)
            name = linear.input[index]
            linear.input[index] = graph.add_constant(_value(graph, name) * factor, name)
        graph.replace(node.output[0], pair[0])
