"""Create onnxruntime's session from a checked file: options, weights, threads and errors."""

from functools import partial

import numpy as np

from embedge.errors import (
    ModelError,
    ProviderError,
    ResourceError,
    is_native,
    not_enough_memory,
    one_line,
)
from embedge.modelfile.file import ModelFile
from embedge.modelfile.weights import Parts, split
from embedge.ort.fork_guard import ort_call
from embedge.ort.providers import CPU, Choice, configure, ort, short_name

# onnxruntime prints from this level up: 4 is fatal. Errors reach the caller as exceptions.
_LOG_SEVERITY = 4

# Nodes whose inputs are constants run when a graph is loaded. Bytes that one may give: so many for
# each byte of the file (4-bit weights grow to fp32), and so many for small files.
_MAX_FOLDED_RATIO = 8
_MAX_FOLDED = 64 * 2**20


def instead_of(file: ModelFile) -> str:
    """What to use instead of a provider that cannot run ``file`` correctly."""
    if file.settings.quantization == "fp16":
        return "use providers='cpu', other options, or another version of the provider"
    return (
        "use providers='cpu', or an fp16 file (embedge export --format fp16), which is made of "
        "onnx's own operators"
    )


# What the messages of onnxruntime contain when an allocation failed.
_NO_MEMORY = ("bad_alloc", "Failed to allocate memory", "cannot allocate memory", "out of memory")


def _options(threads: int, size: int) -> ort.SessionOptions:
    """Session options by which ``threads`` share the work of one call, for a file of ``size``."""
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_SEVERITY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that share a call wait for each other at every operator. They sleep meanwhile: when
    # they spin, concurrent calls take the cores from each other, and idle would not mean idle.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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


def load_session(file: ModelFile, choices: list[Choice], threads: int) -> ort.InferenceSession:
    """Load a file; with one thread where the system gives no more."""
    names = [choice.name for choice in choices]
    # Other providers may compile the graph, and look for the weights in it.
    parts = split(file.walked) if names == [CPU] else Parts(bytes(file.data), {})
    try:
        try:
            return ort_call(partial(_make, parts, file.size, choices, threads))
        except Exception as error:
            if threads == 1 or not is_native(error):
                raise
            return ort_call(partial(_make, parts, file.size, choices, 1))
    except Exception as error:  # as in `run`
        if not is_native(error):
            raise
        if out := out_of_memory(error):
            raise out from error
        if names == [CPU]:
            raise ModelError(
                f"{file.path}: onnxruntime cannot load it: {one_line(error)}"
            ) from error
        raise ProviderError(
            f"{file.path}: {', '.join(map(short_name, names))} rejected it: "
            f"{one_line(error)}; {instead_of(file)}"
        ) from error


def _make(parts: Parts, size: int, choices: list[Choice], threads: int) -> ort.InferenceSession:
    options = _options(threads, size)
    weights = {
        name: ort.OrtValue.ortvalue_from_numpy(np.require(array, array.dtype.type, "A"))
        for name, array in parts.weights.items()
    }  # onnxruntime makes its own copy of them
    options.add_external_initializers(list(weights), list(weights.values()))
    providers = configure(options, choices)

    def make() -> ort.InferenceSession:
        # Without its fallback, which prints on standard output that it continues on the CPU.
        return ort.InferenceSession(parts.model, options, providers=providers, enable_fallback=0)

    try:
        session = make()
    except Exception as error:
        if "use_per_session_threads" not in str(error):
            raise
        # Another library has called onnxruntime.set_global_thread_pool_sizes: its threads are
        # then the only ones of this process.
        options.use_per_session_threads = False
        session = make()
    session.disable_fallback()
    return session


def out_of_memory(error: Exception) -> ResourceError | None:
    """The ResourceError for an ``error`` of a failed allocation; None for others."""
    text = one_line(error)
    if not isinstance(error, MemoryError) and not any(sign in text for sign in _NO_MEMORY):
        return None
    return not_enough_memory(error)
