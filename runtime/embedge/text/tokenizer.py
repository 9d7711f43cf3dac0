"""Texts to token ids, with truncation that is counted instead of silent.

Special tokens are put around the ids here rather than by the tokenizers library, so that a long
text can be tokenized in pieces of bounded size and cut or split without losing them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from embedge.errors import ModelError, TextError
from embedge.text.limits import check_bounds

# A text of more characters is tokenized in pieces that end before white space: tokenizers needs
# some 100 bytes of memory per character. Tokenizers that split at white space give the same ids.
_PIECE_CHARACTERS = 2**16


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its id, its slice of the text in characters, and the number of its word."""

    id: int
    start: int
    end: int
    word: int


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
            raise ModelError(f"max_tokens is {max_tokens}, which leaves no room for a text")

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after every text."""
        encoding = self._tokenizer.encode("a")
        special = encoding.special_tokens_mask
        if 0 not in special:
            return encoding.ids, []
        first = special.index(0)
        last = len(special) - special[::-1].index(0)
        return encoding.ids[:first], encoding.ids[last:]

    def count(self, texts: Sequence[str], start: int = 0) -> list[int]:
        """Tokens of each text, special tokens included, before any truncation; raises as `ids`."""
        special = self.max_tokens - self.capacity
        counts = [0] * len(texts)
        for index, encoding in self._encodings(texts, start):
            counts[index] += len(encoding)  # not of `ids`, which would make an object of each
        return [special + count for count in counts]

    def ids(
        self, texts: Sequence[str], start: int = 0, limit: int | None = None
    ) -> list[list[int]]:
        """Token ids of each text, without special tokens.

        With ``limit``, a text of more tokens may be read only until that is certain: the ids
        returned for it are then more than ``limit``, but not necessarily all.

        Raises:
            TextError: a text holds a surrogate that UTF-8 cannot express; says which, counting
                from ``start``.
        """
        found: list[list[int]] = [[] for _ in texts]
        for index, encoding in self._encodings(texts, start, found, limit):
            found[index] += encoding.ids
        return found

    def windows(self, text: str, position: int = 0) -> Iterator[list[int]]:
        """Yield consecutive runs of at most ``capacity`` token ids of a text; at least one.

        A run ends at a word's end, unless a single word is longer than a run. Memory does not grow
        with the text. Raises as `ids`.
        """
        run: list[int] = []
        boundary = 0  # where the last word of the run starts
        for piece in _pieces(text):
            (encoding,) = self._encode([piece], [text], position, words=True)
            before: int | None = -1
            for token, word in zip(encoding.ids, encoding.word_ids, strict=True):
                if word != before:
                    before, boundary = word, len(run)
                if len(run) == self.capacity:
                    cut = boundary or self.capacity
                    yield run[:cut]
                    run, boundary = run[cut:], 0
                run.append(token)
        yield run

    def _encodings(
        self,
        texts: Sequence[str],
        start: int,
        found: Sequence[Sequence[int]] = (),
        limit: int | None = None,
    ) -> Iterator[tuple[int, Encoding]]:
        """Yield (index, encoding) of short texts, and of long ones piece by piece.

        A long text ends where ``found`` has more than ``limit`` ids of it.
        """
        short = [text if len(text) <= _PIECE_CHARACTERS else "" for text in texts]
        yield from enumerate(self._encode(short, texts, start))
        for index, text in enumerate(texts):
            if len(text) <= _PIECE_CHARACTERS:
                continue
            for piece in _pieces(text):
                yield index, self._encode([piece], [text], start + index)[0]
                if limit is not None and len(found[index]) > limit:
                    break

    def tokens(self, text: str, position: int = 0) -> list["Token"]:
        """The tokens of a text and where they stand in it, without special tokens; raises as `ids`.

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
        tokenizer = self._tokenizer
        encode = tokenizer.encode_batch if words else tokenizer.encode_batch_fast
        with _model_error("failed on a text"):
            # A batch waits in the queue of the library's own threads, behind those of other calls.
            if len(batch) == 1:
                return [tokenizer.encode(batch[0], add_special_tokens=False)]
            return list(encode(batch, add_special_tokens=False))


@contextmanager
def _model_error(what: str) -> Iterator[None]:
    """Turn whatever the tokenizers library raises into ModelError.

    It raises bare Exception, and where its Rust code panics a BaseException that has no name here.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
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


def _pieces(text: str) -> Iterator[str]:
    """Cut before white space into pieces of at most _PIECE_CHARACTERS characters."""
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        end = start + _PIECE_CHARACTERS
        cut = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
        cut = cut if cut > 0 else end
        yield text[start:cut]
        start = cut
    yield text[start:]
