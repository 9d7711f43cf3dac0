"""The only importer of torch, transformers, optimum and sentence-transformers: load and trace."""

import hashlib
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from huggingface_hub import snapshot_download
from numpy.typing import NDArray
from optimum.exporters.onnx import onnx_export_from_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

from embedge.errors import ExportError
from embedge_export.head import Activation, Dense, LayerNorm, Module, Normalize, Pool, Pooling
from embedge_export.recipe import Recipe

OPSET = 18  # what the TorchScript tracer writes best; graph.py may raise it
_UNLIMITED = 10**9  # tokenizers without a limit say 1e30

_POOLING: dict[str, Pooling] = {  # sentence-transformers' names: ours
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_ACTIVATIONS: dict[type, Activation] = {
    torch.nn.Identity: "identity",
    torch.nn.Tanh: "tanh",
    torch.nn.ReLU: "relu",
    torch.nn.GELU: "gelu",
    torch.nn.Sigmoid: "sigmoid",
    torch.nn.SiLU: "silu",
}


@dataclass(frozen=True)
class Source:
    """A loaded sentence transformer, described in our terms."""

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

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The reference: PyTorch's vectors of the texts one by one, float32 (n, dim)."""
        rows = [
            self.model.encode(text, convert_to_numpy=True, show_progress_bar=False)
            for text in texts
        ]
        return np.asarray(rows, np.float32)


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
        with _quiet():
            model = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise ExportError("source", f"{folder} cannot be loaded: {error}") from error
    model.eval()
    if not (folder / "modules.json").is_file():  # a bare transformer: mean is there, add the norm
        model.append(st.Normalize())
    if recipe.max_tokens is not None:
        model.max_seq_length = recipe.max_tokens
    if recipe.prompts is not None:
        model.prompts, model.default_prompt_name = dict(recipe.prompts), None
    if recipe.pooling is not None:
        _set_pooling(model, recipe.pooling)
    transformer = model[0]
    if not isinstance(transformer, st.Transformer):
        raise _unsupported(transformer)
    return Source(
        model=model,
        modules=tuple(_describe(module) for module in list(model)[1:]),
        name=recipe.name or Path(recipe.source).name,
        hidden_size=int(transformer.auto_model.config.hidden_size),
        max_tokens=_max_tokens(model),
        tokenizer_json=_tokenizer_json(transformer),
        prompts=dict(model.prompts) if any(model.prompts.values()) else {},
        default_prompt=model.default_prompt_name if any(model.prompts.values()) else None,
        similarity=str(model.similarity_fn_name),
        origin={
            "repository": recipe.source if "/" in recipe.source else "",
            "revision": revision,
            "weights_sha256": weights,
            "architecture": str(transformer.auto_model.config.model_type),
        },
        licence=recipe.licence or _licence(folder),
    )


def trace(source: Source) -> onnx.ModelProto:
    """Trace the transformer: int64 (batch, sequence) inputs to ``last_hidden_state``."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        onnx_export_from_model(
            source.model[0].auto_model,
            folder,
            task="feature-extraction",
            opset=OPSET,
            do_validation=False,  # verify.py compares with the whole source, not only the trace
        )
        return onnx.load(Path(folder) / "model.onnx")


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


def _describe(module: torch.nn.Module) -> Module:
    """One module of the head in our terms; refuses what is not known instead of skipping it."""
    match module:
        case st.Pooling():
            if not module.include_prompt:
                raise ExportError(
                    "source", "pooling that leaves out the prompt's tokens is not supported yet"
                )
            modes = module.pooling_mode
            modes = (modes,) if isinstance(modes, str) else tuple(modes)
            return Pool(tuple(_POOLING[mode] for mode in modes))
        case st.Dense():
            activation = _ACTIVATIONS.get(type(module.activation_function))
            if activation is None:
                raise _unsupported(module.activation_function)
            if module.module_input_name != module.module_output_name:
                raise ExportError("source", "a Dense module beside the sentence vector")
            bias = module.linear.bias
            return Dense(
                _array(module.linear.weight.T), None if bias is None else _array(bias), activation
            )
        case st.LayerNorm():
            norm = module.norm
            return LayerNorm(_array(norm.weight), _array(norm.bias), float(norm.eps))
        case st.Normalize():
            return Normalize()
    raise _unsupported(module)


def _unsupported(module: object) -> ExportError:
    return ExportError(
        "source",
        f"the module {type(module).__name__} is not supported; supported are Transformer, Pooling, "
        "Dense, LayerNorm and Normalize, with the activations "
        + ", ".join(kind.__name__ for kind in _ACTIVATIONS),
    )


def _set_pooling(model: SentenceTransformer, pooling: str) -> None:
    names = {ours: theirs for theirs, ours in _POOLING.items()}
    if pooling not in names:
        raise ExportError("source", f"unknown pooling {pooling!r}; known: {', '.join(names)}")
    for module in model:
        if isinstance(module, st.Pooling):
            module.pooling_mode = names[pooling]  # type: ignore[assignment,unused-ignore]


def _max_tokens(model: SentenceTransformer) -> int:
    limit = model.max_seq_length
    if limit is None or limit > _UNLIMITED:
        raise ExportError(
            "source",
            "the model does not say how many tokens it takes; set max_tokens (--max-tokens)",
        )
    positions = getattr(model[0].auto_model.config, "max_position_embeddings", None)
    if positions is not None and limit > positions > 0:
        raise ExportError(
            "source", f"max_tokens is {limit}, but the model has {positions} positions"
        )
    return int(limit)


def _tokenizer_json(transformer: Any) -> str:
    tokenizer = getattr(transformer.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise ExportError("source", "the model has no fast tokenizer (tokenizer.json)")
    tokenizer.no_truncation()  # lengths are the runtime's business
    tokenizer.no_padding()
    return str(tokenizer.to_str())


def _licence(folder: Path) -> str:
    """The licence that the model card's front matter names."""
    card = folder / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8").splitlines()[:60]:
            if line.startswith("license:"):
                return line.partition(":")[2].strip().strip("'\"")
    return "unknown"


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().to(torch.float32).numpy())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what tracing warns of; a wrong trace is found by comparing vectors."""
    logger = logging.getLogger("optimum")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
