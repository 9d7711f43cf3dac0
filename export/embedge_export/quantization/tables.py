"""What int8 does besides products: embedding tables in int8, other constants as float16."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from embedge_export.graph.ir import Array, Graph, attribute
from embedge_export.quantization.rounding import round_to_fp16

TABLE_ROWS = 128  # of the smallest table worth quantizing
SMALLEST = 32  # elements of the smallest constant worth storing as float16


def quantize_tables(graph: Graph) -> None:
    """Store large embedding tables as int8 with a scale per row: Gather, Cast, Mul."""
    for node in [node for node in graph.nodes if node.op_type == "Gather"]:
        table = graph.constant(node.input[0])
        if table is None or table.ndim != 2 or table.dtype != np.float32:
            continue
        if len(table) < TABLE_ROWS or attribute(node, "axis", 0) != 0:
            continue
        centre = np.median(table, 0)
        if row_error(table - centre) > 0.5 * row_error(table):
            centre = np.zeros_like(centre)
        quantized, scale = _quantize_rows(table - centre)
        name = node.input[0]
        rows = graph.add(
            "Gather", [graph.add_constant(quantized, f"{name}_s8"), node.input[1]], "rows"
        )
        whole = graph.add("Cast", [rows], "rows_float", to=TensorProto.FLOAT)
        scales = graph.add_constant(scale, f"{name}_scale")
        row_scale = graph.add("Gather", [scales, node.input[1]], "row_scale")
        result = graph.add("Mul", [whole, row_scale], "embedding")
        if centre.any():  # a few large columns, as position tables have
            result = graph.add("Add", [result, graph.add_constant(centre, "centre")], "embedding")
        graph.replace(node.output[0], result)


def store_as_fp16(graph: Graph) -> None:
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


def _quantize_rows(table: Array) -> tuple[Array, Array]:
    """(int8 (rows, width), float32 scale (rows, 1)) of a table."""
    largest = np.abs(table).max(1, keepdims=True)
    scale = round_to_fp16(np.where(largest > 0, largest / 127, 1).astype(np.float32))
    return np.clip(np.rint(table / scale), -127, 127).astype(np.int8), scale


def row_error(table: Array) -> float:
    """The squared error of a table in int8, summed."""
    quantized, scale = _quantize_rows(table)
    return float(((quantized * scale - table) ** 2).sum())
