"""Load a sentence transformer and describe it in our terms, or refuse it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

from embedge.errors import ExportError, one_line
from embedge.modelfile.settings import TransformerSettings
from embedge_export.graph.head import Module
from embedge_export.recipe import Recipe
from embedge_export.source import card, tokenizer, weights
from embedge_export.source import modules as describe
from embedge_export.source.config import transformer_settings
from embedge_export.source.damage import check_files
from embedge_export.source.kinds import OWN_CODE, Layout, check_kind, layout
from embedge_export.source.locate import Location, locate
from embedge_export.source.quiet import quiet

_MAX_BYTES = 2**31 - 1  # protobuf's limit for one message, and so for one file


@dataclass(frozen=True)
class Source:
    """A loaded sentence transformer, described in our terms.

    ``overridden`` has the model's own value of everything that the recipe replaced. ``remarks`` are
    sentences about what was assumed, dropped or converted, to be shown.
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
    license: str
    transformer: TransformerSettings
    matryoshka_dims: tuple[int, ...] = ()
    default_dim: int | None = None
    overridden: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def encode(self, texts: Sequence[str], prompt: str | None = None) -> NDArray[np.float32]:
        """The reference: PyTorch's vectors of the texts one by one, float32 (n, dim)."""
        rows = [
            self.model.encode(
                text, prompt_name=prompt, convert_to_numpy=True, show_progress_bar=False
            )
            for text in texts
        ]
        return np.asarray(rows, np.float32)

    def release(self) -> None:
        """Free the weights, when the model has been traced; it cannot encode any more."""
        self.model.to("meta")


def load(recipe: Recipe) -> Source:
    """Load the model that a recipe names: package, folder or hub, in this order.

    Raises:
        ExportError: it cannot be loaded, its weights are not the ones expected, it is not an
            embedder, or it has a module or a setting that the exporter does not know.
    """
    place = locate(recipe)
    found = _checked_layout(place.folder)
    sha256 = _checked_sha256(found, recipe)
    model, remarks = _loaded(found)
    transformer = model[0]
    if isinstance(transformer, st.Transformer):  # else it is refused by name, below
        tokenizer.check_settings(transformer)
    own_limit, overridden = model.max_seq_length, _override(model, recipe)
    tokenizer_json, left_out = _tokenizer(transformer, model.max_seq_length)
    described = describe.modules(model)
    dims = describe.matryoshka_dims(model, {**found.config, **found.settings})
    default_dim = _take_truncate_dim(model)
    prompts = dict(model.prompts) if any(model.prompts.values()) else {}
    remarks += describe.limit_remarks(model, own_limit) + _tokens_left_out(left_out)
    remarks += describe.prompt_remarks(prompts, described) + _default_dim(default_dim)
    return Source(
        model=model,
        modules=described,
        name=recipe.title,
        hidden_size=int(transformer.auto_model.config.hidden_size),
        max_tokens=model.max_seq_length,
        tokenizer_json=tokenizer_json,
        prompts=prompts,
        default_prompt=model.default_prompt_name if prompts else None,
        similarity=str(model.similarity_fn_name),
        origin=_origin(place, sha256, transformer),
        license=recipe.license or card.license_of(place.folder),
        transformer=transformer_settings(transformer),
        matryoshka_dims=tuple(sorted({*dims, *recipe.matryoshka_dims}, reverse=True)),
        default_dim=default_dim,
        overridden=overridden,
        remarks=tuple(remarks),
    )


def _checked_layout(folder: Path) -> Layout:
    """The modules of a folder; raises ExportError for what is refused without loading it."""
    weights.check_pointers(folder)
    found = layout(folder)
    check_kind(found)
    tokenizer.check_file(found.transformer)
    _check_prompts(found.settings.get("prompts", {}))
    return found


def _origin(place: Location, sha256: str, transformer: st.Transformer) -> dict[str, str]:
    return {
        "repository": place.repository,
        "revision": place.revision,
        "weights_sha256": sha256,
        "architecture": str(transformer.auto_model.config.model_type),
    }


def _tokenizer(transformer: st.Transformer, max_tokens: int) -> tuple[str, Sequence[str]]:
    """The checked tokenizer.json, and the tokens that it leaves out."""
    text, left_out = tokenizer.tokenizer_json(transformer)
    tokenizer.check_ids(transformer, text, left_out, max_tokens)
    return text, left_out


def _checked_sha256(found: Layout, recipe: Recipe) -> str:
    """SHA-256 of the weights; raises ExportError where the recipe expects another."""
    sha256 = weights.weights_sha256(weights.weight_files(found))
    if recipe.weights_sha256 not in (None, sha256):
        raise ExportError(
            "source",
            f"the weights in {found.folder} have the SHA-256 {sha256}, "
            f"but the recipe expects {recipe.weights_sha256}",
        )
    return sha256


def _loaded(found: Layout) -> tuple[SentenceTransformer, list[str]]:
    """The model in float32 and evaluation mode, all of its weights from its files; and remarks."""
    try:
        types = [kind for kind, _ in found.modules]
        with quiet(), describe.other_versions(types), weights.recorded() as reports:
            model = SentenceTransformer(
                str(found.folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": torch.float32},
            )
    except Exception as error:
        with quiet():
            check_files(found)
        raise ExportError("source", _why_not(found, error)) from error
    model = _without_router(model)
    _check_size(model)
    model.eval().float()
    _check_finite(model)
    remarks = describe.similarity_remarks(model, found.settings)
    unused = weights.check_loaded(reports, found.config)
    if unused:
        shown = ", ".join(unused[:3])
        remarks.append(f"{len(unused)} weights of a language model's head are left out ({shown})")
    stored = str(found.config.get("dtype") or found.config.get("torch_dtype") or "float32")
    if stored != "float32":
        remarks.append(f"the configuration asks for {stored}; loaded as float32")
    if not found.modules:  # a bare transformer: sentence-transformers has put pooling behind it
        model.append(st.Normalize())
        remarks.append("there is no modules.json: its pooling and normalization are assumed")
    return model, remarks


def _why_not(found: Layout, error: Exception) -> str:
    """What to say where sentence-transformers cannot load a folder."""
    reason = one_line(error) or type(error).__name__
    if "auto_map" in found.config:
        return f"{found.folder} is {OWN_CODE}"
    return f"{found.folder} cannot be loaded: {reason}"


def _without_router(model: SentenceTransformer) -> SentenceTransformer:
    """The model with the modules of its only route in the place of a Router."""
    if not any(isinstance(module, st.Router) for module in model):
        return model
    flat: list[torch.nn.Module] = []
    for module in model:
        routes = list(module.sub_modules.values()) if isinstance(module, st.Router) else [[module]]
        flat += [inner for route in routes for inner in route]
    return SentenceTransformer(
        modules=flat,
        device="cpu",
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        truncate_dim=model.truncate_dim,
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


def _check_finite(model: SentenceTransformer) -> None:
    """Refuse weights from which no vector could come."""
    broken = [name for name, w in model.named_parameters() if not torch.isfinite(w).all()]
    if broken:
        raise ExportError(
            "source",
            f"{len(broken)} weights hold values that are infinite or not a number "
            f"({', '.join(broken[:3])}); download or train the model again",
        )


def _check_prompts(prompts: object) -> None:
    """Refuse prompts that are no texts, before sentence-transformers stumbles over them."""
    if not isinstance(prompts, Mapping):
        raise ExportError(
            "source",
            f"expected prompts in config_sentence_transformers.json to be an object, got "
            f"{str(prompts)[:60]!a}; give each prompt a name",
        )
    for name, prompt in prompts.items():
        wrong = "" if isinstance(prompt, str | None) else "is no text"
        try:
            f"{name}{prompt}".encode()
        except UnicodeEncodeError:
            wrong = "has a lone surrogate, which is no character"
        if wrong:
            raise ExportError(
                "source",
                f"the prompt {name!a} {wrong}: {str(prompt)[:60]!a}; correct it in "
                "config_sentence_transformers.json",
            )


def _override(model: SentenceTransformer, recipe: Recipe) -> dict[str, Any]:
    """Apply what the recipe says instead of the model; returns the model's own values."""
    own: dict[str, Any] = {}
    limit = describe.max_tokens(model, recipe.max_tokens)
    if recipe.max_tokens is not None:
        own["max_tokens"] = describe.max_tokens(model, None)
    describe.set_max_tokens(model, limit)
    if recipe.prompts is not None:
        own["prompts"] = dict(model.prompts)
        model.prompts, model.default_prompt_name = dict(recipe.prompts), None
    if recipe.pooling is not None:
        own["pooling"] = describe.set_pooling(model, recipe.pooling)
    asked = {"pooling": recipe.pooling, "max_tokens": recipe.max_tokens, "prompts": recipe.prompts}
    return {key: value for key, value in own.items() if value != asked[key]}


def _take_truncate_dim(model: SentenceTransformer) -> int | None:
    """Let the model give whole vectors, as the file does; returns how many components it gave.

    None where that is all of them.

    Raises:
        ExportError: truncate_dim is no number of components.
    """
    dim, model.truncate_dim = model.truncate_dim, None
    if dim is None:
        return None
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise ExportError(
            "source",
            f"expected truncate_dim in config_sentence_transformers.json to be a positive integer "
            f"or null, got {dim!r}; set it to the number of components to keep, or remove it",
        )
    return dim if dim < model.encode("a", show_progress_bar=False).shape[-1] else None


def _tokens_left_out(tokens: Sequence[str]) -> list[str]:
    if not tokens:
        return []
    shown = ", ".join(map(repr, tokens[:5]))
    return [
        f"{len(tokens)} tokens of the tokenizer have no row in the embedding table and are left "
        f"out; such a text is tokenized as any other ({shown})"
    ]


def _default_dim(dim: int | None) -> list[str]:
    if dim is None:
        return []
    return [
        f"vectors are truncated to {dim} components (truncate_dim), and normalized again where the "
        "model normalizes"
    ]
