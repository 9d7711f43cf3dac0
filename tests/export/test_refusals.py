"""What must not be exported, and what must come out as sentence-transformers has it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer import modules as st
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from embedge import Encoder
from embedge.errors import ExportError
from embedge_export import export
from embedge_export.recipe import Recipe
from embedge_export.source.load import load

from .conftest import sentence_transformer, word_piece

Weights = dict[str, torch.Tensor]
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file, or make it."""
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | changes))


@pytest.fixture
def folder(sentence_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny sentence transformer, to be spoiled."""
    return shutil.copytree(sentence_folder, tmp_path / "model")


def reference(folder: Path, texts: list[str]) -> np.ndarray:
    """sentence-transformers' own vectors of texts."""
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return np.array([model.encode(text) for text in texts])


# weights


def prefixed(weights: Weights) -> Weights:
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def one_less(weights: Weights) -> Weights:
    return {name: w for name, w in weights.items() if "layer.1.output.dense.bias" not in name}


def one_more(weights: Weights) -> Weights:
    return weights | {"adapter.down.weight": torch.zeros(2, 2)}


def reshaped(weights: Weights) -> Weights:
    name = "encoder.layer.0.intermediate.dense.bias"
    return weights | {name: torch.zeros(32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (prefixed, r"\d+ missing \(embeddings.*; \d+ unexpected \(module\.embeddings"),
        (one_less, r"1 missing \(encoder\.layer\.1\.output\.dense\.bias\)"),
        (one_more, r"1 unexpected \(adapter\.down\.weight\)"),
        (reshaped, r"1 of another shape \(encoder\.layer\.0\.intermediate\.dense\.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    change: Callable[[Weights], Weights], message: str, folder: Path
) -> None:
    """transformers would put random numbers in their place, and say so in its log alone."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with pytest.raises(ExportError, match=message):
        load(Recipe(str(folder)))


def not_a_number(weights: Weights) -> Weights:
    name = "encoder.layer.1.output.dense.bias"
    return weights | {name: torch.full_like(weights[name], float("nan"))}


def test_weights_that_are_no_numbers_are_refused_by_name(folder: Path) -> None:
    weights = not_a_number(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(
        ExportError, match=r"1 weights hold values that are infinite.*layer\.1\.out"
    ):
        load(Recipe(str(folder)))


def test_a_missing_pooler_is_no_loss(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: w for name, w in weights.items() if not name.startswith("pooler.")}
    assert len(kept) == len(weights) - 2
    save_file(kept, folder / "model.safetensors")
    np.testing.assert_array_equal(load(Recipe(str(folder))).encode(["a"]), reference(folder, ["a"]))


def test_the_head_of_a_language_model_is_left_out_and_said_so(tmp_path: Path) -> None:
    tokenizer = word_piece()
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=1, **SIZES)
    BertForMaskedLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    remarks = load(Recipe(str(tmp_path / "model"))).remarks
    assert any("of a language model's head are left out (cls.predictions" in r for r in remarks)
    assert any("there is no modules.json: its pooling and normal" in r for r in remarks)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_loaded_as_float32(dtype: str, folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", model_kwargs={"dtype": dtype})
    edit(folder / "config.json", dtype=dtype, torch_dtype=dtype)
    source = load(Recipe(str(folder)))
    assert {p.dtype for p in source.model.parameters()} == {torch.float32}
    assert f"the configuration asks for {dtype}; loaded as float32" in source.remarks
    np.testing.assert_allclose(source.encode(["a"]), reference(folder, ["a"]), atol=1e-6)


def test_the_identity_covers_the_weights_of_every_module(folder: Path) -> None:
    before = load(Recipe(str(folder))).origin["weights_sha256"]
    (dense,) = folder.glob("*_Dense/model.safetensors")
    save_file({n: w + 1 for n, w in load_file(dense).items()}, dense)
    assert load(Recipe(str(folder))).origin["weights_sha256"] != before


def test_a_pointer_in_the_place_of_weights(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 90\n"
    (folder / "model.safetensors").write_text(text)
    with pytest.raises(ExportError, match=r"model\.safetensors is a Git-LFS pointer.*git lfs pull"):
        load(Recipe(str(folder)))


@pytest.mark.parametrize(
    "name", ["onnx/model.onnx", "tf_model.h5", "pytorch_model.bin", "picture.png"]
)
def test_a_pointer_to_a_copy_that_nothing_reads_is_ignored(name: str, folder: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"
    )
    assert load(Recipe(str(folder))).hidden_size == 32


@pytest.mark.parametrize("content", ['{"weight_map": [1]}', '{"weight_map": {}}', "{}"])
def test_an_index_of_shards_that_names_none_is_refused(content: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ExportError, match=r"index\.json should name a file for each weight"):
        load(Recipe(str(folder)))


def test_a_module_whose_weights_do_not_fit_is_refused_in_one_line(folder: Path) -> None:
    (dense,) = folder.glob("*_Dense/model.safetensors")
    save_file({f"module.{name}": w for name, w in load_file(dense).items()}, dense)
    with pytest.raises(ExportError, match=r"cannot be loaded: .*linear\.bias") as refusal:
        load(Recipe(str(folder)))
    assert "\n" not in str(refusal.value)


def test_shards_are_read_and_a_missing_one_is_named(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    expected = reference(folder, ["the river"])
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    source = load(Recipe(str(folder)))
    np.testing.assert_allclose(source.encode(["the river"]), expected, atol=1e-6)
    shards[0].unlink()
    with pytest.raises(ExportError, match=f"index.json names {shards[0].name}, which the folder"):
        load(Recipe(str(folder)))


def test_an_adapter_and_a_quantized_model_are_refused(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(ExportError, match=r"quantized already \(gptq\); export the original"):
        load(Recipe(str(folder)))
    edit(folder / "adapter_config.json", base_model_name_or_path="org/base", peft_type="LORA")
    with pytest.raises(ExportError, match="is a PEFT adapter of org/base, without that model's"):
        load(Recipe(str(folder)))


# not an embedder of sentences


def classifier(folder: Path) -> None:
    tokenizer = word_piece()
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=1, num_labels=1, **SIZES)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def cross_encoder(folder: Path) -> None:
    classifier(folder.parent / "plain")
    CrossEncoder(str(folder.parent / "plain"), device="cpu").save_pretrained(str(folder))


def splade(folder: Path) -> None:
    tokenizer = word_piece()
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=1, **SIZES)
    BertForMaskedLM(config).save_pretrained(folder.parent / "plain")
    tokenizer.save_pretrained(folder.parent / "plain")
    SparseEncoder(str(folder.parent / "plain"), device="cpu").save_pretrained(str(folder))


def static(folder: Path) -> None:
    module = st.StaticEmbedding(word_piece().backend_tokenizer, embedding_dim=16)
    SentenceTransformer(modules=[module], device="cpu").save(str(folder))


def configured(**config: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir()
        edit(folder / "config.json", **config)
        edit(folder / "tokenizer_config.json", chat_template="{{ messages }}")

    return make


def listed(kind: str, **settings: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "modules.json").write_text(json.dumps([{"path": "", "type": kind}]))
        edit(folder / "config_sentence_transformers.json", **settings)

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (classifier, "a cross-encoder or classifier.*use sentence_transformers.CrossEncoder"),
        (cross_encoder, "a cross-encoder or classifier.*use sentence_transformers.CrossEncoder"),
        (splade, r"a sparse encoder \(SPLADE\).*use sentence_transformers.SparseEncoder"),
        (static, "static embeddings without a transformer; use model2vec"),
        (configured(model_type="model2vec"), "static embeddings.*use model2vec"),
        (configured(model_type="clip"), "a multimodal model"),
        (configured(model_type="new", vision_config={}), "a multimodal model"),
        (configured(model_type="qwen3", architectures=["Qwen3ForCausalLM"]), "model for chat"),
        (configured(model_type="bert", architectures=["HF_ColBERT"]), "late-interaction.*PyLate"),
        (listed("sentence_transformers.models.CLIPModel"), "a multimodal model"),
        (listed("pylate.models.Dense.Dense"), "late-interaction.*PyLate"),
        (configured(model_type="siglip2"), "a multimodal model"),
        (configured(model_type="bert", sentence_transformers={"version": "5"}), "a cross-encoder"),
        (listed("custom_st.Transformer"), r"code of its own, .*: custom_st\.Transformer"),
        (listed("x.Transformer", model_type="MultiVectorEncoder"), "late-interaction.*PyLate"),
        (listed("x.Transformer", model_type="Reader"), "a Reader, which does not give one vector"),
    ],
)
def test_what_is_not_an_embedder_is_refused_with_the_right_tool(
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "model")
    with pytest.raises(ExportError, match=f"model is .*{message}"):
        load(Recipe(str(tmp_path / "model")))


# layouts


@pytest.mark.parametrize("content", ['["a"]', '[{"type": "x", "path": null}]', '[{"path": ""}]'])
def test_modules_that_are_none_are_refused(content: str, folder: Path) -> None:
    (folder / "modules.json").write_text(content)
    with pytest.raises(ExportError, match=r"modules\.json should list objects with the keys type"):
        load(Recipe(str(folder)))


def test_a_transformer_without_pooling_is_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([modules[0], modules[2]]))
    with pytest.raises(ExportError, match="expected Pooling behind the Transformer, got Dense"):
        load(Recipe(str(folder)))


def test_weights_in_a_folder_of_their_own(sentence_folder: Path, folder: Path) -> None:
    """Before sentence-transformers 2 the transformer lay in 0_Transformer."""
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in folder.glob("*"):
        if path.is_file() and path.name not in (
            "modules.json",
            "config_sentence_transformers.json",
        ):
            path.rename(inner / path.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    source, plain = load(Recipe(str(folder))), load(Recipe(str(sentence_folder)))
    assert source.origin["weights_sha256"] == plain.origin["weights_sha256"]
    np.testing.assert_array_equal(source.encode(["a river"]), plain.encode(["a river"]))


def routed(folder: Path, transformer_folder: Path, *routes: str) -> Path:
    modules = {
        route: [st.Transformer(str(transformer_folder), max_seq_length=64), st.Pooling(32, "mean")]
        for route in routes
    }
    router = st.Router(modules, default_route=routes[0])
    SentenceTransformer(modules=[router, st.Normalize()], device="cpu").save(str(folder))
    return folder


def test_a_router_of_one_route(tmp_path: Path, transformer_folder: Path) -> None:
    folder = routed(tmp_path / "model", transformer_folder, "document")
    source = load(Recipe(str(folder)))
    assert (source.max_tokens, len(source.modules)) == (64, 2)
    expected = reference(folder, ["a river"])
    np.testing.assert_allclose(source.encode(["a river"]), expected, atol=1e-6)
    two = routed(tmp_path / "two", transformer_folder, "query", "document")
    with pytest.raises(ExportError, match="a Router with the routes query, document: a model for"):
        load(Recipe(str(two)))


def test_a_folder_of_the_hubs_cache(sentence_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "models--org--tiny-model"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(sentence_folder, root / "snapshots" / commit)
    snapshot = root / "snapshots" / ("a" * 40)
    with pytest.raises(ExportError, match="a folder of the hub's cache that holds the snapshots a"):
        load(Recipe(str(root)))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("a" * 40)
    for path in (root, snapshot):
        source = load(Recipe(str(path)))
        origin = source.origin
        assert (source.name, origin["repository"]) == ("tiny-model", "org/tiny-model")
        assert origin["revision"] == "a" * 40


def test_dropout_does_nothing(tmp_path: Path, transformer_folder: Path) -> None:
    head = [st.Pooling(32, "mean"), st.Dropout(0.5), st.Normalize()]
    sentence_transformer(transformer_folder, *head).save(str(tmp_path / "model"))
    export(tmp_path / "model", tmp_path / "model.onnx", format="fp32")
    expected = reference(tmp_path / "model", ["a river"])
    vectors = Encoder(tmp_path / "model.onnx").encode(["a river"])
    np.testing.assert_allclose(vectors, expected, atol=2e-6)


# tokenizers and what they are called with


def retokenized(folder: Path, **settings: Any) -> PreTrainedTokenizerFast:
    """Replace the tokenizer of a folder by one with other settings."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_piece().backend_tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=256,
        **settings,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_truncation_at_the_left_is_refused(folder: Path) -> None:
    retokenized(folder, truncation_side="left")
    with pytest.raises(ExportError, match="asks for truncation_side = 'left', but in a model file"):
        load(Recipe(str(folder)))


def test_left_truncation_only_in_tokenizer_json_is_refused(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    values["truncation"] = {
        "direction": "Left", "max_length": 64, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(values))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("truncation_side", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ExportError, match="asks for truncation_side = 'left'"):
        load(Recipe(str(folder)))


def test_split_special_tokens_is_refused(folder: Path) -> None:
    retokenized(folder, split_special_tokens=True)
    with pytest.raises(ExportError, match="asks for split_special_tokens = True"):
        load(Recipe(str(folder)))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"text": {"add_special_tokens": False}}, r"processing_kwargs.text.add_special_tokens"),
        ({"text": {"truncation": False}}, r"processing_kwargs.text.truncation = False"),
        ({"text": {"stride": 4}}, r"processing_kwargs.text.stride = 4"),
        ({"common": {"is_split_into_words": True}}, r"processing_kwargs.common.is_split"),
        ({"text": {"unheard_of": 1}}, r"processing_kwargs.text.unheard_of = 1"),
        ({"text": {"max_length": "long"}}, r"processing_kwargs.text.max_length = 'long'"),
        ({"text": 3}, r"processing_kwargs.text = 3"),
    ],
)
def test_what_a_tokenizer_is_called_with_is_refused_by_name(
    asked: dict[str, Any], message: str, folder: Path
) -> None:
    edit(folder / "sentence_bert_config.json", processing_kwargs=asked)
    with pytest.raises(ExportError, match=message):
        load(Recipe(str(folder)))


def test_a_length_that_a_tokenizer_is_called_with_is_the_limit(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", processing_kwargs={"text": {"max_length": 16}})
    source = load(Recipe(str(folder)))
    assert source.max_tokens == 16
    np.testing.assert_allclose(
        source.encode(["x " * 40]), reference(folder, ["x " * 40]), atol=1e-6
    )


def test_padding_to_a_fixed_length_changes_nothing(folder: Path) -> None:
    edit(
        folder / "sentence_bert_config.json", processing_kwargs={"text": {"padding": "max_length"}}
    )
    found = load(Recipe(str(folder))).encode(["a river"])
    np.testing.assert_allclose(found, reference(folder, ["a river"]), atol=1e-6)


def test_a_tokenizer_without_a_padding_token_is_refused(folder: Path) -> None:
    values = json.loads((folder / "tokenizer_config.json").read_text())
    del values["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ExportError, match=r"has no padding token, .*tokenizer_config\.json \(pad_"):
        load(Recipe(str(folder)))


@pytest.mark.parametrize("content", ["{", '{"model": {"type": "Foo"}}'])
def test_an_invalid_tokenizer_json_is_refused(content: str, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ExportError, match=r"tokenizer\.json is not a tokenizer: "):
        load(Recipe(str(folder)))


def test_added_tokens_without_a_row_are_left_out(folder: Path) -> None:
    """sentence-transformers fails on a text with such a token; embeddinggemma has one."""
    tokenizer = retokenized(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    source = load(Recipe(str(folder)))
    assert "<image>" not in source.tokenizer_json
    assert any("1 tokens of the tokenizer have no row" in remark for remark in source.remarks)
    export(folder, folder.parent / "model.onnx", format="fp32")
    assert np.isfinite(Encoder(folder.parent / "model.onnx").encode("an <image> of a river")).all()


def test_a_vocabulary_larger_than_the_table_is_refused(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    values["model"]["vocab"]["tiger"] = len(values["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ExportError, match=r"has 1 tokens for which the model's table of .*'tiger'"):
        load(Recipe(str(folder)))


def test_a_post_processor_with_ids_beyond_the_table_is_refused(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    values["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [4321]
    (folder / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(
        ExportError, match=r"has 1 tokens for which the model's table of .*'\[SEP\]"
    ):
        load(Recipe(str(folder)))


# prompts and dims


def test_documents_get_no_prompt_where_the_document_prompt_is_empty(
    tmp_path: Path, transformer_folder: Path
) -> None:
    model = sentence_transformer(transformer_folder, st.Pooling(32, "mean"), st.Normalize())
    model.prompts = {"query": "how do i ", "document": "", "passage": "the "}
    model.save(str(tmp_path / "model"))
    said: list[str] = []
    export(tmp_path / "model", tmp_path / "model.onnx", format="fp32", notify=said.append)
    assert any("documents are encoded without a prompt" in line for line in said)
    encoder = Encoder(tmp_path / "model.onnx")
    assert "'passage'" in encoder.info["report"]["remarks"][0]
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    expected = theirs.encode_document("river")
    np.testing.assert_allclose(encoder.encode_document("river"), expected, atol=2e-6)
    assert np.abs(encoder.encode("river", prompt="passage") - expected).max() > 1e-3


def test_truncate_dim_is_the_dim_that_the_file_gives_unasked(folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", truncate_dim=8)
    said: list[str] = []
    export(folder, folder.parent / "model.onnx", format="fp32", notify=said.append)
    assert any("truncated to 8 components (truncate_dim)" in line for line in said)
    encoder = Encoder(folder.parent / "model.onnx")
    assert (encoder.dim, encoder.info["dim"], encoder.info["default_dim"]) == (8, 24, 8)
    model = SentenceTransformer(str(folder), device="cpu")
    expected = model.encode("river", normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode("river"), expected, atol=2e-6)
    assert Encoder(folder.parent / "model.onnx", dim=24).encode("river").shape == (24,)


@pytest.mark.parametrize("dim", [0, -3, "8", 1.5, [8]])
def test_a_truncate_dim_that_is_none_is_refused(dim: object, folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", truncate_dim=dim)
    message = (
        f"expected truncate_dim .* to be a positive integer or null, got {re.escape(repr(dim))}"
    )
    with pytest.raises(ExportError, match=message):
        load(Recipe(str(folder)))


@pytest.mark.parametrize("dim", [24, 9999])
def test_a_truncate_dim_that_truncates_nothing_is_not_said(dim: int, folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", truncate_dim=dim)
    source = load(Recipe(str(folder)))
    assert (source.default_dim, source.remarks) == (None, ())


def test_a_prompt_with_a_lone_surrogate_is_refused(folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", prompts={"query": "\ud800 "})
    with pytest.raises(ExportError, match=r"the prompt 'query' has a lone surrogate.*ud800"):
        load(Recipe(str(folder)))


# names, cards and folders


@pytest.mark.parametrize(
    ("card", "license"),
    [
        (b"---\nlicense: mit  # as the paper says\n---\n", "mit"),
        (b"---\nlicense:\n- apache-2.0\n- mit\n---\n", "apache-2.0, mit"),
        (b"---\nlicense: [gemma]\n---\n", "gemma"),
        (b"---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        (b"---\nlicense: other\nlicense_name: my-own\n---\n", "my-own"),
        (b"---\ntags: \xe9t\xe9\nlicense: mit\n---\n", "mit"),
        (b"---\ntags: [\nlicense: mit # x\n---\n", "mit"),
        (
            b"# Model\n\n## License\n\nReleased under the Apache License, Version 2.0.\n",
            "apache-2.0",
        ),
        (b"---\ntags: []\n---\n**License:** MIT\n", "mit"),
        ("---\nlicense: mit\n---\n# \xe9\n".encode("utf-16"), "mit"),
        (b"\xef\xbb\xbf---\nlicense: mit\n---\n", "mit"),
        (b"---\nlicense: mit\ndate: 2024-13-45\n---\n", "mit"),
        (b"---\nlicense: {name: mit}\n---\n", "unknown"),
        (b"---\nlicense: null\n---\n", "unknown"),
        (b"# Model\nThe committee submits; it is not a grant.\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_license_of_a_card(card: bytes | None, license: str, folder: Path) -> None:
    (folder / "README.md").unlink(missing_ok=True)
    if card is not None:
        (folder / "README.md").write_bytes(card)
    assert load(Recipe(str(folder))).license == license


def test_the_current_folder_has_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load(Recipe(".")).name == Recipe.of(".").title == "model"


def test_a_folder_that_cannot_be_written_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> object:
        raise PermissionError(13, "Permission denied", ".m.onnx.x7.part")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    path = tmp_path / "m.onnx"
    with pytest.raises(ExportError, match=rf"^pack: {path} cannot be written: Permission denied"):
        export("no/model", path)
    with pytest.raises(ExportError, match=f"there is no folder {tmp_path / 'none'}; make it first"):
        export("no/model", tmp_path / "none" / "m.onnx")


def test_nothing_but_our_own_messages_is_printed(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export(folder, folder.parent / "model.onnx", format="fp32")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
