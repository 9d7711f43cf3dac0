"""Texts to token ids, with truncation that is counted instead of silent.

Special tokens are put around the ids here rather than by the tokenizers library, so that a long
text can be tokenized in pieces of bounded size and cut or split without losing them.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from embedge.errors import ModelError, TextError, TextTooLongError, is_native, resource_errors
from embedge.text.limits import check_bounds

# A text of more characters is tokenized in pieces that end before white space: tokenizers needs
# some 100 bytes of memory per character. Tokenizers that split at white space give the same ids.
_PIECE_CHARACTERS = 2**16
# Shorter texts are tokenized together, so many characters at a time, for the same reason.
_BATCH_CHARACTERS = 2**18

# What the library's panic says where the system gave it no threads; it tries to start them once in
# a process, and every later batch fails as well.
_NO_THREADS = "thread pool has not been initialized"
_without_threads: list[None] = []  # an item once that has happened


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its id, its slice of the text in characters, and the number of its word."""

    id: int
    start: int
    end: int
    word: int


class Window(NamedTuple):
    """A part of a text that fits the model: token ids of its prompt, and its own."""

    prompt: list[int]
    ids: list[int]


class PlacedTokens(NamedTuple):
    """Tokens of a text: ids, int32 (tokens,), and first characters, int64 (tokens,), ascending."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]


class TextTokenizer:
    """The tokenizer of a model file.

    Attributes:
        max_tokens: longest sequence the model takes, special tokens included.
        capacity: how many tokens of a text fit, special tokens not included.
        prefix_ids: special token ids in front of every text.
        suffix_ids: special token ids behind every text.
    """

    def __init__(self, tokenizer_json: str, max_tokens: int) -> None:
        """Raises ModelError where ``tokenizer_json`` is not a tokenizer."""
        with _model_error("cannot be used"):
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
            check_bounds(self._tokenizer)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self.prefix_ids, self.suffix_ids = self._special_tokens()
        self.max_tokens = max_tokens
        self.capacity = max_tokens - len(self.prefix_ids) - len(self.suffix_ids)
        if self.capacity < 1:
            raise ModelError(
                f"expected max_tokens to leave room for a text, got {max_tokens}; export it again"
            )

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after every text."""
        encoding = self._tokenizer.encode("a")
        special = encoding.special_tokens_mask
        if 0 not in special:
            return encoding.ids, []
        first = special.index(0)
        last = len(special) - special[::-1].index(0)
        return encoding.ids[:first], encoding.ids[last:]

    def count(self, texts: Sequence[str], start: int = 0, prompt: str = "") -> list[int]:
        """Tokens of each text with prompt and special tokens, not truncated; raises as `ids`."""
        special = self.max_tokens - self.capacity
        # The length of an encoding, not of its `ids`, which would make an object of each.
        return [
            special + sum(map(len, pieces)) for pieces in self._encode_all(texts, start, prompt)
        ]

    def ids(
        self, texts: Sequence[str], start: int = 0, limit: int | None = None, prompt: str = ""
    ) -> list[list[int]]:
        """Token ids of each text with the prompt in front of it, without special tokens.

        With ``limit``, a text of more tokens may be read only until that is certain: the ids
        returned for it are then more than ``limit``, but not necessarily all.

        Raises:
            TextError: a text holds a surrogate that UTF-8 cannot express; says which, counting
                from ``start``.
        """
        found: list[list[int]] = []
        for pieces in self._encode_all(texts, start, prompt):
            ids: list[int] = []
            for encoding in pieces:
                ids += encoding.ids
                if limit is not None and len(ids) > limit:
                    break
            found.append(ids)
        return found

    def windows(self, text: str, position: int = 0, prompt: str = "") -> Iterator[Window]:
        """Split a text into consecutive windows of at most ``capacity`` tokens; at least one.

        The prompt's tokens, those that end within it, are in front of every window. A window ends
        at the end of a word, unless a single word is longer than a window. Memory does not grow
        with the text.

        Raises:
            TextTooLongError: the prompt fills a window.
            TextError: as `ids`; before the first window, wherever in the text the reason is.
        """
        if not all(map(_is_unicode, _pieces(text))):
            _check_unicode(text, position)
        front: list[int] | None = None
        run: list[int] = []
        boundary = 0  # where the last word of the run starts
        for piece in _pieces(text, prompt):
            (encoding,) = self._encode([piece], [text], position, words=True)
            own = 0  # the first token of the text itself
            if front is None:
                own = _count_prompt_tokens(encoding, prompt)
                front = encoding.ids[:own]
                room = self._room(own, position)
            before: int | None = -1
            for token, word in zip(encoding.ids[own:], encoding.word_ids[own:], strict=True):
                if word != before:
                    before, boundary = word, len(run)
                if len(run) == room:
                    cut = boundary or room
                    yield Window(front, run[:cut])
                    run, boundary = run[cut:], 0
                run.append(token)
        yield Window(front or [], run)

    def _room(self, prompt_tokens: int, position: int) -> int:
        """How many tokens of a text fit behind a prompt."""
        if prompt_tokens >= self.capacity:
            raise TextTooLongError(
                f"text {position} does not fit into windows of {self.max_tokens} tokens: its "
                f"prompt has {prompt_tokens}; use another prompt",
                position,
            )
        return self.capacity - prompt_tokens

    def _encode_all(
        self, texts: Sequence[str], start: int, prompt: str
    ) -> Iterator[Iterable[Encoding]]:
        """Encode texts in turn: each in one piece, or a long one piece by piece, when asked for."""
        for batch in _batches(texts, prompt):
            group = texts[batch.start : batch.stop]
            position = start + batch.start
            if len(group) == 1:
                pieces = _pieces(group[0], prompt)
                yield (self._encode([piece], group, position)[0] for piece in pieces)
            else:
                for encoding in self._encode([prompt + text for text in group], group, position):
                    yield [encoding]

    def tokens(self, text: str, position: int = 0) -> list["Token"]:
        """The tokens of a text and their places in it, without special tokens; raises as `ids`.

        A token's ``word`` counts the words that the tokenizer sees, through the whole text.
        """
        found: list[Token] = []
        offset = words = 0
        for piece in _pieces(text):
            (encoding,) = self._encode([piece], [text], position, words=True)
            numbers = [number or 0 for number in encoding.word_ids]
            places = zip(encoding.ids, encoding.offsets, numbers, strict=True)
            found += [Token(i, offset + a, offset + b, words + word) for i, (a, b), word in places]
            offset += len(piece)
            words += max(numbers, default=-1) + 1
        return found

    def placed(self, text: str, position: int = 0) -> PlacedTokens:
        """The token ids of a text and where each begins, as arrays; otherwise as `tokens`."""
        ids, starts = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        offset = 0
        for piece in _pieces(text):
            (encoding,) = self._encode([piece], [text], position)
            ids.append(np.array(encoding.ids, np.int32))
            starts.append(np.array([start for start, _ in encoding.offsets], np.int64) + offset)
            offset += len(piece)
        return PlacedTokens(np.concatenate(ids), np.concatenate(starts))

    def wrap(self, ids: Sequence[int]) -> list[int]:
        """Put the special tokens around at most ``capacity`` ids."""
        return [*self.prefix_ids, *ids[: self.capacity], *self.suffix_ids]

    def _encode(
        self, batch: list[str], texts: Sequence[str], start: int, words: bool = False
    ) -> list[Encoding]:
        """Encode ``batch``, made of the ``texts`` from position ``start`` that an error names."""
        if not all(map(_is_unicode, batch)):  # tokenizers may put U+FFFD in its place, unasked
            for position, text in enumerate(texts, start):
                _check_unicode(text, position)
        with _model_error("failed on a text"):
            # A batch waits in the queue of the library's thread pool, behind those of other calls.
            if len(batch) > 1 and not _without_threads:
                try:
                    return self._encode_batch(batch, words)
                except BaseException as error:
                    if _NO_THREADS not in str(error):
                        raise
                    _without_threads.append(None)
            return [self._tokenizer.encode(text, add_special_tokens=False) for text in batch]

    def _encode_batch(self, batch: list[str], words: bool) -> list[Encoding]:
        encode = self._tokenizer.encode_batch if words else self._tokenizer.encode_batch_fast
        return list(encode(batch, add_special_tokens=False))


@contextmanager
def _model_error(what: str) -> Iterator[None]:
    """Turn whatever the tokenizers library raises into ModelError.

    It raises bare Exception, and where its Rust code panics a BaseException of a type that cannot
    be imported.
    """
    try:
        with resource_errors():
            yield
    except BaseException as error:
        if not is_native(error):
            raise
        raise ModelError(f"the tokenizer in the file {what} ({error}); export it again") from error


def _is_unicode(text: str) -> bool:
    try:
        text.isascii() or text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_unicode(text: str, position: int) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"text {position} holds a lone surrogate (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}, which is not valid Unicode; read the text with errors='replace'",
            position,
        ) from None


def _count_prompt_tokens(encoding: Encoding, prompt: str) -> int:
    """How many of the first tokens of a prompt with its text end within the prompt."""
    if not prompt:
        return 0
    return sum(1 for _ in takewhile(lambda span: span[1] <= len(prompt), encoding.offsets))


def _batches(texts: Sequence[str], prompt: str) -> Iterator[range]:
    """Positions of texts that are tokenized together; a text of several pieces is by itself."""
    first = size = 0
    for index, text in enumerate(texts):
        length = len(prompt) + len(text)
        if length > _PIECE_CHARACTERS:
            length = _BATCH_CHARACTERS + 1
        if index > first and size + length > _BATCH_CHARACTERS:
            yield range(first, index)
            first, size = index, 0
        size += length
    if texts:
        yield range(first, len(texts))


def _pieces(text: str, prompt: str = "") -> Iterator[str]:
    """Cut before white space into pieces of at most _PIECE_CHARACTERS, the prompt in the first."""
    start, front = 0, prompt
    while len(front) + len(text) - start > _PIECE_CHARACTERS:
        end = start + max(1, _PIECE_CHARACTERS - len(front))
        cut = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
        cut = cut if cut > 0 else end
        yield front + text[start:cut]
        start, front = cut, ""
    yield front + text[start:]
