"""One row of a corpus: a text with its id and its place, or why there is none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from embedge.corpus.columns import Unreadable, not_unicode, why_not_kept
from embedge.documents import Stretch

Id = int | str


class Row(NamedTuple):
    """A text; ``id`` is None where the corpus gives none. ``line`` counts from 1.

    ``columns`` has the values of the columns that are kept, of those that the row has. ``within``
    is set where the text is a passage that is encoded in its context: where, and its position.
    """

    id: Id | None
    text: str
    file: str
    line: int
    columns: Mapping[str, Any] = MappingProxyType({})
    within: tuple[Stretch, int] | None = None


class Place(NamedTuple):
    """Which part of its document a row is: in characters, ``passage`` None for all of it."""

    id: Id
    passage: int | None
    start: int
    end: int


class BadRow(NamedTuple):
    """A row without a usable text: the reason, and the row as far as it could be read."""

    reason: str
    raw: Any
    file: str
    line: int


@dataclass(frozen=True)
class Fields:
    """Names of the fields or columns that are read.

    Attributes:
        text: holds the text.
        id: holds the id; None: there is no id.
        keep: are kept for the output, as they are.
    """

    text: str = "text"
    id: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def needed(self) -> list[str]:
        """The fields that every row must have."""
        return [self.text] if self.id in (None, self.text) else [self.text, str(self.id)]

    @property
    def names(self) -> list[str]:
        """The fields that are read, each once."""
        return list(dict.fromkeys([*self.needed, *self.keep]))


def make_row(
    values: Mapping[str, Any], raw: Any, fields: Fields, file: str, line: int
) -> Row | BadRow:
    """Pick text and id out of a row's values and check them; ``raw`` is kept of a bad row."""
    reason = _missing(values, fields) or _not_text(values[fields.text], fields.text)
    key = values.get(fields.id) if fields.id is not None else None
    if not reason and fields.id is not None:
        reason = _not_id(key, fields.id)
    if reason:
        return BadRow(reason, raw, file, line)
    columns = {name: values[name] for name in fields.keep if name in values}
    for name, value in columns.items():
        if why := why_not_kept(value):
            return BadRow(f"{_about(name, why)}, and cannot be kept", raw, file, line)
    return Row(key, values[fields.text], file, line, columns)


def _missing(values: Mapping[str, Any], fields: Fields) -> str:
    missing = [name for name in fields.needed if name not in values]
    if not missing:
        return ""
    there = ", ".join(map(repr, values)) or "none"
    return f"there is no field {missing[0]!r} (fields: {there})"[:300]


def _not_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        return f"expected the field {name!r} to be a string, got {_kind(value)}"
    return _about(name, not_unicode(value))


def _not_id(value: Any, name: str) -> str:
    if isinstance(value, str):
        return _about(name, not_unicode(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return ""
    return f"expected the id {name!r} to be a string or an integer, got {_kind(value)}"


def _about(name: str, reason: str) -> str:
    return f"{name!r} {reason}" if reason else ""


def _kind(value: Any) -> str:
    match value:
        case None | bool() | int() | float():
            return json.dumps(value)
        case dict():
            return "an object"
        case list():
            return "a list"
        case bytes():
            return "binary"
        case Unreadable():
            return f"one that cannot be read ({value.reason})"
    return type(value).__name__
