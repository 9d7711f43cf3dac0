"""From a file to what encodes with it. What does without Python's lock is done side by side.

Importing onnxruntime takes longer than importing all the rest, and as long as hashing the default
model: it is imported meanwhile, when the first model is read. So is the tokenizer made while
onnxruntime prepares its session.
"""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedge.beside import Beside
from embedge.default import read_default
from embedge.errors import ProviderError, warn
from embedge.forking import call
from embedge.modelfile import ModelFile, read
from embedge.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from embedge.providers import Providers
    from embedge.session import Session

# Seconds in which a session needs Python's lock; the tokenizer then keeps it until it is made.
_HEAD_START = 0.006


def read_model(model: str | os.PathLike[str] | None) -> ModelFile:
    """Read and check a file, or the default model's for None, and import onnxruntime meanwhile.

    Raises:
        ModelError: the file is missing, damaged, too new or not ours.
    """
    if model is None:
        return read_default(_import_onnxruntime)
    return read(Path(model), _import_onnxruntime)


def _import_onnxruntime() -> None:
    with call():  # a process that forked in the middle of it could never import it
        import embedge.verify  # noqa: F401


def load(file: ModelFile, providers: "Providers", threads: int) -> tuple[TextTokenizer, "Session"]:
    """Make the tokenizer and the session of a file.

    A provider other than the CPU has to give the vectors that the file says. The verdict is kept
    in the session, never on disk. Where "auto" has chosen a provider that does not work, it warns
    and goes on with the CPU.

    Raises:
        ModelError: the tokenizer is none, or onnxruntime cannot load the graph.
        ProviderError: a provider is not available, did not take the model, or gives wrong vectors.
    """
    from embedge.providers import CPU
    from embedge.session import Session
    from embedge.verify import prove

    loading = Beside(partial(Session, file, providers, threads))
    loading.wait(_HEAD_START)
    with call():  # tokenizers has locks of its own
        tokenizer = TextTokenizer(file.tokenizer_json, file.settings.max_tokens)
    try:
        session = loading.result()
        if session.providers != [CPU]:
            session.self_test = prove(file, tokenizer, session)
    except ProviderError as error:
        if providers != "auto":
            raise
        warn(f"providers='auto' goes on with the CPU: {error}", RuntimeWarning)
        session = Session(file, "cpu", threads)
    return tokenizer, session
