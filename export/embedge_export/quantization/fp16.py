"""fp32 graph to fp16, for GPUs and CoreML: half the size, float32 where sixteen bits are too few.

Kept in float32: both outputs; the head, whose sums and lengths leave the range of fp16; squares and
their means (RMS normalization); and whatever computes positions, which are integers beyond
2048. Inputs and outputs keep their types.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from embedge.modelfile.signature import OUTPUTS
from embedge_export.graph.ir import Array, Graph, attribute

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
MOST = 65504.0  # the largest fp16 number
HIDDEN_SCORE = 1e4  # what stands for -3.4e38 in a mask: its exponential is 0 all the same

_EXACT = {"Pow", "ReduceMean", "Sqrt", "Range", "Sin", "Cos", "Log"}
_WHOLE = {TensorProto.INT64, TensorProto.INT32}
_KINDS = {
    **dict.fromkeys(("Shape", "Size", "ArgMax", "NonZero"), TensorProto.INT64),
    **dict.fromkeys(
        ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or", "IsNaN"),
        TensorProto.BOOL,
    ),
}


def convert_to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model`, made of onnx's own operators, with its weights and most values in fp16."""
    return _Converter(model).convert()


class _Converter:
    """One conversion: the type of every value before (`kinds`) and after (`stored`)."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = Graph(model)
        self.graph.prune()
        self.kinds = {item.name: item.type.tensor_type.elem_type for item in model.graph.input}
        self.kinds |= {name: item.data_type for name, item in self.graph.initializers.items()}
        self._infer(self.graph.nodes)
        self.stored = dict(self.kinds)
        self.exact = self._exact_values()
        self.casts: dict[tuple[int, str], str] = {}

    def convert(self) -> onnx.ModelProto:
        self.graph.nodes = self._rewrite(self.graph.nodes)
        self.graph.reindex()
        return self.graph.finish()

    def _infer(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            bodies = [item.g for item in node.attribute if item.HasField("g")]
            for body in bodies:
                self._infer(body.node)
            if bodies:
                kinds = [self.kinds[item.name] for item in bodies[0].output]
            else:
                kinds = [self._kind(node)] * len(node.output)
            self.kinds.update(zip(node.output, kinds, strict=True))

    def _kind(self, node: onnx.NodeProto) -> int:
        """The element type of a node's outputs."""
        match node.op_type:
            case "Cast":
                return int(attribute(node, "to"))
            case "Constant" | "ConstantOfShape":
                value = attribute(node, "value")
                return int(FLOAT if value is None else value.data_type)
            case "Where":
                return int(self.kinds[node.input[1]])
        first = next((self.kinds[name] for name in node.input if name), FLOAT)
        return int(_KINDS.get(node.op_type, first))

    def _exact_values(self) -> set[str]:
        """Outputs of the nodes that stay in float32."""
        graph = self.graph
        exact: set[str] = set()
        positions = []
        for node in graph.nodes:
            whole = node.op_type == "Cast" and attribute(node, "to") in _WHOLE
            if node.op_type in ("Sin", "Cos", "Log") or whole:
                positions.append(node.input[0])
            mean = any(graph.producer(name, "ReduceMean") for name in node.input)
            in_head = any(name.startswith("head/") or name in OUTPUTS for name in node.output)
            if node.op_type in _EXACT or in_head or (mean and node.op_type == "Add"):
                exact.update(node.output)
        for node in graph.ancestors(positions):
            exact.update(node.output)
        return exact

    def _rewrite(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        result: list[onnx.NodeProto] = []
        for node in nodes:
            want = FLOAT if self.exact.intersection(node.output) else HALF
            if node.op_type != "Cast":
                inputs = [self._as(name, want, result) for name in node.input]
                node.input[:] = inputs
            for item in node.attribute:
                if item.HasField("g"):
                    self._rewrite_body(item.g, want)
                elif item.HasField("t") and item.t.data_type == FLOAT and want == HALF:
                    item.t.CopyFrom(numpy_helper.from_array(_as_fp16(item.t), item.t.name))
                elif (node.op_type, item.name, item.i) == ("Cast", "to", FLOAT):
                    item.i = want
            for name in node.output:
                if self.kinds[name] == FLOAT:
                    self.stored[name] = want
            result.append(node)
        return result

    def _rewrite_body(self, body: onnx.GraphProto, want: int) -> None:
        nodes = self._rewrite(body.node)
        for output in body.output:
            made = self._as(output.name, want, nodes)
            if self.kinds[output.name] == FLOAT:
                output.type.tensor_type.elem_type = want
            output.name = made
        del body.node[:]
        body.node.extend(nodes)

    def _as(self, name: str, want: int, nodes: list[onnx.NodeProto]) -> str:
        """The name of `name` in the type wanted, where it is a float; may append a Cast."""
        if not name or self.kinds[name] != FLOAT or self.stored[name] == want:
            return name
        other = f"{name}_{'fp32' if want == FLOAT else 'fp16'}"
        if name in self.graph.initializers:
            half = _as_fp16(self.graph.initializers[name])
            self.graph.initializers[other] = numpy_helper.from_array(half, other)
        elif (id(nodes), other) in self.casts:  # made before in this graph or body
            return self.casts[id(nodes), other]
        else:
            self.casts[id(nodes), other] = made = self.graph.fresh(f"{other}_{len(self.casts)}")
            nodes.append(helper.make_node("Cast", [name], [made], to=want))
            other = made
        self.kinds[other], self.stored[other] = FLOAT, want
        return other


def _as_fp16(tensor: onnx.TensorProto) -> Array:
    value = numpy_helper.to_array(tensor)
    value = np.where(np.abs(value) > MOST, np.sign(value) * np.float32(HIDDEN_SCORE), value)
    return value.astype(np.float16)
