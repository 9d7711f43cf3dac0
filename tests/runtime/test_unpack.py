"""`embedge unpack`: the folder that other tools load, and the models they would get wrong."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedge import Encoder
from embedge.cli.main import main
from embedge.errors import ModelError, OptionError
from embedge.modelfile.file import read
from embedge.modelfile.settings import ModelSettings
from embedge.modelfile.unpack import unpack

from . import tiny

INT8 = replace(tiny.SETTINGS, quantization="int8-static", default_prompt=None)


def unpacked(folder: Path, settings: ModelSettings = INT8, **parts: Any) -> Path:
    data = tiny.model(parts.pop("graph", None), settings)
    file = read(tiny.write(folder / "tiny.onnx", data))
    unpack(file, folder / "out", **parts)
    return folder / "out"


def test_configuration_files_say_what_the_settings_say(tmp_path: Path) -> None:
    folder = unpacked(tmp_path)
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    expected: dict[str, Any] = {
        "config.json": {
            "model_type": "bert",
            "hidden_size": 2,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "vocab_size": 10,
            "pad_token_id": 0,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 8,
            "model_input_names": ["input_ids", "attention_mask"],
            "padding_side": "right",
            "truncation_side": "right",
            "clean_up_tokenization_spaces": False,
            **special,
        },
        "special_tokens_map.json": special,
        "modules.json": [
            {
                "idx": 0,
                "name": "0",
                "path": "",
                "type": "sentence_transformers.models.Transformer",
            },
            {
                "idx": 1,
                "name": "1",
                "path": "1_Pooling",
                "type": "sentence_transformers.models.Pooling",
            },
            {
                "idx": 2,
                "name": "2",
                "path": "2_Normalize",
                "type": "sentence_transformers.models.Normalize",
            },
        ],
        "sentence_bert_config.json": {"max_seq_length": 8, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": 2,
            "pooling_mode_cls_token": False,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": False,
            "include_prompt": True,
        },
        "config_sentence_transformers.json": {
            "prompts": {"query": "a ", "passage": "b "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    found = {
        path.relative_to(folder).as_posix(): json.loads(path.read_bytes())
        for path in folder.rglob("*.json")
        if path.name != "tokenizer.json"
    }
    assert found == expected
    assert (folder / "2_Normalize").is_dir()
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a b").ids == [2, 4, 5, 3]


def test_the_model_is_the_file_and_lies_on_the_disk_once(tmp_path: Path) -> None:
    onnx = unpacked(tmp_path) / "onnx"
    assert sorted(path.name for path in onnx.iterdir()) == ["model.onnx", "model_quantized.onnx"]
    assert (onnx / "model.onnx").read_bytes() == (tmp_path / "tiny.onnx").read_bytes()
    assert (onnx / "model.onnx").samefile(onnx / "model_quantized.onnx")
    assert np.allclose(Encoder(onnx / "model.onnx").encode("a b"), tiny.A_B)


def test_without_hard_links_the_model_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", link)
    onnx = unpacked(tmp_path) / "onnx"
    assert not (onnx / "model.onnx").samefile(onnx / "model_quantized.onnx")
    assert (onnx / "model_quantized.onnx").read_bytes() == (tmp_path / "tiny.onnx").read_bytes()


@pytest.mark.parametrize("quantization", ["fp32", "fp16"])
def test_an_unquantized_model_is_not_called_quantized(tmp_path: Path, quantization: str) -> None:
    folder = unpacked(tmp_path, replace(INT8, quantization=quantization))
    assert [path.name for path in (folder / "onnx").iterdir()] == ["model.onnx"]
    config = json.loads((folder / "config.json").read_bytes())
    assert config["transformers.js_config"] == {"dtype": "fp32"}


def test_a_model_that_is_not_normalized_has_no_such_module(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, replace(INT8, normalized=False))
    assert not (folder / "2_Normalize").exists()
    assert [module["path"] for module in json.loads((folder / "modules.json").read_bytes())] == [
        "",
        "1_Pooling",
    ]


def test_prompts_are_written_in_ascii(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, replace(INT8, prompts={"query": "suché: "}))
    data = (folder / "config_sentence_transformers.json").read_bytes()
    assert data.isascii()
    assert json.loads(data)["prompts"] == {"query": "suché: "}


def test_several_poolings_are_joined_in_their_order(tmp_path: Path) -> None:
    only = ("sentence-transformers",)
    folder = unpacked(tmp_path, replace(INT8, pooling="cls+mean"), readers=only)
    pooling = json.loads((folder / "1_Pooling/config.json").read_bytes())
    assert [key for key, value in pooling.items() if value is True] == [
        "pooling_mode_cls_token",
        "pooling_mode_mean_tokens",
        "include_prompt",
    ]


PADLESS = replace(tiny.SETTINGS.transformer, special_tokens={}, pad_id=None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pooling": "mean without the prompt"}, "leaves the prompt out of its pooling"),
        ({"pooling": "mean+cls"}, r"they have no pooling 'mean\+cls'"),
        ({"transformer": PADLESS}, "the tokenizer has no padding token"),
    ],
)
def test_what_every_reader_gets_wrong_is_refused(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    names = "sentence-transformers, transformers.js, fastembed, light-embed"
    with pytest.raises(ModelError, match=f"{names} would give other vectors than tiny.onnx.*{why}"):
        unpacked(tmp_path, replace(INT8, **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pooling": "last"}, "they have no pooling 'last'"),
        ({"default_prompt": "query"}, "they do not apply the default prompt 'query'"),
    ],
)
def test_what_only_sentence_transformers_runs_correctly_is_unpacked_for_it(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    settings = replace(INT8, **changes)
    names = "transformers.js, fastembed, light-embed"
    with pytest.raises(ModelError, match=f"^{names} would.*{why}.*--for sentence-transformers"):
        unpacked(tmp_path, settings)
    assert unpacked(tmp_path, settings, readers=("sentence-transformers",)).is_dir()


def test_layers_behind_the_pooling_are_refused(tmp_path: Path) -> None:
    nodes = [
        *tiny.NODES[:-1],
        tiny.node("Div", ["mean", "divisor"], "unit"),
        tiny.node("MatMul", ["unit", "dense"], "sentence_embedding"),
    ]
    dense = tiny.field(5, tiny.tensor("dense", np.eye(2, dtype=np.float32)))
    with pytest.raises(ModelError, match="leave out the layers behind the pooling"):
        unpacked(tmp_path, graph=tiny.graph(nodes=nodes, extra=dense))


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OptionError, match="is not an empty folder"):
        unpacked(tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(28, "No space left on device"), OptionError, "could not be unpacked"),
        (KeyboardInterrupt("Ctrl-C"), KeyboardInterrupt, "Ctrl-C"),
    ],
    ids=["full", "interrupted"],
)
def test_half_a_folder_does_not_stay(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
    message: str,
    existed: bool,
) -> None:
    """It would look like a model to other tools, and be in the way of the same command."""
    folder = tmp_path / "out"
    if existed:
        folder.mkdir()
    write = Path.write_bytes

    def stopped(path: Path, data: bytes) -> int:
        if path.name == "model.onnx":
            write(path, data[:100])
            raise error
        return write(path, data)

    file = read(tiny.write(tmp_path / "tiny.onnx", tiny.model(None, INT8)))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", stopped)
        with pytest.raises(raised, match=message):
            unpack(file, folder)
    assert folder.exists() == existed
    unpack(file, folder)
    assert (folder / "onnx" / "model.onnx").read_bytes() == file.data


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OptionError, match="is not an empty folder"):
        unpacked(tmp_path)


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tiny.write(tmp_path / "tiny.onnx", tiny.model(settings=replace(INT8, default_dim=1)))
    assert main(["unpack", str(file), str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(tmp_path / "out" / "tokenizer.json")
    assert lines[-3:] == [
        str(tmp_path / "out" / "onnx" / "model_quantized.onnx"),
        "Where a tool asks: pooling mean, normalized.",
        "Tools give all 2 components; embedge keeps the first 1 by default.",
    ]
