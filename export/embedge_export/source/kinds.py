"""What a folder holds, by its own configuration files: embedders pass, everything else is refused.

sentence-transformers loads many models that do not embed sentences by putting mean pooling in the
place of what it drops. So the files are read here, before it sees them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedge.errors import ExportError

SPARSE = (
    "a sparse encoder (SPLADE): its vectors are as long as its vocabulary; "
    "use sentence_transformers.SparseEncoder"
)
SCORER = (
    "a cross-encoder or classifier: it scores texts or pairs of texts and gives no vectors; "
    "use sentence_transformers.CrossEncoder"
)
MULTI_VECTOR = (
    "a late-interaction model (ColBERT): it gives a vector for each token; use PyLate or "
    "sentence_transformers.MultiVectorEncoder"
)
STATIC = (
    "a table of static embeddings without a transformer; use model2vec or "
    "sentence_transformers.SentenceTransformer, which are fast on it already"
)
MULTIMODAL = (
    "a multimodal model: it takes more than text; use sentence_transformers.SentenceTransformer"
)
OWN_CODE = (
    "a model with Python code of its own, which the exporter does not run (transformers 5 has "
    "nomic_bert, eurobert and jina_embeddings_v3 built in)"
)
CHAT = (
    "a language model for chat, not trained to give vectors of sentences; use transformers, or "
    "export a model with a modules.json that was trained for sentence embeddings"
)

# model_type in config_sentence_transformers.json
_FAMILIES = {
    "CrossEncoder": SCORER,
    "SparseEncoder": SPARSE,
    "MultiVectorEncoder": MULTI_VECTOR,
    "ColBERT": MULTI_VECTOR,
}
# last part of a module's type in modules.json
_MODULES = {
    "MLMTransformer": SPARSE,
    "SpladePooling": SPARSE,
    "SparseAutoEncoder": SPARSE,
    "CSRSparsity": SPARSE,
    "SparseStaticEmbedding": SPARSE,
    "IDF": SPARSE,
    "StaticEmbedding": STATIC,
    "WordEmbeddings": STATIC,
    "BoW": STATIC,
    "CLIPModel": MULTIMODAL,
    "LogitScore": SCORER,
    "CausalScoreHead": SCORER,
    "MultiVectorMask": MULTI_VECTOR,
}
_PACKAGES = ("sentence_transformers", "torch")  # whose modules it loads
_ROUTERS = ("Router", "Asym")  # Asym: its name before sentence-transformers 5
# model_type in config.json
_MODEL_TYPES = {"model2vec": STATIC, "static": STATIC}
_MULTIMODAL_CONFIGS = ("vision_config", "audio_config", "image_config", "speech_config")
_MULTIMODAL_TYPES = (  # starts of them: clipseg, siglip2, blip-2, ...
    *("clip", "siglip", "chinese_clip", "altclip", "clap", "blip", "vilt", "flava", "align"),
    *("whisper", "wav2vec2", "hubert", "vit", "dinov2", "layoutlm", "vision-", "bridgetower"),
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "mllama", "paligemma", "idefics", "colpali"),
)
_TEXT_PART = "_text_model"  # of a multimodal model, saved alone: clip_text_model
# what the name of an architecture in config.json ends with, of folders without modules.json
_ARCHITECTURES = {
    "ForSequenceClassification": SCORER,
    "ForTokenClassification": SCORER,
    "ForQuestionAnswering": SCORER,
    "ForMultipleChoice": SCORER,
    "ForRetrieval": MULTI_VECTOR,
    "ColBERT": MULTI_VECTOR,
}
_GENERATORS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


@dataclass(frozen=True)
class Layout:
    """What the configuration files of a folder say.

    Attributes:
        folder: the model's folder.
        modules: (type, folder) of each module in modules.json; none where there is no such file.
        settings: config_sentence_transformers.json.
        config: config.json of the transformer.
        transformer: the folder that holds the transformer.
    """

    folder: Path
    modules: tuple[tuple[str, Path], ...]
    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    transformer: Path


def layout(folder: Path) -> Layout:
    """Read the configuration files of a model's folder.

    Raises:
        ExportError: one of them is not valid JSON, or leads out of the folder.
    """
    modules = []
    for entry in read_json(folder / "modules.json", []):
        match entry:
            case {"type": str(kind), "path": str(name)}:
                path = _inside(folder, name)
            case _:
                raise ExportError(
                    "source",
                    f"{folder / 'modules.json'} should list objects with the keys type and path, "
                    f"got {str(entry)[:60]!r}",
                )
        modules += _routes(kind, path) or [(kind, path)]
    transformer = modules[0][1] if modules else folder
    return Layout(
        folder,
        tuple(modules),
        read_json(folder / "config_sentence_transformers.json", {}),
        read_json(transformer / "config.json", {}),
        transformer,
    )


def _inside(folder: Path, name: str) -> Path:
    """The path of a module's folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ExportError("source", f"modules.json names a folder outside of {folder}: {path}")
    return path


def _routes(kind: str, folder: Path) -> list[tuple[str, Path]]:
    """The modules of the only route of a Router; nothing where the module is not a Router."""
    if kind.rpartition(".")[2] not in _ROUTERS:
        return []
    routes = read_json(folder / "router_config.json", {})
    structure, types = routes.get("structure", {}), routes.get("types", {})
    if len(structure) != 1:
        raise ExportError(
            "source",
            f"{folder} holds a Router with the routes {', '.join(structure) or '(none)'}: a model "
            "for each kind of text, and a model file holds one; save the modules of one route as a "
            "SentenceTransformer and export that",
        )
    names = next(iter(structure.values()))
    return [(str(types.get(name, "")), _inside(folder, name)) for name in names]


def check_kind(found: Layout) -> None:
    """Refuse a folder that does not hold an embedder of sentences, or not in full precision.

    Raises:
        ExportError: says what the folder holds, and which tool is made for it.
    """
    what = _other_than_embedder(found)
    if what:
        raise ExportError("source", f"{found.folder} is {what}")
    if (found.transformer / "adapter_config.json").is_file():
        base = read_json(found.transformer / "adapter_config.json", {}).get(
            "base_model_name_or_path"
        )
        raise ExportError(
            "source",
            f"{found.folder} is a PEFT adapter of {base}, without that model's weights; merge it "
            "(model = SentenceTransformer(FOLDER); model[0].auto_model.merge_and_unload(); "
            "model.save_pretrained(NEW)) and export the new folder",
        )
    quantized = found.config.get("quantization_config")
    if isinstance(quantized, dict):
        raise ExportError(
            "source",
            f"the weights in {found.folder} are quantized already "
            f"({quantized.get('quant_method', 'unknown method')}); export the original model",
        )


def _other_than_embedder(found: Layout) -> str | None:
    family = found.settings.get("model_type")
    if family not in (None, "SentenceTransformer"):
        return _FAMILIES.get(family, f"a {family}, which does not give one vector for each text")
    for kind, _ in found.modules:
        name = kind.rpartition(".")[2]
        if kind.startswith("pylate."):
            return MULTI_VECTOR
        if name in _MODULES:
            return _MODULES[name]
        if kind.partition(".")[0] not in _PACKAGES:
            return f"{OWN_CODE}: {kind}"
    model_type = str(found.config.get("model_type", ""))
    if model_type in _MODEL_TYPES:
        return _MODEL_TYPES[model_type]
    multimodal = model_type.startswith(_MULTIMODAL_TYPES) and not model_type.endswith(_TEXT_PART)
    if multimodal or any(key in found.config for key in _MULTIMODAL_CONFIGS):
        return MULTIMODAL
    return None if found.modules else _bare(found)


def _bare(found: Layout) -> str | None:
    """What a folder without modules.json is, if not a plain encoder."""
    if "sentence_transformers" in found.config:  # settings that only CrossEncoder writes there
        return SCORER
    if (found.folder / "artifact.metadata").is_file():  # of the ColBERT library
        return MULTI_VECTOR
    for name in found.config.get("architectures") or ():
        for end, what in _ARCHITECTURES.items():
            if str(name).endswith(end):
                return what
        if str(name).endswith(_GENERATORS) and _chat_template(found.transformer):
            return CHAT
    return None


def _chat_template(folder: Path) -> bool:
    templates = [folder / name for name in ("chat_template.jinja", "chat_template.json")]
    settings = read_json(folder / "tokenizer_config.json", {})
    return any(path.is_file() for path in templates) or bool(settings.get("chat_template"))


def read_json(path: Path, default: Any) -> Any:
    """The value in a JSON file, of the type of ``default``, which stands for a missing file.

    Raises:
        ExportError: the file is not JSON, or holds another type.
    """
    if not path.is_file():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ExportError("source", f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, type(default)):
        raise ExportError(
            "source",
            f"{path}: expected a JSON {type(default).__name__}, got {type(value).__name__}",
        )
    return value
