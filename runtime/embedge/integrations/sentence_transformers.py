"""For code written for sentence-transformers: change one import; it runs, or says what to change.

    from embedge.integrations.sentence_transformers import SentenceTransformer

    model = SentenceTransformer("all-MiniLM-L6-v2")
    vectors = model.encode(["A man is eating food."], normalize_embeddings=True)

An argument means what it means there; those that could change no result have no effect, all others
raise OptionError, which says what to use. Deliberate differences: NumPy takes the place of torch,
texts that are truncated are warned of, no texts give (0, dim), the bar is drawn only on request.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partialmethod
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from embedge.encoder import Encoder
from embedge.errors import ModelError, OptionError, check_integer
from embedge.integrations.precision import Precision, check_precision, quantize
from embedge.modelfile.default import DEFAULT_MODEL
from embedge.ort.providers import Providers
from embedge.similarity import similarity_pairwise, unit
from embedge.text.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS, LiteralPrompt, first_prompt

_SHIPPED = (DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}")
_TASKS = {"query": QUERY_PROMPTS, "document": DOCUMENT_PROMPTS, None: ()}

Refusals = Mapping[str, tuple[tuple[Any, ...], str]]

# What only sentence-transformers can do: the values that mean nothing, and what to use instead.
_ENCODE: Refusals = {
    "output_value": (("sentence_embedding",), "sentence embeddings: a model file has no others"),
    "convert_to_numpy": ((True,), "torch.from_numpy() or list() on what encode() gives"),
    "convert_to_tensor": ((False,), "torch.from_numpy(model.encode(...))"),
    "device": ((None, "cpu"), "SentenceTransformer(..., providers='cuda')"),
    "pool": ((None,), "SentenceTransformer(..., threads=8): threads take the place of processes"),
}
_LOAD: Refusals = {
    "modules": ((None,), "embedge export FOLDER -o model.onnx, with the modules saved to a folder"),
    "device": ((None, "cpu"), "SentenceTransformer(..., providers='cuda')"),
    "prompts": ((None,), "encode(..., prompt=), or save them with the model and export it"),
    "default_prompt_name": ((None,), "encode_query(), or save it with the model and export it"),
    "revision": ((None,), "embedge export NAME --revision REVISION -o model.onnx"),
    "token": ((None, False), "embedge export NAME -o model.onnx: nothing is downloaded here"),
    "use_auth_token": ((None, False), "embedge export NAME -o model.onnx: nothing is downloaded"),
    "model_kwargs": ((None, {}), "embedge export NAME --format fp16 -o model.onnx"),
    "processor_kwargs": ((None, {}), "embedge export FOLDER, with the tokenizer saved as wanted"),
    "config_kwargs": ((None, {}), "embedge export FOLDER, with the configuration saved as wanted"),
    "model_card_data": ((None,), "the model card of the folder that is exported"),
    "backend": (("onnx",), "SentenceTransformer(...) without it: onnxruntime runs the model"),
}
# Names that code written for sentence-transformers looks for in vain, and what to use instead.
_THREADS = "SentenceTransformer(..., threads=8): threads take the place of processes"
_ELSEWHERE = {
    "start_multi_process_pool": _THREADS,
    "stop_multi_process_pool": _THREADS,
    "encode_multi_process": _THREADS,
    "tokenizer": "tokenize(texts)",
    "half": "embedge export NAME --format fp16 -o model.onnx",
    "fit": "sentence-transformers, then embedge export FOLDER -o model.onnx",
    "save": "a copy of the model file",
    "save_pretrained": "a copy of the model file, or embedge unpack FILE FOLDER",
    "push_to_hub": "embedge unpack FILE FOLDER, and upload the folder",
}
# What changes no result: nothing is downloaded, and a file holds no code.
_NO_EFFECT = ("cache_folder", "trust_remote_code", "local_files_only")


class SentenceTransformer:
    """An Encoder with the methods and arguments of sentence-transformers' class of this name.

    Args:
        model_name_or_path: path of a model file; None or the shipped model's name is that one.
        truncate_dim: `encode` keeps this many leading components unless told otherwise.
        similarity_fn_name: the model's own measure, or None.
        cache_folder, trust_remote_code, local_files_only: have no effect, as nothing is downloaded
            and a model file holds no code.
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
        cache_folder: str | os.PathLike[str] | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: object = None,
        use_auth_token: object = None,
        model_kwargs: object = None,
        processor_kwargs: object = None,
        config_kwargs: object = None,
        model_card_data: object = None,
        backend: str = "onnx",
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        providers: Providers = "auto",
        threads: int | None = None,
    ) -> None:
        given = locals()
        _refuse(_LOAD, given)
        self.encoder = Encoder(_path(model_name_or_path), providers=providers, threads=threads)
        self.truncate_dim = truncate_dim
        own = self.similarity_fn_name
        measure = getattr(similarity_fn_name, "value", similarity_fn_name)  # theirs is an Enum
        if measure not in (None, own):
            raise OptionError(
                f"similarity_fn_name={measure!r} is not supported; use {own!r}, the model's own"
            )

    def __getattr__(self, name: str) -> Any:
        instead = f" is not supported; use {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
        raise AttributeError(f"SentenceTransformer.{name}{instead or ' does not exist'}")

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: object = None,
        chunk_size: int | None = None,
        task: Literal["query", "document"] | None = None,
        sentences: str | Iterable[str] | None = None,
    ) -> NDArray[Any]:
        """Vectors of texts, a str or an iterable of them: float32 (n, dim), or (dim,) for one str.

        Args:
            inputs, sentences: the texts; the second is the name before version 5.
            prompt_name, prompt, task: a prompt's name, its text, or the task whose prompt to use.
            batch_size, chunk_size: no effect: batches are chosen by tokens, change no vector.
            show_progress_bar: draw a bar on standard error, where that is a terminal.
            precision: as of `quantize`: vectors of two calls in int8 cannot be compared.
            truncate_dim, normalize_embeddings: leading components to keep; whether to scale those.

        Raises TextError for invalid texts, OptionError for arguments that ask for anything else.
        """
        _refuse(_ENCODE, {**locals(), "device": None if device is None else str(device)})
        _check_sizes(batch_size=batch_size, chunk_size=chunk_size)
        check_precision(precision)
        texts, prompt = _only(inputs, sentences), self._prompt(task, prompt_name, prompt)
        dim = self._dim(self.truncate_dim if truncate_dim is None else truncate_dim)
        rows = [texts] if isinstance(texts, str) else texts
        vectors = self.encoder.encode(rows, prompt=prompt, progress=bool(show_progress_bar))
        stored = quantize(_shortened(vectors, dim, normalize_embeddings), precision or "float32")
        return cast(NDArray[Any], stored[0]) if isinstance(texts, str) else stored

    encode_query = partialmethod(encode, task="query")
    encode_document = partialmethod(encode, task="document")

    def similarity(
        self, embeddings1: NDArray[np.float32], embeddings2: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Similarity of every row with every row, (n, dim) and (m, dim) to (n, m)."""
        a, b = np.atleast_2d(embeddings1), np.atleast_2d(embeddings2)
        return self.encoder.similarity(a, b)

    def similarity_pairwise(
        self, embeddings1: NDArray[np.float32], embeddings2: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Similarity of each row with the same row, both (n, dim), to float32 (n,)."""
        return similarity_pairwise(embeddings1, embeddings2, self.similarity_fn_name)

    def tokenize(self, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """The model's inputs: ``input_ids`` and ``attention_mask``, int64 (n, longest), padded.

        Raises TextError as `encode` does.
        """
        parts = self.encoder._pipeline.tokenize(list(texts), 0, "truncate", "")
        rows = [ids for part in parts for ids in part.ids]
        shape = (len(rows), max(map(len, rows), default=0))
        pad = self.encoder.info["transformer"]["pad_id"] or 0
        input_ids, mask = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
        for row, ids in enumerate(rows):
            input_ids[row, : len(ids)], mask[row, : len(ids)] = ids, 1
        return {"input_ids": input_ids, "attention_mask": mask}

    def get_embedding_dimension(self) -> int:
        """Components of a vector."""
        return self._dim(self.truncate_dim) or self.encoder.dim

    get_sentence_embedding_dimension = get_embedding_dimension  # its name before version 5

    @property
    def max_seq_length(self) -> int:
        """Longest text in tokens; the file's own, which cannot be set to another."""
        return self.encoder.max_tokens

    @max_seq_length.setter
    def max_seq_length(self, limit: int) -> None:
        limits = {"max_seq_length": ((self.max_seq_length,), "embedge export --max-tokens")}
        _refuse(limits, {"max_seq_length": limit})

    @property
    def prompts(self) -> Mapping[str, str]:
        """The model's prompts by name."""
        found: Mapping[str, str] = self.encoder.info["prompts"]
        return found

    @property
    def similarity_fn_name(self) -> str:
        """The model's own measure: "cosine", "dot", "euclidean" or "manhattan"."""
        name: str = self.encoder.info["similarity"]
        return name

    @property
    def device(self) -> str:
        """What runs the model: "cpu", "cuda", ..."""
        provider: str = self.encoder.info["providers"][0]
        return provider.removesuffix("ExecutionProvider").lower()

    def _prompt(self, task: str | None, name: str | None, text: str | None) -> str | None:
        """What Encoder.encode takes for it; a text goes before a name, a name before a task."""
        if task not in _TASKS:
            raise OptionError(f"expected task to be 'query', 'document' or None, got {task!r}")
        if text is not None:
            return LiteralPrompt(text)
        return name or first_prompt(self.prompts, _TASKS[task])

    def _dim(self, dim: int | None) -> int | None:
        if dim is not None and (not isinstance(dim, int) or not 1 <= dim <= self.encoder.dim):
            raise OptionError(
                f"expected truncate_dim to be an integer from 1 to {self.encoder.dim} or None, "
                f"got {dim!r}"
            )
        return dim


def _path(name: str | os.PathLike[str] | None) -> str | None:
    """The path of a model file, or None for the shipped model."""
    path = None if name is None else os.fspath(name)
    if path is None or path in _SHIPPED:
        return None
    if not Path(path).is_file():
        raise ModelError(
            f"{path} is not a model file, and nothing is downloaded; make one with 'embedge "
            f"export {path} -o model.onnx', then SentenceTransformer('model.onnx')"
        )
    return path


def _shortened(
    vectors: NDArray[np.float32], dim: int | None, normalize: bool
) -> NDArray[np.float32]:
    """The leading ``dim`` components, scaled to length 1 on request; float32 (n, dim)."""
    kept = vectors[:, :dim]
    return np.ascontiguousarray(unit(kept) if normalize else kept)


def _refuse(table: Refusals, given: Mapping[str, Any]) -> None:
    for name, (harmless, instead) in table.items():
        if not any(given[name] is value or given[name] == value for value in harmless):
            raise OptionError(f"{name}={given[name]!r} is not supported; use {instead}")


def _only(inputs: Any, sentences: Any) -> Any:
    if (inputs is None) == (sentences is None):
        raise OptionError("expected texts in inputs=, or in sentences=, its old name")
    return sentences if inputs is None else inputs


def _check_sizes(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None:
            check_integer(name, size, 1)
