"""A corpus of documents to one of passages: a row for each, and for the document where asked."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from embedge.corpus.rows import BadRow, Row
from embedge.documents import Stretch, encode_in_context, split_to_fit
from embedge.encoder import Encoder
from embedge.pipeline import Vectors
from embedge.text.passages import Passage

COLUMNS = ("passage", "start", "end")  # that a row of passages has besides its id

# Characters of a document that are encoded together in context, so that memory does not grow with
# it, and how many more of those before are read with them: more than a quarter of a window.
_STRETCH = 2**17
_LEAD = 2**14


@dataclass(frozen=True)
class PassageOptions:
    """How texts are split into passages.

    Attributes:
        tokens: of a passage at most, special tokens and prompt included; None is all that the
            model takes.
        overlap: up to how many tokens of its end the next passage begins with.
        context: let the model read the whole document, and take each passage's vector from there.
        with_document: put a row for the whole document before those of its passages; its number
            of a passage is None.
    """

    tokens: int | None = None
    overlap: int = 0
    context: bool = False
    with_document: bool = False

    def describe(self, encoder: Encoder) -> dict[str, Any]:
        """The options for the metadata of vectors, with every default resolved."""
        return {
            "tokens": encoder.max_tokens if self.tokens is None else self.tokens,
            "overlap": self.overlap,
            "context": self.context,
            "with_document": self.with_document,
        }


@dataclass(frozen=True)
class Splitter:
    """Splits the texts of rows.

    Attributes:
        encoder: its tokenizer counts.
        prompt: name of the prompt that each passage gets, or None.
        text: name of the column that holds the text: kept, it holds the passage's.
        options: how.
    """

    encoder: Encoder
    prompt: str | None
    text: str
    options: PassageOptions

    def rows(self, documents: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        """Yield the rows of each document's passages; a bad row is passed on.

        A document without an id gets its number. Splitting is lazy: memory does not grow with the
        number of passages.

        Raises:
            OptionError: the numbers of tokens make no sense for this model and prompt.
        """
        for number, row in enumerate(documents):
            if isinstance(row, BadRow):
                yield row
            else:
                yield from self._split(row._replace(id=number if row.id is None else row.id))

    def _split(self, row: Row) -> Iterator[Row]:
        if self.options.with_document:
            place = dict(zip(COLUMNS, (None, 0, len(row.text)), strict=True))
            yield row._replace(columns={**row.columns, **place})
        pipeline, front = self.encoder._pipeline, self.encoder._prompt(self.prompt)
        parts = split_to_fit(pipeline, row.text, front, self.options.tokens, self.options.overlap)
        placed = _stretches(row.text, parts) if self.options.context else ((p, None) for p in parts)
        for number, (part, within) in enumerate(placed):
            place = dict(zip(COLUMNS, (number, part.start, part.end), strict=True))
            text = {self.text: part.text} if self.text in row.columns else {}
            columns = {**row.columns, **text, **place}
            yield row._replace(text=part.text, columns=columns, within=within)


def encode_stretches(
    encoder: Encoder,
    stretches: Sequence[Stretch],
    prompt: str | None,
    encoded: Callable[[int], object],
) -> Vectors:
    """Vectors of all passages of some stretches, in context, float32 (passages, dim).

    Raises OptionError where the model does not pool by the mean.
    """
    front, threads = encoder._prompt(prompt), encoder._concurrency
    return encode_in_context(encoder._pipeline, stretches, front, encoder.dim, threads, encoded)


def _stretches(
    text: str, parts: Iterable[Passage]
) -> Iterator[tuple[Passage, tuple[Stretch, int]]]:
    """Yield each passage with the stretch that it is encoded in, and its position there.

    Where a stretch ends depends on the document only, so that the vectors do as well.
    """
    begin, some = 0, list[Passage]()
    for part in parts:
        some.append(part)
        if part.end - some[0].start >= _STRETCH:
            yield from _stretch(text, begin, some)
            begin = max(p.start for p in some if p.start <= max(some[0].start, part.end - _LEAD))
            some = []
    yield from _stretch(text, begin, some)


def _stretch(
    text: str, begin: int, some: list[Passage]
) -> Iterator[tuple[Passage, tuple[Stretch, int]]]:
    if some:
        moved = tuple(Passage(p.text, p.start - begin, p.end - begin) for p in some)
        stretch = Stretch(text[begin : some[-1].end], moved)
        for index, part in enumerate(some):
            yield part, (stretch, index)
