"""Walk an ONNX file's protobuf bytes once: refuse it, or describe it and find its weights.

Values of weights are skipped, so a file is validated in milliseconds, before onnxruntime sees a
byte.

Protobuf readers merge repeated fields and let the last scalar win. Therefore every occurrence is
checked here, never only the first or the last: what passes is safe under any reader's choice.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from embedge.errors import ModelError
from embedge.modelfile.operators import canonical_domain, check_domain, check_operator
from embedge.modelfile.protobuf import Value, message, not_onnx, spans, text
from embedge.modelfile.schema import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    SparseTensorProto,
    StringStringEntryProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
)
from embedge.modelfile.tensor import Tensor, check_dimension

_MAX_GRAPH_DEPTH = 4  # an If inside an If inside an If is already beyond what exporters write
# A model of 48 layers has some 12,000 nodes at most, and 200,000 fields that are not weights.
_MAX_NODES = 20_000
_MAX_FIELDS = 1_000_000
_REFUSED = {
    ModelProto.TRAINING_INFO: "training information",
    ModelProto.FUNCTIONS: "local functions",
}


@dataclass(frozen=True)
class TensorSpec:
    """Name, ONNX element type (1 float32, 7 int64) and shape; a free dimension is its name."""

    name: str
    elem_type: int
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Initializer:
    """A weight of the outermost graph, which stores its values as bytes.

    Attributes:
        name: its name.
        elem_type: its ONNX element type.
        shape: its shape.
        values: its bytes where they are in the file, little endian.
        field: all bytes of the graph's field that holds it.
    """

    name: str
    elem_type: int
    shape: tuple[int, ...]
    values: memoryview
    field: memoryview


@dataclass
class Walked:
    """What the walk found: every field is filled by it, none is trusted before it ends.

    Attributes:
        opsets: operator set versions by domain.
        metadata: the metadata.
        graph: the bytes of the graph.
        rest: all bytes of the model's fields besides graph and metadata.
        graph_fields: all bytes of each of the graph's fields.
        initializers: weights whose values could be taken out of the file.
        read: names that nodes of the outermost graph read.
        inputs, outputs: of the graph.
        operators: how many nodes of each kind there are.
        ir_version, producer: as the file says.
    """

    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    graph: memoryview = field(default_factory=lambda: memoryview(b""))
    rest: list[memoryview] = field(default_factory=list)
    graph_fields: list[memoryview] = field(default_factory=list)
    initializers: list[Initializer] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    ir_version: int = 0
    producer: str = ""


def walk(data: bytes | memoryview) -> Walked:
    """Walk the bytes of an ONNX ModelProto.

    Raises:
        ModelError: the bytes end early, are not an ONNX model, keep data in another file, use an
            operator or a construct that a model file of ours never has, or declare tensors
            larger than what they store.
    """
    walker = _Walker()
    walker.model(memoryview(data))
    return walker.found


class _Walker:
    """One walk, which reads _MAX_FIELDS fields and no more, however they are nested."""

    def __init__(self) -> None:
        self.found = Walked()
        self._fields_left = _MAX_FIELDS
        self._nodes_left = _MAX_NODES
        self._weights: set[str] = set()  # names of the outermost graph's initializers

    def _spans(self, buffer: memoryview) -> Iterator[tuple[int, Value, memoryview]]:
        for found in spans(buffer):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ModelError(
                    f"expected at most {_MAX_FIELDS} fields in a file, got more; export it again"
                )
            yield found

    def _fields(self, buffer: memoryview) -> Iterator[tuple[int, Value]]:
        return ((number, value) for number, value, _ in self._spans(buffer))

    def model(self, buffer: memoryview) -> None:
        found, graphs = self.found, 0
        for number, value, whole in self._spans(buffer):
            if number == ModelProto.GRAPH:
                graphs += 1
                found.graph = message(value)
                self._graph(found.graph, depth=0)
            elif number == ModelProto.METADATA_PROPS:
                self._metadata(message(value))
            elif number in _REFUSED:
                raise ModelError(
                    f"the file has {_REFUSED[number]}, which no model file has; export it again"
                )
            else:
                found.rest.append(whole)
            if number == ModelProto.IR_VERSION and isinstance(value, int):
                found.ir_version = value
            elif number == ModelProto.PRODUCER_NAME:
                found.producer = text(value)
            elif number == ModelProto.OPSET_IMPORT:
                self._opset(message(value))
        if not graphs or not found.ir_version:
            raise not_onnx("it has no graph")
        if graphs > 1:  # readers would merge them
            raise ModelError(f"expected one graph, got {graphs}; export the model again")

    def _opset(self, buffer: memoryview) -> None:
        domain, version = "", 0
        for number, value in self._fields(buffer):
            if number == OperatorSetIdProto.DOMAIN:
                domain = text(value)
                check_domain(domain)
            elif number == OperatorSetIdProto.VERSION and isinstance(value, int):
                version = value
        domain = canonical_domain(domain)
        if domain in self.found.opsets:  # which of them counts would be the reader's choice
            raise ModelError(
                f"the file imports the operator set {domain or 'ai.onnx'} twice; export the model "
                "again"
            )
        self.found.opsets[domain] = version

    def _metadata(self, buffer: memoryview) -> None:
        key, entry = "", ""
        for number, value in self._fields(buffer):
            if number == StringStringEntryProto.KEY:
                key = text(value)
            elif number == StringStringEntryProto.VALUE:
                entry = text(value)
        if key in self.found.metadata:
            raise ModelError(f"the file has the metadata key {key!r} twice; export it again")
        self.found.metadata[key] = entry

    def _graph(self, buffer: memoryview, depth: int) -> None:
        if depth > _MAX_GRAPH_DEPTH:
            raise ModelError(
                f"expected graphs nested at most {_MAX_GRAPH_DEPTH} deep, got more; export it again"
            )
        found = self.found
        for number, value, whole in self._spans(buffer):
            if depth == 0:
                found.graph_fields.append(whole)
            if number == GraphProto.NODE:
                self._node(message(value), depth)
            elif number == GraphProto.INITIALIZER:
                self._initializer(message(value), whole, depth)
            elif number == GraphProto.SPARSE_INITIALIZER:
                self._sparse(message(value))
            elif number in (GraphProto.INPUT, GraphProto.OUTPUT, GraphProto.VALUE_INFO):
                spec = self._tensor_spec(message(value))
                if depth == 0 and number != GraphProto.VALUE_INFO:
                    (found.inputs if number == GraphProto.INPUT else found.outputs).append(spec)

    def _initializer(self, buffer: memoryview, whole: memoryview, depth: int) -> None:
        tensor = self._tensor(buffer)
        if depth > 0:
            return
        if tensor.name in self._weights:  # which of them counts would be the reader's choice
            raise ModelError(
                f"the graph has two weights named {tensor.name!r}; export the model again"
            )
        self._weights.add(tensor.name)
        if tensor.values is not None:
            shape, values = tuple(tensor.dims), tensor.values
            found = Initializer(tensor.name, tensor.elem_types[0], shape, values, whole)
            self.found.initializers.append(found)

    def _node(self, buffer: memoryview, depth: int) -> None:
        self._nodes_left -= 1
        if self._nodes_left < 0:
            raise ModelError(
                f"expected at most {_MAX_NODES} nodes, got more; export the model again"
            )
        names, domains = [], []
        for number, value in self._fields(buffer):
            if number == NodeProto.OP_TYPE:
                names.append(text(value))
            elif number == NodeProto.DOMAIN:
                domains.append(text(value))
            elif number == NodeProto.ATTRIBUTE:
                self._attribute(message(value), depth)
            elif number == NodeProto.INPUT and depth == 0:
                self.found.read.add(text(value))
        for domain in domains or [""]:
            for name in names or [""]:
                check_operator(domain, name)
        self.found.operators[names[-1]] += 1

    def _attribute(self, buffer: memoryview, depth: int) -> None:
        for number, value in self._fields(buffer):
            if number in AttributeProto.TENSORS:
                self._tensor(message(value))
            elif number in AttributeProto.SPARSE_TENSORS:
                self._sparse(message(value))
            elif number in AttributeProto.GRAPHS:
                self._graph(message(value), depth + 1)

    def _tensor(self, buffer: memoryview) -> Tensor:
        """Read a TensorProto; refused if its data is elsewhere or does not fit its shape."""
        tensor = Tensor()
        for number, value in self._fields(buffer):
            external = number == TensorProto.DATA_LOCATION and value != 0
            if external or number == TensorProto.EXTERNAL_DATA:
                raise ModelError(
                    "the model keeps its weights in another file (external data); "
                    "embedge needs one file that holds all: export it again with embedge export"
                )
            tensor.add(number, value)
        tensor.check()
        return tensor

    def _sparse(self, buffer: memoryview) -> None:
        for number, value in self._fields(buffer):
            if number in SparseTensorProto.TENSORS:
                self._tensor(message(value))
        raise ModelError("the file has a sparse tensor, which no model file has; export it again")

    def _tensor_spec(self, buffer: memoryview) -> TensorSpec:
        """Read a ValueInfoProto of a tensor."""
        name, elem_type = "", 0
        shape: tuple[int | str, ...] = ()
        for number, value in self._fields(buffer):
            if number == ValueInfoProto.NAME:
                name = text(value)
            elif number == ValueInfoProto.TYPE:
                for kind, tensor in self._fields(message(value)):
                    if kind == TypeProto.TENSOR_TYPE:
                        elem_type, shape = self._tensor_type(message(tensor))
        return TensorSpec(name, elem_type, shape)

    def _tensor_type(self, buffer: memoryview) -> tuple[int, tuple[int | str, ...]]:
        elem_type = 0
        shape: list[int | str] = []
        for number, value in self._fields(buffer):
            if number == TypeProto.ELEM_TYPE and isinstance(value, int):
                elem_type = value
            elif number == TypeProto.SHAPE:
                dims = self._fields(message(value))
                shape = [self._dimension(message(dim)) for n, dim in dims if n == TypeProto.DIM]
        return elem_type, tuple(shape)

    def _dimension(self, buffer: memoryview) -> int | str:
        found: int | str = "?"
        for number, value in self._fields(buffer):
            if number == TypeProto.DIM_VALUE and isinstance(value, int):
                check_dimension(value)
                found = value
            elif number == TypeProto.DIM_PARAM:
                found = text(value)
        return found
