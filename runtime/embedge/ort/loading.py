"""From a model's path to the tokenizer and the session that encode with it."""

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedge.errors import ModelError, OptionError, ProviderError, warn
from embedge.modelfile.default import read_default
from embedge.modelfile.file import ModelFile, read
from embedge.ort.fork_guard import ort_call
from embedge.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from embedge.ort.providers import Providers
    from embedge.ort.session import Session

# How a model file may be named; None is the default model.
ModelPath = str | bytes | os.PathLike[str] | os.PathLike[bytes] | None


def absolute(model: ModelPath) -> Path | None:
    """The path of a model, as it is whatever the working directory becomes later.

    Raises:
        OptionError: ``model`` is not a path.
        ModelError: it is relative to a working directory that has been deleted.
    """
    if model is None:
        return None
    try:
        return Path(os.fsdecode(model)).absolute()
    except TypeError:
        raise OptionError(
            f"expected model to be the path of a model file, got {type(model).__name__}"
        ) from None
    except FileNotFoundError:  # of os.getcwd
        raise ModelError(
            f"{os.fsdecode(model)}: the current folder, to which this path is relative, "
            "is not there any more; give an absolute path"
        ) from None


def read_model(model: ModelPath) -> ModelFile:
    """Read and check a file, or the default model's for None.

    Raises:
        ModelError: the file is missing, damaged, too new or not ours.
    """
    path = absolute(model)
    return read_default() if path is None else read(path)


def load(file: ModelFile, providers: "Providers", threads: int) -> "tuple[TextTokenizer, Session]":
    """Make the tokenizer and the session of a file.

    A provider other than the CPU has to reproduce the file's probes. The result is kept in the
    session, never on disk. Where "auto" has chosen a provider that does not work, it warns
    and falls back to the CPU.

    Raises:
        ModelError: the tokenizer is damaged, onnxruntime is too old for the file, or cannot load
            its graph.
        ProviderError: a provider is not available, rejected the model, or gives wrong vectors.
        InstallationError: onnxruntime cannot be imported.
        ResourceError: there is not enough memory.
    """
    # A process forked in the middle of the import could never import it; tokenizers has locks too.
    ort_call(_import_onnxruntime)
    from embedge.ort.providers import ort
    from embedge.ort.session import Session

    _check_version(file, ort.__version__)

    tokenizer = ort_call(partial(TextTokenizer, file.tokenizer_json, file.settings.max_tokens))
    try:
        session = _verified(Session(file, providers, threads), file, tokenizer)
    except ProviderError as error:
        if not isinstance(providers, str) or providers != "auto":
            raise
        warn(f"providers='auto' falls back to the CPU: {error}", RuntimeWarning)
        session = Session(file, "cpu", threads)
    return tokenizer, session


def _check_version(file: ModelFile, installed: str) -> None:
    """Raise ModelError where the installed onnxruntime is older than what the file needs."""
    needed = file.settings.min_onnxruntime
    found, least = (
        tuple(map(int, re.findall(r"[0-9]+", version)[:2])) for version in (installed, needed)
    )
    if found < least:
        raise ModelError(
            f"{file.path}: expected onnxruntime {needed} or newer, got {installed}; upgrade it "
            "with 'python -m pip install --upgrade onnxruntime', or export the model for this one"
        )


def _verified(session: "Session", file: ModelFile, tokenizer: TextTokenizer) -> "Session":
    from embedge.ort.probes import self_test
    from embedge.ort.providers import CPU

    if session.providers != [CPU]:
        session.self_test = self_test(file, tokenizer, session)
    return session


def _import_onnxruntime() -> None:
    import embedge.ort.probes  # noqa: F401  # and all that it needs
