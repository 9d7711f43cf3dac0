"""Reshape targets that a trace computes from the input's shape, as constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from embedge_export.graph.ir import Array, Graph, attribute, probe
from embedge_export.graph.passes.constants import shape_values


def fix_reshapes(graph: Graph) -> None:
    """Give a Reshape a constant target: 0 copies a dimension of its input, one -1 is inferred.

    A target such as Concat(batch, -1, heads, width) costs a handful of small nodes per layer.
    """
    nodes = [
        node
        for node in graph.nodes
        if node.op_type == "Reshape" and node.input[1] not in graph.initializers
    ]
    targets = set(shape_values(graph))
    nodes = [node for node in nodes if node.input[1] in targets]
    shapes = [graph.add("Shape", [node.input[0]], "shape_probe") for node in nodes]
    probes = probe(graph, [*shapes, *(node.input[1] for node in nodes)])
    for index, node in enumerate(nodes):
        pairs = [(values[index], values[len(nodes) + index]) for values in probes]
        if attribute(node, "allowzero", 0):  # torch.export's; it tells only where a target has a 0
            pairs = [pair for pair in pairs if 0 not in pair[1]]
        target = _constant_target(pairs) if pairs else None
        if target is not None:
            node.input[1] = graph.add_constant(target, "target")
            del node.attribute[:]


def _constant_target(pairs: Sequence[tuple[Array, Array]]) -> Array | None:
    """A Reshape target good for every (input shape, computed target) seen, or None."""
    if len({len(target) for _, target in pairs}) != 1:
        return None
    sizes = [_resolved(shape, target) for shape, target in pairs]
    result = []
    for axis in range(len(sizes[0])):
        wanted = [size[axis] for size in sizes]
        if len(set(wanted)) == 1 and wanted[0] != 0:
            result.append(wanted[0])
        elif all(axis < len(s) and w == s[axis] for w, (s, _) in zip(wanted, pairs, strict=True)):
            result.append(0)
        else:
            result.append(-1)
    return np.array(result, np.int64) if result.count(-1) <= 1 else None


def _resolved(shape: Array, target: Array) -> list[int]:
    """The shape that a Reshape of an input of ``shape`` to ``target`` gives."""
    sizes = [int(shape[axis]) if size == 0 else int(size) for axis, size in enumerate(target)]
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(map(int, shape)) // known
    return sizes
