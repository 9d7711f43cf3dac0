"""The nodes of a quantized product, by its precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from embedge_export.graph.ir import Array, Graph
from embedge_export.graph.passes.attention import fused
from embedge_export.quantization.ranges import Range

MICROSOFT = "com.microsoft"


class Precision(IntEnum):
    """How an activation meets its weights, cheapest first."""

    INT8 = 0
    FP32_CHANNELS = 1
    INT16 = 2
    FP32 = 3


@dataclass(frozen=True)
class LinearLayer:
    """x W + b: a MatMul, the name of its weight, its bias (or None) and the result's name."""

    weight: str
    bias: str | None
    output: str


@dataclass(frozen=True)
class QuantizedActivation:
    """An activation in eight bits, and the linear layers that consume it.

    `layers` are weight int8 (K, N), scales (N,) and bias (N,). The weights of the `outliers`,
    indices of channels, are 0 there. `outlier_ratio` is the largest value of the other channels
    as a share of the largest of all, were the `OUTLIERS` largest left out.
    """

    range: Range
    layers: list[tuple[Array, Array, Array]]
    outliers: Array
    outlier_ratio: float


def replace_products(
    graph: Graph,
    name: str,
    layers: Sequence[LinearLayer],
    quantized: QuantizedActivation,
    precision: Precision,
) -> None:
    """Replace the layers that consume the activation `name` with their quantized form."""
    source = graph.add("Mul", [name, graph.add_constant(quantized.range.factor, "smooth")], "x_mul")
    inputs = [_quantize(graph, source, quantized.range.scale, quantized.range.zero_point)]
    if precision == Precision.INT16:
        rounded = graph.add("DequantizeLinear", list(inputs[0]), "x_rounded")
        error = graph.add("Sub", [source, rounded], "x_error")  # at most half a scale
        inputs.append(_quantize(graph, error, quantized.range.scale / np.float32(255), 128))
    if len(quantized.outliers):
        index = graph.add_constant(quantized.outliers.astype(np.int64), "outliers")
        few = graph.add("Gather", [name, index], "x_outliers", axis=-1)
    for layer, (weight, scales, bias) in zip(layers, quantized.layers, strict=True):
        constants = (
            graph.add_constant(weight, f"{layer.weight}_s8"),
            graph.add_constant(scales, "w_scale"),
        )
        terms = [_product(graph, inputs[0], constants, [graph.add_constant(bias, "bias")])]
        terms += [_product(graph, rest, constants, []) for rest in inputs[1:]]
        if len(quantized.outliers):
            rows = graph.add_constant(graph.value(layer.weight)[quantized.outliers], "w_outliers")
            terms.append(graph.add("MatMul", [few, rows], "few"))
        total = terms[0]
        for term in terms[1:]:
            total = graph.add("Add", [total, term], "sum")
        graph.replace(layer.output, total)
    graph.require(1, MICROSOFT)


def _quantize(
    graph: Graph, value: str, scale: np.float32, zero_point: int | np.uint8
) -> tuple[str, str, str]:
    """Add QuantizeLinear; returns the names of the u8 value, its scale and its zero point."""
    x_scale = graph.add_constant(np.array(scale, np.float32), "x_scale")
    x_zero = graph.add_constant(np.array(zero_point, np.uint8), "x_zero")
    return graph.add("QuantizeLinear", [value, x_scale, x_zero], "x_u8"), x_scale, x_zero


def _product(
    graph: Graph, x: tuple[str, str, str], weight: tuple[str, str], bias: Sequence[str]
) -> str:
    """Add MatMulIntegerToFloat of (u8 value, scale, zero point) and (s8 weight, scales)."""
    inputs = [x[0], weight[0], x[1], weight[1], x[2], *(["", *bias] if bias else [])]
    return graph.add("MatMulIntegerToFloat", inputs, "linear", domain=MICROSOFT)


def fold_smoothing(graph: Graph) -> None:
    """Fold the factor of an attention's output into the values that it is a mean of.

    (P V) * f = P (V * f), and V = q W * scale + bias: one pass over the activations less.
    """
    graph.prune()  # what was replaced would count as a consumer
    for node in [node for node in graph.nodes if node.op_type == "Mul"]:
        pair = graph.operand(node)
        producer = graph.producer(pair[0]) if pair else None
        attention = fused(producer) if producer is not None else None
        if not pair or attention is None or graph.consumer(pair[0]) is None:
            continue
        value, factor = attention.values[2], graph.value(pair[1])
        linear = graph.producer(value, "MatMulIntegerToFloat")
        if linear is None or graph.consumer(value) is None or factor.ndim > 1:
            continue
        if attention.values.count(value) > 1:  # it is the keys as well
            continue
        for index in (3, 6):  # scales and bias, both (N,)
            name = linear.input[index]
            linear.input[index] = graph.add_constant(graph.value(name) * factor, name)
        graph.replace(node.output[0], pair[0])
