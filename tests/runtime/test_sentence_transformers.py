"""The class for users of sentence-transformers: every argument means the same, or says no."""

import copy
import inspect
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedge import Encoder, ModelError, OptionError
from embedge.integrations.precision import quantize
from embedge.integrations.sentence_transformers import (
    _ELSEWHERE,
    _ENCODE,
    _LOAD,
    SentenceTransformer,
)

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
    message = "not a model file, and nothing is downloaded; make one with 'embedge export BAAI/x -o"
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
    message = re.escape(f"expected truncate_dim to be an integer from 1 to 2 or None, got {dim!r}")
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
    "output_value": "token_embeddings",
    "convert_to_numpy": False,
    "convert_to_tensor": True,
    "device": "cuda",
    "pool": {},
}
REFUSED_AT_LOAD = {
    "modules": [],
    "device": "cuda",
    "prompts": {"query": "q: "},
    "default_prompt_name": "query",
    "revision": "main",
    "token": True,
    "use_auth_token": "x",
    "model_kwargs": {"torch_dtype": "float16"},
    "processor_kwargs": {"padding_side": "left"},
    "config_kwargs": {"x": 1},
    "model_card_data": object(),
    "backend": "openvino",
}


@pytest.mark.parametrize("name", _ENCODE)
def test_what_is_not_supported_says_what_to_use(name: str, model: SentenceTransformer) -> None:
    message = re.escape(f"{name}={REFUSED[name]!r} is not supported; use {_ENCODE[name][1]}")
    options: dict[str, Any] = {name: REFUSED[name]}
    for encode in (model.encode, model.encode_query, model.encode_document):
        with pytest.raises(OptionError, match=message):
            encode(TEXTS, **options)
    for harmless in _ENCODE[name][0]:
        assert model.encode(TEXTS, **{name: harmless}).shape == (3, 2)


@pytest.mark.parametrize("name", _LOAD)
def test_what_is_not_supported_at_load_says_what_to_use(name: str, tiny_file: Path) -> None:
    options: dict[str, Any] = {name: REFUSED_AT_LOAD[name]}
    with pytest.raises(OptionError, match=re.escape(f"is not supported; use {_LOAD[name][1]}")):
        SentenceTransformer(tiny_file, **options)
    for harmless in _LOAD[name][0]:
        SentenceTransformer(tiny_file, **{name: harmless})


def test_what_could_change_no_result_has_no_effect(tiny_file: Path) -> None:
    model = SentenceTransformer(
        tiny_file,
        device="cpu",
        trust_remote_code=True,
        cache_folder=tiny_file.parent,
        local_files_only=True,
        similarity_fn_name="cosine",
    )
    expected = model.encoder.encode(TEXTS)
    for options in ({"batch_size": 64}, {"chunk_size": 5}, {"device": "cpu"}):
        np.testing.assert_array_equal(model.encode(TEXTS, **options), expected)
    np.testing.assert_array_equal(model.encode(sentences=TEXTS), expected)
    np.testing.assert_array_equal(model.encode_document(sentences="c"), model.encode_document("c"))


@pytest.mark.parametrize("size", [0, -1, 1.5, "32"])
@pytest.mark.parametrize("name", ["batch_size", "chunk_size"])
def test_sizes_that_there_are_not(name: str, size: Any, model: SentenceTransformer) -> None:
    with pytest.raises(OptionError, match=f"expected {name} to be an integer of at least 1"):
        model.encode(TEXTS, **{name: size})


def test_texts_have_one_name(model: SentenceTransformer) -> None:
    for options in ({}, {"inputs": TEXTS, "sentences": TEXTS}):
        with pytest.raises(OptionError, match="expected texts in inputs=, or in sentences="):
            model.encode(**options)


def test_a_literal_prompt_takes_the_place_of_every_other(tmp_path: Path) -> None:
    settings = replace(tiny.SETTINGS, default_prompt="query")
    model = SentenceTransformer(tiny.write(tmp_path / "x.onnx", tiny.model(settings=settings)))
    assert (model.encode("b") == model.encoder.encode(["b"], prompt="query")[0]).all()
    np.testing.assert_allclose(model.encode("b", prompt="a "), tiny.A_B, atol=1e-6)
    np.testing.assert_allclose(model.encode_query("a b", prompt=""), tiny.A_B, atol=1e-6)
    np.testing.assert_allclose(
        model.encode_document(["b"], prompt_name="passage", prompt="a "), [tiny.A_B], atol=1e-6
    )


def test_another_measure_than_the_models(tiny_file: Path) -> None:
    message = "similarity_fn_name='dot' is not supported; use 'cosine', the model's own"
    with pytest.raises(OptionError, match=message):
        SentenceTransformer(tiny_file, similarity_fn_name="dot")


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("cosine", [0.6, 0]),
        ("dot", [3, 0]),
        ("euclidean", [-(20**0.5), -5]),
        ("manhattan", [-6, -7]),
    ],
)
def test_pairwise_similarity(measure: str, expected: list[float], tmp_path: Path) -> None:
    """Of (3, 4) with (1, 0), and of (3, 4) with (0, 0)."""
    settings = replace(tiny.SETTINGS, similarity=measure)
    model = SentenceTransformer(tiny.write(tmp_path / "x.onnx", tiny.model(settings=settings)))
    assert model.similarity_fn_name == measure
    a, b = np.array([[3, 4], [3, 4]], np.float32), np.array([[1, 0], [0, 0]], np.float32)
    np.testing.assert_allclose(model.similarity_pairwise(a, b), expected, rtol=1e-6)
    np.testing.assert_allclose(np.diag(model.similarity(a, b)), expected, rtol=1e-6)
    with pytest.raises(OptionError, match=r"of equal shapes \(n, dim\), got \(2, 2\) and \(1, 2\)"):
        model.similarity_pairwise(a, b[0])


def test_tokenize_pads_to_the_longest(model: SentenceTransformer) -> None:
    features = model.tokenize(["a b", "c", "a " * 20])
    assert list(features) == ["input_ids", "attention_mask"]
    long = [tiny.CLS, *[tiny.A] * 6, tiny.SEP]  # cut at the model's 8 tokens
    expected = [
        [tiny.CLS, tiny.A, tiny.B, tiny.SEP, *[tiny.PAD] * 4],
        [tiny.CLS, tiny.C, tiny.SEP, *[tiny.PAD] * 5],
        long,
    ]
    assert features["input_ids"].tolist() == expected
    assert features["attention_mask"].sum(1).tolist() == [4, 3, 8]
    assert {array.dtype for array in features.values()} == {np.dtype(np.int64)}
    assert model.tokenize([])["input_ids"].shape == (0, 0)


def test_device(model: SentenceTransformer) -> None:
    assert model.device == "cpu"


def test_precisions() -> None:
    """Ranges 0 to 255 and -255 to 255; bits from the highest."""
    vectors = np.array([[0, -255], [100.5, 0], [255, 255]], np.float32)
    assert quantize(vectors, "uint8").tolist() == [[0, 0], [100, 127], [255, 255]]
    assert quantize(vectors, "int8").tolist() == [[-128, -128], [-28, -1], [127, 127]]
    assert quantize(vectors, "ubinary").tolist() == [[0], [128], [192]]
    assert quantize(vectors, "binary").tolist() == [[-128], [0], [64]]
    constant = np.ones((2, 3), np.float32)
    assert quantize(constant, "uint8").tolist() == [[0, 0, 0], [0, 0, 0]]
    kinds = {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}
    for precision, kind in kinds.items():
        assert quantize(vectors[:0], precision).dtype == kind
        assert quantize(vectors, precision).dtype == kind


def test_precision_of_encode(model: SentenceTransformer) -> None:
    vectors = model.encode(TEXTS)
    np.testing.assert_array_equal(model.encode(TEXTS, precision="int8"), quantize(vectors, "int8"))
    assert model.encode("a b", precision="ubinary").tolist() == [192]
    with pytest.raises(OptionError, match="one text has none; give more texts"):
        model.encode("a b", precision="int8")
    precision: Any = "int4"
    with pytest.raises(OptionError, match="expected precision to be one of 'float32', 'int8'"):
        model.encode(TEXTS, precision=precision)


def test_every_argument_is_used_or_refused() -> None:
    used = {"self", "inputs", "sentences", "prompt_name", "prompt", "batch_size", "chunk_size"}
    used |= {"show_progress_bar", "precision", "normalize_embeddings", "truncate_dim", "task"}
    assert set(inspect.signature(SentenceTransformer.encode).parameters) == used | set(_ENCODE)
    used = {"self", "model_name_or_path", "similarity_fn_name", "truncate_dim"}
    used |= {"providers", "threads", "cache_folder", "trust_remote_code", "local_files_only"}
    assert set(inspect.signature(SentenceTransformer.__init__).parameters) == used | set(_LOAD)


@pytest.mark.parametrize("name", _ELSEWHERE)
def test_methods_that_there_are_not_say_what_to_use(name: str, model: SentenceTransformer) -> None:
    message = re.escape(f"{name} is not supported; use {_ELSEWHERE[name]}")
    with pytest.raises(AttributeError, match=message):
        getattr(model, name)
    assert not hasattr(model, "nothing")


def test_the_limit_is_the_files_own(model: SentenceTransformer) -> None:
    model.max_seq_length = 8
    with pytest.raises(OptionError, match="max_seq_length=16 is not supported; use embedge export"):
        model.max_seq_length = 16
    assert model.max_seq_length == 8


def test_a_copy_encodes_the_same(model: SentenceTransformer) -> None:
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.encode(TEXTS), model.encode(TEXTS))


def test_a_task_that_there_is_not(model: SentenceTransformer) -> None:
    task: Any = "retrieval"
    with pytest.raises(OptionError, match="expected task to be 'query', 'document' or None"):
        model.encode(TEXTS, task=task)
