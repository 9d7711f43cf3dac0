"""Rows to vectors, in chunks of bounded size; what cannot be encoded is a bad row."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from embedge.corpus.inputs import Corpus
from embedge.corpus.journal import State
from embedge.corpus.passages import COLUMNS, PassageOptions, Splitter, encode_stretches
from embedge.corpus.rows import BadRow, Id, Row
from embedge.encoder import Encoder
from embedge.pipeline import Vectors
from embedge.text.overflow import Overflow
from embedge.text.prompts import DOCUMENT_PROMPTS, first_prompt

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
        truncated: how many of the good ones were truncated.
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


@dataclass(frozen=True)
class RowOptions:
    """How rows become vectors.

    Attributes:
        prompt: name of one of the model's prompts; None is its prompt for documents, where it has
            one, and else its default prompt.
        overflow: what happens to texts longer than the model takes; "error" makes them bad rows.
        on_error: "stop" at the first bad row, or "skip" bad rows.
        chunk: rows between two points from which an interrupted job resumes.
        passages: how each text is split into passages, which are the rows then; None: it is not.
    """

    prompt: str | None = None
    overflow: Overflow = "truncate"
    on_error: OnError = "stop"
    chunk: int = CHUNK_TEXTS
    passages: PassageOptions | None = None

    def columns(self, keep: Sequence[str]) -> list[str]:
        """Names of an output's columns besides id and vector; ``keep`` are those of the input."""
        return [*keep, *(COLUMNS if self.passages else ())]


def document_prompt(encoder: Encoder, prompt: str | None) -> str | None:
    """Name of the prompt that documents get if ``prompt`` is what was asked for."""
    if prompt is not None:
        return prompt
    info = encoder.info
    default: str | None = info["default_prompt"]
    return first_prompt(info["prompts"], DOCUMENT_PROMPTS) or default


def read_rows(encoder: Encoder, corpus: Corpus, options: RowOptions) -> Generator[Row | BadRow]:
    """The rows to encode: those of the corpus, or of the passages of its texts."""
    rows = iter(corpus)
    if options.passages is None:
        yield from rows
        return
    prompt = document_prompt(encoder, options.prompt)
    with closing(rows):
        yield from Splitter(encoder, prompt, corpus.fields.text, options.passages).rows(rows)


def encode_rows(
    encoder: Encoder,
    rows: Iterable[Row | BadRow],
    first: int = 0,
    options: RowOptions | None = None,
    encoded: Callable[[int, int | None], object] = lambda done, total: None,
) -> Iterator[Chunk]:
    """Encode rows; the first is number ``first`` of the corpus.

    ``encoded`` is called after each micro-batch, with the texts of the chunk that are done.
    Texts that are equal are encoded once a chunk: equal texts have equal vectors, to the last bit.
    With ``on_error="stop"`` a bad row makes its chunk the last one, which holds the rows before it.

    Raises:
        OptionError: the prompt is not one of the model's.
    """
    options = options or RowOptions()
    prompt = document_prompt(encoder, options.prompt)
    for read in _chunks(rows, options.chunk):
        texts = list({row.text for row in read if isinstance(row, Row)})
        counts = dict(zip(texts, encoder.count_tokens(texts, prompt=prompt), strict=True))
        good, bad, tokens, truncated = [], [], 0, 0
        for number, row in enumerate(read, first):
            if isinstance(row, Row):
                count = counts[row.text]
                row = _checked(row, count, encoder.max_tokens, options.overflow)
            if isinstance(row, BadRow):
                bad.append((number, row))
                if options.on_error == "stop":
                    break
            else:
                good.append((number, row))
                tokens += count
                truncated += options.overflow == "truncate" and count > encoder.max_tokens
        vectors = _vectors(encoder, [row for _, row in good], options, encoded)
        if bad and options.on_error == "stop":
            yield Chunk(read[: len(good)], good, [], vectors, tokens, truncated, bad[0][1])
            return
        yield Chunk(read, good, bad, vectors, tokens, truncated)
        first += len(read)


def _vectors(
    encoder: Encoder,
    rows: Sequence[Row],
    options: RowOptions,
    encoded: Callable[[int, int | None], object],
) -> Vectors:
    """Vectors of good rows, float32 (rows, dim)."""
    prompt = document_prompt(encoder, options.prompt)
    found = np.empty((len(rows), encoder.dim), np.float32)  # (rows, dim)
    single = [i for i, row in enumerate(rows) if row.within is None]
    place = {text: i for i, text in enumerate(dict.fromkeys(rows[i].text for i in single))}
    distinct = encoder.encode(
        list(place), prompt=prompt, overflow=options.overflow, progress=encoded
    )
    if single:
        found[single] = distinct[[place[rows[i].text] for i in single]]
    within = [(i, row.within) for i, row in enumerate(rows) if row.within is not None]
    stretches = list(dict.fromkeys(stretch for _, (stretch, _) in within))
    if stretches:
        sizes = [len(stretch.parts) for stretch in stretches]
        first = dict(zip(stretches, np.cumsum([0, *sizes]).tolist(), strict=False))
        vectors = encode_stretches(
            encoder, stretches, prompt, lambda done: encoded(len(single) + done, len(rows))
        )
        found[[i for i, _ in within]] = vectors[[first[s] + number for _, (s, number) in within]]
    return found


def advance(state: State, chunk: Chunk) -> State:
    """The state after one more chunk, except for the parts that concern files."""
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
        if (len(chunk) >= size or characters > _CHUNK_CHARACTERS) and _may_part(row):
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _may_part(row: Row | BadRow) -> bool:
    """Whether a chunk may end with a row: a stretch of passages is encoded as one."""
    if isinstance(row, BadRow) or row.within is None:
        return True
    return row.within[1] == len(row.within[0].parts) - 1


def _checked(row: Row, tokens: int, most: int, overflow: Overflow) -> Row | BadRow:
    if tokens and (tokens <= most or overflow != "error"):
        return row
    reason = (
        f"{tokens} tokens, but the model takes {most}" if tokens else "no tokens for this model"
    )
    return BadRow(reason, row.text, row.file, row.line)
