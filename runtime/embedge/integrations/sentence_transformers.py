"""For code written for sentence-transformers: change one import; it runs, or says what to change.

    from embedge.integrations.sentence_transformers import SentenceTransformer

    model = SentenceTransformer("all-MiniLM-L6-v2")
    vectors = model.encode(["A man is eating food."], normalize_embeddings=True)

An argument means what it means there, or raises OptionError, which says what to write instead; none
is read and dropped. Deliberate differences: NumPy takes the place of torch, texts that are cut are
warned of, no texts give (0, dim), the bar is drawn only where it is asked for.
"""

import os
from collections.abc import Iterable, Mapping
from functools import partialmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedge.encoder import Encoder
from embedge.errors import ModelError, OptionError
from embedge.modelfile.default import DEFAULT_MODEL
from embedge.ort.providers import Providers
from embedge.similarity import unit
from embedge.text.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS

_SHIPPED = (DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}")
_TASKS = {"query": QUERY_PROMPTS, "document": DOCUMENT_PROMPTS, None: ()}

# What only sentence-transformers can do: the values that mean nothing, and what to write instead.
_ENCODE = {
    "prompt": ((None,), "put the prompt in front of the texts, or name one with prompt_name="),
    "batch_size": ((None,), "leave it out: batches are chosen by tokens, and change no vector"),
    "output_value": (("sentence_embedding",), "a model file gives sentence embeddings only"),
    "precision": (("float32", None), "quantize what encode() gives, or write files with --dtype"),
    "convert_to_numpy": ((True,), "leave it out, and use torch.from_numpy() or list() on the rows"),
    "convert_to_tensor": ((False,), "torch.from_numpy(model.encode(...))"),
    "device": ((None,), "SentenceTransformer(..., providers='cuda')"),
    "pool": ((None,), "SentenceTransformer(..., threads=8): threads take the place of processes"),
    "chunk_size": ((None,), "leave it out; model.encoder.encode_iter() reads texts as a stream"),
}
_LOAD = {
    "modules": ((None,), "embedge export FOLDER -o model.onnx, with the modules saved to a folder"),
    "device": ((None, "cpu"), "SentenceTransformer(..., providers='cuda')"),
    "prompts": ((None,), "save them with the model, then embedge export FOLDER -o model.onnx"),
    "default_prompt_name": ((None,), "save it with the model, then export, or encode_query()"),
    "cache_folder": ((None,), "leave it out: nothing is downloaded, nothing is kept in a cache"),
    "trust_remote_code": ((False,), "leave it out: a model file holds no code"),
    "revision": ((None,), "embedge export NAME --revision REVISION -o model.onnx"),
    "token": ((None,), "leave it out: nothing is downloaded"),
    "model_kwargs": ((None,), "embedge export NAME --format fp16 -o model.onnx"),
    "backend": (("onnx",), "leave it out: onnxruntime it is"),
    "similarity_fn_name": ((None,), "model.similarity() is the model's own measure"),
}


class SentenceTransformer:
    """An Encoder with the methods and arguments of sentence-transformers' class of this name.

    Args:
        model_name_or_path: path of a model file; None or the shipped model's name is that one.
        truncate_dim: `encode` keeps this many leading components unless told otherwise.
        providers, threads: as for Encoder.

    The other arguments are sentence-transformers' own, and raise where they ask for anything.

    Attributes:
        encoder: the Encoder.

    Raises:
        ModelError: the file is missing (says how to export it) or not ours.
        OptionError: an argument asks for what embedge does another way; says which way.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        modules: object = None,
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        token: object = None,
        model_kwargs: object = None,
        backend: str = "onnx",
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        providers: Providers = "auto",
        threads: int | None = None,
    ) -> None:
        given = locals()
        _refuse(_LOAD, {name: given[name] for name in _LOAD})
        name = None if model_name_or_path is None else os.fspath(model_name_or_path)
        if name is not None and name not in _SHIPPED and not Path(name).is_file():
            raise ModelError(
                f"{name} is no model file, and nothing is downloaded; make one with 'embedge "
                f"export {name} -o model.onnx', then SentenceTransformer('model.onnx')"
            )
        self.encoder = Encoder(
            None if name in _SHIPPED else name, providers=providers, threads=threads
        )
        self.truncate_dim = truncate_dim

    def encode(
        self,
        inputs: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: object = None,
        chunk_size: int | None = None,
        task: Literal["query", "document"] | None = None,
    ) -> NDArray[np.float32]:
        """Vectors of texts: float32 (n, dim), or (dim,) for one str.

        Args:
            inputs: one str, or any iterable of str.
            prompt_name: name of one of the model's prompts, put in front of every text.
            show_progress_bar: draw a bar on standard error, where that is a terminal.
            normalize_embeddings: scale the vectors, after they are truncated, to length 1.
            truncate_dim: keep this many leading components; they are not scaled again unless
                ``normalize_embeddings`` says so.
            task: use the model's prompt for it, where it has one and none is named.

        The other arguments are sentence-transformers' own, and raise where they ask for anything.

        Raises:
            TextError: an item is not a str or not valid Unicode; says which.
            OptionError: an argument asks for what embedge does another way; says which way.
        """
        given = locals()
        _refuse(_ENCODE, {name: given[name] for name in _ENCODE})
        if task not in _TASKS:
            raise OptionError(f"task should be 'query', 'document' or None, but is {task!r}")
        dim = self._dim(self.truncate_dim if truncate_dim is None else truncate_dim)
        names = [name for name in _TASKS[task] if name in self.prompts]
        vectors: NDArray[np.float32] = self.encoder.encode(
            inputs,
            prompt=prompt_name or next(iter(names), None),
            progress=bool(show_progress_bar),
        )[..., :dim]
        return unit(vectors) if normalize_embeddings else np.ascontiguousarray(vectors)

    encode_query = partialmethod(encode, task="query")
    encode_document = partialmethod(encode, task="document")

    def similarity(
        self, embeddings1: NDArray[np.float32], embeddings2: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Similarity of every row with every row, (n, dim) and (m, dim) to (n, m)."""
        a, b = np.atleast_2d(embeddings1), np.atleast_2d(embeddings2)
        return self.encoder.similarity(a, b)

    def get_embedding_dimension(self) -> int:
        """Components of a vector."""
        return self._dim(self.truncate_dim) or self.encoder.dim

    get_sentence_embedding_dimension = get_embedding_dimension  # its name before version 5

    @property
    def max_seq_length(self) -> int:
        """Longest text in tokens."""
        return self.encoder.max_tokens

    @property
    def prompts(self) -> Mapping[str, str]:
        """The model's prompts by name."""
        found: Mapping[str, str] = self.encoder.info["prompts"]
        return found

    def _dim(self, dim: int | None) -> int | None:
        if dim is not None and (not isinstance(dim, int) or not 1 <= dim <= self.encoder.dim):
            raise OptionError(
                f"truncate_dim should be an integer from 1 to {self.encoder.dim} or None, "
                f"but is {dim!r}"
            )
        return dim


def _refuse(table: Mapping[str, tuple[tuple[Any, ...], str]], given: Mapping[str, Any]) -> None:
    for name, (harmless, instead) in table.items():
        if not any(given[name] is value or given[name] == value for value in harmless):
            raise OptionError(f"{name}={given[name]!r} is not for embedge; instead: {instead}")
