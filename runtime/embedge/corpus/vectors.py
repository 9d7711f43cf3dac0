"""Vectors made before, or made now of a corpus, as memory-mapped rows with ids and texts."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedge.corpus import arrow
from embedge.corpus.bar import CorpusBar
from embedge.corpus.encoding import OnError, advance, encode_rows
from embedge.corpus.inputs import Corpus
from embedge.corpus.layout import LAYOUTS, Stored
from embedge.corpus.output import read_ids, sidecar
from embedge.corpus.rows import BadRow, Id
from embedge.corpus.work import HEADER_BYTES, State, npy_header
from embedge.encoder import Encoder
from embedge.errors import CorpusError
from embedge.similarity import Vectors


@dataclass(frozen=True)
class StoredVectors:
    """Vectors of one model, on the disk.

    Attributes:
        rows: memory-mapped (n, width), in the layout of ``dtype``.
        dim: components of a vector.
        dtype: a key of LAYOUTS.
        similarity: the model's measure.
        find: gives id and text (None where it is not known) of the rows that are asked for.
    """

    rows: Stored
    dim: int
    dtype: str
    similarity: str
    find: Callable[[Sequence[int]], dict[int, tuple[Id, str | None]]]

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, start: int, size: int) -> Vectors:
        """Up to ``size`` rows as float32 (n, dim)."""
        return LAYOUTS[self.dtype].load(np.asarray(self.rows[start : start + size]), self.dim)


def facts_of(path: Path) -> dict[str, Any] | None:
    """The facts of a file of vectors; None where the file is none.

    Raises:
        CorpusError: a .npy file has no facts beside it, or they cannot be read.
    """
    if path.suffix in (".parquet", ".arrow") and path.is_file():
        with path.open("rb") as stream:
            data = arrow.Table(stream, path.suffix[1:], str(path)).metadata
    else:
        beside = sidecar(path, "json")
        data = beside.read_bytes() if path.is_file() and beside.is_file() else None
        if data is None and path.suffix == ".npy":
            raise CorpusError(
                f"there is no {beside.name} beside it to say which model made it; "
                "make the vectors with embedge embed INPUT --output FILE",
                str(path),
            )
    if data is None:
        return None
    try:
        facts = json.loads(data)
        known = facts["format"] == 1 and facts["dtype"] in LAYOUTS
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise CorpusError(
            "the facts of this file are damaged, or of a newer embedge; make it again", str(path)
        )
    return dict(facts)


def check_fingerprint(path: Path, facts: Mapping[str, Any], name: str, fingerprint: str) -> None:
    """Raise CorpusError where another model than ``name`` made the vectors."""
    if facts["fingerprint"] != fingerprint:
        raise CorpusError(
            f"made with {facts['model']} (fingerprint {facts['fingerprint'][:16]}...), but the "
            f"model now is {name} ({fingerprint[:16]}...), and vectors of different models cannot "
            "be compared; give the model that made them with --model, or embed again",
            str(path),
        )


@contextmanager
def open_vectors(path: Path, facts: Mapping[str, Any]) -> Iterator[StoredVectors]:
    """Open a file of vectors, whose ``facts_of`` are known."""
    layout = LAYOUTS[facts["dtype"]]
    shape = (facts["rows"], layout.width(facts["dim"]))
    with ExitStack() as stack:
        if path.suffix == ".npy":
            rows, ids = path, _npy_ids(path, facts)
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="embedge-"))
            rows = Path(folder) / "vectors.npy"
            _to_npy(rows, (block for _, block in _batches(path)), layout.dtype, shape[1])
            ids = lambda: (key for keys, _ in _batches(path) for key in keys)  # noqa: E731
        try:
            stored = np.load(rows, mmap_mode="r")
        except (ValueError, OSError) as error:
            raise CorpusError(
                f"not a whole .npy file ({error}); make it again", str(path)
            ) from None
        if stored.shape != shape or stored.dtype != layout.dtype:
            raise CorpusError(
                f"should be {layout.dtype} {shape} by its facts, but is {stored.dtype} "
                f"{stored.shape}; make it again",
                str(path),
            )

        def find(wanted: Sequence[int]) -> dict[int, tuple[Id, str | None]]:
            return {row: (key, None) for row, key in _pick(ids(), wanted)}

        yield StoredVectors(stored, facts["dim"], facts["dtype"], facts["similarity"], find)


@contextmanager
def embed_now(
    encoder: Encoder,
    corpus: Corpus,
    *,
    prompt: str | None,
    on_error: OnError = "stop",
    skipped: Callable[[BadRow], None] = lambda row: None,
    progress: bool = False,
) -> Iterator[StoredVectors]:
    """The vectors of a corpus, in a temporary file as long as the context lasts.

    ``skipped`` is called with each bad row that ``on_error="skip"`` leaves out. ``progress`` draws
    a bar on standard error, where that is a terminal.

    Raises:
        CorpusError: a row is bad and ``on_error`` is "stop".
    """
    with (
        tempfile.TemporaryDirectory(prefix="embedge-") as folder,
        closing(iter(corpus)) as read,
    ):
        rows, texts = Path(folder) / "vectors.npy", Path(folder) / "texts"
        with texts.open("wb") as spool:

            def blocks(bar: CorpusBar) -> Iterator[Vectors]:
                state = State()
                for chunk in encode_rows(encoder, read, prompt=prompt, on_error=on_error):
                    for key, (_, row) in zip(chunk.ids, chunk.good, strict=True):
                        spool.write(json.dumps([key, row.text]).encode() + b"\n")
                    for _, left_out in chunk.bad:
                        skipped(left_out)
                    yield chunk.vectors
                    state = advance(state, chunk)
                    bar.show(state)
                    if (bad := chunk.stopped) is not None:
                        advice = ". Mend the row, or add --on-error skip"
                        raise CorpusError(bad.reason + advice, bad.file, bad.line)

            with CorpusBar(progress, corpus.fraction, State()) as bar:
                _to_npy(rows, blocks(bar), LAYOUTS["float32"].dtype, encoder.dim)

        def find(wanted: Sequence[int]) -> dict[int, tuple[Id, str | None]]:
            with texts.open("rb") as lines:
                return {row: tuple(json.loads(line)) for row, line in _pick(lines, wanted)}

        stored = np.load(rows, mmap_mode="r")
        yield StoredVectors(stored, encoder.dim, "float32", encoder.info["similarity"], find)


def _npy_ids(path: Path, facts: Mapping[str, Any]) -> Callable[[], Iterable[Id]]:
    if facts["ids_are_rows"]:
        return lambda: range(facts["rows"])
    return lambda: read_ids(sidecar(path, "ids"))


def _batches(path: Path) -> Iterator[tuple[list[Id], Stored]]:
    """Ids and stored vectors of a .parquet, .arrow or .jsonl file of ours."""
    with path.open("rb") as stream:
        if path.suffix == ".jsonl":
            for number, line in enumerate(stream, 1):
                try:
                    row = json.loads(line)
                    yield [row["id"]], np.array([row["vector"]])
                except (ValueError, TypeError, KeyError):
                    message = "not a vector with its id; make the file again"
                    raise CorpusError(message, str(path), number) from None
        else:
            yield from arrow.Table(stream, path.suffix[1:], str(path)).vectors()


def _to_npy(path: Path, blocks: Iterable[Stored], dtype: np.dtype[Any], width: int) -> None:
    """Write a temporary .npy file; raises CorpusError where there is no room for it."""
    rows = 0
    try:
        with path.open("wb") as stream:
            stream.seek(HEADER_BYTES)
            for block in blocks:
                stream.write(block.astype(dtype, copy=False).tobytes())
                rows += len(block)
            stream.seek(0)
            stream.write(npy_header(dtype, rows, width))
    except OSError as error:
        raise CorpusError(
            f"a temporary file of the vectors cannot be written ({error.strerror or error}); set "
            "TMPDIR to a folder with room, or make the vectors with embedge embed --output FILE.npy"
        ) from error


def _pick(items: Iterable[Any], wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """The items at some positions, with their positions, in one pass."""
    rows = set(wanted)
    last = max(rows, default=-1)
    for row, item in enumerate(items):
        if row > last:
            return
        if row in rows:
            yield row, item
