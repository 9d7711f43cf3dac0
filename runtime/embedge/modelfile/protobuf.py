"""Tags and lengths of protobuf messages, without their schema.

The encoding is https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator

from embedge.errors import ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_FIELD_NUMBER = 2**29 - 1
_CONTINUED = bytes(range(128, 256))  # bytes of a varint that are not its last

# What one field holds: an integer, bytes, or None for a number of fixed width, which is never read.
Value = int | memoryview | None


def spans(buffer: memoryview) -> Iterator[tuple[int, Value, memoryview]]:
    """Yield (field number, value, all bytes of the field) of one message.

    Raises:
        ModelError: the bytes end early or are not a protobuf message.
    """
    value: Value
    position, end = 0, len(buffer)
    while position < end:
        start = position
        tag, position = _varint(buffer, position)
        number, kind = tag >> 3, tag & 7
        # Some readers drop a tag's bits above 32, and would then see another field than this walk.
        if not 1 <= number <= _MAX_FIELD_NUMBER:
            raise not_onnx(f"a field has the number {number}")
        if kind == _VARINT:
            value, position = _varint(buffer, position)
            yield number, value, buffer[start:position]
            continue
        if kind == _BYTES:
            size, position = _varint(buffer, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise not_onnx(f"a field has the wire type {kind}")
        if size > end - position:
            raise ModelError(
                f"the file is truncated, damaged or not an ONNX model: a field declares "
                f"{size} bytes where {end - position} are left; fetch or export it again"
            )
        value = buffer[position : position + size] if kind == _BYTES else None
        position += size
        yield number, value, buffer[start:position]


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    if position < len(buffer) and buffer[position] < 0x80:  # most have one byte
        return buffer[position], position + 1
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(buffer):
            raise ModelError(
                "the file is truncated, damaged or not an ONNX model: a varint is truncated; "
                "fetch or export it again"
            )
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise not_onnx("a varint has more than ten bytes")


def not_onnx(why: str) -> ModelError:
    """The error for bytes that are not an ONNX model."""
    return ModelError(
        f"this is not an ONNX model ({why}); give the path of a file made with 'embedge export'"
    )


def message(value: Value) -> memoryview:
    """The bytes of a length-delimited field; raises ModelError for a number."""
    if not isinstance(value, memoryview):
        got = "a fixed-width number" if value is None else "a varint"
        raise not_onnx(f"expected a length-delimited field, got {got}")
    return value


def text(value: Value) -> str:
    """The UTF-8 string of a field; raises ModelError where it is not one."""
    try:
        return bytes(message(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_onnx("a name is not valid UTF-8") from error


def numbers(value: Value) -> list[int]:
    """The integers of a repeated field, packed or not; raises ModelError as `spans`."""
    if isinstance(value, int):
        return [value]
    packed = message(value)
    found, position = [], 0
    while position < len(packed):
        number, position = _varint(packed, position)
        found.append(number)
    return found


def count_numbers(value: Value) -> int:
    """How many integers `numbers` would give, without giving them."""
    return 1 if isinstance(value, int) else len(bytes(message(value)).translate(None, _CONTINUED))


def encode(number: int, value: int | bytes) -> bytes:
    """A field with its tag: a number that is not negative, or bytes."""
    if isinstance(value, int):
        return _encode_varint(number << 3 | _VARINT) + _encode_varint(value)
    return head(number, len(value)) + value


def head(number: int, size: int) -> bytes:
    """Tag and length of a field of ``size`` bytes, which follow."""
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(size)


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
