"""The steps of encoding: texts to token ids, ids to vectors, vectors of parts to one a text.

`embedge.streaming` takes them for one call after the other; `embedge.serve` interleaves those of
several requests.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from embedge.errors import ClosedError
from embedge.modelfile.settings import ModelSettings
from embedge.ort.fork_guard import ort_call
from embedge.ort.memory import release_free_memory
from embedge.similarity import check_vectors, shorten
from embedge.text.overflow import Overflow, Sequences, TextVectors, sequences
from embedge.text.tokenizer import PlacedTokens, TextTokenizer, Token

if TYPE_CHECKING:
    from embedge.ort.session import Session  # with it onnxruntime, which `import embedge` leaves

# One vector for each text (n, dim).
Vectors = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class Pipeline:
    """Settings, tokenizer and session of one model file; may be used from several threads.

    Every method but `close` raises ClosedError after `close`.
    """

    def __init__(
        self, settings: ModelSettings, tokenizer: TextTokenizer, session: "Session"
    ) -> None:
        self.settings = settings
        self._parts: tuple[TextTokenizer, Session] | None = (tokenizer, session)

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer."""
        return self.check_open()[0]

    @property
    def session(self) -> "Session":
        """The session."""
        return self.check_open()[1]

    def tokenize(
        self, texts: list[str], start: int, overflow: Overflow, prompt: str
    ) -> Iterator[Sequences]:
        """Token id sequences of texts, each with the prompt, some at a time; as `sequences`."""
        parts = sequences(self.tokenizer, texts, start, overflow, prompt)
        while (part := ort_call(partial(next, parts, None))) is not None:
            yield part
            self.check_open()

    def count(self, texts: list[str], start: int, prompt: str) -> list[int]:
        """Tokens of each text before truncation; raises as `TextTokenizer.count` does."""
        return ort_call(partial(self.tokenizer.count, texts, start, prompt))

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a text without special tokens; raises as `TextTokenizer.tokens` does."""
        return ort_call(partial(self.tokenizer.tokens, text))

    def placed(self, text: str) -> PlacedTokens:
        """The token ids of a text and their places; raises as `TextTokenizer.placed` does."""
        return ort_call(partial(self.tokenizer.placed, text))

    def run(self, ids: Sequence[Sequence[int] | NDArray[np.int32]]) -> Vectors:
        """Vectors of one micro-batch of equally long sequences, float32 (batch, model's dim)."""
        input_ids = np.array(ids, np.int64)  # (batch, sequence)
        return cast(Vectors, self.session.run(input_ids))

    def finish(self, texts: TextVectors, fitted: Sequences, vectors: Vectors, dim: int) -> Vectors:
        """The vectors of the texts that end among some sequences, float32 (texts, dim).

        Args:
            texts: what `text_vectors` gave, for the sequences before these.
            fitted: the sequences; their ids are not used.
            vectors: float32 (sequences, model's dim), of these sequences.
            dim: components to keep.

        Raises:
            ModelError: a vector is not finite, or not of the length that the file declares.
        """
        check_vectors(vectors, self.settings.normalized)
        found = texts.add(vectors, fitted.weights, fitted.last)
        return cast(Vectors, shorten(found, dim, self.settings.normalized))

    def text_vectors(self) -> TextVectors:
        """What `finish` needs, for texts whose first sequence is the next."""
        return TextVectors(self.settings.normalized)

    def close(self) -> None:
        """Release tokenizer and session; calls in other threads end with ClosedError."""
        parts, self._parts = self._parts, None
        if parts is not None:
            parts[1].close()
            del parts
        release_free_memory()

    def check_open(self) -> "tuple[TextTokenizer, Session]":
        """Return the tokenizer and the session."""
        parts = self._parts
        if parts is None:
            raise ClosedError("this Encoder has been closed; make a new one")
        return parts
