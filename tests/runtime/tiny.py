"""A model file small enough to compute by hand, written field by field.

The tests run where the `onnx` package is not, so this is a protobuf writer of a few lines. Nothing
here is shared with the reader under test but `modelfile.metadata`, which is part of it.

The model: ten tokens of two components, masked mean, unit length.

    [PAD] (9, 9)   [UNK] (0, -1)   [CLS] (1, 0)   [SEP] (0, 0)
    a (2, 0)   b (0, 4)   c (-2, 0)   ##a (4, 0)   ##b (0, 8)   ##c (-4, 0)

"a b" is [CLS] a b [SEP]: the sum is (1 + 2, 4), the mean (0.75, 1), its length 1.25, and the
vector (0.6, 0.8).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from embedge.modelfile.file import metadata
from embedge.modelfile.probe import Probe
from embedge.modelfile.settings import ModelSettings, TransformerSettings

FLOAT32, UINT8, INT8, INT64, FLOAT16 = 1, 2, 3, 7, 10
KINDS = {
    "float32": FLOAT32, "uint8": UINT8, "int8": INT8, "int64": INT64, "float16": FLOAT16,
}  # fmt: skip
PAD, UNK, CLS, SEP, A, B, C, PART_A, PART_B, PART_C = range(10)
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "##a", "##b", "##c")
TABLE = np.array(
    [[9, 9], [0, -1], [1, 0], [0, 0], [2, 0], [0, 4], [-2, 0], [4, 0], [0, 8], [-4, 0]],
    np.float32,
)
A_B = np.array([0.6, 0.8], np.float32)  # the vector of "a b"
SETTINGS = ModelSettings(
    name="tiny",
    dim=2,
    max_tokens=8,
    pooling="mean",
    normalized=True,
    quantization="fp32",
    transformer=TransformerSettings(
        model_type="bert",
        layers=1,
        heads=1,
        hidden_size=2,
        intermediate_size=None,
        vocab_size=10,
        tokenizer_class="BertTokenizer",
        pad_id=PAD,
        special_tokens={"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        special_ids={"pad_token": PAD, "cls_token": CLS, "sep_token": SEP},
    ),
    prompts={"query": "a ", "passage": "b "},
    source={"repository": "none"},
    prefix_ids=(CLS,),
    suffix_ids=(SEP,),
    license="Apache-2.0",
)
OPSETS = {"": 17}


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | str | bytes) -> bytes:
    """One protobuf field: an int as a varint, all else with its length in front."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, array: NDArray[Any], *extra: bytes) -> bytes:
    kind = KINDS[array.dtype.name]
    dims = b"".join(field(1, size) for size in array.shape)
    return b"".join([dims, field(2, kind), field(8, name), field(9, array.tobytes()), *extra])


def attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, 2)
    return field(1, name) + b"".join(field(8, item) for item in value) + field(20, 7)


def node(
    kind: str,
    inputs: Sequence[str],
    output: str,
    *attributes: bytes,
    domain: str = "",
) -> bytes:
    parts = [field(1, name) for name in inputs] + [field(2, output), field(4, kind)]
    parts += [field(5, attribute) for attribute in attributes]
    return b"".join([*parts, field(7, domain)] if domain else parts)


def value_info(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    dims = [field(1, field(1 if isinstance(size, int) else 2, size)) for size in shape]
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, b"".join(dims))))


INPUTS = (
    value_info("input_ids", INT64, ("batch", "sequence")),
    value_info("attention_mask", INT64, ("batch", "sequence")),
)
OUTPUTS = (
    value_info("last_hidden_state", FLOAT32, ("batch", "sequence", 2)),
    value_info("sentence_embedding", FLOAT32, ("batch", 2)),
)
NODES = (
    node("Gather", ["table", "input_ids"], "last_hidden_state"),  # (batch, sequence, 2)
    node("Cast", ["attention_mask"], "mask", attribute("to", FLOAT32)),
    # A MatMul, as onnxruntime's ReduceSum adds in another order where the batch is 1.
    node("Unsqueeze", ["mask", "one"], "weights"),  # (batch, 1, sequence)
    node("MatMul", ["weights", "last_hidden_state"], "rows"),  # (batch, 1, 2)
    node("Squeeze", ["rows", "one"], "sum"),  # (batch, 2)
    node("ReduceSum", ["mask", "one"], "count", attribute("keepdims", 1)),  # (batch, 1)
    node("Div", ["sum", "count"], "mean"),
    node("ReduceL2", ["mean"], "length", attribute("axes", [1]), attribute("keepdims", 1)),
    node("Max", ["length", "smallest"], "divisor"),
    node("Div", ["mean", "divisor"], "sentence_embedding"),
)
CONSTANTS = (
    tensor("one", np.array([1], np.int64)),
    tensor("smallest", np.array([1e-12], np.float32)),
)


def graph(
    *,
    table: NDArray[np.float32] = TABLE,
    nodes: Sequence[bytes] = NODES,
    inputs: Sequence[bytes] = INPUTS,
    outputs: Sequence[bytes] = OUTPUTS,
    extra: bytes = b"",
) -> bytes:
    """A serialized GraphProto."""
    parts = [field(1, node) for node in nodes] + [field(2, "tiny")]
    parts += [field(5, constant) for constant in (tensor("table", table), *CONSTANTS)]
    parts += [field(11, item) for item in inputs] + [field(12, item) for item in outputs]
    return b"".join([*parts, extra])


def tokenizer() -> Tokenizer:
    pieces = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return pieces


TOKENIZER: str = tokenizer().to_str()


def probe(
    text: str,
    reference: NDArray[np.float32] = A_B,
    output: NDArray[np.float32] = A_B,
    *,
    prompt: str | None = None,
) -> Probe:
    """A probe with the ids that the tokenizers library gives, for texts of up to eight tokens."""
    front = SETTINGS.prompts[prompt] if prompt else ""
    return Probe(text, reference, output, tuple(tokenizer().encode(front + text).ids), prompt)


PROBES = (probe("a b"),)


def model(
    graph: bytes | None = None,
    settings: ModelSettings = SETTINGS,
    *,
    tokenizer: str = TOKENIZER,
    probes: Sequence[Probe] = PROBES,
    opsets: Mapping[str, int] = OPSETS,
    changed: Mapping[str, str | None] | None = None,
    head: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """A serialized ModelProto: a model file of ours, unless ``changed`` metadata makes it none.

    ``changed`` replaces metadata values, or leaves out those that are None, without making the
    fingerprint fit; ``head`` and ``tail`` are further bytes of the ModelProto.
    """
    graph = GRAPH if graph is None else graph
    values: dict[str, str | None] = {
        **metadata(settings, tokenizer, probes, {"cosine": 1.0}, graph, opsets),
        **(changed or {}),
    }
    parts = [head, field(1, 8), field(2, "tests"), field(7, graph)]
    parts += [field(8, field(1, domain) + field(2, opsets[domain])) for domain in opsets]
    parts += [
        field(14, field(1, key) + field(2, value))
        for key, value in values.items()
        if value is not None
    ]
    return b"".join([*parts, tail])


GRAPH = graph()


def write(path: Path, data: bytes | None = None) -> Path:
    path.write_bytes(model() if data is None else data)
    return path


def settings_json(**changes: Any) -> str:
    """The JSON of the settings with some values replaced by others of any type."""
    return json.dumps({**json.loads(SETTINGS.to_json()), **changes})


def wide(dim: int, seed: int = 0) -> bytes:
    """The tiny model with random vectors of ``dim`` components."""
    table = np.random.default_rng(seed).standard_normal((len(TABLE), dim)).astype(np.float32)
    outputs = (
        value_info("last_hidden_state", FLOAT32, ("batch", "sequence", dim)),
        value_info("sentence_embedding", FLOAT32, ("batch", dim)),
    )
    transformer = replace(SETTINGS.transformer, hidden_size=dim)
    settings = replace(SETTINGS, dim=dim, max_tokens=16, transformer=transformer)
    return model(graph(table=table, outputs=outputs), settings, probes=())
