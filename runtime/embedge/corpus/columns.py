"""Columns of the input that are kept in the output: one type for each, found from its values."""

import json
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, Literal, NamedTuple

ColumnType = Literal["null", "bool", "int64", "long", "double", "string", "json"]

_INT64 = range(-(2**63), 2**63)
# What holds the values of both types; "long" has integers of which a double would round some.
_COMMON: dict[frozenset[ColumnType], ColumnType] = {
    frozenset(("int64", "long")): "long",
    frozenset(("int64", "double")): "double",
}
_MOST_LEVELS = 100  # of nested values; Python's own JSON stops at about a thousand


class Unreadable(NamedTuple):
    """Stands for a value of a column that Python has no value for."""

    reason: str


def why_not_kept(value: Any, levels: int = _MOST_LEVELS) -> str:
    """Why a value cannot be kept, or the empty string."""
    match value:
        case None | bool() | int() | float():
            return ""
        case str():
            return not_unicode(value)
        case bytes():
            return "is binary or not valid UTF-8"
        case Unreadable():
            return f"cannot be read ({value.reason})"
        case Mapping() | list() | tuple():
            if not levels:
                return f"is nested more than {_MOST_LEVELS} levels deep"
            inner = [*value, *value.values()] if isinstance(value, Mapping) else value
            reasons = (why_not_kept(item, levels - 1) for item in inner)
            return next(filter(None, reasons), "")
    return ""


def not_unicode(value: str) -> str:
    """Why a str is not valid Unicode, or the empty string."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # how the CSV reader passes on what it could not decode
            return f"is not valid UTF-8 (byte 0x{code - 0xDC00:02x})"
        return f"is not valid Unicode (lone surrogate U+{code:04X})"
    return ""


def to_json(value: Any) -> str:
    """Kept values as JSON, where a number that is not finite, which JSON has not, is null.

    What JSON has no type for becomes a string.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
    return value


def column_types(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> dict[str, ColumnType]:
    """The type of each column: "null" where no row has a value, "json" where types are mixed."""
    types: dict[str, ColumnType] = dict.fromkeys(names, "null")
    for row in rows:
        for name in names:
            types[name] = _common(types[name], _type_of(row.get(name)))
    return {name: "int64" if kind == "long" else kind for name, kind in types.items()}


def convert(rows: Sequence[dict[str, Any]], name: str, kind: ColumnType) -> list[Any]:
    """The values of a column in its type, None where a row has none."""
    values = [row.get(name) for row in rows]
    if kind == "json":
        return [None if value is None else to_json(value) for value in values]
    if kind == "double":
        return [None if value is None else float(value) for value in values]
    return values


def _common(a: ColumnType, b: ColumnType) -> ColumnType:
    if a == b or b == "null":
        return a
    if a == "null":
        return b
    return _COMMON.get(frozenset((a, b)), "json")


def _type_of(value: Any) -> ColumnType:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() if value in _INT64:
            return "int64" if int(float(value)) == value else "long"
        case float():
            return "double"
        case str():
            return "string"
    return "json"
