"""A model file loaded into onnxruntime, and the call itself."""

import ctypes
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from embedge.errors import ClosedError, ModelError, ProviderError, is_native, one_line
from embedge.modelfile.file import ModelFile, read
from embedge.modelfile.signature import HIDDEN, INPUTS, OUTPUT
from embedge.ort.fork_guard import in_forked_process, ort_call
from embedge.ort.inference import load_session, out_of_memory
from embedge.ort.memory import release_free_memory
from embedge.ort.providers import CPU, Choice, Providers, ort, resolve

# Models of so many components have operators that are worth sharing between threads, even for one
# short text; those of smaller ones take less time than waking a thread. scripts/check_sessions
# prints the figures.
_MIN_SHARED_DIM = 512
# Beyond so many, the parts of one short text are too small to be worth waking another thread.
_MAX_SHARING_THREADS = 4


def intra_op_threads(threads: int, dim: int) -> int:
    """How many of ``threads`` share each call of a model of ``dim`` components on the CPU."""
    return min(threads, _MAX_SHARING_THREADS) if dim >= _MIN_SHARED_DIM else 1


class Session:
    """A model file loaded into onnxruntime; `run` may be called from several threads at once.

    Attributes:
        providers: onnxruntime's names of those in use, in order of preference.
        concurrency: how many calls at a time keep all threads busy and start no more than those.
        self_test: smallest cosine of the probes to the file's own vectors, where it was run.
    """

    def __init__(self, file: ModelFile, providers: Providers = "auto", threads: int = 1) -> None:
        """Load ``file``; on the CPU, up to ``threads`` share the work of each call of a large one.

        Raises:
            ProviderError: a provider is unknown, not available, or rejected the model.
            ModelError: onnxruntime cannot load the graph.
            ResourceError: there is not enough memory.
        """
        choices = resolve(providers, file.settings.quantization)
        names = [choice.name for choice in choices]
        self._dim = file.settings.dim
        self._closed = False
        # Of small models, micro-batches run concurrently, one thread each: that doubles throughput
        # on two cores where two threads of one call give 1.1 to 1.5 times.
        sharing = intra_op_threads(threads, self._dim) if names == [CPU] else 1
        self._session: ort.InferenceSession | None = load_session(file, choices, sharing)
        if sharing > 1:  # unless the system gives no more threads
            sharing = self._session.get_session_options().intra_op_num_threads
        self.concurrency = threads - (sharing - 1)
        self.providers: list[str] = self._session.get_providers()
        self.self_test: float | None = None
        missing = [name for name in names if name not in self.providers]
        if missing:
            raise ProviderError(
                f"{', '.join(missing)} could not be started here; working: "
                f"{', '.join(self.providers)}. Use providers='cpu', or fix its installation"
            )
        parallel = all(choice.parallel for choice in choices)
        self._turn: AbstractContextManager[Any] = nullcontext() if parallel else threading.Lock()
        if sharing > 1:
            self._load_again = partial(_load_again, file.path.absolute(), file.fingerprint, sharing)
            _with_threads.add(self)

    def describe(self) -> dict[str, Any]:
        """What runs the model, ready for JSON."""
        return {"providers": self.providers, "self_test": self.self_test}

    def run(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of sequences of equal length: int64 (batch, sequence) to float32 (batch, dim).

        Raises:
            ModelError: the graph fails on these ids.
            ResourceError: there is not enough memory for them.
            ClosedError: the session was closed, before or meanwhile.
        """
        (vectors,) = self._fetch([OUTPUT], input_ids)
        return self._checked(vectors, input_ids)

    def token_vectors(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """What pooling reads: int64 (batch, sequence) to float32 (batch, sequence, hidden).

        Raises as `run` does.
        """
        (rows,) = self._fetch([HIDDEN], input_ids)
        return rows

    def run_with_tokens(
        self, input_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What `run` and `token_vectors` give, in one pass; raises as `run` does."""
        vectors, rows = self._fetch([OUTPUT, HIDDEN], input_ids)
        return self._checked(vectors, input_ids), rows

    def _checked(
        self, vectors: NDArray[np.float32], input_ids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        if vectors.shape != (len(input_ids), self._dim):
            raise ModelError(
                f"expected vectors of shape {(len(input_ids), self._dim)} from the graph, got "
                f"{vectors.shape}; export the model again"
            )
        return vectors

    def _fetch(self, outputs: list[str], input_ids: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        feeds = dict(zip(INPUTS, (input_ids, np.ones_like(input_ids)), strict=True))
        try:
            values = self._run(outputs, feeds)
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            if not is_native(error):
                raise
            if out := out_of_memory(error):
                raise out from error
            raise ModelError(
                f"onnxruntime failed on this model and text: {one_line(error)}"
            ) from error
        if self._closed:
            release_free_memory()  # the last call to use the session frees it
            raise _closed_error()
        return values

    def close(self) -> None:
        """Release onnxruntime's session; calls in other threads end with ClosedError."""
        self._closed = True
        self._session = None

    def _run(
        self, outputs: list[str], feeds: Mapping[str, NDArray[np.int64]]
    ) -> list[NDArray[np.float32]]:
        session = self._session
        if session is None:
            if self._closed:
                raise _closed_error()
            session = self._session = self._load_again()
        with self._turn:
            return ort_call(partial(session.run, outputs, feeds))

    def abandon(self) -> None:
        """In a forked process: replace the session, whose threads do not exist in it, by a new one.

        It is never freed: that would wait for its threads forever.
        """
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._session = None


_with_threads: WeakSet[Session] = WeakSet()


def _abandon_all() -> None:
    for session in _with_threads:
        session.abandon()


in_forked_process(_abandon_all)


def _load_again(path: Path, fingerprint: str, threads: int) -> ort.InferenceSession:
    """The same file on the CPU, in a forked process."""
    file = read(path)
    if file.fingerprint != fingerprint:
        raise ModelError(
            f"{path}: the file has changed since the Encoder was made, and a forked process has "
            "to load it again; make a new Encoder"
        )
    return load_session(file, [Choice(CPU, {})], threads)


def _closed_error() -> ClosedError:
    return ClosedError("this Encoder has been closed; make a new one")
