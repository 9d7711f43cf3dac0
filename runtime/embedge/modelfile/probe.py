"""The probes of a model file: texts with token ids and vectors, its self-test on any machine."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.errors import ModelError
from embedge.modelfile.settings import ModelSettings, dumps, loads


@dataclass(frozen=True)
class Probe:
    """A text, its token ids, its vector from the fp32 source and from this file when it was made.

    Attributes:
        text: the text, without any prompt.
        reference: the source's vector, float32 (dim,).
        output: this file's vector when it was made, float32 (dim,).
        ids: what the graph is given: prompt included, truncated, special tokens around it.
        prompt: name of the prompt to encode it with; None is the model's default prompt, if any.
    """

    text: str
    reference: NDArray[np.float32]
    output: NDArray[np.float32]
    ids: tuple[int, ...]
    prompt: str | None = None


def pack_probes(probes: Sequence[Probe]) -> str:
    """The JSON list under ``embedge.probes``."""
    return dumps(
        [
            {
                "text": probe.text,
                "prompt": probe.prompt,
                "ids": probe.ids,
                "reference": _pack(probe.reference),
                "output": _pack(probe.output),
            }
            for probe in probes
        ]
    )


def unpack_probes(text: str, settings: ModelSettings) -> tuple[Probe, ...]:
    """Read and check what `pack_probes` wrote.

    Raises:
        ModelError: it is not such a list, or does not fit the ``settings``.
    """
    try:
        return tuple(_probe(item, settings) for item in loads(text, "probes", list))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the probes in the file are damaged ({error}); export it again") from None


def _probe(item: dict[str, Any], settings: ModelSettings) -> Probe:
    text, prompt, ids = item["text"], item["prompt"], item["ids"]
    if not isinstance(text, str) or not isinstance(prompt, str | None):
        raise TypeError("a text or the name of a prompt is not a string")
    if prompt is not None and prompt not in settings.prompts:
        raise ValueError(f"{prompt!r} is not one of the file's prompts")
    if not isinstance(ids, list) or not all(type(n) is int and 0 <= n < 2**31 for n in ids):
        raise ValueError("token ids are not a list of integers from 0 up")
    reference, output = (_unpack(item[key], settings.dim) for key in ("reference", "output"))
    return Probe(text, reference, output, tuple(ids), prompt)


def _pack(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def _unpack(text: str, dim: int) -> NDArray[np.float32]:
    vector = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    if vector.shape != (dim,):
        raise ValueError(f"a vector has {vector.size} components instead of {dim}")
    return vector.astype(np.float32)
