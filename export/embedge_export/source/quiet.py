"""Silence other libraries while they load and trace: standard error holds our own messages."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

_LOGGERS = (
    *("transformers", "sentence_transformers", "huggingface_hub", "tokenizers", "accelerate"),
    *("optimum", "torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir", "onnx"),
)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings, log records and progress bars; errors are found by comparing vectors.

    Exceptions pass through. Bars and prints go to a buffer, because several libraries draw them
    without asking any setting.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stderr(io.StringIO()),
            redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
