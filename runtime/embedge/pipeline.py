"""The steps of encoding: texts to token ids, ids to vectors, vectors of parts to one a text.

`Encoder` takes them for one call after the other; `embedge.serve` interleaves those of several
requests.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from embedge.modelfile.settings import ModelSettings
from embedge.similarity import check_vectors, unit
from embedge.text.overflow import Overflow, Sequences, mean_of_windows, sequences
from embedge.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from embedge.ort.session import Session  # with it onnxruntime, which `import embedge` leaves

# One vector for each text (n, dim).
Vectors = np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass(frozen=True)
class Pipeline:
    """Settings, tokenizer and session of one model file; may be used from several threads."""

    settings: ModelSettings
    tokenizer: TextTokenizer
    session: "Session"

    def tokenize(self, texts: list[str], start: int, overflow: Overflow) -> Sequences:
        """Token id sequences of texts that have their prompts; raises as `sequences` does."""
        return sequences(self.tokenizer, texts, start, overflow)

    def run(self, ids: list[list[int]], alone: bool) -> Vectors:
        """Vectors of one micro-batch of equally long sequences, float32 (batch, model's dim).

        ``alone`` says that no other micro-batch is to run at the same time.
        """
        input_ids = np.array(ids, np.int64)  # (batch, sequence)
        return cast(Vectors, self.session.run(input_ids, alone=alone))

    def finish(self, fitted: Sequences, vectors: Vectors, dim: int) -> Vectors:
        """The vectors of texts, float32 (texts, dim), from those of all their sequences.

        Raises:
            ModelError: a vector is not finite, or not of the length that the file declares.
        """
        check_vectors(vectors, self.settings.normalized)
        if not fitted.first.all():
            special = self.tokenizer.max_tokens - self.tokenizer.capacity
            weights = token_counts(fitted) - special
            vectors = cast(
                Vectors,
                mean_of_windows(vectors, weights, fitted.first, self.settings.normalized),
            )
        kept = vectors[:, :dim]
        shortened = dim < self.settings.dim
        return unit(kept) if shortened and self.settings.normalized else kept


def token_counts(fitted: Sequences) -> NDArray[np.int64]:
    """Tokens of each sequence, shape (sequences,)."""
    return np.fromiter(map(len, fitted.ids), np.int64, len(fitted.ids))
