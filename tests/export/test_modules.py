"""sentence-transformers' modules in our terms: limits, prompts, Matryoshka dims."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from transformers import RobertaConfig, RobertaModel

from embedge.encoder import Encoder
from embedge.errors import ExportError
from embedge.modelfile.file import read
from embedge_export import export
from embedge_export.graph.head import Pool, Pooling, Prompt
from embedge_export.recipe import Recipe
from embedge_export.source import load as source_module
from embedge_export.source import modules
from embedge_export.source.load import load

from .conftest import sentence_transformer, word_piece

PROMPTS = {"query": "find i ", "document": "fact: ", "long": "fact: river: ", "none": ""}
TEXTS = ["reset it?", "river", "", "x y z " * 40, "food."]


def prompted(folder: Path, transformer_folder: Path) -> Path:
    pooling = st.Pooling(32, "mean", include_prompt=False)
    model = sentence_transformer(transformer_folder, pooling, st.Normalize())
    model.prompts = dict(PROMPTS)
    model.save(str(folder))
    return folder


def test_a_prompt_is_left_out_as_sentence_transformers_leaves_it_out(
    tmp_path: Path, transformer_folder: Path
) -> None:
    """The modes are in test_head.py."""
    folder = prompted(tmp_path / "model", transformer_folder)
    export(folder, tmp_path / "model.onnx", format="fp32")
    encoder = Encoder(tmp_path / "model.onnx")
    theirs = SentenceTransformer(str(folder), device="cpu")
    for name in PROMPTS:
        expected = np.array([theirs.encode(text, prompt_name=name) for text in TEXTS])
        np.testing.assert_allclose(encoder.encode(TEXTS, prompt=name), expected, atol=2e-6)
    expected = np.array([theirs.encode(text) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-6)
    whole = sentence_transformer(transformer_folder, st.Pooling(32, "mean"), st.Normalize())
    kept = np.array([whole.encode("fact: river: " + text) for text in TEXTS])
    assert np.abs(encoder.encode(TEXTS, prompt="long") - kept).max() > 1e-3
    assert read(tmp_path / "model.onnx").settings.pooling.endswith(" without the prompt")


def test_the_tokens_of_a_prompt(tmp_path: Path, transformer_folder: Path) -> None:
    source = load(Recipe(str(prompted(tmp_path / "model", transformer_folder))))
    pool = source.modules[0]
    assert isinstance(pool, Pool)
    ids = source.model.tokenizer.convert_tokens_to_ids
    fact = ["[CLS]", "f", "##a", "##c", "##t", ":"]
    assert pool.left_out == (  # in the order of their texts
        Prompt(tuple(ids(fact)), 6),
        Prompt(tuple(ids([*fact, "river", ":"])), 8),
        Prompt(tuple(ids(["[CLS]", "f", "##i", "##n", "##d", "i"])), 6),
    )


def test_a_prompt_that_melts_into_the_text_is_refused(
    tmp_path: Path, transformer_folder: Path
) -> None:
    """In "xa" the token of "x" is followed by "##a": fine; "[UNK]" for "☃a" is not."""
    folder = prompted(tmp_path / "model", transformer_folder)
    with pytest.raises(ExportError, match="leaves out the prompt '☃', but a text after it"):
        load(Recipe(str(folder), prompts={"snow": "☃"}))


def test_a_second_pooling_is_refused(tmp_path: Path, transformer_folder: Path) -> None:
    model = sentence_transformer(
        transformer_folder, st.Pooling(32, "mean"), st.Normalize(), st.Pooling(32, "cls")
    )
    with pytest.raises(ExportError, match="expected one Pooling module, got more"):
        modules.modules(model)


def test_positions_that_are_kept_for_padding_do_not_count(tmp_path: Path) -> None:
    """RoBERTa counts positions from the padding's id + 1: of 66 rows, 65 - 0 are for tokens."""
    torch.manual_seed(0)
    tokenizer = word_piece()
    tokenizer.model_max_length = 66
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=66, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert load(Recipe(str(tmp_path / "model"))).max_tokens == 65
    with pytest.raises(ExportError, match="expected max_tokens of at most 65 positions, got 66"):
        load(Recipe(str(tmp_path / "model"), max_tokens=66))
    export(tmp_path / "model", tmp_path / "model.onnx", format="fp32")
    encoder = Encoder(tmp_path / "model.onnx")
    assert encoder.count_tokens("x " * 63) == encoder.max_tokens == 65
    (expected,) = load(Recipe(str(tmp_path / "model"))).encode(["x " * 63])
    np.testing.assert_allclose(encoder.encode("x " * 63), expected, atol=2e-6)


def test_a_model_without_any_limit_needs_one(tmp_path: Path, sentence_folder: Path) -> None:
    model = SentenceTransformer(str(sentence_folder), device="cpu")
    model.max_seq_length = int(1e30)
    model[0].auto_model.config.max_position_embeddings = -1  # no table of positions
    with pytest.raises(ExportError, match=r"does not say how many tokens.*--max-tokens"):
        modules.max_tokens(model, None)
    assert modules.max_tokens(model, 40) == 40


def test_what_a_recipe_overrides_is_in_the_report(tmp_path: Path, sentence_folder: Path) -> None:
    recipe = Recipe(str(sentence_folder), pooling="cls", max_tokens=200)
    report = export(recipe, tmp_path / "model.onnx", format="fp32")
    assert report["overridden"] == {"pooling": "mean", "max_tokens": 256}
    assert read(tmp_path / "model.onnx").report["overridden"] == report["overridden"]
    assert "overridden" not in export(sentence_folder, tmp_path / "own.onnx", format="fp32")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("truncate_dim", 8, (8,)),
        ("matryoshka_dims", [24, 8, 16], (16, 8)),
        ("matryoshka_dimensions", [4], (4,)),
    ],
)
def test_matryoshka_dims_come_from_the_configuration(
    key: str, value: object, expected: tuple[int, ...], tmp_path: Path, sentence_folder: Path
) -> None:
    """The file gives whole vectors; those that sentence-transformers would cut to are named."""
    model = SentenceTransformer(str(sentence_folder), device="cpu")
    model.save(str(tmp_path / "model"))
    path = tmp_path / "model" / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    export(tmp_path / "model", tmp_path / "model.onnx", format="fp32")
    assert read(tmp_path / "model.onnx").settings.matryoshka_dims == expected
    cut = Encoder(tmp_path / "model.onnx", dim=expected[-1]).encode("the river")
    theirs = model.encode("the river", truncate_dim=expected[-1], normalize_embeddings=True)
    np.testing.assert_allclose(cut, theirs, atol=2e-6)


def test_a_model_that_does_not_normalize_is_cut_and_no_more(
    tmp_path: Path, transformer_folder: Path
) -> None:
    sentence_transformer(transformer_folder, st.Pooling(32, "mean")).save(str(tmp_path / "model"))
    export(tmp_path / "model", tmp_path / "model.onnx", format="fp32")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu", truncate_dim=8)
    cut = Encoder(tmp_path / "model.onnx", dim=8).encode(TEXTS[:2])
    np.testing.assert_allclose(cut, theirs.encode(TEXTS[:2]), atol=2e-6)
    assert (np.abs(np.linalg.norm(cut, axis=1) - 1) > 0.1).all()


def test_a_model_too_large_for_one_file_is_refused_before_tracing(
    tmp_path: Path, sentence_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_MAX_BYTES", 40_000)
    message = r"source: the model has \d\d,\d{3} parameters: [\d,]{7} bytes in fp32.*10,000 para"
    with pytest.raises(ExportError, match=message):
        export(sentence_folder, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_every_pooling_mode_has_a_name_in_both_worlds() -> None:
    from typing import get_args

    assert set(modules.POOLING.values()) == set(get_args(Pooling))
    assert set(modules.POOLING) == set(st.Pooling.POOLING_MODES)
