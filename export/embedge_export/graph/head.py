"""The head of a sentence transformer as ONNX nodes: pooling, Dense, LayerNorm, normalization.

`attach` puts it behind a traced transformer. Formulas are those of sentence-transformers' modules
(https://sbert.net/docs/package_reference/sentence_transformer/models.html); each mode is right
under left padding, right padding and a mask of a single token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from embedge.errors import ExportError
from embedge.modelfile.signature import HIDDEN, INPUTS, OUTPUT

Pooling = Literal["mean", "cls", "max", "mean_sqrt_len", "weighted_mean", "last"]
Activation = Literal["identity", "tanh", "relu", "gelu", "sigmoid", "silu"]

SEGMENTS = "token_type_ids"  # an input that is 0 for a single text


@dataclass(frozen=True)
class Prompt:
    """A prompt, known by its first token ids; the first ``count`` tokens are not pooled."""

    ids: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Pool:
    """Token vectors to one vector, by one mode or by several, concatenated.

    The tokens of ``left_out`` prompts are not pooled, where a text starts with one of them.
    """

    modes: tuple[Pooling, ...]
    left_out: tuple[Prompt, ...] = ()


@dataclass(frozen=True)
class Dense:
    """y = activation(x W + b); weight float32 (in, out), bias float32 (out,) or None."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    activation: Activation


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalization over the vector; weight and bias float32 (dim,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    epsilon: float


@dataclass(frozen=True)
class Normalize:
    """Scale to length 1."""


Module = Pool | Dense | LayerNorm | Normalize


class _Builder:
    """Appends nodes and constants to a graph under names of their own."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._count = 0

    def node(self, op: str, *inputs: str, **attributes: int | float | list[int]) -> str:
        output = self._name(op)
        node = helper.make_node(op, inputs, [output])
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self._graph.node.append(node)
        return output

    def constant(self, value: NDArray[np.generic]) -> str:
        name = self._name("constant")
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def floats(self, *values: float) -> str:
        return self.constant(np.array(values, np.float32))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"head/{kind}_{self._count}"


def attach(
    model: onnx.ModelProto, modules: Sequence[Module], hidden_size: int
) -> tuple[onnx.ModelProto, int]:
    """Put a head behind a traced transformer.

    Args:
        model: takes int64 (batch, sequence) inputs, gives ``last_hidden_state`` float32 (batch,
            sequence, hidden size). Segments, where it takes them, are replaced by zeros.
        modules: the head, in order; the first is a Pool.
        hidden_size: of the transformer.

    Returns:
        A model that gives ``last_hidden_state``, as before, and ``sentence_embedding`` float32
        (batch, dim), and that dim.

    Raises:
        ExportError: the transformer takes an input that is none of these three.
    """
    model = _copy(model)
    graph = model.graph
    _fix_inputs(graph)
    build = _Builder(graph)
    value, dim = HIDDEN, hidden_size
    for module in modules:
        value, dim = _append(build, module, value, dim)
    graph.node.append(helper.make_node("Identity", [value], [OUTPUT]))
    del graph.output[:]
    shapes: dict[str, list[str | int]] = {
        HIDDEN: ["batch", "sequence", hidden_size],
        OUTPUT: ["batch", dim],
    }
    for name, shape in shapes.items():
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    onnx.checker.check_model(model)
    return model, dim


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _fix_inputs(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    others = [i.name for i in graph.input if i.name not in INPUTS]
    del graph.input[:]
    for name in INPUTS:
        spec = helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        graph.input.append(spec)
    for name in others:
        if name != SEGMENTS:
            raise ExportError(
                "graph",
                f"the traced transformer takes the input {name!r}; expected only "
                f"{', '.join(INPUTS)} and {SEGMENTS}",
            )
        if name in used:  # (1, 1): broadcasts against (batch, sequence)
            zero = np.zeros((1, 1), np.int64)
            graph.initializer.append(numpy_helper.from_array(zero, name))


def _append(build: _Builder, module: Module, value: str, dim: int) -> tuple[str, int]:
    match module:
        case Pool(modes, left_out):
            mask = _without(build, left_out) if left_out else INPUTS[1]
            pooled = [POOLING[mode](build, value, mask) for mode in modes]
            dim *= len(modes)
            return (build.node("Concat", *pooled, axis=1) if len(modes) > 1 else pooled[0]), dim
        case Dense(weight, bias, activation):
            value = build.node("MatMul", value, build.constant(weight))
            if bias is not None:
                value = build.node("Add", value, build.constant(bias))
            return ACTIVATIONS[activation](build, value), weight.shape[1]
        case LayerNorm(weight, bias, epsilon):
            weights = build.constant(weight), build.constant(bias)
            return build.node("LayerNormalization", value, *weights, epsilon=epsilon), dim
        case Normalize():
            return _normalize(build, value), dim


def _without(build: _Builder, prompts: Sequence[Prompt]) -> str:
    """The mask without the tokens of a prompt: int64 (batch, sequence).

    Which prompt a text has is read off its first tokens; of several that match, the longest counts.
    """
    ids, mask = INPUTS
    one, width = build.constant(np.array(1, np.int64)), build.ints(-1)
    tokens = build.node("Cast", mask, to=TensorProto.BOOL)
    position = build.node("Sub", build.node("CumSum", mask, one), one)  # 0 at the first token
    skips = []
    for prompt in prompts:
        last = build.ints(len(prompt.ids) - 1)
        index = build.node("Max", build.node("Min", position, last), build.ints(0))
        wanted = build.node("Gather", build.ints(*prompt.ids), index)  # (batch, sequence)
        same = build.node("And", build.node("Equal", ids, wanted), tokens)
        same = build.node("And", same, build.node("LessOrEqual", position, last))
        same = build.node("Cast", same, to=TensorProto.INT64)
        count = build.node("ReduceSum", same, width)  # (batch, 1)
        found = build.node("Equal", count, build.ints(len(prompt.ids)))
        skips.append(build.node("Where", found, build.ints(prompt.count), build.ints(0)))
    skip = build.node("Max", *skips)
    kept = build.node("Cast", build.node("GreaterOrEqual", position, skip), to=TensorProto.INT64)
    return build.node("Mul", kept, mask)


def _floats(build: _Builder, mask: str) -> str:
    return build.node("Cast", mask, to=TensorProto.FLOAT)  # (batch, sequence)


def _weighted_sum(build: _Builder, weights: str, hidden: str) -> str:
    rows = build.node("Unsqueeze", weights, build.ints(1))  # (batch, 1, sequence)
    return build.node("Squeeze", build.node("MatMul", rows, hidden), build.ints(1))  # (batch, dim)


def _total(build: _Builder, weights: str) -> str:
    total = build.node("ReduceSum", weights, build.ints(1), keepdims=1)  # (batch, 1)
    return build.node("Max", total, build.floats(1e-9))


def _mean(build: _Builder, hidden: str, kept: str) -> str:
    """sum(mask * h) / sum(mask)."""
    mask = _floats(build, kept)
    return build.node("Div", _weighted_sum(build, mask, hidden), _total(build, mask))


def _mean_sqrt_len(build: _Builder, hidden: str, kept: str) -> str:
    """sum(mask * h) / sqrt(sum(mask))."""
    mask = _floats(build, kept)
    # Pow, not Sqrt: that rounds differently in a batch of one (onnxruntime 1.20).
    root = build.node("Pow", _total(build, mask), build.floats(0.5))
    return build.node("Div", _weighted_sum(build, mask, hidden), root)


def _weighted_mean(build: _Builder, hidden: str, kept: str) -> str:
    """sum(p * mask * h) / sum(p * mask), p = 1, 2, ... counted over the text's tokens."""
    mask = _floats(build, kept)
    tokens = mask if kept == INPUTS[1] else _floats(build, INPUTS[1])
    position = build.node("CumSum", tokens, build.constant(np.array(1, np.int64)))
    weights = build.node("Mul", position, mask)
    return build.node("Div", _weighted_sum(build, weights, hidden), _total(build, weights))


def _max(build: _Builder, hidden: str, kept: str) -> str:
    """The largest value of each component over the tokens of the mask."""
    keep = build.node("Cast", kept, to=TensorProto.BOOL)
    keep = build.node("Unsqueeze", keep, build.ints(2))  # (batch, sequence, 1)
    lowest = build.constant(np.array(np.finfo(np.float32).min, np.float32))
    masked = build.node("Where", keep, hidden, lowest)
    return build.node("ReduceMax", masked, build.ints(1), keepdims=0)


def _pick(build: _Builder, hidden: str, kept: str, **last: int) -> str:
    """The hidden state of the first (or last) token of the mask."""
    index = build.node("ArgMax", kept, axis=1, keepdims=1, **last)  # (batch, 1)
    index = build.node("Unsqueeze", index, build.ints(2))  # (batch, 1, 1)
    size = build.node("Shape", hidden)
    ends = build.node("Slice", size, build.ints(2), build.ints(3))  # [hidden]
    shape = build.node("Concat", build.ints(1, 1), ends, axis=0)
    picked = build.node("GatherElements", hidden, build.node("Expand", index, shape), axis=1)
    return build.node("Squeeze", picked, build.ints(1))  # (batch, hidden)


def _normalize(build: _Builder, value: str) -> str:
    """x / max(|x|, 1e-12), as torch.nn.functional.normalize."""
    # ReduceL2, not Sqrt(ReduceSum): those round differently in a batch of one (onnxruntime 1.20).
    norm = build.node("ReduceL2", value, build.ints(-1), keepdims=1)
    return build.node("Div", value, build.node("Max", norm, build.floats(1e-12)))


def _gelu(build: _Builder, value: str) -> str:
    """x * (1 + erf(x / sqrt(2))) / 2."""
    erf = build.node("Erf", build.node("Mul", value, build.floats(2**-0.5)))
    factor = build.node("Mul", build.node("Add", erf, build.floats(1.0)), build.floats(0.5))
    return build.node("Mul", value, factor)


# (builder, hidden states float32 (batch, sequence, hidden), mask int64) to a vector's name.
POOLING: dict[Pooling, Callable[[_Builder, str, str], str]] = {
    "mean": _mean,
    "cls": lambda build, hidden, kept: _pick(build, hidden, kept),
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
    "last": lambda build, hidden, kept: _pick(build, hidden, kept, select_last_index=1),
}
assert set(POOLING) == set(get_args(Pooling))

ACTIVATIONS: dict[Activation, Callable[[_Builder, str], str]] = {
    "identity": lambda build, value: value,
    "tanh": lambda build, value: build.node("Tanh", value),
    "relu": lambda build, value: build.node("Relu", value),
    "gelu": _gelu,
    "sigmoid": lambda build, value: build.node("Sigmoid", value),
    "silu": lambda build, value: build.node("Mul", value, build.node("Sigmoid", value)),
}
