"""LangChain's contract: its in-memory store with our embeddings, both ways of calling."""

import asyncio

import pytest

pytest.importorskip("langchain_core", reason="python -m pip install 'embedge[langchain]'")

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from embedge import Encoder
from embedge.integrations.langchain import EmbedgeEmbeddings

TEXTS = ["a a", "b b", "c"]


def test_prompts(model: str, encoder: Encoder) -> None:
    embeddings = EmbedgeEmbeddings(model)
    assert isinstance(embeddings, Embeddings)
    assert embeddings.embed_documents(TEXTS) == encoder.encode_document(TEXTS).tolist()
    assert embeddings.embed_query("a b") == encoder.encode_query("a b").tolist()
    assert embeddings.embed_documents([]) == []
    assert embeddings.embed_query("a b") != encoder.encode_document("a b").tolist()


def test_async(model: str, encoder: Encoder) -> None:
    embeddings = EmbedgeEmbeddings(model)
    documents = asyncio.run(embeddings.aembed_documents(TEXTS))
    assert documents == encoder.encode_document(TEXTS).tolist()
    assert asyncio.run(embeddings.aembed_query("a b")) == encoder.encode_query("a b").tolist()


def test_a_vector_store(model: str) -> None:
    store = InMemoryVectorStore(EmbedgeEmbeddings(model))
    store.add_texts(TEXTS)
    assert [found.page_content for found in store.similarity_search("a", k=1)] == ["a a"]
    found = asyncio.run(store.asimilarity_search("b b b", k=1))
    assert [document.page_content for document in found] == ["b b"]
