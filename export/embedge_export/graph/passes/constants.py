"""Constants: nodes that hold one, and values that are the same for every input.

What depends on nothing but the input shapes is recognized by running it (`probe`) and looking at
the values, not by the operators that compute it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx

from embedge_export.graph.ir import ONE_SHAPE, Array, Graph, attribute, probe

SHAPES_ONLY = ("Shape", "Size")
RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli")


def lift_constants(graph: Graph) -> None:
    """Turn Constant nodes into initializers."""
    for node in [node for node in graph.nodes if node.op_type == "Constant"]:
        value = attribute(node, "value")
        if value is not None and node.output[0] not in graph.outputs:
            value.name = node.output[0]
            graph.initializers[value.name] = value
            graph.nodes.remove(node)


def shape_values(graph: Graph, of_inputs: Collection[str] = SHAPES_ONLY) -> list[str]:
    """The values that depend only on constants and input shapes, in graph order.

    Without `of_inputs`, the operators that give shapes, those that depend only on constants.
    """
    known = set(graph.initializers)
    found: list[str] = []
    for node in graph.ancestors(graph.outputs):
        if node.op_type in RANDOM or any(item.HasField("g") for item in node.attribute):
            continue
        if node.op_type in of_inputs or all(name in known for name in node.input if name):
            known.update(node.output)
            if len(node.output) == 1 and node.output[0] not in graph.outputs:
                found.append(node.output[0])
    return found


def fold_constants(graph: Graph) -> None:
    """Replace what is the same at every input shape by an initializer.

    Only the last value of a chain needs one: what nothing reads any more is dropped at the end.
    """
    fixed = shape_values(graph, of_inputs=())  # transposed weights, mostly: once is enough
    folded = {
        name: value
        for values in probe(graph, fixed, ONE_SHAPE)
        for name, value in zip(fixed, values, strict=True)
    }
    names = shape_values(graph)
    shaped = [name for name in names if name not in folded]
    probes = probe(graph, shaped)
    for index, name in enumerate(shaped):
        values = [values[index] for values in probes]
        if values and all(_same(values[0], value) for value in values):
            folded[name] = values[0]
    for name in names:
        if name in folded:
            graph.initializers[name] = onnx.numpy_helper.from_array(folded[name], name)


def _same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)
