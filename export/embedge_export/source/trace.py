"""A loaded transformer to an ONNX graph, by whichever exporter is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import onnx

from embedge_export.source.load import Source
from embedge_export.source.quiet import quiet

# What a tracer leaves behind: stack traces, paths of the machine, names of Python modules.
_NOTES = ("metadata_props", "doc_string")


def trace(source: Source) -> onnx.ModelProto:
    """Trace the transformer: int64 (batch, sequence) inputs to ``last_hidden_state``.

    With optimum installed (`embedge[optimum]`, transformers 4) it traces, else PyTorch itself.
    """
    with quiet():
        model = _tracer()(source.model[0].auto_model)
    without_notes(model)
    return model


def _tracer() -> Callable[[Any], onnx.ModelProto]:
    if find_spec("optimum") is not None and find_spec("optimum.exporters.onnx") is not None:
        from embedge_export.source import trace_optimum

        return trace_optimum.trace
    from embedge_export.source import trace_torch

    return trace_torch.trace


def without_notes(message: Any) -> None:
    """Clear notes in a model and in everything inside it, subgraphs and functions included."""
    for field, value in message.ListFields():
        if field.name in _NOTES:
            message.ClearField(field.name)
        elif field.message_type is not None and field.name != "raw_data":
            items = value if hasattr(value, "append") or hasattr(value, "add") else [value]
            for item in items:
                without_notes(item)
