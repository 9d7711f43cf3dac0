"""txtai: EmbedgeVectors, the method of an Embeddings.

Needs `embedge[txtai]`; importing this module imports txtai.

    Embeddings(method="embedge.integrations.txtai.EmbedgeVectors", path="model.onnx")

A saved index contains the fingerprint and refuses a different model file.
"""

from typing import Any

from embedge.encoder import Encoder
from embedge.integrations.framework import load, require
from embedge.similarity import Vectors

_Base: Any = require("txtai.vectors", "txtai").Vectors
DEFAULT = "embedge"  # the path that stands for the default model


class EmbedgeVectors(_Base):  # type: ignore[misc]
    """txtai's Vectors with a model file; ``path="embedge"`` is the default model."""

    def loadmodel(self, path: str) -> Encoder:
        """Load the model; raises OptionError where an index was built with another one."""
        options = self.config.get("vectors") or {}
        encoder = load(
            None if path == DEFAULT else path,
            options.get("dim"),
            options.get("threads"),
            self.config.get("fingerprint"),
        )
        self.config["fingerprint"] = encoder.fingerprint
        return encoder

    def encode(self, data: list[str], category: str | None = None) -> Vectors:
        """Vectors of texts, float32 (n, dim), with the prompt for queries or for documents."""
        encoder: Encoder = self.model
        return encoder.encode_query(data) if category == "query" else encoder.encode_document(data)
