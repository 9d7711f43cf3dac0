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
        ("name", 3, "'name' should be a string, but is 3"),
        ("dim", "2", "'dim' should be a positive integer, but is '2'"),
        ("dim", 0, "positive integer, but is 0"),
        ("dim", -2, "positive integer, but is -2"),
        ("dim", 2.0, "positive integer, but is 2.0"),
        ("dim", True, "positive integer, but is True"),
        ("dim", 2**31, "positive integer, but is 2147483648"),
        ("max_tokens", None, "'max_tokens' should be a positive integer, but is None"),
        ("pooling", [], "'pooling' should be a string"),
        ("normalized", 1, "'normalized' should be true or false, but is 1"),
        ("quantization", None, "'quantization' should be a string"),
        ("prompts", [], "'prompts' should be an object of strings"),
        ("prompts", {"query": 1}, "'prompts' should be an object of strings"),
        ("default_prompt", 1, "'default_prompt' should be a string or null"),
        ("default_prompt", "no", "default prompt 'no' is not one of the file's prompts"),
        ("similarity", None, "'similarity' should be a string"),
        ("matryoshka_dims", 64, "'matryoshka_dims' should be a list of positive integers"),
        ("matryoshka_dims", [64, "x"], "'matryoshka_dims' should be a list of positive integers"),
        ("source", "hub", "'source' should be an object of strings"),
        ("license", None, "'license' should be a string"),
        ("kept", "fp32", "'kept' should be a list of strings"),
        ("kept", [1], "'kept' should be a list of strings"),
        ("prefix_ids", [-1], "'prefix_ids' should be a list of token ids"),
        ("suffix_ids", [True], "'suffix_ids' should be a list of token ids"),
        ("min_onnxruntime", 1.17, "'min_onnxruntime' should be a version like \"1.17\""),
        ("min_onnxruntime", "1.17.0", "should be a version like"),
        ("min_onnxruntime", "١.17", "should be a version like"),
        ("device", "gpu", "'device' should be \"cpu\" or \"any\", but is 'gpu'"),
        ("device", ["cpu"], "'device' should be"),
        ("transformer", [], "'transformer' should be an object"),
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
    with pytest.raises(ModelError, match=f"'transformer.{key}' should be {expected}, but is "):
        ModelSettings.from_json(json.dumps(values))
    del values["transformer"][key]
    with pytest.raises(ModelError, match=f"'transformer.{key}' should be .*, but is nothing"):
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
    with pytest.raises(ModelError, match=f"'{key}' should be .*, but is nothing"):
        ModelSettings.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "nul", "1" * 5000, "[" * 100_000])
def test_what_is_not_json_names_the_key(text: str) -> None:
    with pytest.raises(ModelError, match=r"embedge\.report is not valid JSON .*export it again"):
        loads(text, "report", dict)


def test_a_default_dim_is_at_most_the_dim() -> None:
    settings = replace(FULL, default_dim=2)
    assert ModelSettings.from_json(settings.to_json()) == settings
    assert '"default_dim":2' in settings.to_json()
    with pytest.raises(ModelError, match="the file's default_dim 5 is more than its dim 4"):
        ModelSettings.from_json(replace(FULL, default_dim=5).to_json())
    with pytest.raises(ModelError, match="'default_dim' should be a positive integer or null"):
        ModelSettings.from_json(replace(FULL, default_dim=0).to_json())
