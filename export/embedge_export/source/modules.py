"""sentence-transformers' modules as ours; an unknown one is refused, never skipped."""

import importlib
import string
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

from embedge.errors import ExportError
from embedge.text.prompts import DOCUMENT_PROMPTS
from embedge_export.graph.head import (
    Activation,
    Dense,
    LayerNorm,
    Module,
    Normalize,
    Pool,
    Pooling,
    Prompt,
)
from embedge_export.quantization.calibration import calibration_texts
from embedge_export.source.tokenizer import asked_length

POOLING: dict[str, Pooling] = {  # sentence-transformers' names: ours
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
ACTIVATIONS: dict[type, Activation] = {
    torch.nn.Identity: "identity",
    torch.nn.Tanh: "tanh",
    torch.nn.ReLU: "relu",
    torch.nn.GELU: "gelu",
    torch.nn.Sigmoid: "sigmoid",
    torch.nn.SiLU: "silu",
}
_UNLIMITED = 10**9  # tokenizers without a limit say 1e30


@contextmanager
def other_versions(types: Iterable[str]) -> Iterator[None]:
    """Let module types of modules.json be imported under the paths of other versions.

    Between versions of sentence-transformers a class may move (Normalize did, from 5 to 6); it is
    found by its name.
    """
    made: dict[str, ModuleType] = {}
    for kind in types:
        path, _, name = kind.rpartition(".")
        if path.startswith("sentence_transformers.") and hasattr(st, name):
            try:
                importlib.import_module(path)
            except ModuleNotFoundError:
                made[path] = sys.modules[path] = ModuleType(path)
            if path in made:
                setattr(made[path], name, getattr(st, name))
    try:
        yield
    finally:
        for path in made:
            del sys.modules[path]


def modules(model: SentenceTransformer) -> tuple[Module, ...]:
    """The modules behind the transformer.

    Raises:
        ExportError: one of them, or one of its settings, is not supported.
    """
    transformer, *head = list(model)
    if not isinstance(transformer, st.Transformer):
        raise _unsupported(transformer)
    head = [module for module in head if not isinstance(module, st.Dropout)]  # does nothing now
    found = tuple(_module(module, transformer, model.prompts) for module in head)
    if not head or not isinstance(head[0], st.Pooling):
        after = type(head[0]).__name__ if head else "nothing"
        raise ExportError(
            "source",
            f"expected Pooling behind the Transformer, got {after}: without it there is a vector "
            "for each token and none for the text; add the pooling that the model was trained with",
        )
    if sum(isinstance(module, st.Pooling) for module in head) > 1:
        raise ExportError("source", "expected one Pooling module, got more; leave only one of them")
    return found


def _module(module: torch.nn.Module, transformer: Any, prompts: Mapping[str, str]) -> Module:
    match module:
        case st.Pooling():
            modes = module.pooling_mode
            modes = (modes,) if isinstance(modes, str) else tuple(modes)
            kept = {} if module.include_prompt else prompts
            texts = sorted({text for text in kept.values() if text})
            left_out = tuple(_prompt(transformer, text) for text in texts)
            return Pool(tuple(POOLING[mode] for mode in modes), left_out)
        case st.Dense():
            activation = ACTIVATIONS.get(type(module.activation_function))
            if activation is None:
                raise _unsupported(module.activation_function)
            if module.module_input_name != module.module_output_name:
                raise ExportError(
                    "source",
                    "a Dense module of other values than the sentence vector is not supported",
                )
            bias = module.linear.bias
            return Dense(
                _array(module.linear.weight.T), None if bias is None else _array(bias), activation
            )
        case st.LayerNorm():
            norm = module.norm
            return LayerNorm(_array(norm.weight), _array(norm.bias), float(norm.eps))
        case st.Normalize():
            return Normalize()
    raise _unsupported(module)


def _unsupported(module: object) -> ExportError:
    return ExportError(
        "source",
        f"the module {type(module).__name__} is not supported; supported are Transformer, Pooling, "
        "Dense, LayerNorm and Normalize, with the activations "
        + ", ".join(kind.__name__ for kind in ACTIVATIONS),
    )


def _prompt(transformer: Any, text: str) -> Prompt:
    """A prompt by its tokens: those it always starts with, and how many are left out.

    Left out are as many as sentence-transformers leaves out: the tokens of the prompt itself except
    a special token at its end. The last of them may become another token before a text.
    """
    tokenizer = transformer.tokenizer
    following = ["", *string.printable, *calibration_texts()]  # what may stand behind a prompt
    own, *others = (
        transformer.preprocess([text + more])["input_ids"][0].tolist() for more in following
    )
    count = len(own) - (own[-1] in tokenizer.all_special_ids)
    start = _common_start([own[:count], *others])
    if set(start) <= set(tokenizer.all_special_ids):
        raise ExportError(
            "source",
            f"the pooling leaves out the prompt {text!r}, but a text after it changes its very "
            "first token, so that it cannot be recognized; give other prompts",
        )
    return Prompt(tuple(start), count)


def _common_start(sequences: Sequence[Sequence[int]]) -> list[int]:
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    return [column[0] for column in columns]


def prompt_remarks(prompts: Mapping[str, str], modules: Sequence[Module]) -> list[str]:
    """What to say about prompts: which one documents get, and which texts are ambiguous."""
    remarks = []
    chosen = next((name for name in DOCUMENT_PROMPTS if name in prompts), None)
    others = [name for name in DOCUMENT_PROMPTS if prompts.get(name)]
    if chosen is not None and others and not prompts[chosen]:
        remarks.append(
            f"documents are encoded without a prompt, as by sentence-transformers: the prompt "
            f"{chosen!r} is empty and goes before {others[0]!r} (encode(prompt={others[0]!r}) "
            "applies that)"
        )
    left_out = [
        prompt for module in modules if isinstance(module, Pool) for prompt in module.left_out
    ]
    for short in left_out:
        if any(_begins(prompt.ids, short.ids) for prompt in left_out if prompt is not short):
            remarks.append(
                "of prompts that begin alike the longest that a text starts with is left out of "
                "the pooling, whichever was asked for"
            )
            break
    return remarks


def _begins(ids: Sequence[int], start: Sequence[int]) -> bool:
    return tuple(ids[: len(start)]) == tuple(start)


def set_pooling(model: SentenceTransformer, pooling: str) -> str:
    """Use another pooling mode; returns the model's own, modes joined by "+"."""
    names = {ours: theirs for theirs, ours in POOLING.items()}
    if pooling not in names:
        raise ExportError("source", f"expected pooling of {', '.join(names)}, got {pooling!r}")
    own = "none"
    for module in model:
        if isinstance(module, st.Pooling):
            modes = module.pooling_mode
            own = "+".join(POOLING[m] for m in ([modes] if isinstance(modes, str) else modes))
            module.pooling_mode = names[pooling]  # type: ignore[assignment,unused-ignore]
    return own


def max_tokens(model: SentenceTransformer, asked: int | None) -> int:
    """Longest input in tokens, special tokens included: as asked, or the model's own limit.

    Raises:
        ExportError: more is asked for than the model has positions, or nobody names a limit.
    """
    own: object = model.max_seq_length
    if own is not None and (isinstance(own, bool) or not isinstance(own, int | float)):
        raise ExportError("source", f"expected max_seq_length to be an integer, got {own!r}")
    limit = asked if asked is not None else own
    positions = _positions(model[0].auto_model)
    if asked is not None and positions is not None and asked > positions:
        raise ExportError(
            "source",
            f"expected max_tokens of at most {positions} positions, got {asked}",
        )
    called = asked_length(model[0]) if asked is None else None
    limits = [n for n in (limit, positions, called) if n is not None and n < _UNLIMITED]
    if not limits:
        raise ExportError(
            "source",
            "the model does not say how many tokens it takes; set max_tokens (--max-tokens)",
        )
    least = int(model.tokenizer.num_special_tokens_to_add()) + 1
    if min(limits) < least:
        raise ExportError(
            "source",
            f"expected max_tokens of at least {least}, special tokens included, got {min(limits)}; "
            "set another (--max-tokens, or max_seq_length in the model's folder)",
        )
    return int(min(limits))


def limit_remarks(model: SentenceTransformer, own: int | None) -> list[str]:
    """What to say where a model's own limit is larger than its table of positions."""
    positions = _positions(model[0].auto_model)
    if positions is None or own is None or not positions < own < _UNLIMITED:
        return []
    return [
        f"texts are truncated to {model.max_seq_length} tokens: the model has {positions} "
        f"positions, and sentence-transformers fails on longer texts (max_seq_length is {own})"
    ]


def similarity_remarks(model: SentenceTransformer, settings: Mapping[str, Any]) -> list[str]:
    """What to say where sentence-transformers does not know the similarity that is stated."""
    stated, used = settings.get("similarity_fn_name"), str(model.similarity_fn_name)
    if stated in (None, used):
        return []
    return [f"similarity_fn_name is {stated!r}, which sentence-transformers takes for {used!r}"]


def set_max_tokens(model: SentenceTransformer, limit: int) -> None:
    """Let the reference cut texts at ``limit`` tokens."""
    model.max_seq_length = limit
    for group in ("common", "text"):
        settings = (getattr(model[0], "processing_kwargs", None) or {}).get(group) or {}
        if "max_length" in settings:
            settings["max_length"] = limit


def _positions(transformer: Any) -> int | None:
    """Tokens that the position table has rows for; RoBERTa's first rows are for padding."""
    found = getattr(transformer.config, "max_position_embeddings", None)
    if not isinstance(found, int) or found <= 0:  # -1 or absent: no table
        return None
    for module in transformer.modules():
        table, padding = (getattr(module, n, None) for n in ("position_embeddings", "padding_idx"))
        if isinstance(table, torch.nn.Embedding) and isinstance(padding, int):
            return table.num_embeddings - padding - 1
    return found


def matryoshka_dims(model: SentenceTransformer, configs: Mapping[str, Any]) -> tuple[int, ...]:
    """Dims that the model was trained to be truncated to, by its configuration; largest first.

    Raises:
        ExportError: the configuration names something else than dims.
    """
    found = [model.truncate_dim]
    for key in ("matryoshka_dims", "matryoshka_dimensions"):
        stated = configs.get(key) or []
        if not isinstance(stated, list) or not all(type(dim) is int and dim > 0 for dim in stated):
            raise ExportError(
                "source", f"expected {key} to be a list of positive integers, got {stated!r}"
            )
        found += stated
    return tuple(sorted({dim for dim in found if type(dim) is int and dim > 0}, reverse=True))


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().to(torch.float32).numpy())
