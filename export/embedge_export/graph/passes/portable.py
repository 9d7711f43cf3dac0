"""Softmax and attention with the same bits on every x86 CPU, for int8 graphs.

onnxruntime's softmax, and so its MultiHeadAttention, adds up a row in as many partial sums as a
vector register has lanes: 8 with AVX2, 16 with AVX-512. So the last bit of a sum differs from CPU
to CPU, rounding to int8 makes a whole step of some of these bits, and an index made on a laptop is
not that of the server. Products, exponentials and reductions do not differ, and attention can be
decomposed into them: exp(S - max S) V / sum exp(S - max S), S = Q K^T * scale (the softmax of
Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, divided last).

FusedMatMul reads the heads where they lie if the sequence is the first axis. So activations change
from (batch, sequence, hidden) to (sequence, batch, hidden) once, before the first layer, and back
once, after the last: what is between the attentions works token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from embedge_export.graph.ir import Graph, attribute, probe
from embedge_export.graph.passes.attention import Fused, fused
from embedge_export.graph.passes.constants import shape_values

# The scores of a text are stored, all heads of them: bytes of the longest text beyond which a model
# keeps MultiHeadAttention, which does without. 512 tokens of 16 heads are 16 MB.
LARGEST_SCORES = 32 * 2**20
# ReduceSum rounds by where a row lies, modulo 16 bytes. With heads in fours that is the same for a
# text in any batch: heads * sequence * sequence floats further on. Other numbers stay as they are.
HEADS = 4
MICROSOFT = "com.microsoft"

# What works on each token by itself, if its constants do.
PRODUCTS = ("MatMul", "MatMulIntegerToFloat")
NORMS = ("LayerNormalization",)
ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Cast", "QuantizeLinear"),
    *("Gelu", "Relu", "Tanh", "Erf", "Sigmoid"),
)

BATCH, SEQUENCE = 3, 5  # of the input that shapes are looked at with
Shapes = dict[str, tuple[int, ...]]
SWAP = [1, 0, 2]  # (batch, sequence, hidden) to (sequence, batch, hidden), and back


def portable_attention(model: onnx.ModelProto, max_tokens: int) -> onnx.ModelProto:
    """Return the same function as `model`, with attention that has the same bits on all x86 CPUs.

    Attention that is not recognized, that of models of long texts, and that whose heads are not a
    multiple of four, stays as it is.
    """
    graph = Graph(model)
    graph.prune()
    found = [item for item in map(fused, graph.nodes) if item is not None]
    heads = {attribute(item.full, "num_heads") for item in found}
    if not heads or any(number % HEADS for number in heads) or graph.opset() < 18:
        return model
    if 4 * max(heads) * max_tokens**2 > LARGEST_SCORES:
        return model
    shapes = _shapes(graph)
    if not shapes:
        return model
    fixed = {"", *graph.initializers, *shape_values(graph, of_inputs=())}
    inner = _between(graph, found, shapes, fixed)
    moved = {name: graph.fresh(f"{name}_swapped") for node in inner for name in node.output}

    def swapped(name: str) -> str:
        if name not in moved:
            moved[name] = graph.add("Transpose", [name], f"{name}_swapped", perm=SWAP)
        return moved[name]

    attentions = {item.node.output[0]: item for item in found}
    for node in inner:
        (old,) = node.output
        if old in attentions:
            values = [swapped(name) for name in attentions[old].values]
            graph.nodes.remove(node)
            graph.nodes += _decomposed(graph, attentions[old], values, moved[old])
        else:
            node.input[:] = [name if name in fixed else swapped(name) for name in node.input]
            node.output[0] = moved[old]
        graph.nodes.append(helper.make_node("Transpose", [moved[old]], [old], perm=SWAP))
    graph.reindex()
    graph.require(1, MICROSOFT)
    return graph.finish()


def portable_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same function as `model`, each Softmax decomposed: e / sum e, e = exp(x - max x).

    For attention that is not recognized: with a bias on its scores, or rotary positions. Scores are
    (batch, heads, sequence, sequence), with heads in fours; any other Softmax stays as it is.
    """
    graph = Graph(model)
    graph.prune()
    nodes = [node for node in graph.nodes if node.op_type == "Softmax"]
    shapes = _shapes(graph) if nodes and graph.opset() >= 18 else {}
    for node in nodes:
        (scores,) = node.input
        shape = shapes.get(scores, ())
        if len(shape) != 4 or shape[1] % HEADS or attribute(node, "axis", -1) not in (-1, 3):
            continue
        powers, sums = _powers(graph.add, scores, _constant(graph, "last", [-1]))
        graph.replace(node.output[0], graph.add("Div", [powers, sums], "shares"))
    return graph.finish()


def _between(
    graph: Graph, attentions: Sequence[Fused], shapes: Shapes, fixed: Collection[str]
) -> list[onnx.NodeProto]:
    """The attentions, and what works token by token around them, in graph order."""
    swapped = {item.node.output[0] for item in attentions}
    wanted = {name for item in attentions for name in item.values}
    rest = [node for node in graph.nodes if _by_token(node, shapes, fixed)]
    while True:
        found = [
            node
            for node in rest
            if swapped & set(node.input)
            or (node.output[0] in wanted and len(_varying(node, fixed)) == 1)
        ]
        if not found:
            break
        for node in found:
            rest.remove(node)
            swapped.add(node.output[0])
            wanted.update(_varying(node, fixed))
    return [node for node in graph.nodes if swapped & set(node.output)]


def _shapes(graph: Graph) -> Shapes:
    """The shape of every tensor at BATCH texts of SEQUENCE tokens; nothing if that cannot run."""
    names = [name for node in graph.nodes for name in node.output if name]
    values = next(iter(probe(graph, names, [((BATCH, SEQUENCE),)])), None)
    if values is None:
        return {}
    shapes = {name: tuple(item.dims) for name, item in graph.initializers.items()}
    shapes |= dict.fromkeys(graph.inputs, (BATCH, SEQUENCE))
    made = zip(names, values, strict=True)  # a sequence of tensors comes as a list
    return shapes | {name: getattr(value, "shape", ()) for name, value in made}


def _varying(node: onnx.NodeProto, fixed: Collection[str]) -> list[str]:
    return [name for name in node.input if name not in fixed]


def _by_token(node: onnx.NodeProto, shapes: Shapes, fixed: Collection[str]) -> bool:
    """Whether `node` makes each token (batch, sequence, ...) of the same token of its inputs."""
    varying = _varying(node, fixed)
    if len(node.output) != 1 or shapes[node.output[0]][:-1] != (BATCH, SEQUENCE):
        return False
    if not varying or not all(_has_tokens(shapes[name]) for name in varying):
        return False
    if node.op_type in PRODUCTS:
        return varying == [node.input[0]]
    if node.op_type in NORMS:
        return varying == [node.input[0]] and attribute(node, "axis", -1) in (-1, 2)
    constants = [shapes[name] for name in node.input if name in shapes and name in fixed]
    return node.op_type in ELEMENTWISE and all(set(shape[:-1]) <= {1} for shape in constants)


def _has_tokens(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, BATCH) and shape[1] in (1, SEQUENCE)


def _decomposed(
    graph: Graph, attention: Fused, values: Sequence[str], output: str
) -> list[onnx.NodeProto]:
    """What computes an attention of swapped values: its nodes, or an If around them."""
    heads = attribute(attention.full, "num_heads")
    scale = attribute(attention.full, "scale")
    constants = [
        _constant(graph, name, numbers)
        for name, numbers in (("split", [0, 0, heads, -1]), ("merge", [0, 0, -1]), ("last", [-1]))
    ]
    if attention.masked is None:
        return _full(values, constants, scale, output)
    full = _full(values, constants, scale, f"{output}_full")
    masked = _masked(attention.masked, values, f"{output}_masked")
    branches = {
        "else_branch": _body(full, f"{output}_full"),
        "then_branch": _body(masked, f"{output}_masked"),
    }
    return [helper.make_node("If", attention.node.input, [output], **branches)]


def _constant(graph: Graph, name: str, numbers: Sequence[int]) -> str:
    """An initializer, the one there is where it is the same."""
    value = np.array(numbers, np.int64)
    there = graph.constant(name)
    same = there is not None and there.dtype == value.dtype and np.array_equal(there, value)
    return name if same else graph.add_constant(value, name)


def _full(
    values: Sequence[str], constants: Sequence[str], scale: float, output: str
) -> list[onnx.NodeProto]:
    """Attention of swapped values where nothing is padding: batch b, sequence s, heads h."""
    split, merge, last = constants

    def add(op_type: str, inputs: Sequence[str], part: str, **attributes: Any) -> str:
        name = f"{output}_{part}" if part else output
        nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    nodes: list[onnx.NodeProto] = []
    parts = ("query", "key", "value")
    query, key, value = (
        add("Reshape", [name, split], part) for name, part in zip(values, parts, strict=True)
    )  # (s, b, h, width)
    first = {"transBatchB": 1, "domain": MICROSOFT}  # the second input, batch and heads first
    both = {"transBatchA": 1, "transB": 1, **first}
    scores = add("FusedMatMul", [query, key], "scores", alpha=scale, **both)  # (b, h, s, s)
    powers, sums = _powers(add, scores, last)  # (b, h, s, s), (b, h, s, 1)
    whole = add("FusedMatMul", [powers, value], "whole", **first)  # (b, h, s, width)
    means = add("Div", [whole, sums], "means")
    swapped = add("Transpose", [means], "swapped", perm=[2, 0, 1, 3])  # (s, b, h, width)
    add("Reshape", [swapped, merge], "")  # (s, b, h * width)
    return nodes


def _powers(add: Callable[..., str], scores: str, last: str) -> tuple[str, str]:
    """(exp(scores - max), its sum) over the last axis, of nodes that `add` makes as `Graph.add`."""
    largest = add("ReduceMax", [scores, last], "largest", keepdims=1)
    powers = add("Exp", [add("Sub", [scores, largest], "shifted")], "powers")
    return powers, add("ReduceSum", [powers, last], "sums", keepdims=1)


def _masked(node: onnx.NodeProto, values: Sequence[str], output: str) -> Iterable[onnx.NodeProto]:
    """The operator itself, with swapped values swapped back and its result swapped."""
    back = [f"{output}_{part}" for part in ("query", "key", "value")]
    for name, part in zip(values, back, strict=True):
        yield helper.make_node("Transpose", [name], [part], perm=SWAP)
    same = onnx.NodeProto()
    same.CopyFrom(node)
    same.input[:3] = back
    same.output[:] = [f"{output}_swapped"]
    yield same
    yield helper.make_node("Transpose", same.output, [output], perm=SWAP)


def _body(nodes: Iterable[onnx.NodeProto], output: str) -> onnx.GraphProto:
    shape = ["sequence", "batch", "hidden"]
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    return helper.make_graph(list(nodes), output, [], [value])
