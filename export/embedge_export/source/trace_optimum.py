"""The only importer of optimum: the older stack's trace, made by PyTorch's TorchScript exporter."""

import tempfile
from pathlib import Path
from typing import Any

import onnx
from optimum.exporters.onnx import onnx_export_from_model
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedTextConfig

from embedge.modelfile.signature import INPUTS
from embedge_export.graph.head import SEGMENTS

OPSET = 18  # what the TorchScript exporter writes best; the passes may raise it
TASK = "feature-extraction"


class IdsAndMask(TextEncoderOnnxConfig):  # type: ignore[misc]  # optimum publishes no types
    """How optimum is to trace what it does not know, or knows with inputs that we do not feed."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names of the inputs, and of their dynamic axes."""
        return {name: {0: "batch_size", 1: "sequence_length"} for name in INPUTS}


def trace(transformer: Any) -> onnx.ModelProto:
    """Trace a transformer of transformers 4: int64 (batch, sequence) to ``last_hidden_state``."""
    with tempfile.TemporaryDirectory() as folder:
        onnx_export_from_model(
            transformer,
            folder,
            task=TASK,
            opset=OPSET,
            do_validation=False,  # verify.py compares with the whole source, not only the trace
            custom_onnx_configs=_own_config(transformer),
        )
        return onnx.load(Path(folder) / "model.onnx")


def _own_config(transformer: Any) -> dict[str, Any] | None:
    """Our description for optimum, or None where its own asks for no more than a text has.

    Of a decoder it would ask for positions and past keys, of an encoder of two parts for both.
    """
    config = transformer.config
    if config.model_type in TasksManager.get_supported_model_type_for_task(TASK, "onnx"):
        theirs = TasksManager.get_exporter_config_constructor(
            "onnx", transformer, TASK, library_name="transformers"
        )
        if set(theirs(config).inputs) <= {*INPUTS, SEGMENTS}:
            return None
    return {"model": IdsAndMask(config, task=TASK)}
