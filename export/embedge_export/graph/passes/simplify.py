"""fp32 rewrites of a traced transformer, each of which keeps the function that the graph computes.

A trace spells everything out: shapes are computed node by node, GELU is five operators, attention
is a dozen. The passes bring back the few operators that onnxruntime runs fast. A pass that does not
recognize a graph leaves it as it is, so that any architecture may come through here.

What depends on nothing but the input shapes, or on the attention mask alone, is recognized by
running it (`probe`) and looking at the values, not by the operators that happen to spell it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx

from embedge_export.graph.ir import ONE_SHAPE, Array, Graph, attribute, ones, probe
from embedge_export.graph.passes.attention import fuse_attention

SHAPES_ONLY = ("Shape", "Size")
RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli")


def simplify(model: onnx.ModelProto, *, portable: bool = False) -> onnx.ModelProto:
    """Return the same function as `model`, in fewer and faster operators.

    A portable graph has onnx's own operators only, which more providers run.
    """
    graph = Graph(model)
    for rewrite in PASSES:
        if portable and rewrite in CPU_ONLY:
            continue
        rewrite(graph)
        graph.prune()
    return graph.finish()


def trim_tables(model: onnx.ModelProto, max_tokens: int) -> onnx.ModelProto:
    """Return `model` without the rows of tables that no text of ``max_tokens`` can reach.

    Those are position tables: their index depends on the sequence length alone.
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


def lift_constants(graph: Graph) -> None:
    """Turn Constant nodes into initializers."""
    for node in [node for node in graph.nodes if node.op_type == "Constant"]:
        value = attribute(node, "value")
        if value is not None and node.output[0] not in graph.outputs:
            value.name = node.output[0]
            graph.initializers[value.name] = value
            graph.nodes.remove(node)


def drop_identities(graph: Graph) -> None:
    """Let readers of an Identity (or of a Cast to the type that a Cast made) read its input."""
    for node in graph.nodes:
        before = graph.maker(node.input[0], "Cast") if node.op_type == "Cast" else None
        again = before is not None and attribute(before, "to") == attribute(node, "to")
        if node.op_type == "Identity" or again:
            graph.bypass(node)


def shape_values(graph: Graph, of_inputs: Collection[str] = SHAPES_ONLY) -> list[str]:
    """The values that depend on constants and input shapes alone, in graph order.

    Without `of_inputs`, the operators that give shapes, those that depend on constants alone.
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
    scaled = graph.maker(erf.input[0], "Div", "Mul")
    plus = graph.reader(erf.output[0], "Add")
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
        product = graph.reader(end, "Mul")
        if product is None:
            return None
        other = product.input[1] if product.input[0] == end else product.input[0]
        number = graph.scalar(other)
        inner = graph.maker(other, "Mul")
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
            for reader, index in linear:
                value = graph.constant(reader.input[index])
                assert value is not None
                reader.input[index] = graph.add_constant(value * scale, reader.input[index])
            graph.reindex()
            graph.replace(node.output[0], pair[0])


def _linear_before(graph: Graph, name: str) -> list[tuple[onnx.NodeProto, int]]:
    """(node, constant input) of the MatMul and Add whose result, moved about, is `name`."""
    while graph.reader(name) is not None:
        node = graph.maker(name)
        pair = graph.operand(node) if node is not None and len(node.input) == 2 else None
        if node is None:
            break
        if node.op_type in ("Reshape", "Transpose"):
            name = node.input[0]
            continue
        if node.op_type == "MatMul" and node.input[1] in graph.initializers:
            return [(node, 1)]
        if node.op_type == "Add" and pair:
            matmul = graph.maker(pair[0], "MatMul")
            alone = graph.reader(pair[0]) is not None
            if alone and matmul is not None and matmul.input[1] in graph.initializers:
                return [(matmul, 1), (node, list(node.input).index(pair[1]))]
        break
    return []


def fold_token_types(graph: Graph) -> None:
    """Fold an embedding whose index is always the same into the position table.

    word + types[0] + positions[i] = word + (positions + types[0])[i]: one addition less.
    """
    names = [
        node.input[1]
        for node in graph.nodes
        if node.op_type == "Gather" and node.input[0] in graph.initializers
    ]
    shape_only = set(shape_values(graph))
    names = [name for name in names if name in shape_only]
    probes = probe(graph, names)
    for index, name in enumerate(names):
        seen = {int(number) for values in probes for number in values[index].flat}
        gather = graph.reader(name, "Gather")
        table = graph.constant(gather.input[0]) if gather is not None else None
        add = graph.reader(gather.output[0], "Add") if gather is not None else None
        after = graph.reader(add.output[0], "Add") if add is not None else None
        if len(seen) != 1 or gather is None or table is None or add is None or after is None:
            continue
        if attribute(gather, "axis", 0) != 0 or table.ndim != 2:
            continue
        word = next((n for n in add.input if n != gather.output[0]), None)
        other = next((n for n in after.input if n != add.output[0]), None)
        position = graph.maker(other, "Gather") if other and graph.reader(other) else None
        positions = graph.constant(position.input[0]) if position is not None else None
        if word is None or position is None or positions is None or positions.ndim != 2:
            continue
        row = table[seen.pop()]
        position.input[0] = graph.add_constant(positions + row, position.input[0])
        after.input[:] = [word, position.output[0]]
        graph.reindex()


PASSES: tuple[Callable[[Graph], None], ...] = (
    lift_constants,
    fold_constants,
    drop_identities,
    fix_reshapes,
    fuse_gelu,
    fold_scales,
    fuse_attention,
    fold_token_types,
)
# These bring in operators of com.microsoft.
CPU_ONLY = (fuse_attention,)
