"""Walk an ONNX file's protobuf bytes: describe it and refuse it without parsing a weight.

Only tags and lengths are read (https://protobuf.dev/programming-guides/encoding/); field numbers
are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Weights are
skipped, so a file is judged in milliseconds, before onnxruntime sees a byte.

Protobuf readers merge repeated fields and let the last scalar win. Therefore every occurrence is
checked here, never only the first or the last: what passes is safe under any reader's choice.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from embedge.errors import ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_FIELD_NUMBER = 2**29 - 1
_MAX_GRAPH_DEPTH = 4  # an If inside an If inside an If is already beyond what exporters write

# Operators that could open another file, run for ever, or reach code outside the two domains.
# com.microsoft is a list of what may be used; the default domain of what may not.
_REFUSED_OPS = frozenset({"Loop", "Scan"})
_MICROSOFT_OPS = frozenset(
    {
        "Attention",
        "BiasGelu",
        "DequantizeLinear",
        "DynamicQuantizeMatMul",
        "EmbedLayerNormalization",
        "FastGelu",
        "FusedMatMul",
        "Gelu",
        "GroupQueryAttention",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MultiHeadAttention",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearMul",
        "QuantizeLinear",
        "QuickGelu",
        "RotaryEmbedding",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
_ALLOWED_DOMAINS = {"", "ai.onnx", "com.microsoft"}


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


def walk(data: bytes) -> Walked:
    """Walk the bytes of an ONNX ModelProto.

    Raises:
        ModelError: the bytes end early, are not an ONNX model, keep data in another file, or use
            an operator or a construct that a model file of ours never has.
    """
    found = Walked()
    for number, value in _fields(memoryview(data)):
        if number == 1 and isinstance(value, int):
            found.ir_version = value
        elif number == 2:
            found.producer = _text(value)
        elif number == 7:
            found.graphs.append(_message(value))
            _walk_graph(_message(value), found, depth=0)
        elif number == 8:
            _walk_opset(_message(value), found)
        elif number == 14:
            _walk_metadata(_message(value), found)
        elif number in (20, 25):
            what = "training information" if number == 20 else "local functions"
            raise ModelError(f"the file has {what}, which a model file never has; do not use it")
    if not found.graphs or not found.ir_version:
        raise _not_onnx("it has no graph")
    return found


def _fields(buffer: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of one message; a value is an integer or the bytes of a field."""
    position, end = 0, len(buffer)
    while position < end:
        tag, position = _varint(buffer, position)
        number, kind = tag >> 3, tag & 7
        # Some readers drop a tag's bits above 32, and would then see another field than this walk.
        if not 1 <= number <= _MAX_FIELD_NUMBER:
            raise _not_onnx(f"a field has the number {number}")
        if kind == _VARINT:
            value, position = _varint(buffer, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _varint(buffer, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise _not_onnx(f"a field has the wire type {kind}")
        if size > end - position:
            raise ModelError(
                f"the file is truncated, damaged or not an ONNX model: a field of {size} bytes is "
                f"announced where {end - position} are left; fetch or export it again"
            )
        yield number, buffer[position : position + size]
        position += size


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(buffer):
            raise ModelError(
                "the file is truncated, damaged or not an ONNX model: a number is cut short; "
                "fetch or export it again"
            )
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _not_onnx("a number has more than ten bytes")


def _not_onnx(why: str) -> ModelError:
    return ModelError(
        f"this is not an ONNX model ({why}); give the path of a file made with 'embedge export'"
    )


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _not_onnx("a number stands where a message belongs")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_onnx("a name is not valid UTF-8") from error


def _walk_opset(buffer: memoryview, found: Walked) -> None:
    domain, version = "", 0
    for number, value in _fields(buffer):
        if number == 1:
            domain = _text(value)
            _check_domain(domain)
        elif number == 2 and isinstance(value, int):
            version = value
    found.opsets[domain] = version


def _walk_metadata(buffer: memoryview, found: Walked) -> None:
    key, text = "", ""
    for number, value in _fields(buffer):
        if number == 1:
            key = _text(value)
        elif number == 2:
            text = _text(value)
    if key in found.metadata:
        raise ModelError(f"the file has the metadata key {key!r} twice; do not use it")
    found.metadata[key] = text


def _walk_graph(buffer: memoryview, found: Walked, depth: int) -> None:
    if depth > _MAX_GRAPH_DEPTH:
        raise ModelError(f"the graph is nested more than {_MAX_GRAPH_DEPTH} deep; do not use it")
    for number, value in _fields(buffer):
        if number == 1:
            _walk_node(_message(value), found, depth)
        elif number == 5:
            _check_tensor(_message(value))
        elif number == 15:
            _check_sparse(_message(value))
        elif number in (11, 12) and depth == 0:
            (found.inputs if number == 11 else found.outputs).append(_tensor_spec(_message(value)))


def _walk_node(buffer: memoryview, found: Walked, depth: int) -> None:
    names, domains = [""], [""]
    for number, value in _fields(buffer):
        if number == 4:
            names.append(_text(value))
        elif number == 7:
            domains.append(_text(value))
        elif number == 5:
            _walk_attribute(_message(value), found, depth)
    for domain in domains:
        _check_domain(domain)
    for name in names[1:]:
        if name in _REFUSED_OPS or ("com.microsoft" in domains and name not in _MICROSOFT_OPS):
            raise ModelError(
                f"the graph uses the operator {name}, which a model file may not use; "
                "do not use it, or export the model again with embedge export"
            )
    found.operators[names[-1]] += 1


def _walk_attribute(buffer: memoryview, found: Walked, depth: int) -> None:
    for number, value in _fields(buffer):
        if number in (5, 10):
            _check_tensor(_message(value))
        elif number in (22, 23):
            _check_sparse(_message(value))
        elif number in (6, 11):
            _walk_graph(_message(value), found, depth + 1)


def _check_domain(domain: str) -> None:
    if domain not in _ALLOWED_DOMAINS:
        raise ModelError(
            f"the graph uses operators of the domain {domain!r}; a model file uses only onnx's own "
            "and com.microsoft; do not use it, or export the model again with embedge export"
        )


def _check_tensor(buffer: memoryview) -> None:
    """Refuse a TensorProto whose data is in another file."""
    for number, value in _fields(buffer):
        if number == 13 or (number == 14 and value != 0):
            raise ModelError(
                "the model keeps its weights in another file (external data); "
                "embedge needs one file that holds all: export it again with embedge export"
            )


def _check_sparse(buffer: memoryview) -> None:
    for number, value in _fields(buffer):
        if number in (1, 2):
            _check_tensor(_message(value))


def _tensor_spec(buffer: memoryview) -> TensorSpec:
    """Read a ValueInfoProto of a tensor."""
    name, elem_type = "", 0
    shape: tuple[int | str, ...] = ()
    for number, value in _fields(buffer):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for kind, tensor in _fields(_message(value)):
                if kind == 1:
                    elem_type, shape = _tensor_type(_message(tensor))
    return TensorSpec(name, elem_type, shape)


def _tensor_type(buffer: memoryview) -> tuple[int, tuple[int | str, ...]]:
    elem_type, shape = 0, []
    for number, value in _fields(buffer):
        if number == 1 and isinstance(value, int):
            elem_type = value
        elif number == 2:
            shape = [_dimension(_message(d)) for n, d in _fields(_message(value)) if n == 1]
    return elem_type, tuple(shape)


def _dimension(buffer: memoryview) -> int | str:
    for number, value in _fields(buffer):
        if number == 1 and isinstance(value, int):
            return value
        if number == 2:
            return _text(value)
    return "?"
