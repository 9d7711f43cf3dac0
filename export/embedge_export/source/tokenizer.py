"""The tokenizer of a loaded model as tokenizer.json; what that file cannot express is refused."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedge.errors import ExportError, ModelError
from embedge.text.tokenizer import TextTokenizer
from embedge_export.quantization.calibration import calibration_texts

# What sentence-transformers may pass to a tokenizer, by the values that mean what the runtime does.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "padding": (True, False, "longest", "max_length", "do_not_pad"),  # padding is masked
    "padding_side": ("left", "right", None),
    "pad_to_multiple_of": (None,),
    "truncation": (True, "longest_first", "only_first"),
    "truncation_side": ("right",),
    "add_special_tokens": (True,),
    "split_special_tokens": (False,),
    "stride": (0, None),
    "return_tensors": ("pt",),
    "return_attention_mask": (True, None),
    "return_token_type_ids": (True, False, None),
    "is_split_into_words": (False,),
    "verbose": (True, False),
}
_MODULE_SETTINGS = ("query_length", "document_length", "query_expansion")
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
_NO_SETTING = "there is no such setting"
_SHOWN = 5
_NO_LIMIT = 2**31  # tokens; the model's own is not known yet


def check_file(folder: Path) -> None:
    """Refuse a tokenizer.json that is none, before transformers looks for other files instead.

    Raises:
        ExportError: says what is wrong with it.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            TextTokenizer(path.read_text("utf-8"), _NO_LIMIT)
        except (ModelError, ValueError) as error:  # ValueError: not UTF-8
            raise ExportError("source", f"{path} is not a tokenizer: {error}") from error


def check_settings(transformer: Any) -> None:
    """Refuse what sentence-transformers' module does to a text and the runtime does not.

    Raises:
        ExportError: names the setting and its value.
    """
    tokenizer = transformer.tokenizer
    if tokenizer.truncation_side != "right":
        raise _refused("truncation_side", tokenizer.truncation_side, "texts are cut at the right")
    if getattr(tokenizer, "split_special_tokens", False):
        raise _refused("split_special_tokens", True, "special tokens in a text are recognized")
    if "attention_mask" not in tokenizer.model_input_names:
        raise _refused("model_input_names", tokenizer.model_input_names, "padding is masked")
    if tokenizer.pad_token is None:
        raise ExportError(
            "source",
            "the tokenizer has no padding token, and sentence-transformers cannot encode without "
            "one; name it in tokenizer_config.json (pad_token)",
        )
    asked: Mapping[str, Any] = getattr(transformer, "processing_kwargs", None) or {}
    for group in ("common", "text"):
        settings = asked.get(group) or {}
        if not isinstance(settings, Mapping):
            raise _refused(f"processing_kwargs.{group}", settings, _NO_SETTING)
        for key, value in settings.items():
            if not _is_supported(key, value):
                raise _refused(f"processing_kwargs.{group}.{key}", value, _NO_SETTING)
    unknown = set(asked) - {"common", "text", "image", "audio", "video", "chat_template"}
    if unknown:
        raise _refused("processing_kwargs", sorted(unknown), _NO_SETTING)
    for key in _MODULE_SETTINGS:
        value = getattr(transformer, key, None)
        if value is not None:
            raise _refused(key, value, "queries and documents are treated alike")
    _check_outputs(transformer)


def _check_outputs(transformer: Any) -> None:
    """Refuse what would make other vectors than those of the last layer out of the tokens."""
    modalities = getattr(transformer, "modality_config", None) or {}
    if "message" in modalities:
        raise _refused("modality_config", "message", "texts are not put into a chat template")
    for key, value in modalities.get("text", {}).items():
        if value != _FORWARD.get(key, value):
            raise _refused(f"modality_config.text.{key}", value, f"it is {_FORWARD[key]!r}")
    given = getattr(transformer, "module_output_name", None)
    if given not in (None, "token_embeddings"):
        raise _refused("module_output_name", given, "it is 'token_embeddings'")


def _is_supported(key: str, value: Any) -> bool:
    if key == "max_length":
        return value is None or (isinstance(value, int) and value > 0)
    return value in _SUPPORTED.get(key, ())


def _refused(key: str, value: Any, ours: str) -> ExportError:
    return ExportError(
        "source",
        f"the model asks for {key} = {value!r}, but in a model file {ours}; change the setting in "
        "the model's folder if its vectors do not depend on it",
    )


def asked_length(transformer: Any) -> int | None:
    """The max_length that processing_kwargs ask for, which goes before max_seq_length."""
    asked = getattr(transformer, "processing_kwargs", None) or {}
    text = {**(asked.get("text") or {}), **(asked.get("common") or {})}
    length = text.get("max_length")
    return length if isinstance(length, int) else None


def tokenizer_json(transformer: Any) -> tuple[str, list[str]]:
    """The text of tokenizer.json, without truncation and padding: those are the runtime's.

    Returns:
        The text, and the added tokens that were left out because the model has no vectors for them.

    Raises:
        ExportError: there is no fast tokenizer, or its vocabulary is larger than the model's table.
    """
    tokenizer = getattr(transformer.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise ExportError("source", "the model has no fast tokenizer (tokenizer.json)")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = str(tokenizer.to_str())
    rows = int(transformer.auto_model.get_input_embeddings().num_embeddings)
    wrapped = tokenizer.encode("")
    in_every_text = dict(zip(wrapped.tokens, wrapped.ids, strict=True))  # by the post-processor
    known = {**tokenizer.get_vocab(with_added_tokens=True), **in_every_text}
    if max(known.values(), default=0) < rows:
        return text, []
    needed = {**tokenizer.get_vocab(with_added_tokens=False), **in_every_text}
    return _within(text, needed, rows)


def _within(text: str, needed: Mapping[str, int], rows: int) -> tuple[str, list[str]]:
    """A tokenizer.json without the added tokens whose ids the embedding table has no rows for.

    ``needed`` are the ids of tokens that cannot be left out.
    """
    beyond = sorted(token for token, index in needed.items() if index >= rows)
    if beyond:
        raise ExportError(
            "source",
            f"the tokenizer has {len(beyond)} tokens for which the model's table of {rows} rows "
            f"has none ({', '.join(map(repr, beyond[:_SHOWN]))}); save the tokenizer that belongs "
            "to the model",
        )
    values = json.loads(text)
    added = values.get("added_tokens") or []
    values["added_tokens"] = [token for token in added if token["id"] < rows]
    left_out = [str(token["content"]) for token in added if token["id"] >= rows]
    return json.dumps(values, ensure_ascii=False), left_out


def _unpadded(features: Mapping[str, Any]) -> list[int]:
    """The token ids of the only text in a batch that may be padded to a fixed length."""
    ids: list[int] = features["input_ids"][0][features["attention_mask"][0].bool()].tolist()
    return ids


def check_ids(transformer: Any, text: str, left_out: Sequence[str], max_tokens: int) -> None:
    """Compare the runtime's token ids with sentence-transformers', on texts of many kinds.

    Raises:
        ExportError: they differ; shows the first text that does.
    """
    ours = TextTokenizer(text, max_tokens)
    tokenizer = transformer.tokenizer
    tokens = dict.fromkeys(map(str, tokenizer.all_special_tokens))
    special = " a ".join(token for token in tokens if token not in left_out)
    texts = [*calibration_texts(), "", " ", "  two  spaces ", "line\nbreak\ttab", special]
    texts.append(" ".join(calibration_texts()) * (1 + max_tokens // 4096))  # longer than the limit
    found = ours.ids(texts)
    if set().union(*found) <= set(tokenizer.all_special_ids):
        raise ExportError(
            "source",
            "the tokenizer knows no tokens but special ones, so that all texts are alike; add the "
            "files of the tokenizer that the model was trained with (tokenizer.json)",
        )
    for sample, ids in zip(texts, found, strict=True):
        theirs = _unpadded(transformer.preprocess([sample]))
        wrapped = ours.wrap(ids)
        if theirs != wrapped:
            raise ExportError(
                "source",
                f"the tokenizer gives sentence-transformers {len(theirs)} token ids for "
                f"{sample[:40]!r} ({theirs[:_SHOWN]}...), but as tokenizer.json {len(wrapped)} "
                f"({wrapped[:_SHOWN]}...); a step of it is not in tokenizer.json",
            )
