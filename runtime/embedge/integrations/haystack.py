"""Haystack: EmbedgeTextEmbedder for queries, EmbedgeDocumentEmbedder for documents.

Needs `embedge[haystack]`; importing this module imports haystack. `to_dict` keeps the fingerprint,
so that a saved pipeline refuses a different model file when it is loaded.
"""

from dataclasses import replace
from typing import Any

from embedge.encoder import Encoder
from embedge.errors import OptionError
from embedge.integrations.framework import in_thread, load, require

_haystack = require("haystack", "haystack")
_component = _haystack.component
_Document: Any = _haystack.Document


class _Embedder:
    """The model file of a component, loaded by `warm_up` or the first run."""

    def __init__(
        self,
        model: str | None = None,
        dim: int | None = None,
        threads: int | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self.model, self.dim, self.threads = model, dim, threads
        self.fingerprint = fingerprint
        self._encoder: Encoder | None = None

    @property
    def encoder(self) -> Encoder:
        """The Encoder; raises OptionError where it has another fingerprint than expected."""
        if self._encoder is None:
            self._encoder = load(self.model, self.dim, self.threads, self.fingerprint)
        return self._encoder

    def warm_up(self) -> None:
        """Load the model."""
        assert self.encoder

    def to_dict(self) -> dict[str, Any]:
        """The component for a pipeline's file, with the fingerprint of its model."""
        options: dict[str, Any] = {"model": self.model, "dim": self.dim, "threads": self.threads}
        options["fingerprint"] = self.encoder.fingerprint
        data: dict[str, Any] = _haystack.default_to_dict(self, **options, **self._own())
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """The component that `to_dict` described."""
        return _haystack.default_from_dict(cls, data)

    def _own(self) -> dict[str, Any]:
        return {}


@_component
class EmbedgeTextEmbedder(_Embedder):
    """Vector of a query, with the model's prompt for queries.

    Args:
        model, dim, threads: as for Encoder.
        fingerprint: the model that is expected; None takes any.
    """

    @_component.output_types(embedding=list[float])  # type: ignore[untyped-decorator]
    def run(self, text: str) -> dict[str, Any]:
        """Vector of one text; raises TextError where it is not a str."""
        return {"embedding": self.encoder.encode_query(_check_str(text)).tolist()}

    @_component.output_types(embedding=list[float])  # type: ignore[untyped-decorator]
    async def run_async(self, text: str) -> dict[str, Any]:
        """`run` in a thread; a cancelled task stops it."""
        vector = await in_thread(self.encoder.encode_query, _check_str(text))
        return {"embedding": vector.tolist()}


@_component
class EmbedgeDocumentEmbedder(_Embedder):
    """Documents with their vectors, with the model's prompt for documents.

    Args:
        model, dim, threads: as for Encoder.
        fingerprint: the model that is expected; None takes any.
        meta_fields_to_embed: names of metadata whose values stand before the content.
        embedding_separator: what stands between them.
    """

    def __init__(
        self,
        model: str | None = None,
        dim: int | None = None,
        threads: int | None = None,
        fingerprint: str | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        # Haystack's decorator creates the class again, which a bare super() would not find.
        _Embedder.__init__(self, model, dim, threads, fingerprint)
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator

    @_component.output_types(documents=list[_Document])  # type: ignore[untyped-decorator]
    def run(self, documents: list[Any]) -> dict[str, Any]:
        """Copies of the documents, with ``embedding`` set."""
        return self._with(documents, self.encoder.encode_document(self._texts(documents)))

    @_component.output_types(documents=list[_Document])  # type: ignore[untyped-decorator]
    async def run_async(self, documents: list[Any]) -> dict[str, Any]:
        """`run` in a thread; a cancelled task stops it."""
        vectors = await in_thread(self.encoder.encode_document, self._texts(documents))
        return self._with(documents, vectors)

    def _own(self) -> dict[str, Any]:
        return {
            "meta_fields_to_embed": self.meta_fields_to_embed,
            "embedding_separator": self.embedding_separator,
        }

    def _texts(self, documents: list[Any]) -> list[str]:
        return [self.embedding_separator.join([*self._meta(d), d.content or ""]) for d in documents]

    def _meta(self, document: Any) -> list[str]:
        values = [document.meta.get(name) for name in self.meta_fields_to_embed]
        return [str(value) for value in values if value is not None]

    def _with(self, documents: list[Any], vectors: Any) -> dict[str, Any]:
        pairs = zip(documents, vectors.tolist(), strict=True)
        return {"documents": [replace(document, embedding=vector) for document, vector in pairs]}


def _check_str(text: Any) -> str:
    if not isinstance(text, str):
        raise OptionError(
            f"expected one text, got {type(text).__name__}; use EmbedgeDocumentEmbedder"
        )
    return text
