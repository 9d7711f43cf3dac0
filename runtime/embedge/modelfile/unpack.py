"""A model file as the folder of files that other tools load.

Every file is made from the model file: its bytes, tokenizer.json and its settings.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from embedge.errors import ModelError, OptionError
from embedge.modelfile.file import ModelFile
from embedge.modelfile.protobuf import message, numbers, spans, text
from embedge.modelfile.schema import (
    FLOAT16,
    FLOAT32,
    INT8,
    UINT8,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
)
from embedge.modelfile.settings import ModelSettings
from embedge.modelfile.signature import HIDDEN

SENTENCE_TRANSFORMERS = "sentence-transformers"
READERS = (SENTENCE_TRANSFORMERS, "transformers.js", "fastembed", "light-embed")

# Our names of pooling modes: sentence-transformers' keys, in the order in which it joins several.
_POOLING = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
    "last": "pooling_mode_lasttoken",
}
_EVERYWHERE = ("mean", "cls")  # pooling modes that every reader has
_MODULES = "sentence_transformers.models."
_WEIGHT_TYPES = {FLOAT32, UINT8, INT8, FLOAT16}


def unpack(file: ModelFile, folder: Path, readers: Sequence[str] = READERS) -> list[Path]:
    """Write the files that ``readers`` load into a folder; returns their paths within it.

    Where that fails or is interrupted, nothing of it stays.

    ``onnx/model.onnx`` is the model file, byte for byte. Of an int8 file it has a second name,
    ``onnx/model_quantized.onnx``: transformers.js looks for that one in browsers, all others and
    transformers.js in Node for the first. It is a hard link where the file system has them.

    Raises:
        ModelError: a reader would give other vectors; says which and why.
        OptionError: the folder is not empty, is a file, or cannot be written.
    """
    _check(file, readers)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OptionError(f"{folder} is not an empty folder; give a new or an empty one")
        existed = folder.exists()
        try:
            return _write(file, folder)
        except BaseException:  # Ctrl-C, a full disk: half a folder would be in the next one's way
            _remove(folder, existed)
            raise
    except OSError as error:
        raise OptionError(
            f"{folder}: the model could not be unpacked ({error.strerror}); "
            "give a folder that can be written"
        ) from error


def _remove(folder: Path, keep: bool) -> None:
    """Remove what is in a folder, which may be a link, and the folder unless it is kept."""
    with suppress(OSError):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not keep:
            folder.rmdir()


def _write(file: ModelFile, folder: Path) -> list[Path]:
    texts = {"tokenizer.json": file.tokenizer_json}
    for name, value in configurations(file.settings).items():
        # ASCII only: some readers open these files in the encoding of the system.
        texts[name] = json.dumps(value, indent=2) + "\n"
    for name, content in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    if file.settings.normalized:
        (folder / "2_Normalize").mkdir()  # sentence-transformers' module without settings
    model = folder / "onnx" / "model.onnx"
    model.parent.mkdir()
    model.write_bytes(file.data)
    written = [*map(Path, texts), model.relative_to(folder)]
    if _is_int8(file.settings):
        second = model.with_name("model_quantized.onnx")
        try:
            os.link(model, second)
        except OSError:  # FAT and some network drives have no hard links
            shutil.copyfile(model, second)
        written.append(second.relative_to(folder))
    return written


def configurations(settings: ModelSettings) -> dict[str, Any]:
    """The JSON files of the folder but tokenizer.json, by their paths within it."""
    modes = settings.pooling.split("+")
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules += [("2_Normalize", "Normalize")] * settings.normalized
    return {
        "config.json": _config(settings),
        "tokenizer_config.json": {
            # Reads tokenizer.json as it is; a model's own class may replace its normalizer.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": settings.max_tokens,
            "model_input_names": ["input_ids", "attention_mask"],
            "padding_side": "right",
            "truncation_side": "right",
            "clean_up_tokenization_spaces": False,
            **settings.transformer.special_tokens,
        },
        "special_tokens_map.json": dict(settings.transformer.special_tokens),
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": _MODULES + kind}
            for index, (path, kind) in enumerate(modules)
        ],
        "sentence_bert_config.json": {
            "max_seq_length": settings.max_tokens,
            "do_lower_case": False,
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": settings.transformer.hidden_size,
            **{key: mode in modes for mode, key in _POOLING.items()},
            "include_prompt": True,
        },
        "config_sentence_transformers.json": {
            "prompts": dict(settings.prompts),
            "default_prompt_name": settings.default_prompt,
            "similarity_fn_name": settings.similarity,
        },
    }


def _config(settings: ModelSettings) -> dict[str, Any]:
    transformer = settings.transformer
    config: dict[str, Any] = {
        "model_type": transformer.model_type,
        "hidden_size": transformer.hidden_size,
        "num_hidden_layers": transformer.layers,
        "num_attention_heads": transformer.heads,
        "vocab_size": transformer.vocab_size,
        "pad_token_id": transformer.pad_id,
    }
    if transformer.intermediate_size is not None:
        config["intermediate_size"] = transformer.intermediate_size
    if not _is_int8(settings):  # else transformers.js looks for model_quantized.onnx in browsers
        config["transformers.js_config"] = {"dtype": "fp32"}
    return config


def _is_int8(settings: ModelSettings) -> bool:
    return settings.quantization not in ("fp32", "fp16")


def _check(file: ModelFile, readers: Sequence[str]) -> None:
    """Raise ModelError where one of the readers would give other vectors than the file."""
    others = [reader for reader in readers if reader != SENTENCE_TRANSFORMERS]
    for why in _problems(file):
        raise _refusal(file, readers, why, "run the file itself, see docs/file-format.md")
    for why in _problems_of_others(file.settings) if others else ():
        instead = f"unpack it with --for {SENTENCE_TRANSFORMERS}"
        raise _refusal(file, others, why, instead)


def _refusal(file: ModelFile, readers: Sequence[str], why: str, instead: str) -> ModelError:
    names = ", ".join(readers)
    return ModelError(f"{names} would give other vectors than {file.path.name}: {why}; {instead}")


def _problems(file: ModelFile) -> Iterator[str]:
    """What no reader gets right."""
    settings = file.settings
    modes = settings.pooling.split("+")
    if settings.pooling.endswith("without the prompt"):
        yield "the graph leaves the prompt out of its pooling, they would keep it in"
    elif modes != [mode for mode in _POOLING if mode in modes]:
        yield f"they have no pooling {settings.pooling!r}"
    if _has_weights_behind_pooling(file):
        yield "they would leave out the layers behind the pooling (Dense or LayerNorm)"
    if "pad_token" not in settings.transformer.special_tokens:
        yield "they pad their batches, and the tokenizer has no padding token"


def _problems_of_others(settings: ModelSettings) -> Iterator[str]:
    """What only sentence-transformers gets right."""
    if settings.pooling not in _EVERYWHERE:
        yield f"they have no pooling {settings.pooling!r}"
    if settings.prompts.get(settings.default_prompt or ""):
        yield f"they do not apply the default prompt {settings.default_prompt!r}"


def _has_weights_behind_pooling(file: ModelFile) -> bool:
    """Whether a node that depends on the token vectors reads a weight of their width or more."""
    (graph,) = (
        message(value) for number, value, _ in spans(file.data) if number == ModelProto.GRAPH
    )
    fields = [(number, value) for number, value, _ in spans(graph)]
    least = file.settings.transformer.hidden_size
    weights = {
        name
        for number, value in fields
        if number == GraphProto.INITIALIZER
        for name, size in [_weight(message(value))]
        if size >= least
    }
    behind = {HIDDEN}
    for number, value in fields:  # nodes stand in the order of their work
        if number == GraphProto.NODE:
            node = [(kind, item) for kind, item, _ in spans(message(value))]
            inputs = {text(item) for kind, item in node if kind == NodeProto.INPUT}
            if inputs & behind:
                if inputs & weights:
                    return True
                behind |= {text(item) for kind, item in node if kind == NodeProto.OUTPUT}
    return False


def _weight(tensor: memoryview) -> tuple[str, int]:
    """Name and number of elements of a TensorProto; 0 elements where it is no weight."""
    name, size, kind = "", 1, 0
    for number, value, _ in spans(tensor):
        if number == TensorProto.NAME:
            name = text(value)
        elif number == TensorProto.DIMS:
            for dimension in numbers(value):
                size *= dimension
        elif number == TensorProto.DATA_TYPE and isinstance(value, int):
            kind = value
    return name, size if kind in _WEIGHT_TYPES else 0
