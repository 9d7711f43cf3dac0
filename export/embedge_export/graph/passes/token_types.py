"""The embedding of the token type, which is the same for every token of a single text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from embedge_export.graph.ir import Array, Graph, attribute, probe
from embedge_export.graph.passes.constants import shape_values

# Operators that only move or repeat the values of their first input.
_MOVES = ("Expand", "Gather", "GatherElements", "Identity", "Reshape", "Slice", "Unsqueeze")


def fold_token_types(graph: Graph) -> None:
    """Fold a row that is added to every token's embedding into the position table.

    word + type + positions[i] = word + (positions + type)[i]: one addition less.
    """
    rows = _rows(graph)
    for add in [node for node in graph.nodes if node.op_type == "Add"]:
        after = graph.consumer(add.output[0], "Add")
        kind = next((name for name in add.input if name in rows), None)
        if after is None or kind is None:
            continue
        rest = next((name for name in add.input if name != kind), "")
        other = next((name for name in after.input if name != add.output[0]), "")
        for table, word in ((other, rest), (rest, other)):  # positions come last, or first
            if _add_to_table(graph, table, rows[kind]):
                after.input[:] = [word, table]
                graph.reindex()
                break


def _rows(graph: Graph) -> Mapping[str, Array]:
    """Values that are one row, by name: constants, and gathers of the same index everywhere."""
    rows = {}
    for node in graph.nodes:
        pair = graph.operand(node) if node.op_type == "Add" else None
        value = graph.constant(pair[1]) if pair else None
        if pair and value is not None and value.ndim and value.size == value.shape[-1] > 1:
            rows[pair[1]] = value.reshape(-1)
    for gather in [node for node in graph.nodes if node.op_type == "Gather"]:
        index = _one_value(graph, gather.input[1])
        table = graph.constant(gather.input[0]) if _is_table(graph, gather) else None
        if index is not None and table is not None:
            rows[gather.output[0]] = table[index]
    known = set(shape_values(graph))
    gathers = [
        node
        for node in graph.nodes
        if node.op_type == "Gather" and node.input[1] in known and _is_table(graph, node)
    ]
    probes = probe(graph, [node.input[1] for node in gathers])
    for index, gather in enumerate(gathers):
        seen = {int(number) for values in probes for number in values[index].flat}
        table = graph.constant(gather.input[0])
        if len(seen) == 1 and table is not None and graph.consumer(gather.output[0]) is not None:
            rows[gather.output[0]] = table[seen.pop()]
    return rows


def _one_value(graph: Graph, name: str) -> int | None:
    """The only number that an integer value can hold, whatever it is indexed with, or None.

    RoBERTa's types are zeros gathered at the positions of the tokens.
    """
    while (node := graph.producer(name, *_MOVES)) is not None:
        name = node.input[0]
    value = graph.constant(name)
    if value is None or value.dtype != np.int64 or value.size == 0 or value.min() != value.max():
        return None
    return int(value.flat[0])


def _is_table(graph: Graph, gather: onnx.NodeProto) -> bool:
    table = graph.constant(gather.input[0])
    return table is not None and table.ndim == 2 and attribute(gather, "axis", 0) == 0


def _add_to_table(graph: Graph, name: str, row: Array) -> bool:
    """Add a row to the table that `name` is gathered from; False where it is no such value.

    The table of words is not changed: its index is an input.
    """
    gather = graph.producer(name, "Gather")
    if gather is None or not _is_table(graph, gather) or graph.consumer(name) is None:
        return False
    table = graph.constant(gather.input[0])
    if gather.input[1] in graph.inputs or table is None or table.shape[1] != row.size:
        return False
    gather.input[0] = graph.add_constant(table + row, gather.input[0])
    return True
