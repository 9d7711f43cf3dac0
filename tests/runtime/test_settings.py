import json
from dataclasses import replace
from typing import Any

import pytest

from embedge.errors import ModelError
from embedge.modelfile.settings import ModelSettings, dumps, loads

from . import tiny

FULL = ModelSettings(
    name="n",
    dim=4,
    max_tokens=16,
    pooling="mean",
    normalized=False,
    quantization="fp32",
    prompts={"query": "q: "},
    default_prompt="query",
    similarity="dot",
    matryoshka_dims=(2, 4),
    source={"revision": "abc"},
    licence="MIT",
)


@pytest.mark.parametrize("settings", [FULL, tiny.SETTINGS])
def test_settings_survive_json(settings: ModelSettings) -> None:
    assert ModelSettings.from_json(settings.to_json()) == settings


def test_the_json_is_canonical() -> None:
    assert FULL.to_json() == (
        '{"default_prompt":"query","dim":4,"licence":"MIT","matryoshka_dims":[2,4],'
        '"max_tokens":16,"name":"n","normalized":false,"pooling":"mean",'
        '"prompts":{"query":"q: "},"quantization":"fp32","similarity":"dot",'
        '"source":{"revision":"abc"}}'
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
        ("default_prompt", "no", "default prompt 'no' is none of its prompts"),
        ("similarity", None, "'similarity' should be a string"),
        ("matryoshka_dims", 64, "'matryoshka_dims' should be a list of positive integers"),
        ("matryoshka_dims", [64, "x"], "'matryoshka_dims' should be a list of positive integers"),
        ("source", "hub", "'source' should be an object of strings"),
        ("licence", None, "'licence' should be a string"),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        ModelSettings.from_json(tiny.settings_json(**{key: value}))


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


def test_a_default_dim_is_written_where_there_is_one_and_is_at_most_the_dim() -> None:
    settings = replace(FULL, default_dim=2)
    assert ModelSettings.from_json(settings.to_json()) == settings
    assert '"default_dim":2' in settings.to_json()
    assert "default_dim" not in FULL.to_json()
    with pytest.raises(ModelError, match="the file's default_dim 5 is more than its dim 4"):
        ModelSettings.from_json(replace(FULL, default_dim=5).to_json())
    with pytest.raises(ModelError, match="'default_dim' should be a positive integer or null"):
        ModelSettings.from_json(replace(FULL, default_dim=0).to_json())
