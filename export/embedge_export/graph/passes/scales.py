"""Products with one number, folded into the linear layers before them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from embedge_export.graph.ir import Graph


def fold_scales(graph: Graph) -> None:
    """Fold a product with one number into the linear layer before it (queries and keys).

    c * T(x W + b) = T(x (c W) + c b), where T only moves elements (Reshape, Transpose).
    """
    for node in [node for node in graph.nodes if node.op_type in ("Mul", "Div")]:
        pair = graph.operand(node)
        number = graph.scalar(pair[1]) if pair else None
        if not pair or number is None or (node.op_type == "Div" and node.input[1] != pair[1]):
            continue
        linear = _linear_before(graph, pair[0])
        if linear:
            scale = np.float32(number if node.op_type == "Mul" else 1 / number)
            _multiply(graph, linear, scale)
            graph.replace(node.output[0], pair[0])


def share_score_scales(graph: Graph) -> None:
    """Fold the scale of attention scores into queries and keys: c q k = (sqrt(c) q) (sqrt(c) k).

    TorchScript's sdpa puts it there, an eager attention on the scores. int8 smoothing weighs
    queries, keys and values by the size of their weights, so both must give the same ones.
    """
    for node in [node for node in graph.nodes if node.op_type in ("Mul", "Div")]:
        pair = graph.operand(node)
        number = graph.scalar(pair[1]) if pair else None
        if not pair or not number or number < 0 or not _scores(graph, node):
            continue
        product = graph.producer(pair[0], "MatMul") if graph.consumer(pair[0]) else None
        if product is None:
            continue
        if node.op_type == "Div" and node.input[1] != pair[1]:
            continue
        linears = [_linear_before(graph, name) for name in product.input]
        if not all(linears):
            continue
        scale = np.float32(math.sqrt(number if node.op_type == "Mul" else 1 / number))
        for linear in linears:
            _multiply(graph, linear, scale)
        graph.replace(node.output[0], product.output[0])


def _scores(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a softmax reads the output of `node`, with or without a mask added."""
    add = graph.consumer(node.output[0], "Add")
    return graph.consumer((add or node).output[0], "Softmax") is not None


def _multiply(
    graph: Graph, linear: Sequence[tuple[onnx.NodeProto, int]], scale: np.float32
) -> None:
    """Multiply the constants of a linear layer."""
    for node, index in linear:
        value = graph.constant(node.input[index])
        assert value is not None
        node.input[index] = graph.add_constant(value * scale, node.input[index])
    graph.reindex()


def _linear_before(graph: Graph, name: str) -> list[tuple[onnx.NodeProto, int]]:
    """(node, constant input) of the MatMul and Add whose result, moved about, is `name`."""
    while graph.consumer(name) is not None:
        node = graph.producer(name)
        pair = graph.operand(node) if node is not None and len(node.input) == 2 else None
        if node is None:
            break
        if node.op_type in ("Reshape", "Transpose"):
            name = node.input[0]
            continue
        if node.op_type == "MatMul" and node.input[1] in graph.initializers:
            return [(node, 1)]
        if node.op_type == "Add" and pair:
            matmul = graph.producer(pair[0], "MatMul")
            single = graph.consumer(pair[0]) is not None
            if single and matmul is not None and matmul.input[1] in graph.initializers:
                return [(matmul, 1), (node, list(node.input).index(pair[1]))]
        break
    return []
