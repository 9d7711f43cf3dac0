"""LanceDB: EmbedgeFunction, in its registry under the name "embedge".

Needs `embedge[lancedb]`; importing this module imports lancedb. A table stores the fingerprint,
and refuses a different model file when it is opened again.
"""

from typing import Any

from embedge.encoder import Encoder
from embedge.integrations.framework import load, require

_embeddings = require("lancedb.embeddings", "lancedb")
_Base: Any = _embeddings.TextEmbeddingFunction
_pydantic = require("pydantic", "lancedb")


@_embeddings.register("embedge")
class EmbedgeFunction(_Base):  # type: ignore[misc]
    """LanceDB's TextEmbeddingFunction with a model file; make it with `create`.

    Attributes:
        model, dim, threads: as for Encoder.
        fingerprint: the model that is expected.
    """

    model: str | None = None
    dim: int | None = None
    threads: int | None = None
    fingerprint: str | None = None
    max_retries: int = 0  # the same text fails the same way again
    _encoder: Encoder = _pydantic.PrivateAttr()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ndims = None
        self._encoder = load(self.model, self.dim, self.threads, self.fingerprint)

    @classmethod
    def create(cls, **options: Any) -> Any:
        """Make the function; tables store ``options`` and the fingerprint.

        Raises:
            OptionError: the model has another fingerprint.
        """
        made = super().create(**options)
        made._original_args = {**options, "fingerprint": made._encoder.fingerprint}
        return made

    @property
    def encoder(self) -> Encoder:
        """The Encoder."""
        return self._encoder

    def ndims(self) -> int:
        """Components of a vector."""
        return self._encoder.dim

    def compute_query_embeddings(self, query: str, *_: Any, **__: Any) -> list[Any]:
        """Vectors of queries, with the model's prompt for them."""
        return list(self._encoder.encode_query(self.sanitize_input(query)))

    def generate_embeddings(self, texts: Any, *_: Any, **__: Any) -> list[Any]:
        """Vectors of documents, with the model's prompt for them."""
        return list(self._encoder.encode_document(texts))
