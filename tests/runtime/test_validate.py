"""The walk over hostile, damaged and foreign bytes."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import embedge.modelfile.validate
from embedge.errors import ModelError
from embedge.modelfile.validate import TensorSpec, walk

from . import tiny
from .tiny import field, node, tensor, varint

EXTERNAL = field(13, field(1, "location") + field(2, "/etc/passwd"))
AWAY = tensor("away", np.zeros(1, np.float32), EXTERNAL)
BY_LOCATION = tensor("away", np.zeros(1, np.float32), field(14, 1))
NEAR = tensor("near", np.zeros(1, np.float32), field(14, 0))


def attribute_of(number: int, value: bytes) -> bytes:
    """A graph with one more node, that has an attribute with one field."""
    return tiny.graph(extra=field(1, node("If", ["x"], "y", field(1, "it") + field(number, value))))


def test_the_walk_finds_what_is_there() -> None:
    found = walk(tiny.model())
    assert found.ir_version == 8
    assert found.producer == "tests"
    assert found.opsets == {"": 17}
    assert found.graph == tiny.GRAPH
    assert found.inputs == [
        TensorSpec("input_ids", tiny.INT64, ("batch", "sequence")),
        TensorSpec("attention_mask", tiny.INT64, ("batch", "sequence")),
    ]
    assert found.outputs == [
        TensorSpec("last_hidden_state", tiny.FLOAT32, ("batch", "sequence", 2)),
        TensorSpec("sentence_embedding", tiny.FLOAT32, ("batch", 2)),
    ]
    assert found.operators == {
        "Gather": 1, "Cast": 1, "Unsqueeze": 1, "MatMul": 1, "Squeeze": 1, "ReduceSum": 1,
        "Div": 2,
        "ReduceL2": 1, "Max": 1,
    }  # fmt: skip
    assert set(found.metadata) == {
        "embedge.format", "embedge.model", "embedge.tokenizer", "embedge.probes",
        "embedge.report", "embedge.fingerprint",
    }  # fmt: skip


@pytest.mark.parametrize(
    "graph",
    [
        tiny.graph(extra=field(5, AWAY)),
        tiny.graph(extra=field(5, BY_LOCATION)),
        tiny.graph(extra=field(15, field(1, AWAY))),
        tiny.graph(extra=field(15, field(1, NEAR) + field(2, AWAY))),
        attribute_of(5, AWAY),
        attribute_of(10, AWAY),
        attribute_of(22, field(2, AWAY)),
        attribute_of(23, field(1, AWAY)),
        attribute_of(6, field(5, AWAY)),
        attribute_of(11, field(5, AWAY)),
        attribute_of(6, field(1, node("Constant", [], "c", field(1, "value") + field(5, AWAY)))),
        # Protobuf merges what is there twice: the second occurrence counts as well.
        tiny.graph(extra=field(5, NEAR + EXTERNAL)),
        attribute_of(22, field(1, NEAR) + field(1, AWAY)),
    ],
    ids=[
        "initializer", "data_location", "sparse values", "sparse indices", "attribute",
        "list of attributes", "sparse attribute", "sparse list", "subgraph", "subgraph list",
        "node of a subgraph", "tensor after harmless fields", "sparse values twice",
    ],
)  # fmt: skip
def test_data_in_another_file_is_refused_wherever_it_hides(graph: bytes) -> None:
    with pytest.raises(ModelError, match=r"in another file \(external data\).*export it again"):
        walk(tiny.model(graph))


def test_a_second_graph_is_checked_like_the_first() -> None:
    with pytest.raises(ModelError, match="external data"):
        walk(tiny.model(tail=field(7, field(5, AWAY))))


def test_a_tag_of_more_than_32_bits_does_not_hide_a_field() -> None:
    """onnxruntime drops the bits above 32, so it would see field 7, a graph with a secret."""
    secret = field(5, AWAY)
    hidden = varint((7 << 3 | 2) + (1 << 32)) + varint(len(secret)) + secret
    with pytest.raises(ModelError, match=r"not an ONNX model \(a field has the number 536870919\)"):
        walk(tiny.model(tail=hidden))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (node("Loop", ["x"], "y"), "operator Loop, which a model file may not use"),
        (node("Scan", ["x"], "y"), "operator Scan, which a model file may not use"),
        (node("EPContext", ["x"], "y", domain="com.microsoft"), "operator EPContext"),
        (node("WordConvEmbedding", ["x"], "y", domain="com.microsoft"), "WordConvEmbedding"),
        (node("Mine", ["x"], "y", domain="evil.example"), "got the domain 'evil.example'"),
        (node("LabelEncoder", ["x"], "y", domain="ai.onnx.ml"), "got the domain 'ai.onnx.ml'"),
        # The last of several domains and names counts for a reader; here each of them does.
        (node("Add", ["x"], "y") + field(7, "evil.example") + field(7, ""), "'evil.example'"),
        (node("Loop", ["x"], "y") + field(4, "Add"), "operator Loop"),
        (node("EPContext", ["x"], "y", domain="com.microsoft") + field(7, ""), "EPContext"),
    ],
)
def test_operators_that_a_model_file_may_not_use_are_refused(extra: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message) + ".*export the model again"):
        walk(tiny.model(tiny.graph(extra=field(1, extra))))


def test_operators_inside_a_subgraph_are_refused_too() -> None:
    with pytest.raises(ModelError, match="operator Loop"):
        walk(tiny.model(attribute_of(6, field(1, node("Loop", ["x"], "y")))))


def test_an_opset_of_another_domain_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'evil\.example'.*export the model again"):
        walk(tiny.model(opsets={"": 17, "evil.example": 1}))


def test_operators_of_microsoft_that_we_use_are_allowed() -> None:
    extra = node("MatMulIntegerToFloat", ["x"], "y", domain="com.microsoft")
    found = walk(tiny.model(tiny.graph(extra=field(1, extra)), opsets={"": 17, "com.microsoft": 1}))
    assert found.operators["MatMulIntegerToFloat"] == 1
    assert found.opsets == {"": 17, "com.microsoft": 1}


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (field(25, field(1, "function")), "local functions.*export it again"),
        (field(20, b""), "training information.*export it again"),
        (field(14, field(1, "embedge.format") + field(2, "1")), "'embedge.format' twice; export"),
        (field(7, b""), "expected one graph, got 2"),
        (field(7, 1), "expected a length-delimited field, got a varint"),
        (field(14, field(1, b"\xff")), "a name is not valid UTF-8"),
        (b"\x00\x00", "a field has the number 0"),
        (b"\xa3\x06", "a field has the wire type 3"),
        (b"\xa0\x06" + b"\xff" * 10, "a varint has more than ten bytes"),
        (
            b"\xa0\x06\xff",
            "truncated, damaged or not an ONNX model: a varint is truncated; fetch or export",
        ),
        (
            field(100, b"ab")[:-1],
            "a field declares 2 bytes where 1 are left; fetch or export it again",
        ),
        (b"\xa2\x06" + varint(2**63), f"a field declares {2**63} bytes where 0 are left"),
    ],
)
def test_what_no_model_file_has_is_refused(tail: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        walk(tiny.model(tail=tail))


def test_unknown_fields_of_every_wire_type_are_skipped() -> None:
    unknown = field(100, 7) + field(101, b"x") + varint(102 << 3 | 1) + bytes(8)
    found = walk(tiny.model(tail=unknown + varint(103 << 3 | 5) + bytes(4)))
    assert found.opsets == {"": 17}


def nested(depth: int) -> bytes:
    graph = tiny.field(2, "innermost")
    for _ in range(depth):
        graph = field(1, node("If", ["x"], "y", field(1, "then_branch") + field(6, graph)))
    return tiny.graph(extra=graph)


def test_four_nested_graphs_pass_and_five_do_not() -> None:
    assert walk(tiny.model(nested(4))).operators["If"] == 4
    with pytest.raises(ModelError, match="nested at most 4 deep, got more; export"):
        walk(tiny.model(nested(5)))


@pytest.mark.parametrize("data", [b"", b"\x08\x08", b"\x08\x08\x12\x01x"])
def test_a_model_without_a_graph_is_none(data: bytes) -> None:
    with pytest.raises(
        ModelError,
        match=r"not an ONNX model \(it has no graph\); give the path of a file made with",
    ):
        walk(data)


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.bytes(200),
        lambda rng: tiny.model()[: rng.integers(1, 900)] + rng.bytes(50),
        lambda rng: _flipped(tiny.model(), rng),
    ],
    ids=["noise", "noise at the end", "flipped bytes"],
)
def test_any_bytes_are_walked_or_refused_with_our_error(
    make: Callable[[np.random.Generator], bytes],
) -> None:
    outcomes = set()
    for seed in range(400):
        try:
            walk(make(np.random.default_rng(seed)))
            outcomes.add("walked")
        except ModelError:
            outcomes.add("refused")
    assert "refused" in outcomes


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for position in rng.integers(0, len(data), 5):
        changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def float_tensor(shape: tuple[int, ...], *data: bytes, kind: int = tiny.FLOAT32) -> bytes:
    """A graph with one more initializer, written as said."""
    dims = b"".join(field(1, size) for size in shape)
    return tiny.graph(extra=field(5, dims + field(2, kind) + field(8, "more") + b"".join(data)))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            float_tensor((2, 3), field(9, bytes(20))),
            "expected 24 bytes in a tensor of shape [2, 3], got 20",
        ),
        (
            float_tensor((2, 3), field(9, bytes(28))),
            "expected 24 bytes in a tensor of shape [2, 3], got 28",
        ),
        (
            float_tensor((2**20, 2**20), field(9, bytes(4))),
            "expected 4398046511104 bytes in a tensor",
        ),
        (float_tensor((2,)), "expected 8 bytes in a tensor of shape [2], got 0"),
        (float_tensor((), field(9, b"")), "expected 4 bytes in a tensor of shape [], got 0"),
        (
            float_tensor((3,), field(4, bytes(8))),
            "expected 3 elements in a tensor of shape [3], got 2",
        ),
        (
            float_tensor((3,), field(7, bytes(4)), kind=7),
            "expected 3 elements in a tensor of shape [3], got 4",
        ),
        (
            float_tensor((3,), field(9, bytes(1)), kind=22),
            "expected 2 bytes in a tensor of shape [3], got 1",
        ),
        (
            float_tensor((-1,), field(9, b"")),
            "expected dimensions from 0 to 2147483647 in a tensor's shape, got -1",
        ),
        (
            float_tensor((2**31,), field(9, b"")),
            "expected dimensions from 0 to 2147483647 in a tensor's shape, got 2147483648",
        ),
        (float_tensor((0, 2**62), field(9, b"")), "shape, got 4611686018427387904"),
        (
            float_tensor((1,) * 33, field(9, bytes(4))),
            "expected tensors of at most 32 dimensions, got more",
        ),
        # A reader takes the last of several: none may be smaller than the others say.
        (
            float_tensor((1,), field(9, bytes(4)), field(9, bytes(4))),
            "expected 4 bytes in a tensor of shape [1], got 8",
        ),
        (float_tensor((1,), field(9, bytes(4)), field(4, bytes(4))), "and 2 sets"),
        (float_tensor((1,), field(9, bytes(4)), field(2, 11)), "got the types [1, 11]"),
        (float_tensor((1,), field(6, b"text"), kind=8), "got the types [8]"),
        (float_tensor((1,), field(9, bytes(4)), kind=0), "got the types [0]"),
        (tiny.graph(extra=field(15, field(1, NEAR))), "a sparse tensor, which no model file has"),
        (attribute_of(22, b""), "a sparse tensor, which no model file has"),
        (
            attribute_of(5, field(1, 2**40) + field(2, 1)),
            "to 2147483647 in a tensor's shape, got 1099511627776",
        ),
        (
            tiny.graph(extra=field(13, tiny.value_info("mean", 1, (2**40,)))),
            "expected dimensions from 0 to 2147483647 in a tensor's shape, got 1099511627776",
        ),
        (tiny.graph(outputs=[tiny.value_info("x", 1, (-5,))]), "in a tensor's shape, got -5"),
    ],
)
def test_a_tensor_that_is_not_what_its_shape_says_is_refused(graph: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        walk(tiny.model(graph))


@pytest.mark.parametrize(
    "graph",
    [
        float_tensor((2, 3), field(9, bytes(24))),
        float_tensor((3,), field(4, bytes(12))),
        float_tensor((), field(9, bytes(4))),
        float_tensor((0,)),
        float_tensor((0, 5), field(9, b"")),
        float_tensor((3,), field(7, varint(5) + varint(2**40) + varint(-1)), kind=7),
        float_tensor((2,), field(7, 5), field(7, 6), kind=7),  # not packed
        float_tensor((3,), field(9, bytes(2)), kind=22),
        tiny.graph(
            extra=field(5, field(1, varint(2) + varint(1)) + field(2, 7) + field(9, bytes(16)))
        ),  # the shape packed
    ],
)  # fmt: skip
def test_tensors_may_be_written_in_each_way_that_there_is(graph: bytes) -> None:
    walk(tiny.model(graph))


def test_a_graph_of_too_many_nodes_is_refused() -> None:
    chain = field(1, node("Identity", ["x"], "y")) * 20_001
    with pytest.raises(ModelError, match="at most 20000 nodes, got more; export"):
        walk(tiny.model(tiny.graph(extra=chain)))


def test_the_walk_ends_however_many_fields_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedge.modelfile.validate, "_MAX_FIELDS", 5000)
    walk(tiny.model(tail=field(100, 0) * 4000))
    for tail in (field(100, 0) * 5000, field(7, field(1, field(4, "Add") + field(3, "") * 5000))):
        with pytest.raises(ModelError, match="at most 5000 fields in a file, got more; export"):
            walk(tiny.model(tail=tail))


@pytest.mark.parametrize(
    "name", ["RandomNormal", "StringNormalizer", "SequenceMap", "ImageDecoder", "Resize", "Evil"]
)
def test_operators_that_no_encoder_is_made_of_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"operator {name}, which a model file may not use"):
        walk(tiny.model(tiny.graph(extra=field(1, node(name, ["x"], "y")))))


def test_a_node_without_an_operator_is_refused() -> None:
    with pytest.raises(ModelError, match="uses the operator , which a model file may not use"):
        walk(tiny.model(tiny.graph(extra=field(1, field(1, "x")))))


def test_nothing_here_can_load_a_library_of_operators() -> None:
    """onnxruntime loads one only where it is told to, through SessionOptions."""
    sources = Path(embedge.__file__).parent.rglob("*.py")
    found = [p.name for p in sources if re.search("register_custom_op", p.read_text("utf-8"))]
    assert found == []
