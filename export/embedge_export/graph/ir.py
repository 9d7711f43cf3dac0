"""A small index over an ONNX graph: producers and consumers of values, which values are constant.

Rewrites work on a `Graph`: they look values up by name, rewire consumers, append nodes in any
order, and `finish` sorts the nodes, drops what nothing reads and returns the ModelProto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from embedge_export.graph.serialize import graph_bytes, model_bytes, without_weights

Array = np.ndarray[Any, np.dtype[Any]]


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that `node` reads, those its subgraphs (If, Loop) take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in [*attribute.graphs, attribute.g]:
            made = {name for inner in body.node for name in inner.output}
            for inner in body.node:
                yield from (name for name in reads(inner) if name not in made)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of one attribute of `node`."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


class Graph:
    """The graph of one model, indexed; `model` is never changed.

    Its initializers are shared until `finish`, so they are replaced, not written to.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = without_weights(model)
        self.nodes: list[onnx.NodeProto] = list(self.model.graph.node)
        self.initializers = {item.name: item for item in model.graph.initializer}
        self.inputs = [item.name for item in self.model.graph.input]
        self.outputs = [item.name for item in self.model.graph.output]
        self.reindex()

    def reindex(self) -> None:
        """Rebuild the look-up tables after `nodes` changed."""
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(reads(node)):
                self.consumers.setdefault(name, []).append(node)

    def producer(self, name: str, *op_types: str) -> onnx.NodeProto | None:
        """The node that makes `name`, if it is one of `op_types` (any, where none is given)."""
        node = self.producers.get(name)
        return node if node is not None and (not op_types or node.op_type in op_types) else None

    def consumer(self, name: str, *op_types: str) -> onnx.NodeProto | None:
        """The only consumer of `name`, of `op_types`; None of a graph output or of several."""
        nodes = self.consumers.get(name, [])
        if len(nodes) != 1 or name in self.outputs:
            return None
        return nodes[0] if not op_types or nodes[0].op_type in op_types else None

    def constant(self, name: str) -> Array | None:
        """The value of an initializer, or None."""
        item = self.initializers.get(name)
        return None if item is None else numpy_helper.to_array(item)

    def value(self, name: str) -> Array:
        """The value of an initializer that is known to be there."""
        return numpy_helper.to_array(self.initializers[name])

    def scalar(self, name: str) -> float | None:
        """The value of an initializer with one element, or None."""
        value = self.constant(name)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def operand(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """(other input, constant input) of a two-input node of which one input is constant."""
        for value, const in (tuple(node.input), tuple(node.input)[::-1]):
            if const in self.initializers and value not in self.initializers:
                return value, const
        return None

    def fresh(self, hint: str) -> str:
        """A name that the graph does not use yet."""
        name, count = hint, 0
        while name in self.producers or name in self.initializers or name in self.inputs:
            count += 1
            name = f"{hint}_{count}"
        return name

    def add_constant(self, value: Array, hint: str) -> str:
        """Add an initializer; returns its name."""
        name = self.fresh(hint)
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def add(self, op_type: str, inputs: Sequence[str], hint: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = self.fresh(hint)
        node = helper.make_node(op_type, inputs, [name], **attributes)
        self.nodes.append(node)
        self.producers[name] = node
        for read in dict.fromkeys(reads(node)):
            self.consumers.setdefault(read, []).append(node)
        return name

    def replace(self, old: str, new: str) -> None:
        """Let the node that produces `new`, which nothing else reads, produce `old` instead.

        So every consumer of `old`, subgraphs and graph outputs included, gets the new value.
        """
        before, after = self.producers[old], self.producers[new]
        before.output[list(before.output).index(old)] = self.fresh(f"{old}_before")
        after.output[list(after.output).index(new)] = old
        self.reindex()

    def bypass(self, node: onnx.NodeProto) -> None:
        """Let the consumers of `node`, a node that changes nothing, read its first input.

        Graph outputs and subgraphs keep reading the node, which then stays.
        """
        for consumer in self.consumers.get(node.output[0], []):
            inputs = [node.input[0] if n == node.output[0] else n for n in consumer.input]
            consumer.input[:] = inputs
        self.reindex()

    def opset(self, domain: str = "") -> int:
        """The version of an operator set that the model imports, 0 if it does not."""
        return max((o.version for o in self.model.opset_import if o.domain == domain), default=0)

    def require(self, version: int, domain: str = "") -> None:
        """Import at least `version` of an operator set."""
        if self.opset(domain) >= version:
            return
        kept = [item for item in self.model.opset_import if item.domain != domain]
        del self.model.opset_import[:]
        self.model.opset_import.extend([*kept, helper.make_opsetid(domain, version)])

    def ancestors(self, names: Iterable[str]) -> list[onnx.NodeProto]:
        """The nodes needed to compute `names`, in an order that runs."""
        order: list[onnx.NodeProto] = []
        seen: set[str] = set()
        stack = [(name, False) for name in reversed(list(names))]
        while stack:
            name, done = stack.pop()
            node = self.producers.get(name)
            if node is None or name in self.initializers or (not done and name in seen):
                continue
            if done:
                order.append(node)
                continue
            seen.update(node.output)
            stack.append((name, True))
            stack.extend((read, False) for read in reversed(list(reads(node))))
        return order

    def runner(self, names: Sequence[str]) -> Callable[[Mapping[str, Array]], list[Array]]:
        """A function that computes the values of `names` from inputs: on the CPU, not optimized.

        Each call takes one thread: the last bits of a sum may depend on how many there are.
        """
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(
            self._part(names), options, providers=["CPUExecutionProvider"]
        )
        return lambda feed: session.run(None, dict(feed))

    def _part(self, names: Sequence[str]) -> bytes:
        """The serialized model that computes just `names` from the graph's inputs."""
        nodes = self.ancestors(names)
        used = {name for node in nodes for name in reads(node)}
        outputs = [onnx.ValueInfoProto(name=name) for name in names]
        graph = helper.make_graph(nodes, "part", list(self.model.graph.input), outputs)
        model = helper.make_model(
            graph, opset_imports=list(self.model.opset_import), ir_version=self.model.ir_version
        )
        weights = (item for name, item in self.initializers.items() if name in used)
        return model_bytes(model, graph_bytes(graph, weights))

    def prune(self) -> None:
        """Sort the nodes and drop those that the outputs do not need."""
        self.nodes = self.ancestors(self.outputs)
        self.reindex()

    def finish(self) -> onnx.ModelProto:
        """The model, pruned, without unused initializers and without shape annotations."""
        self.prune()
        used = {name for node in self.nodes for name in reads(node)} | set(self.outputs)
        graph = self.model.graph
        nodes = [*self.nodes]
        for field in (graph.node, graph.value_info):
            del field[:]
        graph.node.extend(nodes)
        graph.initializer.extend(item for n, item in self.initializers.items() if n in used)
        return self.model


Shapes = tuple[tuple[int, int], ...]  # (batch, sequence) of inputs
# Those to try; the second ones are for models of few positions.
SHAPE_PROBES: tuple[Shapes, ...] = (((2, 1100), (1, 3), (3, 5)), ((2, 60), (1, 3), (3, 5)))
ONE_SHAPE: tuple[Shapes, ...] = (((1, 3),),)


def probe(
    graph: Graph, names: Sequence[str], tries: Sequence[Shapes] = SHAPE_PROBES
) -> list[list[Array]]:
    """The values of `names` at a few input shapes: a list per shape, none if they cannot run."""
    if not names:
        return []
    try:
        run = graph.runner(names)
    except Exception:  # onnxruntime's errors share no base
        return []
    for shapes in tries:
        try:
            return [run(ones(graph, shape)) for shape in shapes]
        except Exception:  # as above; the next shapes may do
            continue
    return []


def ones(graph: Graph, shape: tuple[int, int]) -> dict[str, Array]:
    """Inputs of a shape (batch, sequence), all of them 1."""
    return {name: np.ones(shape, np.int64) for name in graph.inputs}
