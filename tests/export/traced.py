"""A small encoder written in the operators that a tracer writes, with seeded random weights."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

HIDDEN, HEADS, INNER, WORDS, POSITIONS = 48, 4, 96, 300, 128
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Trace:
    """Collects nodes and weights; every method returns the name of the value it makes."""

    def __init__(self, seed=0):
        self.nodes, self.weights = [], []
        self.rng = np.random.default_rng(seed)
        self.count = 0

    def name(self):
        self.count += 1
        return f"v{self.count}"

    def op(self, op_type, *inputs, **attributes):
        name = self.name()
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def const(self, value, dtype=None):
        value = numpy_helper.from_array(np.asarray(value, dtype))
        return self.op("Constant", value=value)

    def weight(self, *shape, scale=0.3):
        name = self.name()
        value = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def linear(self, x, rows, columns):
        return self.op(
            "Add", self.weight(columns), self.op("MatMul", x, self.weight(rows, columns))
        )

    def norm(self, x):
        gamma, beta = self.weight(HIDDEN, scale=1.0), self.weight(HIDDEN)
        return self.op("LayerNormalization", x, gamma, beta, axis=-1)

    def dimension(self, x, axis):
        index = self.const(axis, np.int64)
        zero = self.const([0], np.int64)
        return self.op("Unsqueeze", self.op("Gather", self.op("Shape", x), index), zero)

    def embeddings(self):
        ids = "input_ids"
        zero = numpy_helper.from_array(np.array([0], np.int64))
        types = self.op("ConstantOfShape", self.op("Shape", ids), value=zero)
        steps = [self.const([v], np.int64) for v in (0, 1, 1)]
        every = self.const([range(POSITIONS)], np.int64)
        index = self.op("Slice", every, steps[0], self.dimension(ids, 1), steps[1], steps[2])
        word = self.op("Gather", self.weight(WORDS, HIDDEN), ids)
        kind = self.op("Gather", self.weight(2, HIDDEN), types)
        place = self.op("Gather", self.weight(POSITIONS, HIDDEN), index)
        return self.norm(self.op("Add", self.op("Add", word, kind), place))

    def mask(self, lowest=-3.4e38):
        """1 - mask, the ones replaced by `lowest`: (batch, 1, sequence, sequence)."""
        wide = self.op("Unsqueeze", "attention_mask", self.const([1, 2], np.int64))
        one, length = self.const([1], np.int64), self.dimension("attention_mask", 1)
        shape = self.op("Concat", one, one, length, one, axis=0)
        seen = self.op("Cast", self.op("Expand", wide, shape), to=FLOAT)
        rest = self.op("Sub", self.const(1.0, np.float32), seen)
        hidden = self.op("Cast", rest, to=TensorProto.BOOL)
        return self.op("Where", hidden, self.const(lowest, np.float32), rest)

    def split(self, x, order):
        width = [self.const([v], np.int64) for v in (-1, HEADS, HIDDEN // HEADS)]
        shape = self.op("Concat", self.dimension(x, 0), *width, axis=0)
        return self.op("Transpose", self.op("Reshape", x, shape), perm=order)

    def attention(self, x, mask):
        query, key, value = (self.linear(x, HIDDEN, HIDDEN) for _ in range(3))
        query, value = self.split(query, [0, 2, 1, 3]), self.split(value, [0, 2, 1, 3])
        key = self.split(key, [0, 2, 3, 1])
        ends = self.const([-1], np.int64), self.const([2**63 - 1], np.int64)
        width = self.op("Cast", self.op("Slice", self.op("Shape", query), *ends), to=FLOAT)
        one = self.const([1.0], np.float32)
        root = self.op("Sqrt", self.op("Div", one, self.op("Sqrt", width)))
        scores = self.op("MatMul", self.op("Mul", query, root), self.op("Mul", key, root))
        weights = self.op("Softmax", self.op("Add", scores, mask), axis=-1)
        context = self.op("Transpose", self.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        last = self.const([HIDDEN], np.int64)
        shape = self.op("Concat", self.dimension(x, 0), self.dimension(x, 1), last, axis=0)
        return self.linear(self.op("Reshape", context, shape), HIDDEN, HIDDEN)

    def gelu(self, x):
        erf = self.op("Erf", self.op("Div", x, self.const(2**0.5, np.float32)))
        plus = self.op("Add", erf, self.const(1.0, np.float32))
        return self.op("Mul", self.op("Mul", x, plus), self.const(0.5, np.float32))

    def layer(self, x, mask):
        x = self.norm(self.op("Add", self.attention(x, mask), x))
        inner = self.linear(self.gelu(self.linear(x, HIDDEN, INNER)), INNER, HIDDEN)
        return self.norm(self.op("Add", inner, x))

    def model(self, result, opset=18):
        """Pool `result` (batch, sequence, hidden) by a product with the mask; give the model."""
        mask = self.op("Cast", "attention_mask", to=FLOAT)
        one = self.const([1], np.int64)
        total = self.op("Squeeze", self.op("MatMul", self.op("Unsqueeze", mask, one), result), one)
        norm = self.op("ReduceL2", total, one, keepdims=1)
        self.nodes.append(helper.make_node("Div", [total, norm], ["sentence_embedding"]))
        shape = ["batch", "sequence"]
        graph = helper.make_graph(
            self.nodes,
            "traced",
            [
                helper.make_tensor_value_info(n, INT64, shape)
                for n in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info("sentence_embedding", FLOAT, ["batch", HIDDEN])],
            self.weights,
        )
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def encoder(layers=2, **options):
    """The model of an encoder of `layers` layers."""
    trace = Trace()
    x, mask = trace.embeddings(), trace.mask(**options)
    for _ in range(layers):
        x = trace.layer(x, mask)
    return trace.model(x)


def feeds(batch, length, padding=None, seed=0):
    """Random inputs; `padding`, "left" or "right", hides up to half of each row but the first."""
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, length), np.int64)
    for row in range(1, batch if padding else 1):
        hidden = min(row, length // 2)
        mask[row, : hidden or None] = 0 if padding == "left" else mask[row, : hidden or None]
        mask[row, length - hidden :] = 0 if padding == "right" else mask[row, length - hidden :]
    return {"input_ids": rng.integers(1, WORDS, (batch, length)), "attention_mask": mask}


FEEDS = [feeds(2, length, seed=length) for length in range(3, 40, 3)]


def session(model, threads=1, **config):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for key, value in config.items():
        options.add_session_config_entry(key.replace("_", "."), value)
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def assert_invariant(model, rows=64):
    """Vectors are the same bits alone, in batches, and with one and two threads."""
    one, two = session(model), session(model, threads=2)
    for length in (1, 2, 7, 33, 100):
        feed = feeds(rows, length)
        alone = [
            one.run(None, {k: v[row : row + 1] for k, v in feed.items()})[0] for row in range(rows)
        ]
        for size in (2, 5, rows):
            for runner in (one, two):
                batch = runner.run(None, {k: v[:size] for k, v in feed.items()})[0]
                assert np.array_equal(batch, np.concatenate(alone[:size]))


def compute(model, inputs):
    return session(model).run(None, inputs)[0]


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


# Operators whose sums depend on how many lanes a vector register has.
BY_LANES = {"Softmax", "LogSoftmax", "MultiHeadAttention", "Attention", "ReduceLogSumExp"}


def bodies(model, branch):
    """The graphs that run with padding ("then_branch") or without ("else_branch")."""
    ifs = [node for node in model.graph.node if node.op_type == "If"]
    return [item.g for node in ifs for item in node.attribute if item.name == branch]


def by_lanes(model):
    """The operators of BY_LANES that run where nothing is padding."""
    inner = [node for body in bodies(model, "else_branch") for node in body.node]
    return BY_LANES & {node.op_type for node in [*model.graph.node, *inner]}


def weight_of(model, name):
    return next(numpy_helper.to_array(w) for w in model.graph.initializer if w.name == name)


def checked(model):
    onnx.checker.check_model(model)
    return model
