"""Walk an ONNX file's protobuf bytes: describe it and refuse it without parsing a weight.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
Weights are skipped, so a file is judged in milliseconds, before onnxruntime sees a byte.

Protobuf readers merge repeated fields and let the last scalar win. Therefore every occurrence is
checked here, never only the first or the last: what passes is safe under any reader's choice.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from embedge.errors import ModelError
from embedge.modelfile.operators import canonical_domain, check_domain, check_operator
from embedge.modelfile.protobuf import Value, count_numbers, message, not_onnx, numbers, spans, text

_MAX_GRAPH_DEPTH = 4  # an If inside an If inside an If is already beyond what exporters write
# A model of 48 layers has some 12,000 nodes at most, and 200,000 fields that are not weights.
_MAX_NODES = 20_000
_MAX_FIELDS = 1_000_000
_MAX_DIMENSION = 2**31 - 1
_MAX_RANK = 32

# Bits of an element by TensorProto.DataType: numbers and booleans, no strings.
_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16,
    21: 4, 22: 4,
}  # fmt: skip
# Field numbers of TensorProto.
DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 9, 13, 14
_TYPED_FIXED = {4: 4, 10: 8}  # float_data, double_data: bytes of an element
_TYPED_VARINT = (5, 7, 11)  # int32_data, int64_data, uint64_data


@dataclass(frozen=True)
class TensorSpec:
    """Name, ONNX element type (1 float32, 7 int64) and shape; a free dimension is its name."""

    name: str
    elem_type: int
    shape: tuple[int | str, ...]


@dataclass
class Walked:
    """What the walk found: every field is filled by it, none is trusted before it ends."""

    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    graphs: list[memoryview] = field(default_factory=list)
    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    ir_version: int = 0
    producer: str = ""


def walk(data: bytes | memoryview) -> Walked:
    """Walk the bytes of an ONNX ModelProto.

    Raises:
        ModelError: the bytes end early, are not an ONNX model, keep data in another file, use an
            operator or a construct that a model file of ours never has, or announce tensors
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

    def _fields(self, buffer: memoryview) -> Iterator[tuple[int, Value]]:
        for number, value, _ in spans(buffer):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ModelError(f"the file has more than {_MAX_FIELDS} fields; do not use it")
            yield number, value

    def model(self, buffer: memoryview) -> None:
        found = self.found
        for number, value in self._fields(buffer):
            if number == 1 and isinstance(value, int):
                found.ir_version = value
            elif number == 2:
                found.producer = text(value)
            elif number == 7:
                found.graphs.append(message(value))
                self._graph(message(value), depth=0)
            elif number == 8:
                self._opset(message(value))
            elif number == 14:
                self._metadata(message(value))
            elif number in (20, 25):
                what = "training information" if number == 20 else "local functions"
                raise ModelError(f"the file has {what}, which no model file has; do not use it")
        if not found.graphs or not found.ir_version:
            raise not_onnx("it has no graph")

    def _opset(self, buffer: memoryview) -> None:
        domain, version = "", 0
        for number, value in self._fields(buffer):
            if number == 1:
                domain = text(value)
                check_domain(domain)
            elif number == 2 and isinstance(value, int):
                version = value
        domain = canonical_domain(domain)
        if domain in self.found.opsets:  # which of them counts would be the reader's choice
            raise ModelError(
                f"the file imports the operator set {domain or 'ai.onnx'} twice; do not use it, or "
                "export the model again"
            )
        self.found.opsets[domain] = version

    def _metadata(self, buffer: memoryview) -> None:
        key, entry = "", ""
        for number, value in self._fields(buffer):
            if number == 1:
                key = text(value)
            elif number == 2:
                entry = text(value)
        if key in self.found.metadata:
            raise ModelError(f"the file has the metadata key {key!r} twice; do not use it")
        self.found.metadata[key] = entry

    def _graph(self, buffer: memoryview, depth: int) -> None:
        if depth > _MAX_GRAPH_DEPTH:
            raise ModelError(
                f"the graph is nested more than {_MAX_GRAPH_DEPTH} deep; do not use it"
            )
        for number, value in self._fields(buffer):
            if number == 1:
                self._node(message(value), depth)
            elif number == 5:
                name = self._tensor(message(value))
                if depth == 0:
                    self._weight(name)
            elif number == 15:
                self._sparse(message(value))
            elif number in (11, 12, 13):  # inputs, outputs, and what shape inference noted
                spec = self._tensor_spec(message(value))
                if depth == 0 and number != 13:
                    (self.found.inputs if number == 11 else self.found.outputs).append(spec)

    def _weight(self, name: str) -> None:
        if name in self._weights:  # which of them counts would be the reader's choice
            raise ModelError(f"the graph has two weights named {name!r}; do not use it")
        self._weights.add(name)

    def _node(self, buffer: memoryview, depth: int) -> None:
        self._nodes_left -= 1
        if self._nodes_left < 0:
            raise ModelError(f"the graph has more than {_MAX_NODES} nodes; do not use it")
        names, domains = [], []
        for number, value in self._fields(buffer):
            if number == 4:
                names.append(text(value))
            elif number == 7:
                domains.append(text(value))
            elif number == 5:
                self._attribute(message(value), depth)
        for domain in domains or [""]:
            for name in names or [""]:
                check_operator(domain, name)
        self.found.operators[names[-1]] += 1

    def _attribute(self, buffer: memoryview, depth: int) -> None:
        for number, value in self._fields(buffer):
            if number in (5, 10):
                self._tensor(message(value))
            elif number in (22, 23):
                self._sparse(message(value))
            elif number in (6, 11):
                self._graph(message(value), depth + 1)

    def _tensor(self, buffer: memoryview) -> str:
        """The name of a TensorProto, refused if its data is elsewhere or does not fit its shape."""
        name = ""
        dims: list[int] = []
        kinds: list[int] = []
        stored: dict[int, int] = {}  # elements by the field that holds them; bytes of raw_data
        for number, value in self._fields(buffer):
            if number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0):
                raise ModelError(
                    "the model keeps its weights in another file (external data); "
                    "embedge needs one file that holds all: export it again with embedge export"
                )
            if number == DIMS:
                if len(dims) + count_numbers(value) > _MAX_RANK:
                    raise ModelError(
                        f"a tensor has more than {_MAX_RANK} dimensions; do not use the file"
                    )
                dims += numbers(value)
            elif number == DATA_TYPE and isinstance(value, int):
                kinds.append(value)
            elif number == RAW_DATA:
                # A reader takes the last of several; refused below as larger than the shape.
                stored[number] = stored.get(number, 0) + len(message(value))
            elif number in _TYPED_FIXED:
                stored[number] = stored.get(number, 0) + len(message(value)) // _TYPED_FIXED[number]
            elif number in _TYPED_VARINT:
                stored[number] = stored.get(number, 0) + count_numbers(value)
            elif number == NAME:
                name = text(value)
        _check_stored(dims, kinds, stored)
        return name

    def _sparse(self, buffer: memoryview) -> None:
        for number, value in self._fields(buffer):
            if number in (1, 2):
                self._tensor(message(value))
        raise ModelError("the file has a sparse tensor, which no model file has; do not use it")

    def _tensor_spec(self, buffer: memoryview) -> TensorSpec:
        """Read a ValueInfoProto of a tensor."""
        name, elem_type = "", 0
        shape: tuple[int | str, ...] = ()
        for number, value in self._fields(buffer):
            if number == 1:
                name = text(value)
            elif number == 2:
                for kind, tensor in self._fields(message(value)):
                    if kind == 1:
                        elem_type, shape = self._tensor_type(message(tensor))
        return TensorSpec(name, elem_type, shape)

    def _tensor_type(self, buffer: memoryview) -> tuple[int, tuple[int | str, ...]]:
        elem_type = 0
        shape: list[int | str] = []
        for number, value in self._fields(buffer):
            if number == 1 and isinstance(value, int):
                elem_type = value
            elif number == 2:
                dims = self._fields(message(value))
                shape = [self._dimension(message(dim)) for n, dim in dims if n == 1]
        return elem_type, tuple(shape)

    def _dimension(self, buffer: memoryview) -> int | str:
        found: int | str = "?"
        for number, value in self._fields(buffer):
            if number == 1 and isinstance(value, int):
                _check_dimension(value)
                found = value
            elif number == 2:
                found = text(value)
        return found


def _check_dimension(size: int) -> None:
    if size > _MAX_DIMENSION:  # a negative one is 2**63 and more here
        signed = size - 2**64 if size >= 2**63 else size
        raise ModelError(
            f"a tensor's shape has the dimension {signed}, but should have 0 to {_MAX_DIMENSION}; "
            "do not use the file"
        )


def _check_stored(dims: list[int], kinds: list[int], stored: dict[int, int]) -> None:
    """Refuse a tensor unless it stores, once, as many elements as its shape says."""
    if len(kinds) != 1 or kinds[0] not in _BITS or len(stored) > 1:
        raise ModelError(
            f"a tensor of the types {kinds} has {len(stored)} sets of values, but should have one "
            "type of number and one set; do not use the file, or export the model again"
        )
    for size in dims:
        _check_dimension(size)
    ((where, found),) = stored.items() or {RAW_DATA: 0}.items()
    expected = prod(dims)
    unit = "elements"
    if where == RAW_DATA:
        expected, unit = -(-expected * _BITS[kinds[0]] // 8), "bytes"
    if found != expected:
        raise ModelError(
            f"a tensor of the shape {dims} stores {found} {unit}, but should store {expected}; "
            "fetch the file or export the model again"
        )
