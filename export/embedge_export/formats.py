"""How a file of each format is made of the fp32 graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from embedge.errors import OptionError
from embedge.modelfile.signature import INPUTS
from embedge.ort.batching import TokenSequence, Waiting
from embedge.text.tokenizer import TextTokenizer
from embedge_export.checks import verify
from embedge_export.graph.passes.portable import portable_attention, portable_softmax
from embedge_export.quantization import fp16, int8
from embedge_export.quantization.calibration import calibration_texts, held_back_texts, split
from embedge_export.quantization.sensitivity import Target, adapt
from embedge_export.source.load import Source
from embedge_export.steps import Notify

Format = Literal["int8", "fp16", "fp32"]
Made = tuple[onnx.ModelProto, dict[str, Any]]  # a graph, and what its report says about it


@dataclass(frozen=True)
class Calibration:
    """The texts that int8 is made with, and the cosines to fp32 that it has to reach.

    Attributes:
        ranges: texts to choose ranges with.
        held_back: other texts, to measure on.
        target: the least mean and 1st percentile of their cosines.
    """

    ranges: Sequence[str]
    held_back: Sequence[str]
    target: Target

    @classmethod
    def of(cls, texts: Sequence[str] | None, target: float) -> "Calibration":
        """Split `texts`, or take the exporter's own for None.

        Raises:
            OptionError: there are no texts, or the target is not a mean cosine.
        """
        if not 0 < target < 1:
            raise OptionError(f"expected a target between 0 and 1, a mean cosine; got {target}")
        if texts is None:
            return cls(calibration_texts(), held_back_texts(), Target(target))
        if not texts:
            raise OptionError("expected calibration texts, got none; leave them out for our own")
        return cls(*split(texts), Target(target))


@dataclass(frozen=True)
class _Scheme:
    """How a format is made of the fp32 graph, and the mean cosine below which it is broken."""

    make: Callable[[onnx.ModelProto, Source, Calibration, Notify], Made]
    portable: bool  # from the graph with onnx's own operators only
    quantization: str
    mean_cosine: float


def _int8(model: onnx.ModelProto, source: Source, calibration: Calibration, say: Notify) -> Made:
    quantizer = int8.Quantizer(model, _feeds(calibration.ranges, source))
    count = len(quantizer.activations)
    say(f"{count} activations, {len(calibration.ranges)} calibration texts")
    quantizer.quantize(quantizer.activations, notify=say)
    held_back = _feeds(calibration.held_back, source)
    made = adapt(model, quantizer, held_back, calibration.target, say)
    graph = portable_softmax(portable_attention(made.model, source.max_tokens))
    return graph, {"int8": made.report}


def _fp16(model: onnx.ModelProto, source: Source, calibration: Calibration, say: Notify) -> Made:
    return fp16.convert_to_fp16(model), {}


QUANTIZED: dict[Format, _Scheme] = {
    "int8": _Scheme(_int8, False, int8.QUANTIZATION_SCHEME, verify.INT8_BROKEN),
    "fp16": _Scheme(_fp16, True, "fp16", verify.FP16_MEAN_COSINE),
}


def _feeds(texts: Sequence[str], source: Source) -> list[dict[str, NDArray[np.int64]]]:
    """Calibration texts as graph inputs of equal length, int64 (batch, sequence)."""
    tokenizer = TextTokenizer(source.tokenizer_json, source.max_tokens)
    waiting = Waiting()
    for number, ids in enumerate(map(tokenizer.wrap, tokenizer.ids(texts))):
        if ids:  # the empty text has none where there are no special tokens
            waiting.add(TokenSequence(number, np.array(ids, np.int32), last=True))
    feeds = []
    while waiting:
        batch = np.stack([sequence.ids for sequence in waiting.take(oldest=False)], dtype=np.int64)
        feeds.append(dict(zip(INPUTS, (batch, np.ones_like(batch)), strict=True)))
    return feeds
