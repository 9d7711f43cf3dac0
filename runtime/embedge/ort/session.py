"""A model file loaded into onnxruntime: session options, threads, and the call itself."""

import threading
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.errors import ModelError, ProviderError
from embedge.modelfile.file import INPUTS, OUTPUT, ModelFile, read
from embedge.modelfile.weights import Parts, split
from embedge.ort.fork_guard import call
from embedge.ort.intra_op import Spread
from embedge.ort.providers import CPU, Providers, configure, ort, resolve, short_name

# onnxruntime prints from this level up: 4 is fatal. What goes wrong reaches the caller anyway.
_LOG_SEVERITY = 4

# Of `Spread`, which holds the weights a second time: bytes of the largest file that gets one, and
# threads beyond which the parts of one short text are too small to be worth waking another.
_MAX_SPREAD_BYTES = 256 * 2**20
_MAX_SPREAD_THREADS = 4

# Nodes whose inputs are constants run when a graph is loaded. Bytes that one may give: so many for
# each byte of the file (4-bit weights grow to fp32), and so many for small files.
_MAX_FOLDED_RATIO = 8
_MAX_FOLDED = 64 * 2**20


class Session:
    """A model file loaded into onnxruntime; `run` may be called from several threads at once.

    Attributes:
        providers: onnxruntime's names of those in use, the first before the others.
        self_test: smallest cosine of the probes to the file's own vectors, where it was run.
    """

    def __init__(self, file: ModelFile, providers: Providers = "auto", threads: int = 1) -> None:
        """Load ``file``; on the CPU, up to ``threads`` share the work of a text that comes alone.

        Raises:
            ProviderError: a provider is unknown, not available, or did not take the model.
            ModelError: onnxruntime cannot load the graph.
        """
        choices = resolve(providers, file.settings.quantization)
        names = [choice.name for choice in choices]
        self._dim = file.settings.dim
        # Other providers may compile the graph, and look for the weights in it.
        parts = split(file.data) if names == [CPU] else Parts(bytes(file.data), {})
        # Workers call `run` in parallel, one thread each: that doubles throughput on two cores
        # where two intra-op threads give 1.1 to 1.5 times.
        options = _options(1, file.size)
        try:
            with call():
                self._session = _load(parts, options, configure(options, choices))
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            if names == [CPU]:
                raise ModelError(
                    f"{file.path}: onnxruntime cannot load it: {_one_line(error)}"
                ) from error
            raise ProviderError(
                f"{file.path}: {', '.join(map(short_name, names))} did not take it: "
                f"{_one_line(error)}; {instead_of(file)}"
            ) from error
        self._session.disable_fallback()
        self.providers: list[str] = self._session.get_providers()
        self.self_test: float | None = None
        missing = [name for name in names if name not in self.providers]
        if missing:
            raise ProviderError(
                f"{', '.join(missing)} could not be started here; working: "
                f"{', '.join(self.providers)}. Use providers='cpu', or mend its installation"
            )
        parallel = all(choice.parallel for choice in choices)
        self._turn: AbstractContextManager[Any] = nullcontext() if parallel else threading.Lock()
        self._spread: Spread[ort.InferenceSession] | None = None
        if threads > 1 and self.providers == [CPU] and file.size <= _MAX_SPREAD_BYTES:
            most = min(threads, _MAX_SPREAD_THREADS)
            self._spread = Spread(partial(_load_again, file.path, file.fingerprint, most))

    def describe(self) -> dict[str, Any]:
        """What runs the model, ready for JSON."""
        return {"providers": self.providers, "self_test": self.self_test}

    def run(self, input_ids: NDArray[np.int64], alone: bool = False) -> NDArray[np.float32]:
        """Vectors of sequences of equal length: int64 (batch, sequence) to float32 (batch, dim).

        ``alone`` says that no other micro-batch is to run at the same time.

        Raises:
            ModelError: the graph fails on these ids.
        """
        feeds = dict(zip(INPUTS, (input_ids, np.ones_like(input_ids)), strict=True))
        work = methodcaller("run", [OUTPUT], feeds)
        try:
            if alone and self._spread:
                (vectors,) = self._spread.run(work, self._session)
            else:
                with call(), self._turn:
                    (vectors,) = work(self._session)
        except Exception as error:
            raise ModelError(
                f"onnxruntime failed on this model and text: {_one_line(error)}"
            ) from error
        if vectors.shape != (len(input_ids), self._dim):
            raise ModelError(
                f"the graph gave vectors of shape {vectors.shape} for {len(input_ids)} texts, but "
                f"says that they have {self._dim} components each; export the model again"
            )
        return vectors  # type: ignore[no-any-return]


def instead_of(file: ModelFile) -> str:
    """What to do where a provider is no good for ``file``."""
    if file.settings.quantization == "fp16":
        return "use providers='cpu', other options, or another version of the provider"
    return (
        "use providers='cpu', or an fp16 file (embedge export --format fp16), which is made of "
        "onnx's own operators"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _options(threads: int, size: int) -> ort.SessionOptions:
    """Session options by which ``threads`` share the work of one call, for a file of ``size``."""
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_SEVERITY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The threads of a call wait for each other at every operator. They spin meanwhile, which takes
    # a third off a short text, and sleep when the call ends: idle means idle.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # A memory plan is kept for every input shape; there are as many as token counts.
    options.enable_mem_pattern = False
    # Else a file of some bytes could take all memory before it encodes anything. onnxruntime 1.20
    # does not know this limit, and ignores it.
    folded = max(_MAX_FOLDED, _MAX_FOLDED_RATIO * size)
    options.add_session_config_entry(
        "optimization.constant_folding_max_output_size_in_bytes", str(folded)
    )
    # Else bytes that look like onnxruntime's own format would be read as that, unchecked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _load(parts: Parts, options: ort.SessionOptions, providers: Any) -> ort.InferenceSession:
    weights = {
        name: ort.OrtValue.ortvalue_from_numpy(np.require(array, array.dtype.type, "A"))
        for name, array in parts.weights.items()
    }  # onnxruntime makes its own copy of them
    options.add_external_initializers(list(weights), list(weights.values()))
    # Without its fallback, which says on standard output that it goes on with the CPU.
    return ort.InferenceSession(parts.model, options, providers=providers, enable_fallback=0)


def _load_again(path: Path, fingerprint: str, threads: int) -> ort.InferenceSession | None:
    """The same file on the CPU once more; None where it has gone, changed, or finds no memory."""
    try:
        file = read(path)
        if file.fingerprint != fingerprint:
            return None
        return _load(split(file.data), _options(threads, file.size), [CPU])
    except Exception:  # as above; nothing is lost, the first session gives the same vectors
        return None
