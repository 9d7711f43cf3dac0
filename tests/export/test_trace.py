"""Traces of both stacks: the same operators after the passes, and no notes of the tracer."""

from collections import Counter
from pathlib import Path

import onnx
import pytest

from embedge_export.graph import head
from embedge_export.graph.passes.simplify import simplify
from embedge_export.recipe import Recipe
from embedge_export.source import trace as trace_module
from embedge_export.source.load import Source, load
from embedge_export.source.trace import trace, without_notes

# What the tiny BERT of two layers consists of. Operators that compute shapes are not counted: the
# older stack's trace has a few more of them.
OPERATORS = {
    "MatMul": 13,  # six a layer, and the pooling
    "Add": 15,
    "LayerNormalization": 5,
    "If": 2,  # attention, with and without a mask
    "Gelu": 2,
}


@pytest.fixture(scope="module")
def source(transformer_folder: Path) -> Source:
    return load(Recipe(str(transformer_folder)))


@pytest.fixture(scope="module")
def traced(source: Source) -> onnx.ModelProto:
    return trace(source)


def test_the_same_operators_come_out_of_either_stack(traced: onnx.ModelProto) -> None:
    attached, dim = head.attach(traced, [head.Pool(("mean",)), head.Normalize()], 32)
    assert dim == 32
    counts = Counter(node.op_type for node in simplify(attached).graph.node)
    assert {name: counts[name] for name in OPERATORS} == OPERATORS
    assert counts["Softmax"] == counts["Erf"] == counts["Reshape"] == 0


def test_no_note_of_the_tracer_is_left(traced: onnx.ModelProto) -> None:
    data = traced.SerializeToString()
    for trace_of in (b"site-packages", b"stack_trace", b"class_hierarchy", b".py"):
        assert trace_of not in data


def test_notes_are_cleared_at_any_depth() -> None:
    inner = onnx.helper.make_node("Relu", ["x"], ["y"], doc_string="/a/path.py")
    inner.metadata_props.add(key="stack", value="/a/path.py")
    body = onnx.helper.make_graph([inner], "body", [], [], doc_string="/a/path.py")
    outer = onnx.helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    model = onnx.helper.make_model(onnx.helper.make_graph([outer], "g", [], []))
    model.metadata_props.add(key="made", value="/a/path.py")
    without_notes(model)
    assert b"/a/path.py" not in model.SerializeToString()
    assert model.graph.node[0].attribute[0].g.node[0].op_type == "Relu"


def test_the_tracer_is_the_one_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "find_spec", lambda name: None)
    assert trace_module._tracer().__module__ == "embedge_export.source.trace_torch"


def test_what_torch_export_cannot_convert_is_left_to_torchscript(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from embedge_export.source import trace_torch

    def refuse(*arguments: object) -> onnx.ModelProto:
        raise torch.onnx.errors.OnnxExporterError("no bucket")

    monkeypatch.setattr(trace_torch, "_exported", refuse)
    monkeypatch.setattr(trace_module, "find_spec", lambda name: None)
    model = trace(source)
    assert [output.name for output in model.graph.output] == ["last_hidden_state"]
    assert {value.name for value in model.graph.input} == {"input_ids", "attention_mask"}
