import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, processors

from embedge.errors import ExportError
from embedge.modelfile.file import parse
from embedge.modelfile.probe import Probe
from embedge.modelfile.settings import ModelSettings, TransformerSettings
from embedge_export import pack as pack_module
from embedge_export.pack import atomic, pack

SETTINGS = ModelSettings(
    "tiny", 2, 8, "mean", False, "fp32", TransformerSettings("x", 1, 1, 1, None, 3, "X")
)
PROBE = Probe("x", np.array([1, 2], np.float32), np.array([3, 4], np.float32), (1, 2, 1))


def tokenizer(*tokens: str) -> str:
    """One that puts its second token around every text."""
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, tokens[0]))
    words.post_processor = processors.TemplateProcessing(
        single=f"{tokens[1]} $A {tokens[1]}", special_tokens=[(tokens[1], 1)]
    )
    return str(words.to_str())


TOKENIZER = tokenizer("a", "[S]")


def model() -> onnx.ModelProto:
    """(batch, sequence) ids to two sums: the smallest graph with the file's signature."""
    names = ("input_ids", "attention_mask")
    nodes = [
        helper.make_node("Mul", names, ["kept"], doc_string="/home/someone/trace.py, line 1"),
        helper.make_node("Cast", ["kept"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "last"], ["last_hidden_state"]),
        helper.make_node("ReduceSum", ["floats", "axis"], ["sum"], keepdims=1),
        helper.make_node("Concat", ["sum", "sum"], ["sentence_embedding"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in names],
        [
            helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["b", "s", 1]),
            helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["b", 2]),
        ],
        [onnx.numpy_helper.from_array(np.array([n]), k) for k, n in (("axis", 1), ("last", 2))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=11)


def test_what_is_packed_is_read_back() -> None:
    file = parse(pack(model(), SETTINGS, TOKENIZER, [PROBE], {"ok": 1}), Path("x.onnx"))
    completed = {"prefix_ids": (1,), "suffix_ids": (1,), "min_onnxruntime": "1.14"}
    assert file.settings == replace(SETTINGS, **completed, device="any")
    assert (file.tokenizer_json, file.report) == (TOKENIZER, {"ok": 1})
    assert file.probes[0].text == "x"
    np.testing.assert_array_equal(file.probes[0].reference, [1, 2])
    np.testing.assert_array_equal(file.probes[0].output, [3, 4])


def test_a_graph_with_onnxruntimes_own_operators_is_for_the_cpu() -> None:
    """fp32 files have MultiHeadAttention, which WebGPU computes wrongly."""
    made = model()
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    hidden = next(node for node in made.graph.node if "last_hidden_state" in node.output)
    hidden.output[0] = "hidden"
    made.graph.node.append(
        helper.make_node("Gelu", ["hidden"], ["last_hidden_state"], domain="com.microsoft")
    )
    file = parse(pack(made, SETTINGS, TOKENIZER, [PROBE], {}), Path("x.onnx"))
    assert file.settings.device == "cpu"


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert pack(model(), SETTINGS, TOKENIZER, [PROBE], {}) == pack(
        model(), SETTINGS, TOKENIZER, [PROBE], {}
    )


def test_nothing_of_the_machine_is_left_in_the_file() -> None:
    data = pack(model(), SETTINGS, TOKENIZER, [PROBE], {})
    assert b"/home/someone" not in data
    packed = onnx.load_from_string(data)
    assert (packed.producer_name, packed.ir_version) == ("embedge", 10)
    onnx.checker.check_model(packed)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "other"}, True),
        ({"license": "MIT"}, True),
        ({"max_tokens": 9}, False),
        ({"prompts": {"query": "q: "}}, False),
        ({"normalized": True}, False),
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_what_decides_a_vector(
    change: dict[str, object], same: bool
) -> None:
    before, after = (
        parse(pack(model(), settings, TOKENIZER, [PROBE], {}), Path("x")).fingerprint
        for settings in (SETTINGS, replace(SETTINGS, **change))
    )
    assert (before == after) is same


def test_the_fingerprint_ignores_probes_and_report() -> None:
    one = parse(pack(model(), SETTINGS, TOKENIZER, [PROBE], {}), Path("x")).fingerprint
    assert parse(pack(model(), SETTINGS, TOKENIZER, [], {"a": 1}), Path("x")).fingerprint == one
    assert (
        parse(pack(model(), SETTINGS, tokenizer("a", "[S]", "b"), [], {}), Path("x")).fingerprint
        != one
    )


def test_values_get_short_names_in_subgraphs_too() -> None:
    tiny = model()
    body = helper.make_graph(
        [helper.make_node("Identity", ["floats"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    always = onnx.numpy_helper.from_array(np.array(True), "always")
    tiny.graph.initializer.append(always)
    tiny.graph.node[3].input[0] = "chosen"
    branches = {"then_branch": body, "else_branch": body}
    tiny.graph.node.insert(3, helper.make_node("If", ["always"], ["chosen"], **branches))
    packed = onnx.load_from_string(pack(tiny, SETTINGS, TOKENIZER, [PROBE], {}))
    onnx.checker.check_model(packed, full_check=True)
    choice = next(node for node in packed.graph.node if node.op_type == "If")
    assert choice.input[0] == "always"
    assert choice.attribute[0].g.node[0].input[0] == "v1"
    assert packed.graph.output[1].name == "sentence_embedding"


def test_a_file_beyond_protobufs_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_MAX_BYTES", 100)
    with pytest.raises(ExportError, match=r"pack: the file would have [\d,]+ bytes, and protobuf"):
        pack(model(), SETTINGS, TOKENIZER, [PROBE], {})


def test_atomic_leaves_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    if sys.platform != "win32":  # whose files have no such permissions
        assert path.stat().st_mode & 0o077 == 0o044


def test_atomic_makes_the_file_durable_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "file", []

    def sync(descriptor: int) -> None:
        os.write(descriptor, b"")  # fails where it is open for reading only
        steps.append((os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr("embedge.corpus.files.sync", sync)
    with atomic(path) as temporary:
        temporary.write_bytes(b"whole")
    assert steps == [(5, False)]
    assert path.read_bytes() == b"whole"
