"""Haystack's contract: prompts, pipelines there and back, another model, async."""

import asyncio
import inspect
from typing import Any

import numpy as np
import pytest

pytest.importorskip("haystack", reason="python -m pip install 'embedge[haystack]'")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from embedge import Encoder, OptionError
from embedge.integrations.haystack import EmbedgeDocumentEmbedder, EmbedgeTextEmbedder

TEXTS = ["a a", "b b", "c"]


def test_prompts(model: str, encoder: Encoder) -> None:
    documents = [Document(content=text) for text in TEXTS]
    found = EmbedgeDocumentEmbedder(model).run(documents)["documents"]
    vectors = [document.embedding for document in found]
    np.testing.assert_array_equal(vectors, encoder.encode_document(TEXTS))
    assert [document.embedding for document in documents] == [None] * 3
    query = EmbedgeTextEmbedder(model).run("a b")["embedding"]
    assert query == encoder.encode_query("a b").tolist()


def test_metadata_stands_before_the_content(model: str, encoder: Encoder) -> None:
    document = Document(content="b", meta={"title": "a", "none": None})
    embedder = EmbedgeDocumentEmbedder(model, meta_fields_to_embed=["title", "none", "no"])
    (found,) = embedder.run([document])["documents"]
    assert found.embedding == encoder.encode_document("a\nb").tolist()


def test_async(model: str, encoder: Encoder) -> None:
    query = asyncio.run(EmbedgeTextEmbedder(model).run_async("a b"))["embedding"]
    assert query == encoder.encode_query("a b").tolist()
    work = EmbedgeDocumentEmbedder(model).run_async([Document(content="c")])
    (found,) = asyncio.run(work)["documents"]
    assert found.embedding == encoder.encode_document("c").tolist()


def test_a_pipeline_there_and_back(model: str) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    documents = [Document(content=text) for text in TEXTS]
    store.write_documents(EmbedgeDocumentEmbedder(model).run(documents)["documents"])
    pipeline = Pipeline()
    pipeline.add_component("embedder", EmbedgeTextEmbedder(model, dim=2))
    trusted = {"allowed_modules": ["embedge.integrations.haystack"]}
    known = "allowed_modules" in inspect.signature(Pipeline.loads).parameters  # from 3.0 on
    pipeline = Pipeline.loads(pipeline.dumps(), **(trusted if known else {}))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    result = pipeline.run({"embedder": {"text": "a"}})
    assert [document.content for document in result["retriever"]["documents"]] == ["a a"]


@pytest.mark.parametrize("kind", [EmbedgeTextEmbedder, EmbedgeDocumentEmbedder])
def test_another_model_is_refused(kind: Any, model: str, other: str) -> None:
    data = kind(model).to_dict()
    assert kind.from_dict(data).to_dict() == data
    data["init_parameters"]["model"] = other
    with pytest.raises(OptionError, match="use the model file that the index was built with"):
        kind.from_dict(data).warm_up()


def test_a_list_for_the_text_embedder(model: str) -> None:
    texts: Any = TEXTS
    with pytest.raises(OptionError, match="expected one text, got list; use EmbedgeDocument"):
        EmbedgeTextEmbedder(model).run(texts)
