"""OpenAI's embeddings interface as plain values: bodies to requests, results to bodies."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from embedge.encoder import Encoder
from embedge.errors import EmbedgeError, OptionError, TextError
from embedge.serve.requests import (
    Request,
    RequestError,
    check_fields,
    choice,
    kind,
    make_request,
    parse_object,
)
from embedge.serve.scheduler import Result
from embedge.serve.vectors import FORMATS, json_vectors
from embedge.text.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS, first_prompt

# OpenAI's own, and three that are not: prompt, input_type, overflow.
FIELDS = (
    "input",
    "model",
    "encoding_format",
    "dimensions",
    "user",  # OpenAI's name of the end user, for its own records: we keep none
    "prompt",
    "input_type",
    "overflow",
)
INPUT_TYPES = {"query": QUERY_PROMPTS, "document": DOCUMENT_PROMPTS}
_TOKENS = (
    "input: expected strings, got token ids; this model has another tokenizer than OpenAI's, so "
    "send the text itself (LangChain: check_embedding_ctx_length=False)"
)


class UnknownModelError(RequestError):
    """A request names a model that is not the one served."""


def parse_body(encoder: Encoder, data: bytes) -> tuple[Request, str]:
    """A request, and the format its vectors are wanted in.

    Raises:
        EmbedgeError: the body is not one that can be answered; says why.
    """
    fields = parse_object(data)
    check_fields(fields, FIELDS)
    _check_model(encoder, fields.get("model"))
    texts = _texts(fields.get("input"))
    form = choice(fields, "encoding_format", FORMATS)
    named = {**fields, "prompt": _prompt(encoder, fields)}
    return make_request(encoder, texts, named, _dimensions(encoder, fields)), form


def embeddings(result: Result, form: str, model: str) -> Iterator[str]:
    """Yield the pieces of the answer."""
    yield '{"object": "list", "data": ['
    for index, row in enumerate(json_vectors(result.vectors, form)):
        comma = ", " if index else ""
        yield f'{comma}{{"object": "embedding", "index": {index}, "embedding": {row}}}'
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    yield (
        f'], "model": {json.dumps(model)}, "usage": {json.dumps(usage)}, '
        f'"truncated": {result.truncated}}}'
    )


def model(encoder: Encoder) -> dict[str, Any]:
    """The one model served; a file has no date of creation."""
    return {"id": encoder.info["name"], "object": "model", "created": 0, "owned_by": "embedge"}


def error_body(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def status(error: EmbedgeError) -> int:
    """The HTTP status of an error: 404, 400 where the request is at fault, else 500."""
    if isinstance(error, UnknownModelError):
        return 404
    return 400 if isinstance(error, (RequestError, TextError, OptionError)) else 500


def _check_model(encoder: Encoder, name: Any) -> None:
    served = encoder.info["name"]
    if name not in (None, served):
        raise UnknownModelError(
            f"model: expected {served!r}, got {json.dumps(name)[:200]}; this server has one model"
        )


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise RequestError(f"input: expected a string or a list of strings, got {kind(value)}")
    if value and type(value[0]) in (int, list):
        raise RequestError(_TOKENS)
    return value


def _prompt(encoder: Encoder, fields: Mapping[str, Any]) -> Any:
    if "input_type" not in fields:
        return fields.get("prompt")
    if "prompt" in fields:
        raise RequestError("expected prompt or input_type, got both; leave one out")
    names = INPUT_TYPES[choice(fields, "input_type", tuple(INPUT_TYPES))]
    return first_prompt(encoder.info["prompts"], names)


def _dimensions(encoder: Encoder, fields: Mapping[str, Any]) -> int:
    value = fields.get("dimensions", encoder.dim)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= encoder.dim:
        raise OptionError(
            f"dimensions: expected an integer from 1 to {encoder.dim}, got {json.dumps(value)[:80]}"
        )
    return value
