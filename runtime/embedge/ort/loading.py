"""From a checked file to the tokenizer and the session that encode with it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from embedge.errors import ProviderError, warn
from embedge.modelfile.default import read_default
from embedge.modelfile.file import ModelFile, read
from embedge.ort.fork_guard import call
from embedge.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from embedge.ort.providers import Providers
    from embedge.ort.session import Session


def read_model(model: str | os.PathLike[str] | None) -> ModelFile:
    """Read and check a file, or the default model's for None.

    Raises:
        ModelError: the file is missing, damaged, too new or not ours.
    """
    return read_default() if model is None else read(Path(model))


def load(file: ModelFile, providers: "Providers", threads: int) -> tuple[TextTokenizer, "Session"]:
    """Make the tokenizer and the session of a file.

    A provider other than the CPU has to give the vectors that the file says. The verdict is kept
    in the session, never on disk. Where "auto" has chosen a provider that does not work, it warns
    and goes on with the CPU.

    Raises:
        ModelError: the tokenizer is none, or onnxruntime cannot load the graph.
        ProviderError: a provider is not available, did not take the model, or gives wrong vectors.
    """
    # A process forked in the middle of the import could never import it; tokenizers has locks too.
    with call():
        from embedge.ort.probes import prove
        from embedge.ort.providers import CPU
        from embedge.ort.session import Session

        tokenizer = TextTokenizer(file.tokenizer_json, file.settings.max_tokens)
    try:
        session = Session(file, providers, threads)
        if session.providers != [CPU]:
            session.self_test = prove(file, tokenizer, session)
    except ProviderError as error:
        if providers != "auto":
            raise
        warn(f"providers='auto' goes on with the CPU: {error}", RuntimeWarning)
        session = Session(file, "cpu", threads)
    return tokenizer, session
