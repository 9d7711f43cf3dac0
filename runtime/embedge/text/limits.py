"""Bound how much a tokenizer's normalizer can lengthen a text, so that none exhausts memory.

A tokenizer.json may replace every letter with a page of text, several times in a row, so that one
word exhausts memory. The bounds leave room for what real tokenizers do.
"""

import base64
import json
from math import ceil
from typing import Any

from tokenizers import Tokenizer

# Real ones: 1 (BERT, Llama), 2 (T5, XLM-R), 4 (byte-level).
_MOST_GROWTH = 16
_MOST_STEPS = 64
_LONGEST_REPLACEMENT = 64  # bytes; NFKC's longest has 33, for a ligature of 18 letters
# WordPiece tries every part of a word at every place; real ones give up at 100 characters.
_LONGEST_WORD = 256


def check_bounds(tokenizer: Tokenizer) -> None:
    """Raise ValueError where the cost of a text could be out of proportion to its length."""
    longest = getattr(tokenizer.model, "max_input_chars_per_word", 0)
    if longest > _LONGEST_WORD:
        raise ValueError(
            f"expected max_input_chars_per_word of at most {_LONGEST_WORD}, got {longest}"
        )
    if tokenizer.normalizer is None:
        return
    steps = _steps(json.loads(tokenizer.normalizer.__getstate__()))
    if len(steps) > _MOST_STEPS:
        raise ValueError(f"expected a normalizer of at most {_MOST_STEPS} steps, got {len(steps)}")
    growth = 1
    for step in steps:
        growth *= _growth(step)
    if growth > _MOST_GROWTH:
        raise ValueError(
            f"expected a normalizer that makes texts at most {_MOST_GROWTH} times as long, got up "
            f"to {growth} times"
        )


def _steps(normalizer: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a normalizer, those of sequences within it included, in their order."""
    if normalizer["type"] != "Sequence":
        return [normalizer]
    return [step for inner in normalizer["normalizers"] for step in _steps(inner)]


def _growth(step: dict[str, Any]) -> int:
    match step["type"]:
        case "Replace" if "String" in step["pattern"]:
            return max(1, ceil(len(step["content"]) / max(1, len(step["pattern"]["String"]))))
        case "Replace":  # a pattern may match nothing, between any two characters
            return 1 + len(step["content"])
        case "Prepend":
            return 1 + len(step["prepend"]) // _LONGEST_REPLACEMENT
        case "ByteLevel":  # a character of four bytes becomes four
            return 4
        case "Precompiled":
            # The length of a trie in four bytes, the trie, and what it replaces with, by zeros.
            charsmap = base64.b64decode(step["precompiled_charsmap"])
            texts = charsmap[4 + int.from_bytes(charsmap[:4], "little") :].split(b"\0")
            return ceil(max(map(len, texts)) / _LONGEST_REPLACEMENT)
    return 1
