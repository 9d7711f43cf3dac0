"""fp32 graph to int8 graph: u8 activations with calibrated ranges, s8 weights, int8 tables.

Every product of an activation with a constant weight becomes QuantizeLinear and
MatMulIntegerToFloat (com.microsoft): one scale and zero point per activation, one scale per column
of the weight, the bias inside. No range depends on the batch, so neither does a vector. Large
embedding tables become int8 with one scale per row. Anything else stays fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto
from threadpoolctl import threadpool_limits

from embedge.progress import ProgressBar
from embedge_export.graph.ir import Array, Graph, attribute
from embedge_export.graph.passes.attention import fused
from embedge_export.quantization.calibration import calibration_texts, samples
from embedge_export.quantization.parallel import side_by_side
from embedge_export.quantization.rounding import (
    choose_range,
    choose_steps,
    round_adaptively,
    smoothing,
    to_half,
    to_levels,
)

__all__ = ["QUANTIZATION_SCHEME", "calibration_texts", "quantize_int8"]

QUANTIZATION_SCHEME = "int8-static-pairsafe"

SMALLEST = 32  # rows and columns of the smallest weight worth quantizing
TABLE_ROWS = 128
ALPHAS = (0.5, 0.6, 0.7, 0.8)  # more fits the samples better, and unseen text worse
SEARCH_ROWS = 4096
WORKERS = 4  # activations side by side; each takes up to half a gigabyte


@dataclass(frozen=True)
class Linear:
    """x W + b: a MatMul, the name of its weight, its bias (or None) and the result's name."""

    weight: str
    bias: str | None
    output: str


@dataclass(frozen=True)
class Site:
    """An activation x in eight bits, and the layers that read it.

    x * factor (K,) becomes u8 with `scale` and `zero`; `layers` are weight int8 (K, N), scales
    (N,) and bias (N,).
    """

    factor: Array
    scale: np.float32
    zero: np.uint8
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
    sites = find_sites(graph)
    widths = {name: len(_value(graph, linears[0].weight)) for name, linears in sites.items()}
    # From the last to the first, so that every sample is of fp32 values.
    rows = samples(graph, dict(reversed(widths.items())), feeds)
    work = ((name, seen, _layers(graph, sites[name])) for name, seen in rows)
    # BLAS on one thread: the last bits of a product, and so the file's bytes, depend on the number.
    with threadpool_limits(1), ProgressBar(len(sites), progress, unit="activations") as bar:
        for name, site in side_by_side(_quantized, work, most=WORKERS):
            _replace(graph, name, sites[name], site)
            bar.advance(1)
    fold_smoothing(graph)
    quantize_tables(graph)
    store_compactly(graph)
    return graph.finish()


def find_sites(graph: Graph) -> dict[str, list[Linear]]:
    """The activations that meet constant weights, each with its linear layers, in graph order."""
    sites: dict[str, list[Linear]] = {}
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
        sites.setdefault(node.input[0], []).append(Linear(node.input[1], bias, output))
    return sites


def _value(graph: Graph, name: str) -> Array:
    value = graph.constant(name)
    assert value is not None
    return value


def _layers(graph: Graph, linears: Sequence[Linear]) -> list[tuple[Array, Array | None]]:
    """Weight (K, N) and bias (N,) or None of each layer."""
    return [
        (_value(graph, linear.weight), _value(graph, linear.bias) if linear.bias else None)
        for linear in linears
    ]


def _quantized(
    work: tuple[str, Array, Sequence[tuple[Array, Array | None]]],
) -> tuple[str, Site]:
    """The eight-bit form of the layers that read an activation, of which `rows` are samples."""
    name, rows, layers = work
    factor, scale, zero = _choose_levels(rows, np.concatenate([weight for weight, _ in layers], 1))
    seen = to_levels(rows * factor, scale, zero)  # (rows, K), what the products will see
    # Each token counts by its relative error, so that the few huge ones do not decide alone.
    energy = sum(np.square(rows @ weight).sum(1) for weight, _ in layers)
    share = 1 / (energy + np.median(energy) + 1e-12)
    moments = (seen * (share / share.sum())[:, None]).T @ seen  # (K, K)
    mean, seen_mean = rows.mean(0), seen.mean(0)
    made = []
    for weight, bias in layers:
        smooth = weight / factor[:, None]
        steps = choose_steps(smooth, np.diag(moments))
        q = round_adaptively(smooth, steps, moments)
        put_right = mean @ weight - seen_mean @ (q * steps)  # the mean error
        if bias is not None:
            put_right += bias
        made.append((q, steps, to_half(np.asarray(put_right, np.float32), smallest=0.0)))
    return name, Site(factor, scale, zero, made)


def _replace(graph: Graph, name: str, linears: Sequence[Linear], site: Site) -> None:
    """Replace the layers that read the activation `name` with their eight-bit form."""
    source = graph.add("Mul", [name, graph.add_constant(site.factor, "smooth")], "smooth_x")
    scale = graph.add_constant(np.array(site.scale), "x_scale")
    zero = graph.add_constant(np.array(site.zero), "x_zero")
    levels = graph.add("QuantizeLinear", [source, scale, zero], "x_u8")
    for linear, (q, steps, bias) in zip(linears, site.layers, strict=True):
        constants = [
            graph.add_constant(q, f"{linear.weight}_s8"),
            scale,
            graph.add_constant(steps, "w_scale"),
            zero,
            "",
            graph.add_constant(bias, "bias"),
        ]
        product = graph.add(
            "MatMulIntegerToFloat", [levels, *constants], "linear", domain="com.microsoft"
        )
        graph.replace(linear.output, product)
    graph.require(1, "com.microsoft")


def _choose_levels(rows: Array, weight: Array) -> tuple[Array, np.float32, np.uint8]:
    """(factor (K,), scale, zero point) of `rows` (T, K) for the least error of rows @ weight."""
    few = rows[:: -(-len(rows) // SEARCH_ROWS)]
    best: tuple[float, Array, np.float32, np.uint8] | None = None
    for alpha in ALPHAS:
        factor = smoothing(rows, weight, alpha)
        cost = ((weight / factor[:, None]) ** 2).sum(1)
        smooth = few * factor
        scale, zero = choose_range(smooth)
        error = float(((smooth - to_levels(smooth, scale, zero)) ** 2).sum(0) @ cost)
        if best is None or error < best[0]:
            best = (error, factor, scale, zero)
    assert best is not None
    return best[1:]


def fold_smoothing(graph: Graph) -> None:
    """Fold the factor of an attention's output into the values that it is a mean of.

    (P V) * f = P (V * f), and V = q W * step + bias: one pass over the activations less.
    """
    graph.prune()  # what was replaced would count as a reader
    for node in [node for node in graph.nodes if node.op_type == "Mul"]:
        pair = graph.operand(node)
        maker = graph.maker(pair[0]) if pair else None
        attention = fused(maker) if maker is not None else None
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


def quantize_tables(graph: Graph) -> None:
    """Store large embedding tables as int8 with a scale per row: Gather, Cast, Mul."""
    for node in [node for node in graph.nodes if node.op_type == "Gather"]:
        table = graph.constant(node.input[0])
        if table is None or table.ndim != 2 or table.dtype != np.float32:
            continue
        if len(table) < TABLE_ROWS or attribute(node, "axis", 0) != 0:
            continue
        centre = np.median(table, 0)
        if _row_error(table - centre) > 0.5 * _row_error(table):
            centre = np.zeros_like(centre)
        q, scale = _by_row(table - centre)
        name = node.input[0]
        rows = graph.add("Gather", [graph.add_constant(q, f"{name}_s8"), node.input[1]], "rows")
        whole = graph.add("Cast", [rows], "rows_float", to=TensorProto.FLOAT)
        steps = graph.add_constant(scale, f"{name}_scale")
        step = graph.add("Gather", [steps, node.input[1]], "row_scale")
        result = graph.add("Mul", [whole, step], "embedding")
        if centre.any():  # a few large columns, as position tables have
            result = graph.add("Add", [result, graph.add_constant(centre, "centre")], "embedding")
        graph.replace(node.output[0], result)


def store_compactly(graph: Graph) -> None:
    """Store constants that float16 holds exactly as float16; onnxruntime widens them at load."""
    for name, value in [(name, graph.constant(name)) for name in graph.initializers]:
        if value is None or value.dtype != np.float32 or value.size < SMALLEST:
            continue
        half = value.astype(np.float16)
        if np.array_equal(half.astype(np.float32), value):
            stored = graph.add_constant(half, f"{name}_half")
            del graph.initializers[name]
            wide = graph.add("Cast", [stored], name, to=TensorProto.FLOAT)
            assert wide == name


def _by_row(table: Array) -> tuple[Array, Array]:
    """(int8 (rows, width), float32 scale (rows, 1)) of a table."""
    largest = np.abs(table).max(1, keepdims=True)
    scale = to_half(np.where(largest > 0, largest / 127, 1).astype(np.float32))
    return np.clip(np.rint(table / scale), -127, 127).astype(np.int8), scale


def _row_error(table: Array) -> float:
    q, scale = _by_row(table)
    return float(((q * scale - table) ** 2).sum())
