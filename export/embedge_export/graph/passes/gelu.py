"""The five operators of a GELU as one."""

from __future__ import annotations

import onnx

from embedge_export.graph.ir import Graph


def fuse_gelu(graph: Graph) -> None:
    """x * 0.5 * (1 + erf(x / sqrt 2)), in any order of the products, becomes Gelu(x).

    Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415. Operator set 20 has the operator;
    18 and 19 differ from it in nothing that a transformer uses.
    """
    if not 18 <= graph.opset() <= 21:
        return
    for erf in [node for node in graph.nodes if node.op_type == "Erf"]:
        found = _gelu(graph, erf)
        if found is not None:
            value, end = found
            graph.replace(end, graph.add("Gelu", [value], "gelu"))
            graph.require(20)
            graph.model.ir_version = max(graph.model.ir_version, 9)


def _gelu(graph: Graph, erf: onnx.NodeProto) -> tuple[str, str] | None:
    """(x, name of the GELU's output) of the GELU around `erf`, or None."""
    scaled = graph.producer(erf.input[0], "Div", "Mul")
    plus = graph.consumer(erf.output[0], "Add")
    parts = (scaled and graph.operand(scaled), plus and graph.operand(plus))
    if scaled is None or plus is None or not parts[0] or not parts[1]:
        return None
    value, by = parts[0]
    divisor = graph.scalar(by)
    factor = 0.0 if divisor is None else 1 / divisor if scaled.op_type == "Div" else divisor
    if abs(factor - 0.5**0.5) > 1e-6 or graph.scalar(parts[1][1]) != 1.0:
        return None
    if scaled.op_type == "Div" and scaled.input[1] != by:
        return None
    half = 1.0
    linear = False
    end = plus.output[0]
    while (half, linear) != (0.5, True):
        product = graph.consumer(end, "Mul")
        if product is None:
            return None
        other = product.input[1] if product.input[0] == end else product.input[0]
        number = graph.scalar(other)
        inner = graph.producer(other, "Mul")
        pair = graph.operand(inner) if inner is not None else None
        if number is not None:
            half *= number
        elif other == value and not linear:
            linear = True
        elif pair is not None and pair[0] == value and not linear:
            linear, half = True, half * (graph.scalar(pair[1]) or 0.0)
        else:
            return None
        if half not in (1.0, 0.5):
            return None
        end = product.output[0]
    return value, end
