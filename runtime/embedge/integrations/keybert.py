"""KeyBERT: EmbedgeBackend, for KeyBERT(model=...).

Needs `embedge[keybert]`; importing this module imports keybert.
"""

from typing import Any

from embedge.integrations.framework import load, require
from embedge.similarity import Vectors

_Base: Any = require("keybert.backend", "keybert").BaseEmbedder


class EmbedgeBackend(_Base):  # type: ignore[misc]
    """KeyBERT's BaseEmbedder with a model file; words and documents get the same prompt.

    Args:
        model, dim, threads: as for Encoder.

    Attributes:
        encoder: the Encoder.
    """

    def __init__(
        self, model: str | None = None, *, dim: int | None = None, threads: int | None = None
    ) -> None:
        super().__init__()
        self.encoder = load(model, dim, threads)

    def embed(self, documents: list[str], verbose: bool = False) -> Vectors:
        """Vectors of texts, float32 (n, dim); ``verbose`` draws a bar."""
        return self.encoder.encode_document(documents, progress=bool(verbose))
