"""mteb: EmbedgeModel, for mteb.evaluate.

Needs `embedge[mteb]`; importing this module imports mteb.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from embedge.integrations.framework import load, require
from embedge.similarity import Vectors, similarity_pairwise

_mteb = require("mteb.models", "mteb")
_PROMPTS = {"query": "encode_query", "document": "encode_document"}


class EmbedgeModel:
    """mteb's EncoderProtocol with a model file.

    Args:
        model, dim, threads: as for Encoder.

    Attributes:
        encoder: the Encoder.
        mteb_model_meta: what mteb stores the results under: the model's name and its fingerprint.
    """

    def __init__(
        self, model: str | None = None, *, dim: int | None = None, threads: int | None = None
    ) -> None:
        self.encoder = load(model, dim, threads)
        name = self.encoder.info["name"]
        self.mteb_model_meta = _mteb.ModelMeta.create_empty(
            {
                "name": name if "/" in name else f"embedge/{name}",
                "revision": self.encoder.fingerprint,
                "embed_dim": self.encoder.dim,
                "max_tokens": self.encoder.max_tokens,
                "similarity_fn_name": self.encoder.info["similarity"],
                "framework": ["ONNX"],
            }
        )

    def encode(
        self, inputs: Iterable[dict[str, Any]], *, prompt_type: Any = None, **_: Any
    ) -> Vectors:
        """Vectors of all texts of batches, float32 (n, dim), with the prompt for their type."""
        texts = [text for batch in inputs for text in batch["text"]]
        method = _PROMPTS.get(getattr(prompt_type, "value", prompt_type), "encode")
        vectors: Vectors = getattr(self.encoder, method)(texts)
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Vectors:
        """Similarity of every row with every row, (n, dim) and (m, dim) to (n, m)."""
        return self.encoder.similarity(np.asarray(embeddings1), np.asarray(embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Vectors:
        """Similarity of each row with the same row, both (n, dim), to float32 (n,)."""
        return similarity_pairwise(embeddings1, embeddings2, self.encoder.info["similarity"])
