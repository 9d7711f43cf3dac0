"""One TensorProto, field by field: its shape, and whether it stores what the shape says."""

from math import prod

from embedge.errors import ModelError
from embedge.modelfile.protobuf import Value, count_numbers, message, numbers, text
from embedge.modelfile.schema import BITS, TensorProto

_MAX_DIMENSION = 2**31 - 1
_MAX_RANK = 32
_FIXED_WIDTH = {TensorProto.FLOAT_DATA: 4, TensorProto.DOUBLE_DATA: 8}  # bytes of an element


class Tensor:
    """The fields of a TensorProto; every occurrence counts, as readers differ in which they take.

    Attributes:
        name: its name.
        dims: its shape.
        elem_types: its element types; one, once `check` has passed.
    """

    def __init__(self) -> None:
        self.name = ""
        self.dims: list[int] = []
        self.elem_types: list[int] = []
        self._raw: list[memoryview] = []
        self._stored: dict[int, int] = {}  # elements by the field that holds them; bytes of raw
        self._names = 0
        self._plain = True  # has nothing but a shape, a type, a name and bytes

    @property
    def values(self) -> memoryview | None:
        """Its bytes, where it stores its values as bytes and has no other fields."""
        return self._raw[0] if self._plain and len(self._raw) == self._names == 1 else None

    def add(self, number: int, value: Value) -> None:
        """Record a field; raises ModelError for one of the wrong wire type."""
        if number == TensorProto.DIMS:
            if len(self.dims) + count_numbers(value) > _MAX_RANK:
                raise ModelError(
                    f"expected tensors of at most {_MAX_RANK} dimensions, got more; export the "
                    "model again"
                )
            self.dims += numbers(value)
        elif number == TensorProto.DATA_TYPE and isinstance(value, int):
            self.elem_types.append(value)
        elif number == TensorProto.NAME:
            self.name = text(value)
            self._names += 1
        elif number == TensorProto.RAW_DATA:
            # A reader takes the last of several; refused below as larger than the shape.
            self._raw.append(message(value))
            self._store(number, len(self._raw[-1]))
        else:
            self._plain = False
            if number in _FIXED_WIDTH:
                self._store(number, len(message(value)) // _FIXED_WIDTH[number])
            elif number in TensorProto.VARINTS:
                self._store(number, count_numbers(value))

    def _store(self, number: int, size: int) -> None:
        self._stored[number] = self._stored.get(number, 0) + size

    def check(self) -> None:
        """Refuse a tensor unless it stores, once, as many elements as its shape says."""
        if len(self.elem_types) != 1 or self.elem_types[0] not in BITS or len(self._stored) > 1:
            raise ModelError(
                "expected a tensor with one numeric type and one set of values, got the types "
                f"{self.elem_types} and {len(self._stored)} sets; export the model again"
            )
        for size in self.dims:
            check_dimension(size)
        ((where, found),) = self._stored.items() or {TensorProto.RAW_DATA: 0}.items()
        expected, unit = prod(self.dims), "elements"
        if where == TensorProto.RAW_DATA:
            expected, unit = -(-expected * BITS[self.elem_types[0]] // 8), "bytes"
        if found != expected:
            raise ModelError(
                f"expected {expected} {unit} in a tensor of shape {self.dims}, got {found}; fetch "
                "the file or export the model again"
            )


def check_dimension(size: int) -> None:
    """Raise ModelError for a dimension that no tensor has."""
    if size > _MAX_DIMENSION:  # a negative one is 2**63 and more here
        signed = size - 2**64 if size >= 2**63 else size
        raise ModelError(
            f"expected dimensions from 0 to {_MAX_DIMENSION} in a tensor's shape, got {signed}; "
            "export the model again"
        )
