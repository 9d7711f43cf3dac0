"""Folders as versions of sentence-transformers and transformers write them, all the same model.

The files are written out here, so that every stack reads those of the others too.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from embedge.errors import ExportError
from embedge_export.graph.head import Dense, LayerNorm, Normalize, Pool
from embedge_export.recipe import Recipe
from embedge_export.source.load import load
from embedge_export.source.modules import other_versions

Files = dict[str, Any]  # path in the folder: JSON value

PROMPTS = {"query": "how do i ", "document": "the "}
_LINEAR = {
    "in_features": 32,
    "out_features": 24,
    "bias": True,
    "activation_function": "torch.nn.modules.activation.Tanh",
}
_LATER_LINEAR = {
    **_LINEAR,
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}
_BOOLEANS = {
    "word_embedding_dimension": 32,
    "pooling_mode_cls_token": True,
    "pooling_mode_mean_tokens": False,
    "pooling_mode_max_tokens": True,
    "pooling_mode_mean_sqrt_len_tokens": False,
}
_MORE_BOOLEANS = {
    **_BOOLEANS,
    "pooling_mode_weightedmean_tokens": False,
    "pooling_mode_lasttoken": False,
    "include_prompt": True,
}
_MODES = {"embedding_dimension": 32, "pooling_mode": ["cls", "max"], "include_prompt": True}
_FORWARD = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
# tokenizer_config.json of transformers 4 and 5
_FOUR: Files = {
    "tokenizer_config.json": {
        "added_tokens_decoder": {
            str(index): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
        },
        "clean_up_tokenization_spaces": True,
        "cls_token": "[CLS]",
        "do_lower_case": True,
        "mask_token": "[MASK]",
        "model_max_length": 64,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]",
    },
    "special_tokens_map.json": {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    },
}
_FIVE: Files = {
    "tokenizer_config.json": {
        "backend": "tokenizers",
        "cls_token": "[CLS]",
        "do_lower_case": True,
        "is_local": True,
        "local_files_only": False,
        "mask_token": "[MASK]",
        "model_max_length": 64,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]",
    }
}
_NAMES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize")


def listed(*types: str) -> list[dict[str, Any]]:
    """modules.json: the first module lies in the folder itself."""
    return [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": kind}
        for i, (name, kind) in enumerate(zip(_NAMES, types, strict=True))
    ]


def settings(version: str, transformers: str, **more: Any) -> dict[str, Any]:
    """config_sentence_transformers.json."""
    versions = {"sentence_transformers": version, "transformers": transformers, "pytorch": "2.0"}
    return {"__version__": versions, **more}


_MODELS = listed(*(f"sentence_transformers.models.{name}" for name in _NAMES))
_BASE, _OWN = "sentence_transformers.base.modules", "sentence_transformers.sentence_transformer"
_MODERN = (
    f"{_BASE}.transformer.Transformer",
    f"{_OWN}.modules.pooling.Pooling",
    f"{_BASE}.dense.Dense",
    f"{_OWN}.modules.layer_norm.LayerNorm",
)
_FULL = {"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "dot"}
_LIMIT = {"max_seq_length": 64, "do_lower_case": False}
# What 2 to 5.0 have in common, and what 5.7 and later.
_EARLY: Files = {
    "modules.json": _MODELS,
    "sentence_bert_config.json": _LIMIT,
    "1_Pooling/config.json": _MORE_BOOLEANS,
    "2_Dense/config.json": _LINEAR,
    **_FOUR,
}
_LATE: Files = {
    "sentence_bert_config.json": _FORWARD,
    "1_Pooling/config.json": _MODES,
    "2_Dense/config.json": _LATER_LINEAR,
}
_SETTINGS = "config_sentence_transformers.json"
_TYPED = {"model_type": "SentenceTransformer", **_FULL}
VERSIONS: dict[str, Files] = {
    "2": {
        **_EARLY,
        _SETTINGS: settings("2.2.2", "4.20.1"),
        "1_Pooling/config.json": _BOOLEANS,
    },
    "4": {**_EARLY, _SETTINGS: settings("4.1.0", "4.51.3", **_FULL)},
    "5.0": {**_EARLY, _SETTINGS: settings("5.0.0", "4.53.0", **_TYPED)},
    "5.7": {
        **_LATE,
        **_FOUR,
        "modules.json": listed(*_MODERN, f"{_OWN}.modules.normalize.Normalize"),
        _SETTINGS: settings("5.7.0", "4.57.6", **_TYPED),
    },
    "6.2": {
        **_LATE,
        **_FIVE,
        "modules.json": listed(*_MODERN, f"{_BASE}.normalize.Normalize"),
        _SETTINGS: settings("6.2.0", "5.24.0", **_TYPED),
    },
}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(version: str, transformer_folder: Path, tmp_path: Path) -> Path:
    """The tiny BERT with cls and max pooling, Dense and Normalize, as one version saves it."""
    folder = shutil.copytree(transformer_folder, tmp_path / "model")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    linear = {**VERSIONS[version]["2_Dense/config.json"], "in_features": 64}
    norm = {"dimension": 24}
    files = {**VERSIONS[version], "2_Dense/config.json": linear, "3_LayerNorm/config.json": norm}
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=2))
    (folder / "4_Normalize").mkdir()  # empty before 6
    generator = torch.Generator().manual_seed(0)
    dense = {
        "linear.weight": torch.randn(24, 64, generator=generator),
        "linear.bias": torch.randn(24, generator=generator),
    }
    save_file(dense, folder / "2_Dense" / "model.safetensors")
    layer = {"norm.weight": torch.full((24,), 1.5), "norm.bias": torch.linspace(-1, 1, 24)}
    save_file(layer, folder / "3_LayerNorm" / "model.safetensors")
    return folder


def test_a_model_of_every_version_is_the_same_model(version: str, folder: Path) -> None:
    source = load(Recipe(str(folder)))
    pool, dense, norm, normalize = source.modules
    assert isinstance(pool, Pool)
    assert (pool.modes, pool.left_out) == (("cls", "max"), ())
    assert isinstance(dense, Dense)
    assert (dense.weight.shape, dense.activation) == ((64, 24), "tanh")
    assert isinstance(norm, LayerNorm)
    assert (norm.weight == 1.5).all()
    assert isinstance(normalize, Normalize)
    assert source.max_tokens == 64
    stated = version != "2"  # which wrote neither prompts nor similarity
    assert source.prompts == (PROMPTS if stated else {})
    assert (source.default_prompt, source.similarity) == (None, "dot" if stated else "cosine")


# Paths of classes that newer versions have moved are what these folders name.
@pytest.mark.filterwarnings("ignore:Importing from 'sentence_transformers:DeprecationWarning")
def test_its_vectors_are_sentence_transformers_own(folder: Path) -> None:
    texts = ["", "the river", "how do i eat " * 30]
    types = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
    with other_versions(types):  # sentence-transformers 5 does not find Normalize of 6
        model = SentenceTransformer(str(folder), device="cpu")
    expected = np.array([model.encode(text) for text in texts])
    np.testing.assert_array_equal(load(Recipe(str(folder))).encode(texts), expected)


def test_a_class_that_has_moved_between_versions_is_found(
    sentence_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(sentence_folder, tmp_path / "model")
    listed = json.loads((folder / "modules.json").read_text())
    for module in listed[1:]:
        name = module["type"].rpartition(".")[2]
        module["type"] = f"sentence_transformers.modules_of_7.{name}"
    (folder / "modules.json").write_text(json.dumps(listed))
    source = load(Recipe(str(folder)))
    assert [type(module) for module in source.modules] == [Pool, Dense, LayerNorm, Normalize]
    assert "sentence_transformers.modules_of_7" not in sys.modules
    listed[1]["type"] = "sentence_transformers.modules_of_7.Chunker"
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ExportError, match=r"cannot be loaded: .*modules_of_7"):
        load(Recipe(str(folder)))
