"""Encoder: what a loaded model does with texts."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import cast, overload

import numpy as np

from embedge.documents import (
    Stretch,
    check_linear,
    check_parts,
    encode_in_context,
    split_to_fit,
)
from embedge.errors import TextError
from embedge.explain import Explanation, Of, Reading, check_of, explain
from embedge.loaded import LoadedModel
from embedge.pipeline import Vectors
from embedge.progress import Progress, check_progress
from embedge.similarity import similarity
from embedge.streaming import Request, encode_all, encode_stream
from embedge.text.inputs import check_text, iterate, length, windows
from embedge.text.overflow import Overflow, check_overflow
from embedge.text.passages import Passage
from embedge.text.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS, first_prompt

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]  # (dim,)


class Encoder(LoadedModel):
    """Turns texts into vectors with one model file.

    It may be shared between threads, pickled (the copy loads its file again), and used with `with`.

    Args:
        model: path of a model file; None is the model that ships with the package.
        providers: "auto" (the CPU, or a GPU's provider where one is installed and the file is not
            int8), a name such as "cuda" or onnxruntime's own, or a list of names and (name,
            options), best first. All but the CPU have to reproduce the file's probes.
        threads: how many threads encode. Those of a small model run a micro-batch (texts of equal
            length) each, concurrently; up to four of those of a large one share the work of each
            micro-batch, so that a single text has them too. None is what this process may really
            use (affinity and cgroup limits).
        dim: keep this many leading components, normalized again where the model normalizes, for
            models trained so (Matryoshka); None keeps all.

    Raises:
        ModelError: the file is missing, damaged, too new or not ours.
        ProviderError: a provider is not available, or gives wrong vectors.
        OptionError: ``threads`` or ``dim`` has a value that makes no sense.
        InstallationError, ResourceError: onnxruntime cannot be imported, or memory has run out.
    """

    @overload
    def encode(  # type: ignore[overload-overlap]  # a str is an Iterable[str] as well
        self,
        texts: str,
        *,
        prompt: str | None = None,
        overflow: Overflow = "truncate",
        progress: Progress = False,
    ) -> Vector: ...
    @overload
    def encode(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        overflow: Overflow = "truncate",
        progress: Progress = False,
    ) -> Vectors: ...

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        overflow: Overflow = "truncate",
        progress: Progress = False,
    ) -> Vector | Vectors:
        """Vectors of texts, in their order.

        Args:
            texts: one str, or any iterable of str.
            prompt: name of one of the model's prompts, put in front of every text; None is the
                model's default prompt, where it has one.
            overflow: what happens to a text of more than ``max_tokens`` tokens: "truncate" cuts it
                (counted in ``truncated``, warned of once), "error" raises TextTooLongError,
                "mean" splits it into windows at word ends, each with the prompt, and takes the
                mean of their vectors, weighted by their tokens of the text (without prompt and
                special tokens), normalized where the model normalizes.
            progress: True draws a bar on standard error, where that is a terminal. A function is
                called in this thread after every micro-batch, with how many texts are finished and
                how many there are (None where that is not known). Whatever it raises stops the
                call, within one micro-batch per thread, and reaches the caller.

        Returns:
            float32 (n, dim), or (dim,) for one str.

        Raises:
            TextError: an item is not a str or not valid Unicode; says which.
            TextTooLongError: a text is too long, under ``overflow="error"``.
            OptionError: the prompt, the overflow or the progress is not one that there is.
            ModelError, ResourceError: the model, or the memory that there is, does not do.
            ClosedError: the Encoder is closed.
        """
        request = self._request(prompt, overflow, progress, in_order=False)
        if isinstance(texts, str):
            return cast(Vector, encode_all(self._pipeline, [texts], request)[0])
        return encode_all(self._pipeline, list(iterate(texts)), request)

    def encode_iter(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        overflow: Overflow = "truncate",
        progress: Progress = False,
    ) -> Iterator[Vector]:
        """Yield the vector of each text, float32 (dim,), in order and in bounded memory.

        The first vectors come after the first micro-batches. Takes any iterable, endless ones
        included, and reads up to 4096 texts ahead, in steps of 128: the further, the more texts of
        equal length there are to run together. Over many texts it is as fast as `encode`.

        Arguments and errors are those of `encode`; an error of a text, or of the iterable, comes
        after the vectors of the texts before it. Closing the iterator stops the work.
        """
        request = self._request(prompt, overflow, progress, in_order=True)
        given = [texts] if isinstance(texts, str) else texts
        items = iterate(given)
        total = length(given)
        runs = encode_stream(self._pipeline, items, total, request)

        def vectors() -> Iterator[Vector]:
            with closing(runs):
                for run in runs:
                    yield from map(np.copy, run)

        return vectors()

    @overload
    def encode_query(  # type: ignore[overload-overlap]
        self, texts: str, *, overflow: Overflow = "truncate", progress: Progress = False
    ) -> Vector: ...
    @overload
    def encode_query(
        self, texts: Iterable[str], *, overflow: Overflow = "truncate", progress: Progress = False
    ) -> Vectors: ...

    def encode_query(
        self,
        texts: str | Iterable[str],
        *,
        overflow: Overflow = "truncate",
        progress: Progress = False,
    ) -> Vector | Vectors:
        """`encode` with the model's prompt for queries, where it has one."""
        prompt = first_prompt(self._settings.prompts, QUERY_PROMPTS)
        return self.encode(texts, prompt=prompt, overflow=overflow, progress=progress)

    @overload
    def encode_document(  # type: ignore[overload-overlap]
        self, texts: str, *, overflow: Overflow = "truncate", progress: Progress = False
    ) -> Vector: ...
    @overload
    def encode_document(
        self, texts: Iterable[str], *, overflow: Overflow = "truncate", progress: Progress = False
    ) -> Vectors: ...

    def encode_document(
        self,
        texts: str | Iterable[str],
        *,
        overflow: Overflow = "truncate",
        progress: Progress = False,
    ) -> Vector | Vectors:
        """`encode` with the model's prompt for documents, where it has one."""
        prompt = first_prompt(self._settings.prompts, DOCUMENT_PROMPTS)
        return self.encode(texts, prompt=prompt, overflow=overflow, progress=progress)

    def passages(self, text: str, max_tokens: int | None = None, overlap: int = 0) -> list[Passage]:
        """Split a text into passages that fit the model, at sentence ends where possible.

        Args:
            text: the text; a passage's ``text`` is its slice from ``start`` to ``end``.
            max_tokens: tokens of a passage, special tokens and the prompt for documents included;
                None is all that the model takes.
            overlap: up to how many tokens of its end the next passage begins with.

        Raises OptionError for numbers that make no sense, and TextError as `encode` does.
        """
        front = self._front(DOCUMENT_PROMPTS)
        return list(split_to_fit(self._pipeline, text, front, max_tokens, overlap))

    def encode_passages(
        self, text: str, parts: Sequence[Passage] | None = None, *, context: bool = True
    ) -> Vectors:
        """Vectors of the passages of a text, float32 (passages, dim).

        Args:
            text: the whole text.
            parts: what `passages` gave for it; None calls that.
            context: let a passage's vector be the mean of its own tokens in the whole text, of
                which the model reads ``max_tokens`` at a time; else encode each passage alone.

        Raises OptionError where ``context`` needs a model that pools by the mean.
        """
        check_text(text, 0)
        parts = self.passages(text) if parts is None else check_parts(parts, text)
        if not context:
            return self.encode_document([part.text for part in parts])
        stretches, front = [Stretch(text, parts)], self._front(DOCUMENT_PROMPTS)
        return encode_in_context(self._pipeline, stretches, front, self._dim, self._concurrency)

    @overload
    def explain(  # type: ignore[overload-overlap]
        self, query: str, texts: str, *, of: Of = "text", overflow: Overflow = "truncate"
    ) -> Explanation: ...
    @overload
    def explain(
        self, query: str, texts: Iterable[str], *, of: Of = "text", overflow: Overflow = "truncate"
    ) -> list[Explanation]: ...

    def explain(
        self,
        query: str,
        texts: str | Iterable[str],
        *,
        of: Of = "text",
        overflow: Overflow = "truncate",
    ) -> Explanation | list[Explanation]:
        """Explain the cosine of a query with a text: each token's and each word's share of it.

        Args:
            query: what was searched for; it gets the model's prompt for queries.
            texts: one str, or an iterable of str; they get the prompt for documents.
            of: whose tokens get shares, those of the "text" or those of the "query".
            overflow: as for `encode`, of the texts.

        Raises OptionError for models that do not pool by the mean, or have layers behind the
        pooling, and TextError as `encode` does.
        """
        if isinstance(texts, str):
            return self.explain(query, [texts], of=of, overflow=overflow)[0]
        pipeline, count = self._pipeline, self._truncated.add
        check_linear(pipeline)
        if not isinstance(query, str):
            raise TextError(f"expected query to be a str, got {type(query).__name__}", 0)
        if check_of(of) == "query":
            vectors = self.encode_document(texts, overflow=overflow)
            reading = Reading(self._front(QUERY_PROMPTS), "truncate", count)
            return [explain(pipeline, vector, query, 0, reading) for vector in vectors]
        vector = self.encode_query(query)
        reading = Reading(self._front(DOCUMENT_PROMPTS), check_overflow(overflow), count)
        items = enumerate(iterate(texts))
        return [explain(pipeline, vector, text, number, reading) for number, text in items]

    def similarity(self, a: Vector | Vectors, b: Vector | Vectors) -> Vectors:
        """Similarity of every row of ``a`` with every row of ``b``, by the model's own measure.

        float32 (n, dim) or (dim,), and (m, dim) or (dim,), to (n, m). Larger is more alike.
        """
        return similarity(a, b, self._settings.similarity)

    @overload
    def count_tokens(  # type: ignore[overload-overlap]
        self, texts: str, *, prompt: str | None = None
    ) -> int: ...
    @overload
    def count_tokens(self, texts: Iterable[str], *, prompt: str | None = None) -> list[int]: ...

    def count_tokens(
        self, texts: str | Iterable[str], *, prompt: str | None = None
    ) -> int | list[int]:
        """Tokens of each text before any truncation, special tokens and prompt included.

        Raises TextError and ClosedError as `encode` does.
        """
        if isinstance(texts, str):
            return self.count_tokens([texts], prompt=prompt)[0]
        self._pipeline.check_open()
        counts: list[int] = []
        front = self._prompt(prompt)
        for start, window in windows(iterate(texts)):
            counts += self._pipeline.count(window, start, front)
        return counts

    def _request(
        self, prompt: str | None, overflow: Overflow, progress: Progress, in_order: bool
    ) -> Request:
        return Request(
            prompt=self._prompt(prompt),
            overflow=check_overflow(overflow),
            dim=self._dim,
            threads=self._concurrency,
            in_order=in_order,
            progress=check_progress(progress),
            count_truncated=self._truncated.add,
        )
