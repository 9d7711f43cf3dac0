"""LangChain: EmbedgeEmbeddings, for its vector stores and retrievers.

Needs `embedge[langchain]`; importing this module imports langchain_core.
"""

from typing import Any

from embedge.integrations.framework import in_thread, load, require

_Base: Any = require("langchain_core.embeddings", "langchain").Embeddings


class EmbedgeEmbeddings(_Base):  # type: ignore[misc]
    """LangChain's Embeddings with a model file.

    Args:
        model, dim, threads: as for Encoder.

    Attributes:
        encoder: the Encoder; store its ``fingerprint`` with every index.
    """

    def __init__(
        self, model: str | None = None, *, dim: int | None = None, threads: int | None = None
    ) -> None:
        self.encoder = load(model, dim, threads)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of texts, with the model's prompt for documents."""
        return self.encoder.encode_document(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """Vector of a text, with the model's prompt for queries."""
        return self.encoder.encode_query(text).tolist()

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` in a thread; a cancelled task stops it."""
        found: list[list[float]] = (await in_thread(self.encoder.encode_document, texts)).tolist()
        return found

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` in a thread; a cancelled task stops it."""
        found: list[float] = (await in_thread(self.encoder.encode_query, text)).tolist()
        return found
