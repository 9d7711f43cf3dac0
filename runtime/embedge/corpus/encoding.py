"""Rows to vectors, in chunks of bounded size; what cannot be encoded is a bad row."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from embedge.corpus.rows import BadRow, Id, Row
from embedge.corpus.work import State
from embedge.encoder import Encoder
from embedge.pipeline import Vectors
from embedge.text.overflow import Overflow

OnError = Literal["stop", "skip"]

# As many as the Encoder sorts at a time, so that a chunk costs no speed.
CHUNK_TEXTS = 4096
_CHUNK_CHARACTERS = 2**22


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows and the vectors of the good ones.

    Attributes:
        read: the rows as they were read, bad ones included.
        good: those with a vector, each with its number in the corpus, from 0.
        bad: those without, each with its number.
        vectors: float32 (good, dim).
        tokens: of the good ones, before truncation.
        truncated: how many of the good ones were cut.
        stopped: the bad row, not in this chunk, that ends the job.
    """

    read: list[Row | BadRow]
    good: list[tuple[int, Row]]
    bad: list[tuple[int, BadRow]]
    vectors: Vectors
    tokens: int
    truncated: int
    stopped: BadRow | None = None

    @property
    def ids(self) -> list[Id]:
        """The id of each vector: the corpus's own, or the row's number."""
        return [number if row.id is None else row.id for number, row in self.good]


def encode_rows(
    encoder: Encoder,
    rows: Iterable[Row | BadRow],
    first: int = 0,
    *,
    prompt: str | None = None,
    overflow: Overflow = "truncate",
    on_error: OnError = "stop",
    chunk: int = CHUNK_TEXTS,
) -> Iterator[Chunk]:
    """Encode rows; the first is number ``first`` of the corpus.

    With ``on_error="stop"`` a bad row makes its chunk the last one, which holds the rows before it.

    Raises:
        OptionError: the prompt is not one of the model's.
    """
    for read in _chunks(rows, chunk):
        counts = encoder.count_tokens([_text(row) for row in read], prompt=prompt)
        good, bad, tokens, truncated = [], [], 0, 0
        for number, (row, count) in enumerate(zip(read, counts, strict=True), first):
            row = _checked(row, count, encoder.max_tokens, overflow)
            if isinstance(row, BadRow):
                bad.append((number, row))
                if on_error == "stop":
                    break
            else:
                good.append((number, row))
                tokens += count
                truncated += overflow == "truncate" and count > encoder.max_tokens
        vectors = encoder.encode([row.text for _, row in good], prompt=prompt, overflow=overflow)
        if bad and on_error == "stop":
            stopped = bad[0][1]
            yield Chunk(read[: len(good)], good, [], vectors, tokens, truncated, stopped)
            return
        yield Chunk(read, good, bad, vectors, tokens, truncated)
        first += len(read)


def advance(state: State, chunk: Chunk) -> State:
    """The state after one more chunk, but for what concerns files."""
    return replace(
        state,
        read=state.read + len(chunk.read),
        texts=state.texts + len(chunk.good),
        skipped=state.skipped + len(chunk.bad),
        tokens=state.tokens + chunk.tokens,
        truncated=state.truncated + chunk.truncated,
    )


def _chunks(rows: Iterable[Row | BadRow], size: int) -> Iterator[list[Row | BadRow]]:
    chunk: list[Row | BadRow] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.text) if isinstance(row, Row) else len(str(row.raw))
        if len(chunk) == size or characters > _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _text(row: Row | BadRow) -> str:
    return row.text if isinstance(row, Row) else ""


def _checked(row: Row | BadRow, tokens: int, most: int, overflow: Overflow) -> Row | BadRow:
    if isinstance(row, BadRow) or (tokens and (tokens <= most or overflow != "error")):
        return row
    reason = (
        f"{tokens} tokens, but the model takes {most}" if tokens else "no tokens for this model"
    )
    return BadRow(reason, row.text, row.file, row.line)
