"""Multi-head attention of a traced encoder, recognized and replaced by one operator.

softmax(Q K^T * scale + mask) V (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762), traced as
Reshape and Transpose of each of Q, K, V, two batched MatMuls, Add, Softmax, Transpose, Reshape.

MultiHeadAttention (com.microsoft) takes Q, K, V as (batch, sequence, heads * width). Without a mask
it never stores the scores of a long text; a mask sends it down a slower path. So both are in the
graph, and an If checks once per layer whether any token of the batch is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from embedge_export.graph.ir import Array, Graph, attribute

MASK = "attention_mask"
# The operator's own -10000 is too little where a model's scores are huge.
HIDE = {"mask_filter_value": float(np.finfo(np.float32).min)}
# (batch, sequence) of the masks to try. The long one tells a sliding window from a full mask.
MASK_PROBES = ((3, 5), (2, 9), (1, 1100))


@dataclass(frozen=True)
class Attention:
    """Where one attention is in the graph: names of its values, and its numbers."""

    query: str  # (batch, sequence, heads * width)
    key: str
    value: str
    output: str  # (batch, sequence, heads * width)
    mask: str | None  # added to the scores, or nothing
    heads: int
    scale: float


def fuse_attention(graph: Graph) -> None:
    """Replace every recognized attention by MultiHeadAttention, without mask where none is needed.

    Attention whose mask is anything but "ignore the padding" stays as it is.
    """
    padding: dict[str, bool] = {}
    shared: tuple[str, str] | None = None
    for softmax in [node for node in graph.nodes if node.op_type == "Softmax"]:
        found = _attention(graph, softmax)
        if found is None:
            continue
        if found.mask is not None and not padding.setdefault(
            found.mask, is_padding_mask(graph, found.mask)
        ):
            continue
        graph.require(1, "com.microsoft")
        numbers: dict[str, Any] = {
            "num_heads": found.heads,
            "scale": found.scale,
            "domain": "com.microsoft",
        }
        values = [found.query, _without_bias(graph, found.key), found.value]
        if found.mask is None:
            new = graph.add("MultiHeadAttention", values, "attention", **numbers)
        else:
            shared = shared or _padding(graph)
            new = graph.add(
                "If",
                [shared[0]],
                "attention",
                then_branch=_body("masked", [*values, "", shared[1]], {**numbers, **HIDE}),
                else_branch=_body("full", values, numbers),
            )
        graph.replace(found.output, new)


@dataclass(frozen=True)
class Fused:
    """What `fuse_attention` made of an attention: its node, and the operators inside."""

    node: onnx.NodeProto
    full: onnx.NodeProto  # the operator where nothing is padding
    masked: onnx.NodeProto | None  # and where something is

    @property
    def values(self) -> list[str]:
        """Query, key and value, each (batch, sequence, heads * width)."""
        return list(self.full.input)


def fused(node: onnx.NodeProto) -> Fused | None:
    """The attention that `node` is, or None: MultiHeadAttention without a mask, or an If."""
    if node.op_type == "MultiHeadAttention":
        return Fused(node, node, None) if len(node.input) == 3 else None
    bodies = [attribute(node, name) for name in ("else_branch", "then_branch")]
    if node.op_type != "If" or any(len(body.node) != 1 for body in bodies):
        return None
    full, masked = (body.node[0] for body in bodies)
    if full.op_type != "MultiHeadAttention" or len(full.input) != 3:
        return None
    return Fused(node, full, masked) if masked.op_type == full.op_type else None


def _without_bias(graph: Graph, key: str) -> str:
    """The keys before their bias: it moves all scores of a query alike, unseen by softmax."""
    add = graph.producer(key, "Add")
    pair = graph.operand(add) if add is not None else None
    bias = graph.constant(pair[1]) if pair else None
    return pair[0] if pair and bias is not None and bias.ndim == 1 else key


def _padding(graph: Graph) -> tuple[str, str]:
    """(whether any token is padding: bool scalar, the mask: int32 (batch, sequence))."""
    mask = graph.add("Cast", [MASK], "mask", to=TensorProto.INT32)
    least = graph.add("ReduceMin", [mask], "least_mask", keepdims=0)
    zero = graph.add_constant(np.array(0, np.int32), "no_token")
    return graph.add("Equal", [least, zero], "any_padding"), mask


def _body(name: str, inputs: list[str], numbers: dict[str, Any]) -> onnx.GraphProto:
    """A branch of the If: one MultiHeadAttention over values of the outer graph."""
    node = helper.make_node("MultiHeadAttention", inputs, [f"{name}_output"], **numbers)
    shape = ["batch", "sequence", "hidden"]
    output = helper.make_tensor_value_info(f"{name}_output", TensorProto.FLOAT, shape)
    return helper.make_graph([node], name, [], [output])


def is_padding_mask(graph: Graph, name: str) -> bool:
    """Whether `name`, computed only from the mask, is 0 at tokens and -10000 or less at padding.

    It is run on masks with padding left, right and in between; its last axis is the key's.
    """
    if MASK not in graph.inputs or graph.producer(name) is None:
        return False
    rng = np.random.default_rng(0)
    feeds: list[dict[str, Array]] = []
    for batch, length in MASK_PROBES:
        mask = rng.integers(0, 2, (batch, length))
        mask[:, length // 2] = 1
        feeds.append({key: rng.integers(1, 5, mask.shape) for key in graph.inputs} | {MASK: mask})
    try:
        results = list(map(graph.runner([name]), feeds))
    except Exception:  # onnxruntime's errors share no base; a mask that cannot run is not ours
        return False
    for feed, (bias,) in zip(feeds, results, strict=True):
        mask = feed[MASK][:, None, None, :]
        if bias.ndim != 4 or bias.shape[1] != 1 or bias.shape[-1] != mask.shape[-1]:
            return False
        if bias.shape[0] != mask.shape[0] or bias.shape[2] not in (1, mask.shape[-1]):
            return False
        if not np.all(np.where(mask == 1, bias == 0, bias <= -10000)):
            return False
    return True


def _attention(graph: Graph, softmax: onnx.NodeProto) -> Attention | None:
    """Recognize the attention around a Softmax, or None."""
    if attribute(softmax, "axis", -1) not in (-1, 3):
        return None
    scores, mask, scale = softmax.input[0], None, 1.0
    add = graph.producer(scores, "Add")
    if add is not None:
        scores, mask = add.input
        if graph.producer(scores, "MatMul", "Mul", "Div") is None:
            scores, mask = mask, scores
    scaled = graph.producer(scores, "Mul", "Div")
    if scaled is not None:
        pair = graph.operand(scaled)
        number = graph.scalar(pair[1]) if pair else None
        if not pair or number is None or scaled.input[0] != pair[0]:
            return None
        scores, scale = pair[0], number if scaled.op_type == "Mul" else 1 / number
    product = graph.producer(scores, "MatMul")
    context = graph.consumer(softmax.output[0], "MatMul")
    if product is None or context is None or context.input[0] != softmax.output[0]:
        return None
    query = _heads(graph, product.input[0], ([0, 2, 1, 3],))
    key = _heads(graph, product.input[1], ([0, 2, 3, 1],))
    value = _heads(graph, context.input[1], ([0, 2, 1, 3],))
    merged = _merged(graph, context.output[0])
    if query is None or key is None or value is None or merged is None:
        return None
    if not query[1:] == key[1:] == value[1:] or merged[1] not in (-1, query[1] * query[2]):
        return None
    return Attention(query[0], key[0], value[0], merged[0], mask, query[1], scale)


def _heads(graph: Graph, name: str, orders: tuple[list[int], ...]) -> tuple[str, int, int] | None:
    """(x, heads, width) where `name` is x split into heads: Transpose(Reshape(x)), or None."""
    transpose = graph.producer(name, "Transpose")
    if transpose is None:
        return None
    order = attribute(transpose, "perm")
    before = graph.producer(transpose.input[0], "Transpose")
    if before is not None:
        first = attribute(before, "perm")
        order, transpose = [first[axis] for axis in order], before
    reshape = graph.producer(transpose.input[0], "Reshape")
    if order not in orders or reshape is None:
        return None
    target = graph.constant(reshape.input[1])
    if target is None or len(target) != 4 or min(target[2:]) < 1:
        return None
    if list(target[:2]) not in ([0, 0], [0, -1], [-1, 0]):
        return None
    return reshape.input[0], int(target[2]), int(target[3])


def _merged(graph: Graph, name: str) -> tuple[str, int] | None:
    """(y, its width) where y is the heads of `name` concatenated: Reshape(Transpose), or None."""
    transpose = graph.consumer(name, "Transpose")
    if transpose is None or attribute(transpose, "perm") != [0, 2, 1, 3]:
        return None
    reshape = graph.consumer(transpose.output[0], "Reshape")
    target = graph.constant(reshape.input[1]) if reshape is not None else None
    if reshape is None or target is None or len(target) != 3:
        return None
    if list(target[:2]) not in ([0, 0], [0, -1], [-1, 0]):
        return None
    return reshape.output[0], int(target[2])
