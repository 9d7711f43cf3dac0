"""The weights of a folder: which files hold them, their identity, and whether all of them load."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from embedge.errors import ExportError
from embedge_export.source.kinds import Layout, read_json

_SINGLE = ("model.safetensors", "pytorch_model.bin")
_POINTER = b"version https://git-lfs.github.com/spec/"
# What loading reads.
_READ = (".json", ".safetensors", ".bin", ".txt", ".model", ".spm", ".tiktoken")
# Copies of the weights that other libraries read.
_OTHER_FOLDERS = ("onnx", "openvino", "coreml", "gguf")
_OTHER_FORMATS = (".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".gguf", ".tflite")
# Weights that no vector depends on, by the start of their names: missing or unused, it is the same.
_UNREAD = ("pooler.",)
# Weights of the head of a language model, which an embedder drops: (end of the architecture's name
# in config.json, starts of the weights' names).
_HEADS = (
    (("ForMaskedLM",), ("cls.", "lm_head.", "vocab_", "predictions.", "head.", "decoder.")),
    (("ForMaskedLM", "ForPreTraining"), ("cls.", "lm_predictions.", "mask_predictions.")),
    (("ForMaskedLM", "ForPreTraining"), ("generator_", "discriminator_", "sop_classifier.")),
    (("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"), ("lm_head.", "decoder.")),
)
_SHOWN = 5  # names in a message


def check_pointers(folder: Path) -> None:
    """Refuse Git-LFS pointers and broken links in the place of files that loading reads.

    Raises:
        ExportError: names the first one.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.exists() and not _is_unread(path, folder):
            raise ExportError(
                "source",
                f"{path} is a link to a file that does not exist; copy the model with the files "
                "that its links lead to (cp -rL), or download it again",
            )
        if path.is_file() and path.stat().st_size < 1024 and not _is_unread(path, folder):
            with path.open("rb") as stream:
                if stream.read(len(_POINTER)) == _POINTER:
                    raise ExportError(
                        "source",
                        f"{path} is a Git-LFS pointer, not the file itself; run `git lfs pull` in "
                        f"{folder}, or download the model again",
                    )


def _is_unread(path: Path, folder: Path) -> bool:
    """Whether no vector depends on a file: a picture, or the weights once more."""
    others = path.relative_to(folder).parts[0] in _OTHER_FOLDERS or path.suffix not in _READ
    twice = path.suffix == ".bin" and (path.parent / _SINGLE[0]).is_file()
    return others or twice


def weight_files(found: Layout) -> list[Path]:
    """The files that hold weights, of every module, in the order of the modules.

    Raises:
        ExportError: the transformer has none, or shards that its index names are missing.
    """
    files = _of_folder(found.transformer)
    if not files:
        raise ExportError("source", _no_weights(found.transformer))
    for _, folder in found.modules:
        inner = [path for path in sorted(folder.rglob("*")) if path.is_dir()]
        for place in [folder, *inner] if folder != found.folder.resolve() else []:
            files += [file for file in _of_folder(place) if file not in files]
    return files


def _no_weights(folder: Path) -> str:
    """What to say of a folder without weights that transformers reads."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.*")))
    others = [name for name in names if name.endswith((*_OTHER_FORMATS, ".safetensors", ".bin"))]
    instead = f"; it does hold {_some(others)}, which the exporter does not read" if others else ""
    return (
        f"{folder} holds no weights ({_SINGLE[0]} or {_SINGLE[1]}, or shards with their "
        f"index.json){instead}; download the PyTorch weights of the model, or give the folder that "
        "holds them"
    )


def _of_folder(folder: Path) -> list[Path]:
    """The files that transformers reads from a folder, in its order of preference."""
    for name in _SINGLE:
        if (folder / name).is_file():
            return [(folder / name).resolve()]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    return []


def _shards(index: Path) -> list[Path]:
    """The files that an index of sharded weights names."""
    named = read_json(index, {}).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ExportError("source", f"{index} should name a file for each weight (weight_map)")
    shards = sorted(set(map(str, named.values())))
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise ExportError(
            "source", f"{index} names {_some(missing)}, which the folder does not hold"
        )
    return [(index.parent / shard).resolve() for shard in shards]


def weights_sha256(files: list[Path]) -> str:
    """SHA-256 of the weights: of the only file, or of all files one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def recorded() -> Iterator[list[dict[str, Any]]]:
    """Record what transformers found missing, unexpected or of another shape while loading.

    It reports that only in its log, and continues with random numbers. `from_pretrained` returns
    the report where it is asked to, which the code that calls it (sentence-transformers) does not.
    """
    found: list[dict[str, Any]] = []
    own = PreTrainedModel.__dict__["from_pretrained"]

    def from_pretrained(cls: type, *arguments: Any, **options: Any) -> Any:
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, report = own.__func__(cls, *arguments, **options)
        found.append(report)
        return model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield found
    finally:
        PreTrainedModel.from_pretrained = own


def check_loaded(reports: list[dict[str, Any]], config: Mapping[str, Any]) -> list[str]:
    """Refuse a model of which a part was not in its files.

    Returns:
        Names of weights that were not used: those of a language model's head.

    Raises:
        ExportError: names weights that are missing, unexpected or of another shape.
    """
    missing = [n for r in reports for n in sorted(r["missing_keys"]) if not n.startswith(_UNREAD)]
    unexpected = [name for r in reports for name in sorted(r["unexpected_keys"])]
    heads = _heads(config)
    unused = [name for name in unexpected if name.startswith(heads)] if heads else []
    unexpected = [n for n in unexpected if n not in unused and not n.startswith(_UNREAD)]
    shapes = [_shape(key) for report in reports for key in sorted(report["mismatched_keys"])]
    faults = [
        f"{len(names)} {what} ({_some(names)})"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if faults:
        raise ExportError(
            "source",
            f"the weights do not fit the model that config.json describes: {'; '.join(faults)}; "
            "they would be replaced by random numbers or dropped; save the model again with the "
            "library that it was trained with",
        )
    return unused


def _shape(key: str | tuple[str, Any, Any]) -> str:
    """A weight of another shape; transformers 4 gives only its name."""
    if isinstance(key, str):
        return key
    name, stored, expected = key
    return f"{name} {tuple(stored)} instead of {tuple(expected)}"


def _heads(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Starts of names of weights that belong to the head of the architecture that was saved."""
    names = tuple(config.get("architectures") or ())
    return tuple(
        start
        for ends, starts in _HEADS
        if any(str(name).endswith(ends) for name in names)
        for start in starts
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
