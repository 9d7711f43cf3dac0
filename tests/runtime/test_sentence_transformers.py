"""The class for users of sentence-transformers: every argument means the same, or says no."""

import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import Encoder, ModelError, OptionError
from embedge.integrations.sentence_transformers import _ENCODE, _LOAD, SentenceTransformer

from . import tiny

TEXTS = ["a b", "c", "a a c"]


@pytest.fixture
def model(tiny_file: Path) -> SentenceTransformer:
    return SentenceTransformer(tiny_file)


@pytest.mark.parametrize(
    "name", [None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"]
)
def test_the_shipped_model_has_its_names(name: str | None, default: Encoder) -> None:
    model = SentenceTransformer(name)
    assert model.encoder.fingerprint == default.fingerprint
    assert model.max_seq_length == 256
    assert model.get_sentence_embedding_dimension() == 384


def test_another_name_says_how_to_make_a_file() -> None:
    message = "no model file, and nothing is downloaded; make one with 'embedge export BAAI/x -o"
    with pytest.raises(ModelError, match=message):
        SentenceTransformer("BAAI/x")


def test_vectors_are_the_encoders(model: SentenceTransformer) -> None:
    np.testing.assert_array_equal(model.encode(TEXTS), model.encoder.encode(TEXTS))
    np.testing.assert_allclose(model.encode("a b"), tiny.A_B, atol=1e-7)
    assert model.encode([]).shape == (0, 2)


def test_prompts(model: SentenceTransformer) -> None:
    expected = model.encoder.encode_query(TEXTS)
    np.testing.assert_array_equal(model.encode(TEXTS, "query"), expected)
    np.testing.assert_array_equal(model.encode_query(TEXTS), expected)
    passages = model.encoder.encode_document(TEXTS)
    np.testing.assert_array_equal(model.encode_document(TEXTS), passages)
    named = model.encode_document(TEXTS, prompt_name="query")
    np.testing.assert_array_equal(named, expected)
    with pytest.raises(OptionError, match=r"no prompt named 'nope'; its prompts: .*'query'"):
        model.encode(TEXTS, prompt_name="nope")


def test_truncation_does_not_normalize_unless_asked(tiny_file: Path) -> None:
    """The first of (0.6, 0.8) is 0.6; scaled to length 1 it is 1."""
    model = SentenceTransformer(tiny_file, truncate_dim=1)
    assert model.get_embedding_dimension() == 1
    np.testing.assert_allclose(model.encode("a b"), [0.6], atol=1e-6)
    np.testing.assert_allclose(model.encode("a b", normalize_embeddings=True), [1])
    np.testing.assert_allclose(model.encode("a b", truncate_dim=2), tiny.A_B, atol=1e-6)
    vectors = model.encode(TEXTS)
    assert model.similarity(vectors, vectors[0]).shape == (3, 1)


@pytest.mark.parametrize("dim", [0, 3, -1, 1.5, "1"])
def test_a_dim_that_there_is_not(dim: Any, model: SentenceTransformer) -> None:
    message = re.escape(f"truncate_dim should be an integer from 1 to 2 or None, but is {dim!r}")
    with pytest.raises(OptionError, match=message):
        model.encode(TEXTS, truncate_dim=dim)


def test_normalization_of_a_model_that_does_not(tmp_path: Path) -> None:
    nodes = [*tiny.NODES[:6], tiny.node("Div", ["sum", "count"], "sentence_embedding")]
    settings = replace(tiny.SETTINGS, normalized=False)
    data = tiny.model(tiny.graph(nodes=nodes), settings, probes=())
    model = SentenceTransformer(tiny.write(tmp_path / "x.onnx", data))
    np.testing.assert_allclose(model.encode("a b"), [0.75, 1], atol=1e-6)
    np.testing.assert_allclose(model.encode("a b", normalize_embeddings=True), tiny.A_B, atol=1e-6)


REFUSED = {
    "prompt": "a ",
    "batch_size": 32,
    "output_value": "token_embeddings",
    "precision": "int8",
    "convert_to_numpy": False,
    "convert_to_tensor": True,
    "device": "cuda",
    "pool": {},
    "chunk_size": 5,
}
REFUSED_AT_LOAD = {
    "modules": [],
    "device": "cuda",
    "prompts": {"query": "q: "},
    "default_prompt_name": "query",
    "cache_folder": "x",
    "trust_remote_code": True,
    "revision": "main",
    "token": True,
    "model_kwargs": {"torch_dtype": "float16"},
    "backend": "openvino",
    "similarity_fn_name": "dot",
}


@pytest.mark.parametrize("name", _ENCODE)
def test_what_means_nothing_here_says_what_to_write(name: str, model: SentenceTransformer) -> None:
    message = re.escape(f"{name}={REFUSED[name]!r} is not for embedge; instead: {_ENCODE[name][1]}")
    options: dict[str, Any] = {name: REFUSED[name]}
    for encode in (model.encode, model.encode_query, model.encode_document):
        with pytest.raises(OptionError, match=message):
            encode(TEXTS, **options)
    for harmless in _ENCODE[name][0]:
        assert model.encode(TEXTS, **{name: harmless}).shape == (3, 2)


@pytest.mark.parametrize("name", _LOAD)
def test_what_means_nothing_at_load_says_what_to_write(name: str, tiny_file: Path) -> None:
    options: dict[str, Any] = {name: REFUSED_AT_LOAD[name]}
    with pytest.raises(OptionError, match=re.escape(_LOAD[name][1])):
        SentenceTransformer(tiny_file, **options)
    for harmless in _LOAD[name][0]:
        SentenceTransformer(tiny_file, **{name: harmless})


def test_every_argument_is_used_or_refused() -> None:
    used = {"self", "inputs", "prompt_name", "show_progress_bar", "normalize_embeddings"}
    used |= {"truncate_dim", "task"}
    assert set(inspect.signature(SentenceTransformer.encode).parameters) == used | set(_ENCODE)
    used = {"self", "model_name_or_path", "truncate_dim", "providers", "threads"}
    assert set(inspect.signature(SentenceTransformer.__init__).parameters) == used | set(_LOAD)


def test_a_task_that_there_is_not(model: SentenceTransformer) -> None:
    task: Any = "retrieval"
    with pytest.raises(OptionError, match="task should be 'query', 'document' or None"):
        model.encode(TEXTS, task=task)
