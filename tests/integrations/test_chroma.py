"""Chroma's contract: prompts, the configuration in a collection, another model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("chromadb", reason="python -m pip install 'embedge[chroma]'")

import chromadb
from chromadb.config import Settings

from embedge import Encoder, OptionError
from embedge.integrations.chroma import EmbedgeEmbeddingFunction

TEXTS = ["a a", "b b", "c"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def client(tmp_path: Path) -> Any:
    settings = Settings(anonymized_telemetry=False)
    return chromadb.PersistentClient(str(tmp_path / "chroma"), settings=settings)


def test_prompts(model: str, encoder: Encoder) -> None:
    function = EmbedgeEmbeddingFunction(model)
    np.testing.assert_array_equal(function(TEXTS), encoder.encode_document(TEXTS))
    np.testing.assert_array_equal(function.embed_query(TEXTS), encoder.encode_query(TEXTS))


def test_configuration(model: str, encoder: Encoder) -> None:
    function = EmbedgeEmbeddingFunction(model, dim=1)
    config = function.get_config()
    expected = {"model": model, "dim": 1, "threads": None, "fingerprint": encoder.fingerprint}
    assert config == expected
    assert EmbedgeEmbeddingFunction.build_from_config(config).get_config() == config
    assert not function.is_legacy()
    with pytest.raises(OptionError, match="the model of a collection cannot be changed"):
        function.validate_config_update(config, {**config, "fingerprint": "0" * 64})


def test_a_collection_makes_its_function_again(model: str, client: Any) -> None:
    made = client.create_collection("texts", embedding_function=EmbedgeEmbeddingFunction(model))
    made.add(ids=["1", "2", "3"], documents=TEXTS)
    again = client.get_collection("texts")
    assert again.query(query_texts=["a"], n_results=1)["documents"] == [["a a"]]
    assert again.configuration_json["hnsw"]["space"] == "cosine"


def test_a_collection_of_another_model(model: str, other: str, client: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(Path(model).read_bytes())
    made = client.create_collection("texts", embedding_function=EmbedgeEmbeddingFunction(str(path)))
    EmbedgeEmbeddingFunction(model).check(made)
    with pytest.raises(OptionError, match="use the model file that the index was built with"):
        EmbedgeEmbeddingFunction(other).check(made)
    path.write_bytes(Path(other).read_bytes())
    with pytest.raises(ValueError, match="use the model file that the index was built with"):
        client.get_collection("texts").query(query_texts=["a"])
