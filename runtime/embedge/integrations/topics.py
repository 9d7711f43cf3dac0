"""What KeyBERT and BERTopic ask of a backend, which is the same."""

from embedge.integrations.framework import load
from embedge.similarity import Vectors


class TopicBackend:
    """A mixin before the framework's BaseEmbedder; words and documents get the same prompt.

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
