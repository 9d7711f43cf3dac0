"""Tables that are longer than any text."""

from __future__ import annotations

import numpy as np
import onnx

from embedge_export.graph.ir import Graph, attribute, ones
from embedge_export.graph.passes.constants import shape_values


def trim_tables(model: onnx.ModelProto, max_tokens: int) -> onnx.ModelProto:
    """Return `model` without the rows of tables that no text of ``max_tokens`` can reach.

    Those are position tables: their index depends only on the sequence length.
    """
    graph = Graph(model)
    known = set(shape_values(graph))
    gathers = [
        node
        for node in graph.nodes
        if node.op_type == "Gather"
        and node.input[0] in graph.initializers
        and node.input[1] in known
        and attribute(node, "axis", 0) == 0
    ]
    indices = [node.input[1] for node in gathers]
    if not indices:
        return model
    values = graph.runner(indices)(ones(graph, (1, max_tokens)))
    for node, index in zip(gathers, values, strict=True):
        table = graph.constant(node.input[0])
        if table is not None and table.ndim == 2 and np.min(index) >= 0:
            rows = int(np.max(index)) + 1
            node.input[0] = graph.add_constant(table[:rows], node.input[0])
    return graph.finish()
