"""Files of vectors that a job has written: opened, and checked against their metadata."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

import numpy as np

from embedge.corpus import arrow
from embedge.corpus.files import real_path
from embedge.corpus.layout import Stored
from embedge.corpus.metadata import Checksums, Metadata
from embedge.corpus.output import sidecar
from embedge.corpus.passages import COLUMNS
from embedge.corpus.publish import metadata_of
from embedge.corpus.rows import Id, Place
from embedge.corpus.vectors import RowFile, StoredVectors, no_room, pick, temporary
from embedge.errors import CorpusError

_BLOCK_ROWS = 4096


def check_fingerprint(path: Path, metadata: Metadata, name: str, fingerprint: str) -> None:
    """Raise CorpusError where another model than ``name`` made the vectors."""
    if metadata.fingerprint != fingerprint:
        raise CorpusError(
            f"made with {metadata.model} (fingerprint {metadata.fingerprint[:16]}...), but the "
            f"model now is {name} ({fingerprint[:16]}...), and vectors of different models cannot "
            "be compared; give the model that made them with --model, or embed again",
            str(path),
        )


def read_metadata(path: Path) -> Metadata | None:
    """The metadata of a file of vectors; None where it is not one.

    Raises:
        CorpusError: a .npy file has no metadata file, or it is damaged.
    """
    metadata = metadata_of(real_path(path))
    if metadata is None and path.suffix.lower() == ".npy" and path.is_file():
        raise CorpusError(
            f"expected its metadata in {path.name}.json, got no such file; "
            "make the vectors with embedge embed INPUT --output FILE",
            str(path),
        )
    return metadata


@contextmanager
def open_vectors(path: Path, metadata: Metadata | None = None) -> Iterator[StoredVectors]:
    """Open a file of vectors, after checking all of it against its metadata.

    Args:
        path: a .npy, .jsonl, .parquet or .arrow file that a job has written.
        metadata: what `read_metadata` gave for it, if it is known.

    Raises:
        CorpusError: the file is no such file, is damaged, or is not what was written.
    """
    metadata = metadata or read_metadata(path)
    if metadata is None:
        if not path.exists():
            raise CorpusError("there is no such file", str(path))
        raise CorpusError("not a file of vectors that embedge has written", str(path))
    real = real_path(path)
    with real.open("rb") if real.suffix.lower() == ".npy" else temporary() as stream:
        offset = _checked_offset(stream, metadata, path, real)
        rows = RowFile(stream, offset, (metadata.rows, metadata.width), metadata.layout.dtype)

        def find(wanted: Sequence[int]) -> dict[int, tuple[Id, str | None]]:
            return dict(pick(_ids_and_texts(real, metadata), wanted))

        def places() -> Iterator[Place]:
            return _places(real, path)

        yield StoredVectors(
            rows,
            metadata.dim,
            metadata.dtype,
            metadata.similarity,
            find,
            has_texts=metadata.text_column is not None,
            places=places if metadata.passages else None,
        )


def _checked_offset(stream: BinaryIO, metadata: Metadata, path: Path, real: Path) -> int:
    """Where the rows begin in ``stream``, to which those of other files than .npy are copied."""
    checksums = Checksums()
    if real.suffix.lower() == ".npy":
        offset = _npy_offset(stream, metadata, path)
        _check_npy(stream, metadata, checksums, real)
    else:
        offset = 0
        with no_room():
            for ids, block in _batches(real, metadata):
                checksums.add(ids, block)
                stream.write(block.tobytes())
    _compare(checksums, metadata, path)
    return offset


def verify_vectors(path: Path) -> Metadata:
    """Check a file of vectors against its metadata, which is returned.

    Raises:
        CorpusError: the file is no such file, is damaged, or is not what was written.
    """
    metadata = read_metadata(path)
    with open_vectors(path, metadata):
        assert metadata is not None
        return metadata


def _npy_offset(stream: BinaryIO, metadata: Metadata, path: Path) -> int:
    """Where the rows begin in a .npy file, which must have just these rows."""
    expected = (metadata.rows, metadata.width)
    try:
        np.lib.format.read_magic(stream)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, EOFError) as error:
        raise CorpusError(f"not a whole .npy file ({error}); make it again", str(path)) from None
    if (shape, dtype, fortran) != (expected, metadata.layout.dtype, False):
        raise CorpusError(
            f"expected {metadata.layout.dtype} {expected} by its metadata, got {dtype} {shape}; "
            "make it again",
            str(path),
        )
    offset = stream.tell()
    size = stream.seek(0, 2) - offset
    whole = metadata.rows * metadata.width * dtype.itemsize
    if size != whole:
        raise CorpusError(
            f"expected {whole:,} bytes of vectors, got {size:,}: not a whole .npy file, or more "
            "was appended; make it again",
            str(path),
        )
    stream.seek(offset)
    return offset


def _check_npy(stream: BinaryIO, metadata: Metadata, checksums: Checksums, path: Path) -> None:
    """Add the rows that follow in a .npy file, and their ids."""
    ids = _ids(path, metadata)
    for start in range(0, metadata.rows, _BLOCK_ROWS):
        size = min(_BLOCK_ROWS, metadata.rows - start)
        block = stream.read(size * metadata.width * metadata.layout.dtype.itemsize)
        checksums.add([key for _, key in zip(range(size), ids, strict=False)], block)
    checksums.add(list(ids), b"")


def _compare(checksums: Checksums, metadata: Metadata, path: Path) -> None:
    problem = ""
    if checksums.rows != metadata.rows:
        problem = f"expected {metadata.rows} rows, got {checksums.rows}"
    elif checksums.vectors != metadata.vectors_sha256:
        problem = "the vectors are not those that were written: their checksum differs"
    elif checksums.ids != metadata.ids_sha256:
        problem = "the ids are not those that were written: their checksum differs"
    if problem:
        raise CorpusError(f"{problem}; make it again", str(path))


def _ids(path: Path, metadata: Metadata) -> Iterator[Id]:
    """The ids of a file of vectors, in order."""
    if path.suffix.lower() != ".npy":
        return (key for keys, _ in _batches(path, metadata) for key in keys)
    if metadata.ids_are_rows:
        return iter(range(metadata.rows))
    return _read_ids(sidecar(path, "ids"))


def _ids_and_texts(path: Path, metadata: Metadata) -> Iterator[tuple[Id, str | None]]:
    """The ids of a file of vectors, and the texts where they were kept."""
    column = metadata.text_column
    if column is None:
        yield from ((key, None) for key in _ids(path, metadata))
        return
    yield from ((row["id"], row[column]) for row in _columns(path, ["id", column]))


def _columns(path: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Some columns of each row of a .parquet, .arrow or .jsonl file."""
    with path.open("rb") as stream:
        if path.suffix.lower() == ".jsonl":
            yield from map(json.loads, stream)
        else:
            yield from arrow.Table(stream, path.suffix[1:].lower(), str(path)).rows(names)


def _places(real: Path, path: Path) -> Iterator[Place]:
    """Which part of its document each row of a file of passages is."""
    for number, row in enumerate(_columns(real, ["id", *COLUMNS]), 1):
        passage, start, end = (row.get(name) for name in COLUMNS)
        if type(passage) not in (int, NoneType) or type(start) is not int or type(end) is not int:
            raise CorpusError(
                f"expected whole numbers as {', '.join(COLUMNS)}; make the file again",
                str(path),
                number,
            )
        yield Place(row["id"], passage, start, end)


def _read_ids(path: Path) -> Iterator[Id]:
    number = 0
    try:
        with path.open("rb") as stream:
            for line in stream:
                number += 1
                yield json.loads(line)
    except FileNotFoundError:
        raise CorpusError(
            "the file of the ids is missing; make the vectors again", str(path)
        ) from None
    except (ValueError, RecursionError):
        raise CorpusError("not an id in JSON; make the vectors again", str(path), number) from None


def _batches(path: Path, metadata: Metadata) -> Iterator[tuple[list[Id], Stored]]:
    """Ids and stored vectors of a .parquet, .arrow or .jsonl file of ours, in their width."""
    with path.open("rb") as stream:
        if path.suffix.lower() == ".jsonl":
            for number, line in enumerate(stream, 1):
                yield _jsonl_row(line, metadata, path, number)
            return
        for ids, block in arrow.Table(stream, path.suffix[1:].lower(), str(path)).vectors():
            if block.shape[1:] != (metadata.width,) or block.dtype != metadata.layout.dtype:
                raise CorpusError(
                    f"expected {metadata.width} values of {metadata.layout.dtype} a row, got "
                    f"{block.shape[1:]} of {block.dtype}; make it again",
                    str(path),
                )
            yield ids, block


def _jsonl_row(line: bytes, metadata: Metadata, path: Path, number: int) -> tuple[list[Id], Stored]:
    try:
        row = json.loads(line)
        with np.errstate(all="ignore"):
            vector = np.array([row["vector"]]).astype(metadata.layout.dtype)
        if vector.shape == (1, metadata.width):
            return [row["id"]], vector
        problem = f"expected a vector of {metadata.width} values, got shape {vector.shape[1:]}"
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        problem = "not a vector with its id"
    raise CorpusError(f"{problem}; make the file again", str(path), number)
