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

from embedge.modelfile import INPUTS, OUTPUT

Pooling = Literal["mean", "cls", "max", "mean_sqrt_len", "weighted_mean", "last"]
Activation = Literal["identity", "tanh", "relu", "gelu", "sigmoid", "silu"]

_HIDDEN = "last_hidden_state"


@dataclass(frozen=True)
class Pool:
    """Token vectors to one vector, by one mode or by several, concatenated."""

    modes: tuple[Pooling, ...]


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
            sequence, hidden size). Inputs other than ids and mask are replaced by zeros: the
            segment of a single text is 0.
        modules: the head, in order; the first is a Pool.
        hidden_size: of the transformer.

    Returns:
        A model that gives ``sentence_embedding`` float32 (batch, dim), and that dim.
    """
    model = _copy(model)
    graph = model.graph
    _fix_inputs(graph)
    build = _Builder(graph)
    value, dim = _HIDDEN, hidden_size
    for module in modules:
        value, dim = _append(build, module, value, dim)
    graph.node.append(helper.make_node("Identity", [value], [OUTPUT]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", dim]))
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
        if name in used:  # (1, 1): broadcasts against (batch, sequence)
            zero = np.zeros((1, 1), np.int64)
            graph.initializer.append(numpy_helper.from_array(zero, name))


def _append(build: _Builder, module: Module, value: str, dim: int) -> tuple[str, int]:
    match module:
        case Pool(modes):
            pooled = [POOLING[mode](build, value) for mode in modes]
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


def _mask(build: _Builder) -> str:
    return build.node("Cast", INPUTS[1], to=TensorProto.FLOAT)  # (batch, sequence)


def _weighted_sum(build: _Builder, weights: str, hidden: str) -> str:
    rows = build.node("Unsqueeze", weights, build.ints(1))  # (batch, 1, sequence)
    return build.node("Squeeze", build.node("MatMul", rows, hidden), build.ints(1))  # (batch, dim)


def _total(build: _Builder, weights: str) -> str:
    total = build.node("ReduceSum", weights, build.ints(1), keepdims=1)  # (batch, 1)
    return build.node("Max", total, build.floats(1e-9))


def _mean(build: _Builder, hidden: str) -> str:
    """sum(mask * h) / sum(mask)."""
    mask = _mask(build)
    return build.node("Div", _weighted_sum(build, mask, hidden), _total(build, mask))


def _mean_sqrt_len(build: _Builder, hidden: str) -> str:
    """sum(mask * h) / sqrt(sum(mask))."""
    mask = _mask(build)
    root = build.node("Sqrt", _total(build, mask))
    return build.node("Div", _weighted_sum(build, mask, hidden), root)


def _weighted_mean(build: _Builder, hidden: str) -> str:
    """sum(p * mask * h) / sum(p * mask), p = 1, 2, ... counted over the tokens of the mask."""
    mask = _mask(build)
    position = build.node("CumSum", mask, build.constant(np.array(1, np.int64)))
    weights = build.node("Mul", position, mask)
    return build.node("Div", _weighted_sum(build, weights, hidden), _total(build, weights))


def _max(build: _Builder, hidden: str) -> str:
    """The largest value of each component over the tokens of the mask."""
    keep = build.node("Cast", INPUTS[1], to=TensorProto.BOOL)
    keep = build.node("Unsqueeze", keep, build.ints(2))  # (batch, sequence, 1)
    lowest = build.constant(np.array(np.finfo(np.float32).min, np.float32))
    masked = build.node("Where", keep, hidden, lowest)
    return build.node("ReduceMax", masked, build.ints(1), keepdims=0)


def _pick(build: _Builder, hidden: str, **last: int) -> str:
    """The hidden state of the first (or last) token of the mask."""
    index = build.node("ArgMax", INPUTS[1], axis=1, keepdims=1, **last)  # (batch, 1)
    index = build.node("Unsqueeze", index, build.ints(2))  # (batch, 1, 1)
    size = build.node("Shape", hidden)
    ends = build.node("Slice", size, build.ints(2), build.ints(3))  # [hidden]
    shape = build.node("Concat", build.ints(1, 1), ends, axis=0)
    picked = build.node("GatherElements", hidden, build.node("Expand", index, shape), axis=1)
    return build.node("Squeeze", picked, build.ints(1))  # (batch, hidden)


def _normalize(build: _Builder, value: str) -> str:
    """x / max(|x|, 1e-12), as torch.nn.functional.normalize."""
    squares = build.node("Mul", value, value)
    norm = build.node("Sqrt", build.node("ReduceSum", squares, build.ints(-1), keepdims=1))
    return build.node("Div", value, build.node("Max", norm, build.floats(1e-12)))


def _gelu(build: _Builder, value: str) -> str:
    """x * (1 + erf(x / sqrt(2))) / 2."""
    erf = build.node("Erf", build.node("Mul", value, build.floats(2**-0.5)))
    factor = build.node("Mul", build.node("Add", erf, build.floats(1.0)), build.floats(0.5))
    return build.node("Mul", value, factor)


POOLING: dict[Pooling, Callable[[_Builder, str], str]] = {
    "mean": _mean,
    "cls": lambda build, hidden: _pick(build, hidden),
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
    "last": lambda build, hidden: _pick(build, hidden, select_last_index=1),
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
