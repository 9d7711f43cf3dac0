"""A text to passages that fit the model: exact slices, cut at sentence ends where possible."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from embedge.errors import OptionError, is_integer
from embedge.text.boundaries import is_cluster_start, sentence_ends, word_ends

# Characters that are tokenized at a time, so that memory does not grow with the text.
_CHUNK_CHARACTERS = 2**16
# One character may be several tokens (bytes, parts of an emoji): with less room none might fit.
_MIN_LIMIT = 8


@dataclass(frozen=True)
class Passage:
    """A part of a text: ``text`` is the slice from ``start`` to ``end``, in characters."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Tokens:
    """Tokenizes slices of a text, without special tokens.

    Attributes:
        starts: gives the character at which each token starts, in ascending order.
        count: gives how many tokens there are.
    """

    starts: Callable[[str], Sequence[int]]
    count: Callable[[str], int]


def check_limits(limit: int, overlap: int) -> None:
    """Raise OptionError unless passages of ``limit`` tokens may share ``overlap`` of them."""
    if limit < _MIN_LIMIT:
        raise OptionError(
            f"expected room for at least {_MIN_LIMIT} tokens of text in a passage, got {limit}, "
            "after special tokens and the prompt; use a larger limit"
        )
    if not is_integer(overlap) or not 0 <= overlap <= limit // 2:
        raise OptionError(
            f"expected an overlap from 0 to {limit // 2} tokens, half of a passage, got {overlap!r}"
        )


def split(text: str, tokens: Tokens, limit: int, overlap: int = 0) -> Iterator[Passage]:
    """Yield the passages of a text, each of at most ``limit`` tokens by itself.

    A passage ends at the last sentence end that fits, else at the last word end, else before the
    last character that fits; white space belongs to the passage before it. Without overlap the
    passages joined are the text. A text without tokens is one passage.

    Args:
        text: any str.
        tokens: tokenizes slices of it.
        limit: tokens of a passage, as `check_limits` accepts it.
        overlap: a passage begins up to so many tokens before the end of the one before it, at the
            start of a sentence or a word.
    """
    begin = end = 0
    chunk = _Chunk(text, 0, tokens)
    while not chunk.holds_the_rest(begin, limit):
        if chunk.is_nearly_used_up(begin, limit) and begin > chunk.start:
            chunk = _Chunk(text, begin, tokens)
            continue
        end = chunk.cut(begin, end, limit)
        yield Passage(text[begin:end], begin, end)
        begin = chunk.back(begin, end, overlap)
    yield Passage(text[begin:], begin, len(text))


class _Chunk:
    """A stretch of the text with its tokens and boundaries; all positions are the text's."""

    def __init__(self, text: str, start: int, tokens: Tokens) -> None:
        piece = text[start : start + _CHUNK_CHARACTERS]
        self.start, self._end = start, start + len(piece)
        self._text, self._count = text, tokens.count
        self._tokens = [start + position for position in tokens.starts(piece)]
        self._sentences = [start + position for position in sentence_ends(piece)]
        self._words = [start + position for position in word_ends(piece)]

    def holds_the_rest(self, begin: int, limit: int) -> bool:
        """Whether the text from ``begin`` ends in this chunk and fits into one passage."""
        if self._end < len(self._text) or self._left(begin) > limit:
            return False
        return self._count(self._text[begin:]) <= limit

    def is_nearly_used_up(self, begin: int, limit: int) -> bool:
        """Whether a passage from ``begin`` might reach beyond the end of this chunk."""
        return self._end < len(self._text) and self._left(begin) <= limit

    def cut(self, begin: int, past: int, limit: int) -> int:
        """The end of the passage from ``begin``, which has to lie behind ``past``."""
        room = limit
        while True:
            index = bisect_left(self._tokens, begin) + room
            most = self._tokens[index] if index < len(self._tokens) else self._end
            end = self._boundary(begin, past, max(most, past + 1))
            # A slice by itself may have a token more than where it stood.
            excess = self._count(self._text[begin:end]) - limit
            if excess <= 0 or end == past + 1:
                return end
            room = max(1, room - excess)

    def back(self, begin: int, end: int, overlap: int) -> int:
        """Where the next passage begins: at most ``overlap`` tokens before ``end``."""
        first = bisect_left(self._tokens, end) - overlap
        if overlap == 0 or first <= 0:
            return end
        least = max(self._tokens[first], begin + 1)
        for boundaries in (self._sentences, self._words):
            index = bisect_left(boundaries, least)
            if index < len(boundaries) and boundaries[index] < end:
                return boundaries[index]
        return end

    def _left(self, begin: int) -> int:
        return len(self._tokens) - bisect_left(self._tokens, begin)

    def _boundary(self, begin: int, past: int, most: int) -> int:
        """The best place to cut a passage from ``begin`` in ``past`` < place <= ``most``."""
        for boundaries in (self._sentences, self._words):
            index = bisect_right(boundaries, most) - 1
            if index >= 0 and boundaries[index] > past:
                return boundaries[index]
        place = most
        while place > past + 1 and not is_cluster_start(self._text, place, begin):
            place -= 1
        return place if is_cluster_start(self._text, place, begin) else most
