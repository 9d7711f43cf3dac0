"""Chroma: EmbedgeEmbeddingFunction, registered under the name "embedge".

Needs `embedge[chroma]`; importing this module imports chromadb. Chroma stores the function's
configuration, the fingerprint included, in the collection, so that `client.get_collection(name)`
recreates the function, or refuses a different model file.
"""

from typing import Any

from embedge.errors import OptionError
from embedge.integrations.framework import check_fingerprint, load, require

_Base: Any = require("chromadb.api.types", "chroma").EmbeddingFunction
_functions = require("chromadb.utils.embedding_functions", "chroma")
_SPACES = {"cosine": "cosine", "dot": "ip", "euclidean": "l2"}


@_functions.register_embedding_function
class EmbedgeEmbeddingFunction(_Base):  # type: ignore[misc]
    """Chroma's EmbeddingFunction with a model file.

    Args:
        model, dim, threads: as for Encoder.
        fingerprint: the model that is expected; None takes any.

    Attributes:
        encoder: the Encoder.

    Raises:
        OptionError: the model has another fingerprint.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        dim: int | None = None,
        threads: int | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self.encoder = load(model, dim, threads, fingerprint)
        self._options = {"model": model, "dim": dim, "threads": threads}

    def __call__(self, input: list[str]) -> Any:
        """Vectors of documents, with the model's prompt for them."""
        return list(self.encoder.encode_document(input))

    def embed_query(self, input: list[str]) -> Any:
        """Vectors of queries, with the model's prompt for them."""
        return list(self.encoder.encode_query(input))

    @staticmethod
    def name() -> str:
        """Name under which collections store this function."""
        return "embedge"

    def get_config(self) -> dict[str, Any]:
        """What `build_from_config` takes: the options and the fingerprint."""
        return {**self._options, "fingerprint": self.encoder.fingerprint}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "EmbedgeEmbeddingFunction":
        """Load the model again; raises OptionError where the file has another fingerprint."""
        return EmbedgeEmbeddingFunction(**config)

    def validate_config_update(
        self, old_config: dict[str, Any], new_config: dict[str, Any]
    ) -> None:
        """Refuse to change a collection's model."""
        if old_config.get("fingerprint") != new_config.get("fingerprint"):
            raise OptionError("the model of a collection cannot be changed; make a new collection")

    def check(self, collection: Any) -> None:
        """Raise OptionError where a collection was made by a model of another fingerprint.

        Chroma itself compares only the names of functions that are given to `get_collection`.
        """
        stored = collection.configuration_json.get("embedding_function") or {}
        check_fingerprint(self.encoder, stored.get("config", {}).get("fingerprint"))

    def default_space(self) -> str:
        """The model's own measure, as Chroma calls it."""
        return _SPACES.get(self.encoder.info["similarity"], "cosine")
