"""What a model file says about its model: the JSON object under `embedge.model`."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from embedge.errors import ModelError


@dataclass(frozen=True)
class TransformerSettings:
    """What readers other than embedge need to build their configuration files.

    Nothing here decides a vector.

    Attributes:
        model_type: the architecture by its name in transformers, for example "bert".
        layers: number of transformer layers.
        heads: attention heads of a layer.
        hidden_size: components of a token vector.
        intermediate_size: width of the feed-forward layers, None where they have no single one.
        vocab_size: rows of the token table.
        tokenizer_class: the tokenizer's class in transformers, for example "BertTokenizer".
        pad_id: id of the padding token, None where there is none.
        special_tokens: special tokens by role ("cls_token", "sep_token", ...).
        special_ids: their ids by role.
    """

    model_type: str
    layers: int
    heads: int
    hidden_size: int
    intermediate_size: int | None
    vocab_size: int
    tokenizer_class: str
    pad_id: int | None = None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    special_ids: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSettings:
    """The JSON object under ``embedge.model``.

    Attributes:
        name: the model's name, for people.
        dim: components of a vector.
        max_tokens: longest input in tokens, special tokens included.
        pooling: how token vectors become one vector, for example "mean".
        normalized: whether the graph gives unit vectors.
        quantization: "fp32", "fp16", or the scheme of the int8 weights and activations.
        transformer: the network and its tokenizer, for readers that build their own configuration.
        kept: what a quantized file keeps in higher precision, a phrase each.
        prompts: text put in front of every text, by name ("query", "document", ...).
        default_prompt: name of the prompt that ``encode`` applies by default, if any.
        prefix_ids: token ids in front of every text.
        suffix_ids: token ids behind every text.
        similarity: "cosine", "dot", "euclidean" or "manhattan".
        matryoshka_dims: dims that the model was trained to be truncated to.
        default_dim: components that an ``Encoder`` gives unless given another ``dim``; None is all.
        source: repository, revision, weights_sha256 and architecture of what was exported.
        license: SPDX identifier of the weights' license.
        min_onnxruntime: the lowest onnxruntime that runs the file, for example "1.17".
        device: "any", or "cpu" where the graph has operators that onnxruntime's CPU provider runs
            right and other providers may not (domain com.microsoft).
    """

    name: str
    dim: int
    max_tokens: int
    pooling: str
    normalized: bool
    quantization: str
    transformer: TransformerSettings
    kept: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    similarity: str = "cosine"
    matryoshka_dims: tuple[int, ...] = ()
    default_dim: int | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    license: str = "unknown"
    min_onnxruntime: str = "1.17"
    device: Literal["cpu", "any"] = "cpu"

    def to_json(self) -> str:
        """The canonical JSON: keys sorted, no spaces."""
        return dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ModelSettings":
        """Read and check the JSON object.

        Raises:
            ModelError: a key is missing or has a value of another type than it should.
        """
        values = _checked(loads(text, "model", dict), _MODEL_TYPES, "")
        default = values["default_prompt"]
        if default is not None and default not in values["prompts"]:
            raise ModelError(
                f"the file's default prompt {default!r} is not one of its prompts; export it again"
            )
        dim, default_dim = values["dim"], values["default_dim"]
        if (default_dim or 1) > dim:
            raise ModelError(
                f"expected default_dim of at most {dim}, the file's dim, got {default_dim}; "
                "export it again"
            )
        transformer = _checked(values["transformer"], _TRANSFORMER_TYPES, "transformer.")
        return cls(**values | {"transformer": TransformerSettings(**transformer)})


def _integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _positive(value: Any) -> bool:
    return _integer(value, 1)


def _token_id(value: Any) -> bool:
    return _integer(value, 0)


def _string(value: Any) -> bool:
    return isinstance(value, str)


def _list(value: Any, item: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(item, value))


def _object(value: Any, item: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(item, value.values()))


# What a value may be, by the phrase that names it in an error.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "a string": _string,
    "a string or null": lambda value: value is None or _string(value),
    "true or false": lambda value: isinstance(value, bool),
    "a positive integer": _positive,
    "a positive integer or null": lambda value: value is None or _positive(value),
    "a token id or null": lambda value: value is None or _token_id(value),
    "a list of positive integers": lambda value: _list(value, _positive),
    "a list of token ids": lambda value: _list(value, _token_id),
    "a list of strings": lambda value: _list(value, _string),
    "an object": lambda value: isinstance(value, dict),
    "an object of strings": lambda value: _object(value, _string),
    "an object of token ids": lambda value: _object(value, _token_id),
    'a version like "1.17"': lambda value: (
        _string(value) and bool(re.fullmatch("[0-9]{1,4}[.][0-9]{1,4}", value))
    ),
    '"cpu" or "any"': lambda value: value in ("cpu", "any"),
}
_MODEL_TYPES = {
    "name": "a string",
    "dim": "a positive integer",
    "max_tokens": "a positive integer",
    "pooling": "a string",
    "normalized": "true or false",
    "quantization": "a string",
    "transformer": "an object",
    "kept": "a list of strings",
    "prompts": "an object of strings",
    "default_prompt": "a string or null",
    "prefix_ids": "a list of token ids",
    "suffix_ids": "a list of token ids",
    "similarity": "a string",
    "matryoshka_dims": "a list of positive integers",
    "default_dim": "a positive integer or null",
    "source": "an object of strings",
    "license": "a string",
    "min_onnxruntime": 'a version like "1.17"',
    "device": '"cpu" or "any"',
}
_TRANSFORMER_TYPES = {
    "model_type": "a string",
    "layers": "a positive integer",
    "heads": "a positive integer",
    "hidden_size": "a positive integer",
    "intermediate_size": "a positive integer or null",
    "vocab_size": "a positive integer",
    "tokenizer_class": "a string",
    "pad_id": "a token id or null",
    "special_tokens": "an object of strings",
    "special_ids": "an object of token ids",
}


def _checked(values: Mapping[str, Any], types: Mapping[str, str], where: str) -> dict[str, Any]:
    """The values of the keys in ``types``, lists as tuples; raises ModelError for a wrong type."""
    found: dict[str, Any] = {}
    for key, kind in types.items():
        if key not in values or not _KINDS[kind](values[key]):
            got = repr(values[key])[:60] if key in values else "nothing"
            raise ModelError(
                f"expected the file's setting {where + key!r} to be {kind}, got {got}; export it "
                "again"
            )
        value = values[key]
        found[key] = tuple(value) if isinstance(value, list) else value
    return found


def dumps(value: Any) -> str:
    """The canonical JSON of a value: keys sorted, no spaces, UTF-8."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def loads(text: str, key: str, kind: type) -> Any:
    """Parse JSON of one kind; raises ModelError, which names the ``key``.

    Refused is also what readers would take in different ways: a key twice, a lone surrogate.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        if "\\u" in text:
            dumps(value).encode("utf-8")  # fails on a lone surrogate, which only an escape can make
    except (ValueError, RecursionError) as error:
        raise ModelError(f"embedge.{key} is not valid JSON ({error}); export it again") from None
    if not isinstance(value, kind):
        raise ModelError(
            f"expected embedge.{key} to be a JSON {kind.__name__}, got {type(value).__name__}; "
            "export it again"
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found
