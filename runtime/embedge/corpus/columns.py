"""Columns of the input that are kept in the output: one type for each, found from its values."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

ColumnType = Literal["null", "bool", "int64", "double", "string", "json"]

_INT64 = range(-(2**63), 2**63)


def column_types(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> dict[str, ColumnType]:
    """The type of each column: "null" where no row has a value, "json" where types are mixed."""
    types: dict[str, ColumnType] = dict.fromkeys(names, "null")
    for row in rows:
        for name in names:
            types[name] = _common(types[name], _type_of(row.get(name)))
    return types


def convert(rows: Sequence[dict[str, Any]], name: str, kind: ColumnType) -> list[Any]:
    """The values of a column in its type, None where a row has none."""
    values = [row.get(name) for row in rows]
    if kind == "json":
        return [None if value is None else json.dumps(value) for value in values]
    if kind == "double":
        return [None if value is None else float(value) for value in values]
    return values


def _common(a: ColumnType, b: ColumnType) -> ColumnType:
    if a == b or b == "null":
        return a
    if a == "null":
        return b
    return "double" if {a, b} == {"int64", "double"} else "json"


def _type_of(value: Any) -> ColumnType:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() if value in _INT64:
            return "int64"
        case float():
            return "double"
        case str():
            return "string"
    return "json"
