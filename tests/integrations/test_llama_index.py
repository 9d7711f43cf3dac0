"""LlamaIndex's contract: prompts, batches, async, an index with a retriever, serialization."""

import asyncio

import pytest

pytest.importorskip("llama_index.core", reason="python -m pip install 'embedge[llama-index]'")

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from embedge import Encoder
from embedge.integrations.llama_index import EmbedgeEmbedding

TEXTS = ["a a", "b b", "c"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_prompts(model: str, encoder: Encoder) -> None:
    embedding = EmbedgeEmbedding(model)
    assert isinstance(embedding, BaseEmbedding)
    documents = encoder.encode_document(TEXTS).tolist()
    assert embedding.get_text_embedding_batch(TEXTS) == documents
    assert embedding.get_text_embedding("c") == documents[2]
    assert embedding.get_query_embedding("a b") == encoder.encode_query("a b").tolist()
    assert embedding.model_name == "tiny"


def test_async(model: str, encoder: Encoder) -> None:
    embedding = EmbedgeEmbedding(model)
    documents = encoder.encode_document(TEXTS).tolist()
    assert asyncio.run(embedding.aget_text_embedding_batch(TEXTS)) == documents
    assert asyncio.run(embedding.aget_text_embedding("c")) == documents[2]
    query = asyncio.run(embedding.aget_query_embedding("a b"))
    assert query == encoder.encode_query("a b").tolist()


def test_an_index(model: str) -> None:
    nodes = [TextNode(text=text) for text in TEXTS]
    index = VectorStoreIndex(nodes, embed_model=EmbedgeEmbedding(model))
    found = index.as_retriever(similarity_top_k=1).retrieve("a")
    assert [node.text for node in found] == ["a a"]


def test_serialization(model: str) -> None:
    embedding = EmbedgeEmbedding(model, dim=1, embed_batch_size=7)
    copy = EmbedgeEmbedding.from_dict(embedding.to_dict())
    assert (copy.model, copy.dim, copy.embed_batch_size) == (model, 1, 7)
    assert copy.encoder.fingerprint == embedding.encoder.fingerprint
