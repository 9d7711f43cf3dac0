"""Files that cannot be read, or hold nothing: each is named, and what to do is said."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import sentence_transformers
import torch
from safetensors.torch import load_file, save_file

from embedge.errors import ExportError
from embedge_export import export
from embedge_export.recipe import Recipe
from embedge_export.source.card import license_of
from embedge_export.source.load import load

from .test_refusals import edit, folder

__all__ = ["folder"]  # a fixture

WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"


def half(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def page(folder: Path) -> None:
    (folder / WEIGHTS).write_text("<html>404: not found</html>")


def half_of_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / PICKLED)
    (folder / WEIGHTS).unlink()
    data = (folder / PICKLED).read_bytes()
    (folder / PICKLED).write_bytes(data[: len(data) // 2])


class Command:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("exit 1",)


def code(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / PICKLED).write_bytes(pickle.dumps(Command()))


def dense(folder: Path) -> None:
    (path,) = folder.glob("*_Dense/model.safetensors")
    path.write_bytes(b"\xff" * 20)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (half, r"model\.safetensors is damaged or incomplete; download it again \("),
        (page, r"model\.safetensors is damaged or incomplete; download it again \("),
        (half_of_a_pickle, r"pytorch_model\.bin is damaged or incomplete; download it again \("),
        (code, r"pytorch_model\.bin is damaged, or a pickle of more than tensors"),
        (dense, r"_Dense.model\.safetensors is damaged or incomplete; download it again \("),
    ],
)
def test_weights_that_cannot_be_read_are_named(
    spoil: Callable[[Path], None], message: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(ExportError, match=f"^source: .*{message}"):
        load(Recipe(str(folder)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", "{", "is not valid JSON"),
        ("tokenizer_config.json", "[]", "expected a JSON dict, got list"),
        ("sentence_bert_config.json", '{"max_seq_length": }', "is not valid JSON"),
        ("1_Pooling/config.json", "", "is not valid JSON"),
    ],
)
def test_settings_that_cannot_be_read_are_named(
    name: str, content: str, message: str, folder: Path
) -> None:
    (folder / name).write_text(content)
    path = str(folder / name).replace("\\", ".")
    with pytest.raises(ExportError, match=f"^source: {path}:? {message}"):
        load(Recipe(str(folder)))


@pytest.mark.parametrize(
    "name", ["tf_model.h5", "onnx/model.onnx", "q8.gguf", "m.fp16.safetensors"]
)
def test_weights_for_others_alone_are_named(name: str, folder: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(
        ExportError, match=f"holds no weights .*it does hold .*{name}, which the ex"
    ):
        load(Recipe(str(folder)))


def test_a_model_that_gives_nothing_is_refused_before_it_is_traced(folder: Path) -> None:
    (path,) = folder.glob("*_LayerNorm/model.safetensors")
    save_file({name: w * 0 for name, w in load_file(path).items()}, path)
    with pytest.raises(ExportError, match=r"^source: the vector that .* 'A man is .* is all zeros"):
        export(folder, folder.parent / "model.onnx", format="fp32")


def test_a_tokenizer_without_a_vocabulary_is_refused(folder: Path) -> None:
    """transformers 5 makes one of five special tokens where a folder holds none."""
    values = json.loads((folder / "tokenizer.json").read_text())
    special = [token["content"] for token in values["added_tokens"]]
    values["model"]["vocab"] = {token: index for index, token in enumerate(special)}
    (folder / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ExportError, match="the tokenizer knows no tokens but special ones"):
        load(Recipe(str(folder)))


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ExportError, match=r"knows no tokens but special|cannot be loaded: "):
        load(Recipe(str(folder)))


def test_a_tokenizer_that_does_not_mask_padding_is_refused(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids"])
    with pytest.raises(ExportError, match=r"asks for model_input_names = \['input_ids'\]"):
        load(Recipe(str(folder)))


@pytest.mark.parametrize("limit", [0, 2])
def test_a_limit_without_room_for_a_text_is_refused(limit: int, folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=limit)
    with pytest.raises(
        ExportError, match=f"expected max_tokens of at least 3, .* got {limit}; set"
    ):
        load(Recipe(str(folder)))


def test_a_limit_that_is_no_number_is_refused(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length="64")
    with pytest.raises(ExportError, match="expected max_seq_length to be an integer, got '64'"):
        load(Recipe(str(folder)))


def test_a_limit_beyond_the_positions_is_said(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=1000)
    source = load(Recipe(str(folder)))
    assert source.max_tokens == 256
    (remark,) = source.remarks
    assert remark.startswith("texts are truncated to 256 tokens: the model has 256 positions, and")


@pytest.mark.parametrize("output", ["pooler_output", ["hidden_states", 1]])
def test_another_output_of_the_transformer_is_refused(output: object, folder: Path) -> None:
    text = {"method": "forward", "method_output_name": output}
    edit(folder / "sentence_bert_config.json", modality_config={"text": text},
         module_output_name="token_embeddings")  # fmt: skip
    with pytest.raises(ExportError, match=r"asks for modality_config\.text\.method_output_name = "):
        load(Recipe(str(folder)))


def test_a_pooler_that_nothing_reads_may_be_left_over(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", model_kwargs={"add_pooling_layer": False})
    assert load(Recipe(str(folder))).model[0].auto_model.pooler is None


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"query": 3}, "the prompt 'query' is no text: '3'; correct it in"),
        ({"query": ["a"]}, r"the prompt 'query' is no text: \"\['a'\]\"; correct it in"),
        (["query: "], r"expected prompts in .* to be an object, got \"\['query: '\]\""),
        ("query: ", r"expected prompts in .* to be an object, got 'query: '"),
        (None, r"expected prompts in .* to be an object, got 'None'"),
    ],
)
def test_prompts_that_are_no_texts_are_refused(prompts: object, message: str, folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", prompts=prompts)
    with pytest.raises(ExportError, match=f"^source: {message}"):
        load(Recipe(str(folder)))


def test_a_similarity_that_is_unknown_is_said(folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", similarity_fn_name="overlap")
    if int(sentence_transformers.__version__.split(".")[0]) < 6:  # loads no such model
        with pytest.raises(ExportError, match="'overlap' is not a valid SimilarityFunction"):
            load(Recipe(str(folder)))
        return
    source = load(Recipe(str(folder)))
    assert source.similarity == "cosine"
    assert source.remarks == (
        "similarity_fn_name is 'overlap', which sentence-transformers takes for 'cosine'",
    )


@pytest.mark.parametrize("dims", [8, "8", [[8]], ["8"], [True], [8, 0], {"a": 8}])
def test_matryoshka_dims_that_are_none_are_refused(dims: object, folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", matryoshka_dims=dims)
    with pytest.raises(ExportError, match="expected matryoshka_dims to be a list of positive int"):
        load(Recipe(str(folder)))


def test_a_missing_configuration_of_the_transformer_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ExportError, match=r"holds no config\.json; download the model again"):
        load(Recipe(str(folder)))


@pytest.mark.skipif(os.name == "nt", reason="Windows makes links only for administrators")
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_link_to_nowhere_is_named(name: str, folder: Path) -> None:
    """What is left of the hub's cache where it was copied without its blobs."""
    (folder / name).unlink()
    (folder / name).symlink_to(folder / "nowhere")
    with pytest.raises(ExportError, match=rf"{name} is a link to a file that does not exist; copy"):
        load(Recipe(str(folder)))


def test_a_snapshot_is_no_other_revision(folder: Path) -> None:
    snapshot = folder.parent / "models--org--tiny" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    assert load(Recipe(str(snapshot), revision="a" * 40)).origin["revision"] == "a" * 40
    with pytest.raises(ExportError, match="the snapshot of one commit, which is not the revision"):
        load(Recipe(str(snapshot), revision="main"))


@pytest.mark.parametrize(
    ("line", "license"),
    [
        ('license: "mi\\u0000t\\u001b[0m"', "mit[0m"),
        ('license: "\\ud800mit"', "mit"),
        ("license: mit\ntags: " + "[" * 3000, "mit"),
    ],
)
def test_a_license_is_text_in_one_line(line: str, license: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\n{line}\n---\n")
    assert license_of(tmp_path) == license
