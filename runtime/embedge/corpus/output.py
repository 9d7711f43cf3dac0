"""What a finished job leaves: the vectors in one of four forms, and their metadata.

    VECTORS.npy       (texts, width) of the dtype's layout, for numpy.load(..., mmap_mode="r")
    VECTORS.jsonl     {"id": ..., "vector": [...], kept columns} a line
    VECTORS.parquet   columns id (int64 or string), vector (fixed-size list), kept columns;
                      .arrow likewise

The metadata, a JSON object, is next to .npy and .jsonl as VECTORS.npy.json, and in .parquet and
.arrow as the schema's metadata `embedge`. Next to .npy, VECTORS.npy.ids has the id of each row, a
JSON value a line, unless the ids are the rows' numbers from 0. VECTORS.npy.skipped has the rows
that were skipped, if any were: {"number", "file", "line", "reason", "row"} a line.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from embedge.corpus import arrow
from embedge.corpus.columns import column_types, convert, to_json
from embedge.corpus.files import forbidden
from embedge.corpus.journal import Journal
from embedge.corpus.layout import Stored
from embedge.corpus.metadata import Checksums, Metadata
from embedge.corpus.rows import Id
from embedge.errors import CorpusError, OptionError

_INT64 = range(-(2**63), 2**63)
RESERVED = ("id", "vector")  # the columns that every output has

# One batch of an output: ids, stored vectors (rows, width), and the kept columns of each row.
Batch = tuple[list[Id], Stored, list[dict[str, Any]]]


def check_output(path: Path, columns: Sequence[str] = (), keep: Sequence[str] = ()) -> None:
    """Raise OptionError where a job could not write ``path``, or columns in it, in the end.

    Args:
        path: of the output.
        columns: all that it is to have besides id and vector.
        keep: those of them that the input has.
    """
    reason = ""
    if path.is_dir():
        reason = "it is a folder; give the path of a file"
    elif path.suffix.lower() not in _FORMS:
        reason = f"its name should end in {', '.join(_FORMS)}"
    elif part := forbidden(path):
        reason = f"no file can have {part!r} in its name; give another name"
    elif not path.parent.is_dir():
        reason = f"there is no folder {path.parent}; make it first"
    elif columns and path.suffix.lower() == ".npy":
        use = "use .parquet, .arrow or .jsonl"
        reason = f"a .npy file has no columns to hold {', '.join(columns)}; {use}"
    if reason:
        raise OptionError(f"--output {path} cannot be written: {reason}")
    check_columns(columns, keep)
    if is_arrow(path):
        arrow.require()


def check_columns(columns: Sequence[str], keep: Sequence[str]) -> None:
    """Raise OptionError where ``keep`` has the name of one of the output's own columns."""
    for name in keep:
        if name in RESERVED or columns.count(name) > 1:
            raise OptionError(f"the column {name!r} cannot be kept: the output has one of its own")


def is_arrow(path: Path) -> bool:
    """Whether a file's name is that of a Parquet or Arrow file, which holds its own metadata."""
    return path.suffix.lower() in (".parquet", ".arrow")


def sidecar(output: Path, kind: str) -> Path:
    """Path of a file next to the output: "json" (the metadata), "ids" or "skipped"."""
    return output.with_name(f"{output.name}.{kind}")


@dataclass(frozen=True)
class Content:
    """All that an output is made of.

    Attributes:
        journal: holds the chunks.
        metadata: of the output.
        integer_ids: whether all ids are integers of 64 bits.
        text_ids: whether ids that are none are written as strings: Parquet and Arrow.
    """

    journal: Journal
    metadata: Metadata
    integer_ids: bool
    text_ids: bool

    def batches(self) -> Iterator[Batch]:
        """The rows, chunk by chunk."""
        for chunk in self.journal.chunks():
            ids: list[Id] = [json.loads(line) for line in chunk.ids.splitlines()]
            if not ids:
                continue
            if self.text_ids and not self.integer_ids:
                ids = [str(key) for key in ids]
            vectors = np.frombuffer(chunk.vectors, self.metadata.layout.dtype)
            columns = [json.loads(line) for line in chunk.columns.splitlines()]
            yield ids, vectors.reshape(len(ids), -1), columns or [{} for _ in ids]


def make_content(journal: Journal, described: Mapping[str, Any], output: Path) -> Content:
    """Go through all chunks once, for the metadata of an output made of them.

    Args:
        journal: holds the chunks.
        described: all metadata but the counts and the checksums of the vectors.
        output: its name decides the form.
    """
    integers = running = True
    row = 0
    for chunk in journal.chunks():
        for line in chunk.ids.splitlines():
            key = json.loads(line)
            is_integer = type(key) is int
            integers &= is_integer and key in _INT64
            running &= is_integer and key == row
            row += 1
    state = journal.state
    if row != state.texts:
        raise CorpusError(
            f"the journal is damaged (expected {state.texts} texts, got {row}); delete it to "
            "start over",
            str(journal.path),
        )
    checksums = Checksums()
    metadata = Metadata(
        **described,
        rows=state.texts,
        ids_are_rows=running,
        skipped=state.skipped,
        tokens=state.tokens,
        truncated=state.truncated,
        vectors_sha256="",
        ids_sha256="",
    )
    content = Content(journal, metadata, integers, is_arrow(output))
    for ids, vectors, _ in content.batches():
        checksums.add(ids, vectors)
    metadata = replace(metadata, vectors_sha256=checksums.vectors, ids_sha256=checksums.ids)
    return replace(content, metadata=metadata)


def write_output(stream: BinaryIO, content: Content, output: Path) -> None:
    """Write the vectors into an open file, in the form that the output's name asks for."""
    _FORMS[output.suffix.lower()](stream, content)


def write_ids(stream: BinaryIO, content: Content) -> None:
    """Write the ids, a JSON value a line."""
    for chunk in content.journal.chunks():
        stream.write(chunk.ids)


def write_skipped(stream: BinaryIO, content: Content) -> None:
    """Write the rows that were skipped, a JSON object a line."""
    for chunk in content.journal.chunks():
        stream.write(chunk.skipped)


def _write_npy(stream: BinaryIO, content: Content) -> None:
    shape = (content.metadata.rows, content.metadata.width)
    header = {"descr": content.metadata.layout.dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for chunk in content.journal.chunks():
        stream.write(chunk.vectors)


def jsonl_lines(batch: Batch) -> Iterator[bytes]:
    """The lines of a .jsonl output."""
    for key, vector, columns in zip(batch[0], batch[1].tolist(), batch[2], strict=True):
        row = {"id": key, "vector": vector, **columns}
        yield to_json(row).encode() + b"\n"


def _write_jsonl(stream: BinaryIO, content: Content) -> None:
    for batch in content.batches():
        stream.writelines(jsonl_lines(batch))


def _write_arrow(stream: BinaryIO, content: Content, *, kind: str) -> None:
    types = column_types(
        (row for batch in content.batches() for row in batch[2]), content.metadata.columns
    )
    table = arrow.VectorTable(
        dtype=content.metadata.layout.dtype,
        width=content.metadata.width,
        integer_ids=content.integer_ids,
        columns=types,
        metadata=content.metadata.dump(),
    )
    arrow.write_vectors(
        stream,
        kind,
        table,
        (
            (ids, vectors, {name: convert(rows, name, types[name]) for name in types})
            for ids, vectors, rows in content.batches()
        ),
    )


def _write_parquet(stream: BinaryIO, content: Content) -> None:
    _write_arrow(stream, content, kind="parquet")


def _write_ipc(stream: BinaryIO, content: Content) -> None:
    _write_arrow(stream, content, kind="arrow")


_FORMS: dict[str, Callable[[BinaryIO, Content], None]] = {
    ".npy": _write_npy,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
    ".arrow": _write_ipc,
}
OUTPUT_SUFFIXES = tuple(_FORMS)
