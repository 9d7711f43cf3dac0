import json
from dataclasses import replace
from typing import Any

import pytest

from embedge.errors import ModelError
from embedge.modelfile.settings import ModelSettings, TransformerSettings, dumps, loads

from . import tiny

FULL = ModelSettings(
    name="n",
    dim=4,
    max_tokens=16,
    pooling="mean",
    normalized=False,
    quantization="fp32",
    transformer=TransformerSettings("bert", 2, 4, 8, 16, 100, "BertTokenizer", 0, {"a": "b"}),
    kept=("x",),
    prompts={"query": "q: "},
    default_prompt="query",
    similarity="dot",
    matryoshka_dims=(2, 4),
    source={"revision": "abc"},
    license="MIT",
    prefix_ids=(1,),
    suffix_ids=(2, 3),
)


@pytest.mark.parametrize("settings", [FULL, tiny.SETTINGS])
def test_settings_survive_json(settings: ModelSettings) -> None:
    assert ModelSettings.from_json(settings.to_json()) == settings


def test_the_json_is_canonical() -> None:
    assert FULL.to_json() == (
        '{"default_dim":null,"default_prompt":"query","device":"cpu","dim":4,"kept":["x"],"license":"MIT",'
        '"matryoshka_dims":[2,4],"max_tokens":16,"min_onnxruntime":"1.17","name":"n",'
        '"normalized":false,"pooling":"mean","prefix_ids":[1],"prompts":{"query":"q: "},'
        '"quantization":"fp32","similarity":"dot","source":{"revision":"abc"},'
        '"suffix_ids":[2,3],"transformer":{"heads":4,"hidden_size":8,"intermediate_size":16,'
        '"layers":2,"model_type":"bert","pad_id":0,"special_ids":{},"special_tokens":{"a":"b"},'
        '"tokenizer_class":"BertTokenizer","vocab_size":100}}'
    )
    assert dumps({"b": "é", "a": [1, None]}) == '{"a":[1,null],"b":"é"}'


def test_unknown_keys_of_later_minor_versions_are_ignored() -> None:
    assert ModelSettings.from_json(tiny.settings_json(colour="blue")) == tiny.SETTINGS


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", 3, "'name' to be a string, got 3"),
        ("dim", "2", "'dim' to be a positive integer, got '2'"),
        ("dim", 0, "positive integer, got 0"),
        ("dim", -2, "positive integer, got -2"),
        ("dim", 2.0, "positive integer, got 2.0"),
        ("dim", True, "positive integer, got True"),
        ("dim", 2**31, "positive integer, got 2147483648"),
        ("max_tokens", None, "'max_tokens' to be a positive integer, got None"),
        ("pooling", [], "'pooling' to be a string"),
        ("normalized", 1, "'normalized' to be true or false, got 1"),
        ("quantization", None, "'quantization' to be a string"),
        ("prompts", [], "'prompts' to be an object of strings"),
        ("prompts", {"query": 1}, "'prompts' to be an object of strings"),
        ("default_prompt", 1, "'default_prompt' to be a string or null"),
        ("default_prompt", "no", "default prompt 'no' is not one of its prompts"),
        ("similarity", None, "'similarity' to be a string"),
        ("matryoshka_dims", 64, "'matryoshka_dims' to be a list of positive integers"),
        ("matryoshka_dims", [64, "x"], "'matryoshka_dims' to be a list of positive integers"),
        ("source", "hub", "'source' to be an object of strings"),
        ("license", None, "'license' to be a string"),
        ("kept", "fp32", "'kept' to be a list of strings"),
        ("kept", [1], "'kept' to be a list of strings"),
        ("prefix_ids", [-1], "'prefix_ids' to be a list of token ids"),
        ("suffix_ids", [True], "'suffix_ids' to be a list of token ids"),
        ("min_onnxruntime", 1.17, "'min_onnxruntime' to be a version like \"1.17\""),
        ("min_onnxruntime", "1.17.0", "to be a version like"),
        ("min_onnxruntime", "١.17", "to be a version like"),
        ("device", "gpu", "'device' to be \"cpu\" or \"any\", got 'gpu'"),
        ("device", ["cpu"], "'device' to be"),
        ("transformer", [], "'transformer' to be an object"),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        ModelSettings.from_json(tiny.settings_json(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model_type", 1, "a string"),
        ("layers", 0, "a positive integer"),
        ("heads", None, "a positive integer"),
        ("hidden_size", "8", "a positive integer"),
        ("intermediate_size", 0, "a positive integer or null"),
        ("vocab_size", -1, "a positive integer"),
        ("tokenizer_class", None, "a string"),
        ("pad_id", -1, "a token id or null"),
        ("special_tokens", {"a": 1}, "an object of strings"),
        ("special_ids", {"a": "b"}, "an object of token ids"),
    ],
)
def test_a_value_of_another_type_in_transformer_is_refused(
    key: str, value: Any, expected: str
) -> None:
    values = json.loads(FULL.to_json())
    values["transformer"][key] = value
    with pytest.raises(ModelError, match=f"'transformer.{key}' to be {expected}, got "):
        ModelSettings.from_json(json.dumps(values))
    del values["transformer"][key]
    with pytest.raises(ModelError, match=f"'transformer.{key}' to be .*, got nothing"):
        ModelSettings.from_json(json.dumps(values))


@pytest.mark.parametrize(
    "changes",
    [
        {key: "\ud800"}
        for key in ("name", "pooling", "quantization", "similarity", "license", "default_prompt")
    ]
    + [{"prompts": {"\ud800": "x"}}, {"prompts": {"x": "a\udfff"}}, {"source": {"\udc00": ""}}]
    + [{"kept": ["\ud83d"]}, {"later": [{"\ud800": 1}]}],
    ids=str,
)
def test_a_lone_surrogate_is_refused_wherever_it_is(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"embedge\.model is not valid JSON .*surrogates not all"):
        ModelSettings.from_json(tiny.settings_json(**changes))


def test_a_pair_of_surrogates_is_a_character() -> None:
    text = tiny.settings_json(name="\U00020bb7")
    assert "\\ud842\\udfb7" in text
    assert ModelSettings.from_json(text).name == "\U00020bb7"


def test_a_key_twice_is_refused() -> None:
    """Some readers take the first, some the last."""
    text = tiny.SETTINGS.to_json()[:-1] + ',"dim":3}'
    with pytest.raises(ModelError, match="an object has a key twice"):
        ModelSettings.from_json(text)


@pytest.mark.parametrize("key", list(json.loads(FULL.to_json())))
def test_every_key_must_be_there(key: str) -> None:
    values = json.loads(FULL.to_json())
    del values[key]
    with pytest.raises(ModelError, match=f"'{key}' to be .*, got nothing"):
        ModelSettings.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "nul", "1" * 5000, "[" * 100_000])
def test_what_is_not_json_names_the_key(text: str) -> None:
    with pytest.raises(ModelError, match=r"embedge\.report is not valid JSON .*export it again"):
        loads(text, "report", dict)


def test_a_default_dim_is_at_most_the_dim() -> None:
    settings = replace(FULL, default_dim=2)
    assert ModelSettings.from_json(settings.to_json()) == settings
    assert '"default_dim":2' in settings.to_json()
    with pytest.raises(
        ModelError, match="expected default_dim of at most 4, the file's dim, got 5"
    ):
        ModelSettings.from_json(replace(FULL, default_dim=5).to_json())
    with pytest.raises(ModelError, match="'default_dim' to be a positive integer or null"):
        ModelSettings.from_json(replace(FULL, default_dim=0).to_json())
