"""The exceptions that embedge raises.

    EmbedgeError
    ├── ModelError         a model file is missing, damaged, too new, or not ours
    ├── TextError          a text cannot be encoded; the message names its position
    │   └── TextTooLongError   it has more tokens than the model takes, under overflow="error"
    ├── OptionError        an argument has a value that this model or function does not take
    ├── ClosedError        an Encoder is used after `close()`, or while the interpreter exits
    ├── ProviderError      an execution provider is not available or does not work
    ├── ResourceError      memory has run out
    ├── InstallationError  a library that embedge needs cannot be loaded
    ├── CorpusError        a corpus, a row of it, or what was made of it cannot be used
    └── ExportError        an export stopped; `step` says where, and no file was written

`except EmbedgeError` catches them all. Where Python has a type of the same meaning (ValueError,
MemoryError, ImportError), ours is a subclass of it.
"""

import operator
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PACKAGE = f"{Path(__file__).parent}{os.sep}"


def warn(message: str, category: type[Warning]) -> None:
    """Warn, and point at the line outside of this package that called it."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    with suppress(ValueError):  # standard error is closed, so nobody can be warned
        warnings.warn(message, category, stacklevel=level)


class EmbedgeError(Exception):
    """The base class of every exception that embedge raises."""


class ModelError(EmbedgeError):
    """A model file is missing, damaged, too new, or not one of ours."""


class TextError(EmbedgeError, ValueError):
    """A text cannot be encoded.

    Attributes:
        position: index of the text in the input, from 0.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (str(self), self.position)


class TextTooLongError(TextError):
    """A text has more tokens than the model takes, under ``overflow="error"``."""


class OptionError(EmbedgeError, ValueError):
    """An argument has a value that this model or function does not take."""


class ClosedError(EmbedgeError, RuntimeError):
    """An Encoder is used after ``close()``, or in a thread while the interpreter exits."""


class ProviderError(EmbedgeError):
    """An execution provider is not available or does not work."""


class ResourceError(EmbedgeError, MemoryError):
    """Memory or threads have run out; the model and the texts may be valid."""


class InstallationError(EmbedgeError, ImportError):
    """A library that embedge needs is missing, incomplete or cannot be loaded."""


class CorpusError(EmbedgeError):
    """A corpus, a row of it, or what was made of it cannot be used; or its job cannot continue.

    Attributes:
        file: name of the file that the message is about, if it is about one.
        line: number of the line or row, from 1, if it is about one.
    """

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        place = "" if file is None else f"{file}: " if line is None else f"{file}, line {line}: "
        super().__init__(place + message)
        self.file, self.line = file, line
        self._message = message

    def __reduce__(self) -> tuple[type, tuple[str, str | None, int | None]]:
        return type(self), (self._message, self.file, self.line)


class ExportError(EmbedgeError):
    """An export stopped and wrote no file.

    Attributes:
        step: the step that failed: source, trace, graph, quantize, pack or verify.
    """

    def __init__(self, step: str, message: str) -> None:
        super().__init__(f"{step}: {message}")
        self.step = step
        self._message = message

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.step, self._message)


def is_native(error: BaseException) -> bool:
    """Whether a native library (onnxruntime, tokenizers) may have raised ``error``.

    The others come in the middle of a call, and are not about it: an app's own exceptions, raised
    by the handler of a signal (SIGALRM, a task queue's time limit) or by another thread.
    """
    kind = type(error)
    if kind.__module__ != "builtins":
        return kind.__module__.partition(".")[0] in ("onnxruntime", "pyo3_runtime")
    others = (OSError, RecursionError, StopIteration)
    return isinstance(error, Exception) and not isinstance(error, others)


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


def not_enough_memory(error: Exception) -> ResourceError:
    """The error to raise where ``error`` says that memory has run out."""
    return ResourceError(
        f"not enough memory: {one_line(error) or type(error).__name__}; close other programs, "
        "raise this process's memory limit, use fewer threads, or use a smaller model"
    )


@contextmanager
def resource_errors() -> Iterator[None]:
    """Raise ResourceError, which says what to do, where Python or NumPy raises MemoryError."""
    try:
        yield
    except ResourceError:
        raise
    except MemoryError as error:
        raise not_enough_memory(error) from error


def is_integer(value: Any) -> bool:
    """Whether ``value`` is an integer, one of numpy's included; True and False are not."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def check_integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return an integer argument, numpy's included; raises OptionError where it is not in range."""
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    if not is_integer(value) or value < least or (most is not None and value > most):
        raise OptionError(f"expected {name} to be an integer {bounds}, or None; got {value!r}")
    return operator.index(value)
