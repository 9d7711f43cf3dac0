"""Write the model file: byte for byte reproducible, and whole or not at all."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

import embedge
from embedge.corpus import files
from embedge.errors import ExportError
from embedge.modelfile.file import metadata, parse
from embedge.modelfile.operators import canonical_domain
from embedge.modelfile.probe import Probe
from embedge.modelfile.settings import ModelSettings
from embedge.text.tokenizer import TextTokenizer
from embedge_export.graph.serialize import graph_bytes, model_bytes, without_weights

_MAX_BYTES = 2**31 - 1  # protobuf's limit for one message
# What onnxruntime 1.20, the oldest that the runtime allows, can read.
_MAX_IR_VERSION = 10
# The first onnxruntime that implements an opset of the default domain
# (https://onnxruntime.ai/docs/reference/compatibility.html).
_LOWEST = {
    **{17: "1.13", 18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.22"},
    **dict.fromkeys(range(7, 17), "1.12"),
}


def pack(
    model: onnx.ModelProto,
    settings: ModelSettings,
    tokenizer_json: str,
    probes: Sequence[Probe],
    report: Mapping[str, Any],
) -> bytes:
    """The bytes of a model file. The same arguments give the same bytes.

    Raises:
        ExportError: the file would be larger than protobuf allows.
    """
    file = without_weights(model)
    file.producer_name, file.producer_version = "embedge", embedge.__version__
    file.ir_version = min(file.ir_version, _MAX_IR_VERSION)
    _strip(file)
    graph = graph_bytes(file.graph, model.graph.initializer)
    opsets = {canonical_domain(opset.domain): opset.version for opset in file.opset_import}
    settings = _completed(settings, tokenizer_json, opsets)
    onnx.helper.set_model_props(
        file, metadata(settings, tokenizer_json, probes, report, graph, opsets)
    )
    data = model_bytes(file, graph)
    del graph
    if len(data) > _MAX_BYTES:
        raise ExportError(
            "pack",
            f"the file would have {len(data):,} bytes, and protobuf allows {_MAX_BYTES:,}; "
            "export it as int8, which has about a quarter of the fp32 size",
        )
    parse(data, Path("the packed file"))  # the runtime must accept it
    return data


def _completed(
    settings: ModelSettings, tokenizer_json: str, opsets: Mapping[str, int]
) -> ModelSettings:
    """The settings with what follows from the graph and the tokenizer."""
    tokenizer = TextTokenizer(tokenizer_json, settings.max_tokens)
    return replace(
        settings,
        prefix_ids=tuple(tokenizer.prefix_ids),
        suffix_ids=tuple(tokenizer.suffix_ids),
        min_onnxruntime=_LOWEST[opsets[""]],
        device="cpu" if "com.microsoft" in opsets else "any",
    )


def _strip(model: onnx.ModelProto) -> None:
    """Drop what a tracer adds: source paths, notes, shapes of other inputs."""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.domain = model.graph.doc_string = ""
    model.model_version = 0
    model.graph.name = "embedge"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    kept = {spec.name for spec in (*model.graph.input, *model.graph.output)}
    made = [name for node in model.graph.node for name in node.output if name not in kept]
    _rename(model.graph, {name: f"v{index}" for index, name in enumerate(made) if name})


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values, where subgraphs read them too: a tracer's names are a path each."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path next to ``path`` that replaces it at the end, or is removed on error."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("r+b") as stream:  # Windows flushes no file that is only read
            files.sync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp gives 0600; a model file is like any other
        files.replace(temporary, path)
    finally:
        files.remove(temporary)
