"""Find and load a sentence transformer: a package, a folder, or a repository of the hub."""

import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

from embedge.errors import ExportError
from embedge_export.graph.head import Module
from embedge_export.recipe import Recipe
from embedge_export.source import modules as describe

_MAX_BYTES = 2**31 - 1  # protobuf's limit for one message, and so for one file


@dataclass(frozen=True)
class Source:
    """A loaded sentence transformer, described in our terms.

    ``overridden`` has the model's own value of everything that the recipe replaced.
    """

    model: SentenceTransformer
    modules: tuple[Module, ...]
    name: str
    hidden_size: int
    max_tokens: int
    tokenizer_json: str
    prompts: dict[str, str]
    default_prompt: str | None
    similarity: str
    origin: dict[str, str]
    licence: str
    matryoshka_dims: tuple[int, ...] = ()
    overridden: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The reference: PyTorch's vectors of the texts one by one, float32 (n, dim)."""
        rows = [
            self.model.encode(text, convert_to_numpy=True, show_progress_bar=False)
            for text in texts
        ]
        return np.asarray(rows, np.float32)

    def release(self) -> None:
        """Free the weights, when the model has been traced; it cannot encode any more."""
        self.model.to("meta")


def load(recipe: Recipe) -> Source:
    """Load the model that a recipe names: package, folder or hub, in this order.

    Raises:
        ExportError: it cannot be loaded, its weights are not the ones expected, or it has a
            module or a setting that the exporter does not know.
    """
    folder, revision = _locate(recipe)
    weights = _weights_sha256(folder)
    if recipe.weights_sha256 not in (None, weights):
        raise ExportError(
            "source",
            f"the weights in {folder} have the SHA-256 {weights}, "
            f"but the recipe expects {recipe.weights_sha256}",
        )
    try:
        with quiet():
            model = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise ExportError("source", f"{folder} cannot be loaded: {error}") from error
    model.eval()
    if not (folder / "modules.json").is_file():  # a bare transformer: mean is there, add the norm
        model.append(st.Normalize())
    _check_size(model)
    overridden = _override(model, recipe)
    configs = _configs(folder)
    dims = describe.matryoshka_dims(model, configs)
    model.truncate_dim = None  # the file gives whole vectors; Encoder(dim=...) cuts them
    transformer = model[0]
    return Source(
        model=model,
        modules=describe.modules(model),
        name=recipe.name or Path(recipe.source).name,
        hidden_size=int(transformer.auto_model.config.hidden_size),
        max_tokens=model.max_seq_length,
        tokenizer_json=describe.tokenizer_json(transformer),
        prompts=dict(model.prompts) if any(model.prompts.values()) else {},
        default_prompt=model.default_prompt_name if any(model.prompts.values()) else None,
        similarity=str(model.similarity_fn_name),
        origin={
            "repository": "" if Path(recipe.source).is_dir() else recipe.source,
            "revision": revision,
            "weights_sha256": weights,
            "architecture": str(transformer.auto_model.config.model_type),
        },
        licence=recipe.licence or _licence(folder),
        matryoshka_dims=dims,
        overridden=overridden,
    )


def _check_size(model: SentenceTransformer) -> None:
    """Refuse now what could not be written after an hour of work."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters * 4 > _MAX_BYTES:
        raise ExportError(
            "source",
            f"the model has {parameters:,} parameters: {parameters * 4:,} bytes in fp32, which "
            f"every format starts from, and one ONNX file holds at most {_MAX_BYTES:,} (protobuf's "
            f"limit); choose a model of up to {_MAX_BYTES // 4:,} parameters",
        )


def _override(model: SentenceTransformer, recipe: Recipe) -> dict[str, Any]:
    """Apply what the recipe says instead of the model; returns the model's own values."""
    own: dict[str, Any] = {}
    limit = describe.max_tokens(model, recipe.max_tokens)
    if recipe.max_tokens is not None:
        own["max_tokens"] = describe.max_tokens(model, None)
    model.max_seq_length = limit
    if recipe.prompts is not None:
        own["prompts"] = dict(model.prompts)
        model.prompts, model.default_prompt_name = dict(recipe.prompts), None
    if recipe.pooling is not None:
        own["pooling"] = describe.set_pooling(model, recipe.pooling)
    asked = {"pooling": recipe.pooling, "max_tokens": recipe.max_tokens, "prompts": recipe.prompts}
    return {key: value for key, value in own.items() if value != asked[key]}


def _locate(recipe: Recipe) -> tuple[Path, str]:
    """The folder that holds the model, and the revision it is of."""
    if recipe.package is not None:
        package, _, inner = recipe.package.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            return Path(spec.submodule_search_locations[0]) / inner, recipe.revision or ""
    folder = Path(recipe.source)
    if folder.is_dir():
        return folder, recipe.revision or ""
    hint = f", or pip install the package of {recipe.package}" if recipe.package else ""
    try:
        snapshot = snapshot_download(
            recipe.source,
            revision=recipe.revision,
            ignore_patterns=["onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "coreml/*"],
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(
            "source",
            f"{recipe.source} could not be fetched from the hub ({reason}); give the folder of a "
            f"downloaded model{hint}",
        ) from error
    return Path(snapshot), Path(snapshot).name  # the hub's cache names a snapshot by its commit


def _weights_sha256(folder: Path) -> str:
    """SHA-256 of the weights: of the file, or of all shards in the order of their names."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise ExportError(
            "source", f"{folder} holds no weights (model.safetensors or pytorch_model.bin)"
        )
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _configs(folder: Path) -> dict[str, Any]:
    """The keys of the transformer's and of sentence-transformers' configuration."""
    found: dict[str, Any] = {}
    for name in ("config.json", "config_sentence_transformers.json"):
        if (folder / name).is_file():
            found |= json.loads((folder / name).read_text(encoding="utf-8"))
    return found


def _licence(folder: Path) -> str:
    """The licence that the model card's front matter names."""
    card = folder / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8").splitlines()[:60]:
            if line.startswith("license:"):
                return line.partition(":")[2].strip().strip("'\"")
    return "unknown"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what loading and tracing warn of; what is wrong is found by comparing vectors."""
    loggers = [logging.getLogger(name) for name in ("optimum", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
