"""What a client asks for, checked, and the errors that are a client's own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from embedge.encoder import Encoder
from embedge.errors import EmbedgeError, OptionError, TextError
from embedge.text.overflow import Overflow, check_overflow

MAX_TEXTS = 4096  # of one request: its answer is held in memory
_MAX_DIGITS = 1000


class RequestError(EmbedgeError):
    """A request is not one that the protocol knows."""


class ProtocolError(RequestError):
    """A client asks for a newer version of the protocol than this one."""


class CancelledError(EmbedgeError):
    """A request was cancelled before it was answered."""


@dataclass(frozen=True)
class Request:
    """Texts to encode.

    Attributes:
        texts: any number up to MAX_TEXTS.
        prompt: the text of the prompt that is put in front of each.
        overflow: what happens to texts of more tokens than the model takes.
        dim: leading components that are kept.
    """

    texts: list[str]
    prompt: str
    overflow: Overflow
    dim: int


def make_request(encoder: Encoder, texts: Any, fields: Mapping[str, Any], dim: int) -> Request:
    """Check texts and the fields "prompt" and "overflow", of any JSON type.

    Raises:
        RequestError: a value has the wrong type, or there are too many texts.
        TextError: an item is not a string; says which.
        OptionError: the model has no such prompt, or there is no such overflow.
    """
    if not isinstance(texts, list):
        raise RequestError(f"expected a list of strings as texts, got {kind(texts)}")
    if len(texts) > MAX_TEXTS:
        raise RequestError(
            f"expected at most {MAX_TEXTS} texts, got {len(texts)}; send them as several requests"
        )
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextError(f"text {position}: expected a string, got {kind(text)}", position)
    prompt, overflow = fields.get("prompt"), fields.get("overflow", "truncate")
    for name, value in (("prompt", prompt), ("overflow", overflow)):
        if not isinstance(value, str) and (name, value) != ("prompt", None):
            raise RequestError(f"{name}: expected a string, got {kind(value)}")
    check_overflow(overflow)
    return Request(texts, encoder._prompt(prompt), cast(Overflow, overflow), dim)


def choice(fields: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    """One of the ``known`` values of a field; the first where the field is missing."""
    value = fields.get(name, known[0])
    if value not in known:
        expected = " or ".join(map(repr, known))
        raise OptionError(f"{name}: expected {expected}, got {json.dumps(value)[:80]}")
    return cast(str, value)


def check_fields(fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise RequestError where there is a field that would have no effect."""
    for name in fields:
        if name not in known:
            raise RequestError(f"unknown field {name[:80]!r}; known: {', '.join(known)}")


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8, parsed more strictly than Python's reader does.

    Fields that are null count as left out: some serializers write every field that they know.

    Raises:
        RequestError: it is not UTF-8, not JSON (NaN and Infinity are not), nested too deep, names
            a field twice, has an integer beyond all use, or is not an object.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_no_constant,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
    except UnicodeDecodeError as error:
        raise RequestError(f"expected UTF-8, got byte 0x{data[error.start]:02x}") from None
    except RecursionError:
        raise RequestError("expected flat JSON, got one that is nested too deep") from None
    except ValueError as error:
        raise RequestError(f"expected a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(f"expected a JSON object, got {kind(value)}")
    return {name: field for name, field in value.items() if field is not None}


def kind(value: Any) -> str:
    """What JSON calls the type of a value."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:  # Python would take time with the square of their number
        raise ValueError(f"an integer has {len(digits)} digits, more than {_MAX_DIGITS}")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is named twice")
    return fields
