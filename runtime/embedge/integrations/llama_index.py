"""LlamaIndex: EmbedgeEmbedding, for its indexes and retrievers.

Needs `embedge[llama-index]`; importing this module imports llama_index.core.
"""

from typing import Any

from embedge.encoder import Encoder
from embedge.integrations.framework import in_thread, load, require

_Base: Any = require("llama_index.core.base.embeddings.base", "llama-index").BaseEmbedding
_pydantic = require("pydantic", "llama-index")
# LlamaIndex passes this many texts in one call, and only texts of one call share micro-batches.
_BATCH_TEXTS = 256


class EmbedgeEmbedding(_Base):  # type: ignore[misc]
    """LlamaIndex's BaseEmbedding with a model file.

    Args:
        model, dim, threads: as for Encoder.
        options: BaseEmbedding's own fields, such as ``embed_batch_size``.
    """

    model: str | None = None
    dim: int | None = None
    threads: int | None = None
    _encoder: Encoder = _pydantic.PrivateAttr()

    def __init__(
        self,
        model: str | None = None,
        *,
        dim: int | None = None,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        encoder = load(model, dim, threads)
        fields = {"model_name": encoder.info["name"], "embed_batch_size": _BATCH_TEXTS, **options}
        super().__init__(model=model, dim=dim, threads=threads, **fields)
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serializes this class."""
        return "EmbedgeEmbedding"

    @property
    def encoder(self) -> Encoder:
        """The Encoder; store its ``fingerprint`` with every index."""
        return self._encoder

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._encoder.encode_query(query).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._encoder.encode_document(text).tolist()

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encoder.encode_document(texts).tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        found: list[float] = (await in_thread(self._encoder.encode_query, query)).tolist()
        return found

    async def _aget_text_embedding(self, text: str) -> list[float]:
        found: list[float] = (await in_thread(self._encoder.encode_document, text)).tolist()
        return found

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = (await in_thread(self._encoder.encode_document, texts)).tolist()
        return found
