"""What a model file says of its model: the JSON object under `embedge.model`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embedge.errors import ModelError


@dataclass(frozen=True)
class ModelSettings:
    """The JSON object under ``embedge.model``.

    Attributes:
        name: the model's name, for people.
        dim: components of a vector.
        max_tokens: longest input in tokens, special tokens included.
        pooling: how token vectors become one vector, for example "mean".
        normalized: whether the graph gives unit vectors.
        quantization: "fp32", or the scheme of the int8 weights and activations.
        prompts: text put in front of every text, by name ("query", "document", ...).
        default_prompt: name of the prompt that ``encode`` applies unasked, if any.
        similarity: "cosine", "dot", "euclidean" or "manhattan".
        matryoshka_dims: dims that the model was trained to be truncated to.
        default_dim: components that an ``Encoder`` gives unless told another ``dim``; None is all.
        source: repository, revision, weights_sha256 and architecture of what was exported.
        licence: SPDX identifier of the weights' licence.
    """

    name: str
    dim: int
    max_tokens: int
    pooling: str
    normalized: bool
    quantization: str
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str = "cosine"
    matryoshka_dims: tuple[int, ...] = ()
    default_dim: int | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    licence: str = "unknown"

    def to_json(self) -> str:
        """The canonical JSON: keys sorted, no spaces; ``default_dim`` only where there is one."""
        values = asdict(self)
        if self.default_dim is None:
            del values["default_dim"]
        return dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "ModelSettings":
        """Read and check the JSON object.

        Raises:
            ModelError: a key is missing or has a value of another type than it should.
        """
        values = loads(text, "model", dict)
        known = {key: values[key] for key in cls.__dataclass_fields__ if key in values}
        known.setdefault("default_dim", None)
        for key, kinds in _SETTING_TYPES.items():
            if key not in known or not _is(known[key], kinds):
                got = repr(known[key])[:60] if key in known else "nothing"
                raise ModelError(f"the file's setting {key!r} should be {kinds}, but is {got}")
        default = known["default_prompt"]
        if default is not None and default not in known["prompts"]:
            raise ModelError(f"the file's default prompt {default!r} is none of its prompts")
        if (known["default_dim"] or 1) > known["dim"]:
            raise ModelError(
                f"the file's default_dim {known['default_dim']} is more than its dim {known['dim']}"
            )
        known["matryoshka_dims"] = tuple(known["matryoshka_dims"])
        return cls(**known)


_SETTING_TYPES = {
    "name": "a string",
    "dim": "a positive integer",
    "max_tokens": "a positive integer",
    "pooling": "a string",
    "normalized": "true or false",
    "quantization": "a string",
    "prompts": "an object of strings",
    "default_prompt": "a string or null",
    "similarity": "a string",
    "matryoshka_dims": "a list of positive integers",
    "default_dim": "a positive integer or null",
    "source": "an object of strings",
    "licence": "a string",
}


def _is(value: Any, kinds: str) -> bool:
    """Whether a JSON value is what ``kinds``, a phrase of _SETTING_TYPES, says."""

    def positive(number: Any) -> bool:
        return isinstance(number, int) and not isinstance(number, bool) and 0 < number < 2**31

    match kinds:
        case "a string":
            return isinstance(value, str)
        case "a string or null":
            return value is None or isinstance(value, str)
        case "true or false":
            return isinstance(value, bool)
        case "a positive integer":
            return positive(value)
        case "a positive integer or null":
            return value is None or positive(value)
        case "a list of positive integers":
            return isinstance(value, list) and all(map(positive, value))
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def dumps(value: Any) -> str:
    """The canonical JSON of a value: keys sorted, no spaces, UTF-8."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def loads(text: str, key: str, kind: type) -> Any:
    """Parse JSON of one kind; raises ModelError, which names the ``key``."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"embedge.{key} is not valid JSON ({error}); export it again") from None
    if not isinstance(value, kind):
        raise ModelError(f"embedge.{key} should be a JSON {kind.__name__}; export it again")
    return value
