"""Vectors as rows in a file or in memory, with ids and texts; those of a corpus made now."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from embedge.corpus.bar import CorpusBar
from embedge.corpus.encoding import Chunk, RowOptions, advance, encode_rows, read_rows
from embedge.corpus.inputs import Corpus
from embedge.corpus.journal import State
from embedge.corpus.layout import LAYOUTS, Stored
from embedge.corpus.passages import COLUMNS
from embedge.corpus.rows import BadRow, Id, Place
from embedge.encoder import Encoder
from embedge.errors import CorpusError
from embedge.similarity import Vectors

_BLOCK_ROWS = 4096

Find = Callable[[Sequence[int]], dict[int, tuple[Id, str | None]]]


class RowFile:
    """Stored rows in an open file, read where they are needed.

    Read and not mapped: on Windows a mapped file can be neither renamed nor deleted, and one that
    is cut short while it is mapped ends the process.
    """

    def __init__(
        self, stream: BinaryIO, offset: int, shape: tuple[int, int], dtype: np.dtype[Any]
    ) -> None:
        self._stream, self._offset, self._shape, self._dtype = stream, offset, shape, dtype

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, rows: slice) -> Stored:
        """Consecutive rows, (n, width)."""
        first, end, _ = rows.indices(len(self))
        row_bytes = self._shape[1] * self._dtype.itemsize
        self._stream.seek(self._offset + first * row_bytes)
        size = max(0, end - first) * row_bytes
        data = self._stream.read(size)
        if len(data) != size:
            raise CorpusError("the file of vectors was cut short while it was read")
        return np.frombuffer(data, self._dtype).reshape(-1, self._shape[1])


@dataclass(frozen=True)
class StoredVectors:
    """Vectors of one model, on the disk or in memory.

    Attributes:
        rows: (n, width), in the layout of ``dtype``.
        dim: components of a vector.
        dtype: a key of LAYOUTS.
        similarity: the model's measure.
        find: gives id and text (None where it is not known) of the rows that are asked for.
        has_texts: whether it knows the texts.
        places: goes through the rows once, and says which part of its document each is; None where
            the rows are not passages.
    """

    rows: RowFile | Stored
    dim: int
    dtype: str = "float32"
    similarity: str = "cosine"
    find: Find = lambda rows: {row: (row, None) for row in rows}
    has_texts: bool = False
    places: Callable[[], Iterator[Place]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, start: int, size: int) -> Vectors:
        """Up to ``size`` rows as float32 (n, dim)."""
        return LAYOUTS[self.dtype].load(np.asarray(self.rows[start : start + size]), self.dim)


@contextmanager
def embed_now(
    encoder: Encoder,
    corpus: Corpus,
    options: RowOptions | None = None,
    *,
    skipped: Callable[[BadRow], None] = lambda row: None,
    progress: bool = False,
) -> Iterator[StoredVectors]:
    """The vectors of a corpus, in a temporary file as long as the context lasts.

    Args:
        encoder: makes the vectors.
        corpus: the rows; iterated over once.
        options: how; the defaults of RowOptions.
        skipped: is called with each bad row that ``on_error="skip"`` leaves out.
        progress: draw a bar on standard error, or print a line a minute where that is no terminal.

    Raises:
        CorpusError: a row is bad and ``on_error`` is "stop", or there is no room for the file.
    """
    options = options or RowOptions()
    reading = closing(read_rows(encoder, corpus, options))
    with temporary() as vectors, temporary() as lines, reading as read:
        texts, state = _Texts(lines, options), State()
        with CorpusBar(progress, corpus.fraction, state) as bar, no_room():
            for chunk in encode_rows(encoder, read, 0, options, bar.encoded):
                texts.add(chunk)
                for _, left_out in chunk.bad:
                    skipped(left_out)
                vectors.write(chunk.vectors.astype("<f4", copy=False).tobytes())
                state = advance(state, chunk)
                bar.show(state)
                if chunk.stopped is not None:
                    raise _bad_row(chunk.stopped)
            vectors.flush()
            lines.flush()
        rows = RowFile(vectors, 0, (state.texts, encoder.dim), np.dtype("<f4"))
        places = texts.places if options.passages else None
        measure = encoder.info["similarity"]
        yield StoredVectors(rows, encoder.dim, "float32", measure, texts.find, True, places)


def _bad_row(row: BadRow) -> CorpusError:
    return CorpusError(f"{row.reason}. Fix the row, or add --on-error skip", row.file, row.line)


class _Texts:
    """Id, text and, of passages, place of each row: a line of JSON each in a temporary file."""

    def __init__(self, lines: BinaryIO, options: RowOptions) -> None:
        self._lines, self._columns = lines, COLUMNS if options.passages else ()

    def add(self, chunk: Chunk) -> None:
        """Write the rows of a chunk that have a vector."""
        for key, (_, row) in zip(chunk.ids, chunk.good, strict=True):
            place = [row.columns[name] for name in self._columns]
            self._lines.write(json.dumps([key, row.text, *place]).encode() + b"\n")

    def find(self, wanted: Sequence[int]) -> dict[int, tuple[Id, str | None]]:
        """Id and text of some rows."""
        self._lines.seek(0)
        return {row: tuple(json.loads(line)[:2]) for row, line in pick(self._lines, wanted)}

    def places(self) -> Iterator[Place]:
        """The place of each row, in order."""
        self._lines.seek(0)
        for line in self._lines:
            key, _, *place = json.loads(line)
            yield Place(key, *place)


@contextmanager
def temporary() -> Iterator[BinaryIO]:
    """A temporary file, deleted on closing, and without a name while open where the system can."""
    with no_room():
        file = tempfile.TemporaryFile(prefix="embedge-")  # noqa: SIM115  # closed below
    try:
        yield cast(BinaryIO, file)
    finally:
        with no_room():
            file.close()


@contextmanager
def no_room() -> Iterator[None]:
    """Turn the OSError of a full disk into CorpusError."""
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"a temporary file of the vectors cannot be written ({error.strerror or error}); set "
            "TMPDIR to a folder with room, or make the vectors with embedge embed --output FILE.npy"
        ) from error


def pick(items: Iterable[Any], wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """The items at some positions, with their positions, in one pass."""
    rows = set(wanted)
    last = max(rows, default=-1)
    for row, item in enumerate(items):
        if row > last:
            return
        if row in rows:
            yield row, item
