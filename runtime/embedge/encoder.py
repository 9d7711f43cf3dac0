"""Encoder: tokenizer, batching and session composed into text -> vectors."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from embedge.errors import OptionError, warn
from embedge.modelfile.settings import ModelSettings
from embedge.ort.batching import micro_batches, run_batches
from embedge.ort.loading import load, read_model
from embedge.ort.threads import check_threads
from embedge.pipeline import Pipeline, Vectors, token_counts
from embedge.progress import ProgressBar
from embedge.similarity import similarity
from embedge.text.inputs import iterate, windows
from embedge.text.overflow import Overflow, TruncationWarning, check_overflow

if TYPE_CHECKING:
    from embedge.ort.providers import Providers

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]  # (dim,)

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class Encoder:
    """Turns texts into vectors with one model file.

    An Encoder may be shared between threads and pickled (the copy loads its file again).

    Args:
        model: path of a model file; None is the model that ships with the package.
        providers: "auto" (the CPU, or a GPU's provider where one is installed and the file is not
            int8), a name such as "cuda" or onnxruntime's own, or a list of names and (name,
            options), best first. All but the CPU have to reproduce the file's probes.
        threads: how many micro-batches run side by side, or share the work of a text that comes
            alone; None is what this process may really use (affinity and cgroup limits).
        dim: keep this many leading components, normalized again where the model normalizes, for
            models trained so (Matryoshka); None keeps all.

    Attributes:
        info: everything in the file, ready for JSON: settings, source, licence, report.
        fingerprint: identity of everything that decides a vector, 64 hexadecimal digits; store it
            beside an index so that vectors of different models are never mixed.
        truncated: how many texts this Encoder has cut to ``max_tokens`` so far.

    Raises:
        ModelError: the file is missing, damaged, too new or not ours.
        ProviderError: a provider is not available, or gives wrong vectors.
        OptionError: ``threads`` or ``dim`` has a value that makes no sense.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        providers: "Providers" = "auto",
        threads: int | None = None,
        dim: int | None = None,
    ) -> None:
        self._again = partial(
            Encoder,
            None if model is None else Path(model).absolute(),
            providers=providers,
            threads=threads,
            dim=dim,
        )
        self._threads = check_threads(threads)
        file = read_model(model)
        self._settings = file.settings
        self._dim = _check_dim(dim, file.settings)
        self._tokenizer, self._session = load(file, providers, self._threads)
        self._pipeline = Pipeline(file.settings, self._tokenizer, self._session)
        self._file = replace(file, data=memoryview(b""))  # onnxruntime has its own copy
        self._lock = threading.Lock()
        self.truncated = 0

    @property
    def dim(self) -> int:
        """Components of a vector."""
        return self._dim

    @property
    def max_tokens(self) -> int:
        """Longest text the model takes, in tokens, special tokens included."""
        return self._settings.max_tokens

    @property
    def fingerprint(self) -> str:
        """Identity of everything that decides a vector, as 64 hexadecimal digits."""
        return self._file.fingerprint

    @property
    def info(self) -> dict[str, Any]:
        """Everything in the file but weights and vectors, ready for JSON."""
        return {**self._file.describe(), **self._session.describe()}

    @overload
    def encode(  # type: ignore[overload-overlap]  # a str is an Iterable[str] as well
        self,
        texts: str,
        *,
        prompt: str | None = None,
        overflow: Overflow = "truncate",
        progress: bool = False,
    ) -> Vector: ...
    @overload
    def encode(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        overflow: Overflow = "truncate",
        progress: bool = False,
    ) -> Vectors: ...

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        overflow: Overflow = "truncate",
        progress: bool = False,
    ) -> Vector | Vectors:
        """Vectors of texts, in their order.

        Args:
            texts: one str, or any iterable of str.
            prompt: name of one of the model's prompts, put in front of every text; None is the
                model's default prompt, where it has one.
            overflow: what happens to a text of more than ``max_tokens`` tokens: "truncate" cuts it
                (counted in ``truncated``, warned of once), "error" raises TextTooLongError,
                "mean" splits it into windows at word ends and takes the mean of their vectors,
                weighted by their tokens, normalized where the model normalizes.
            progress: draw a bar on standard error, where that is a terminal.

        Returns:
            float32 (n, dim), or (dim,) for one str.

        Raises:
            TextError: an item is not a str or not valid Unicode; says which.
            OptionError: the prompt or the overflow is not one that there is.
        """
        if isinstance(texts, str):
            return cast(Vector, self.encode([texts], prompt=prompt, overflow=overflow)[0])
        items = list(iterate(texts))
        front = self._prompt(prompt)
        check_overflow(overflow)
        vectors = np.empty((len(items), self._dim), np.float32)  # (n, dim)
        with ProgressBar(len(items), progress) as bar:
            for start, window in windows(items, front):
                encoded = self._encode(window, start, overflow, bar)
                vectors[start : start + len(window)] = encoded
        return vectors

    def encode_iter(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        overflow: Overflow = "truncate",
        progress: bool = False,
    ) -> Iterator[Vector]:
        """Yield the vector of each text, float32 (dim,), in order and in bounded memory.

        Takes any iterable, endless ones included, and reads some thousand texts ahead. Arguments
        and errors are those of `encode`.
        """
        items = iterate([texts] if isinstance(texts, str) else texts)
        front = self._prompt(prompt)
        check_overflow(overflow)

        def vectors() -> Iterator[Vector]:
            with ProgressBar(None, progress) as bar:
                for start, window in windows(items, front):
                    yield from self._encode(window, start, overflow, bar)

        return vectors()

    def encode_query(
        self,
        texts: str | Iterable[str],
        *,
        overflow: Overflow = "truncate",
        progress: bool = False,
    ) -> Vectors:
        """`encode` with the model's prompt for queries, where it has one."""
        prompt = self._first_prompt(QUERY_PROMPTS)
        return self.encode(texts, prompt=prompt, overflow=overflow, progress=progress)

    def encode_document(
        self,
        texts: str | Iterable[str],
        *,
        overflow: Overflow = "truncate",
        progress: bool = False,
    ) -> Vectors:
        """`encode` with the model's prompt for documents, where it has one."""
        prompt = self._first_prompt(DOCUMENT_PROMPTS)
        return self.encode(texts, prompt=prompt, overflow=overflow, progress=progress)

    def similarity(self, a: Vectors, b: Vectors) -> Vectors:
        """Similarity of every row of ``a`` with every row of ``b``, by the model's own measure.

        Args:
            a: float32 (n, dim) or (dim,).
            b: float32 (m, dim) or (dim,).

        Returns:
            float32 (n, m). Larger is more alike; distances are negated.
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

        Raises TextError as `encode` does.
        """
        if isinstance(texts, str):
            return self.count_tokens([texts], prompt=prompt)[0]
        counts: list[int] = []
        for start, window in windows(iterate(texts), self._prompt(prompt)):
            counts += self._tokenizer.count(window, start)
        return counts

    def __reduce__(self) -> tuple[Callable[[], "Encoder"], tuple[()]]:
        return self._again, ()

    def __repr__(self) -> str:
        name = self._settings.name
        return f"Encoder({name!r}, dim={self._dim}, fingerprint={self.fingerprint[:12]!r})"

    def _prompt(self, name: str | None) -> str:
        name = self._settings.default_prompt if name is None else name
        if name is None:
            return ""
        try:
            return self._settings.prompts[name]
        except KeyError:
            names = ", ".join(map(repr, self._settings.prompts)) or "none"
            raise OptionError(
                f"the model has no prompt named {name!r}; its prompts: {names}"
            ) from None

    def _first_prompt(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self._settings.prompts), None)

    def _encode(
        self, texts: list[str], start: int, overflow: Overflow, bar: ProgressBar
    ) -> Vectors:
        """Encode one window of texts; ``start`` is the position of its first text."""
        fitted = self._pipeline.tokenize(texts, start, overflow)
        if fitted.cut:
            self._count_truncated(fitted.cut)
        vectors = np.empty((len(fitted.ids), self._settings.dim), np.float32)

        batches = micro_batches(token_counts(fitted), self._threads)

        def run(batch: NDArray[np.intp]) -> None:
            ids = [fitted.ids[i] for i in batch]
            vectors[batch] = self._pipeline.run(ids, alone=len(batches) == 1)  # (batch, dim)

        for done in run_batches(run, batches, self._threads):
            bar.advance(int(fitted.first[done].sum()))
        return self._pipeline.finish(fitted, vectors, self._dim)

    def _count_truncated(self, texts: int) -> None:
        with self._lock:
            first = self.truncated == 0
            self.truncated += texts
        if first:
            warn(
                f"{texts} of the texts have more than {self.max_tokens} tokens and were cut; "
                "use overflow='mean' or 'error' if they should not be. Told once; "
                "Encoder.truncated counts them",
                TruncationWarning,
            )


def _check_dim(dim: Any, settings: ModelSettings) -> int:
    if dim is None:
        return settings.default_dim or settings.dim
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= settings.dim:
        raise OptionError(f"dim should be an integer from 1 to {settings.dim}, but is {dim!r}")
    return dim
