"""The trace of the current stack, made by PyTorch's own exporters."""

import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import inliner

from embedge.modelfile.signature import INPUTS

OPSET = 20  # has Gelu; the lowest that torch.export's exporter writes well is 18
TORCHSCRIPT_OPSET = 18
_OUTPUT = "last_hidden_state"
# Sizes of the inputs that are traced; both are dynamic. 0 and 1 would be taken for constants.
_BATCH, _SEQUENCE = 2, 7


class _Hidden(torch.nn.Module):
    """A transformer with the inputs and the output of a model file."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden


def trace(transformer: Any) -> onnx.ModelProto:
    """Trace a transformer: int64 (batch, sequence) inputs to ``last_hidden_state``.

    torch.export goes first; what it cannot convert (T5's buckets of positions) is left to the
    TorchScript exporter, which takes more and writes more nodes.
    """
    _use_eager_attention(transformer)
    # In evaluation mode itself: an exporter gives a module back in the mode that it was found in.
    module = _Hidden(transformer).eval()
    feeds = {name: torch.ones((_BATCH, _SEQUENCE), dtype=torch.int64) for name in INPUTS}
    try:
        return _exported(module, feeds)
    except torch.onnx.errors.OnnxExporterError:
        return _scripted(module, feeds)


def _use_eager_attention(transformer: Any) -> None:
    """Trace attention as products and a softmax, which the passes recognize; sdpa hides them."""
    if hasattr(transformer, "set_attn_implementation"):
        transformer.set_attn_implementation("eager")


def _exported(module: torch.nn.Module, feeds: dict[str, torch.Tensor]) -> onnx.ModelProto:
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    program = torch.onnx.export(
        module,
        (),
        kwargs=feeds,
        input_names=list(feeds),
        output_names=[_OUTPUT],
        dynamic_shapes=dict.fromkeys(feeds, axes),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return inliner.inline_local_functions(model) if model.functions else model


def _scripted(module: torch.nn.Module, feeds: dict[str, torch.Tensor]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            tuple(feeds.values()),
            path,
            input_names=list(feeds),
            output_names=[_OUTPUT],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in [*feeds, _OUTPUT]},
            opset_version=TORCHSCRIPT_OPSET,
            dynamo=False,
        )
        return onnx.load(path)
