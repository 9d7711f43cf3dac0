"""The protocol of `embedge serve`: the greeting, requests and answers.

docs/sidecar.md describes it for clients, and which parts are stable.
"""

import json
from collections.abc import Iterator
from typing import Any

from embedge import __version__
from embedge.encoder import Encoder
from embedge.errors import EmbedgeError, TextError
from embedge.serve.requests import ProtocolError, RequestError, kind
from embedge.serve.scheduler import Result
from embedge.serve.vectors import json_vectors

PROTOCOL = 1
MAX_LINE = 16 * 2**20  # bytes
REQUEST_FIELDS = ("id", "texts", "prompt", "overflow", "encoding_format", "protocol")
CANCEL_FIELDS = ("cancel", "protocol")

Id = str | int


def greeting(encoder: Encoder) -> dict[str, Any]:
    """The first line that a client gets."""
    info = encoder.info
    return {
        "version": __version__,
        "protocol": PROTOCOL,
        "model": info["name"],
        "fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        "max_tokens": encoder.max_tokens,
        "prompts": sorted(info["prompts"]),
    }


def check_protocol(fields: dict[str, Any]) -> None:
    """Raise ProtocolError where a client needs a newer protocol than this one."""
    wanted = fields.get("protocol", PROTOCOL)
    if isinstance(wanted, bool) or not isinstance(wanted, int):
        raise RequestError(f"protocol: expected an integer, got {kind(wanted)}")
    if not 1 <= wanted <= PROTOCOL:
        raise ProtocolError(
            f"expected protocol {PROTOCOL} or lower, got {str(wanted)[:20]}; embedge {__version__} "
            f"speaks {PROTOCOL}: update embedge, or have the client speak {PROTOCOL}"
        )


def check_id(name: str, value: Any) -> Id:
    """An id that a client may give: a string or an integer."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise RequestError(f"{name}: expected a string or an integer as id, got {kind(value)}")
    return value


def error_object(error: EmbedgeError) -> dict[str, Any]:
    """An error as a client sees it: its type, its message, and the position of a text."""
    shown: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, TextError):
        shown["position"] = error.position
    return shown


def answer(identity: Id, result: Result | EmbedgeError, form: str) -> Iterator[str]:
    """Yield the pieces of the line that answers a request, its end included."""
    if isinstance(result, EmbedgeError):
        yield json.dumps({"id": identity, "error": error_object(result)}) + "\n"
        return
    separator = f'{{"id": {json.dumps(identity)}, "vectors": ['
    for row in json_vectors(result.vectors, form):
        yield separator + row
        separator = ", "
    truncated = f', "truncated": {result.truncated}' if result.truncated else ""
    yield f"{separator if len(result.vectors) == 0 else ''}]{truncated}}}\n"
