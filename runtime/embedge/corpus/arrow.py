"""The only importer of pyarrow, which the extra `embedge[corpus]` brings: Parquet, Arrow, zstd."""

import importlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from embedge.corpus.columns import ColumnType, Unreadable
from embedge.errors import CorpusError, OptionError

_BATCH_ROWS = 1024
_READ_BUFFER = 2**20
_METADATA_KEY = b"embedge"
_IPC_FILE_MAGIC = b"ARROW1"


def _pyarrow(module: str = "pyarrow") -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise OptionError(
            'Parquet, Arrow and zstd files need an extra: python -m pip install "embedge[corpus]"'
        ) from None


def open_zstd(raw: BinaryIO) -> BinaryIO:
    """The decompressed bytes of a zstd stream; a truncated one raises OSError when read."""
    stream = _pyarrow().CompressedInputStream(raw, "zstd")
    return cast(BinaryIO, io.BufferedReader(stream))


class Table:
    """A Parquet file or an Arrow IPC file or stream, read in batches.

    Args:
        stream: an open file that can seek.
        kind: "parquet" or "arrow".
        name: the file's name, for errors.

    Raises:
        CorpusError: the file is damaged, or not of that kind.
        OptionError: pyarrow is not installed.
    """

    def __init__(self, stream: BinaryIO, kind: str, name: str) -> None:
        self._kind, self._name = kind, name
        _pyarrow()
        with self._damaged():
            if kind == "parquet":
                # Read in pages: a row group may be of any size.
                self._file = _pyarrow("pyarrow.parquet").ParquetFile(
                    stream,
                    buffer_size=_READ_BUFFER,
                    pre_buffer=False,
                    page_checksum_verification=True,
                )
                self._schema = self._file.schema_arrow
            else:
                # What the `datasets` library writes is a stream, which has no footer.
                start = stream.read(len(_IPC_FILE_MAGIC))
                stream.seek(0)
                ipc = _pyarrow("pyarrow.ipc")
                is_file = start == _IPC_FILE_MAGIC
                self._file = ipc.open_file(stream) if is_file else ipc.open_stream(stream)
                self._streams = not is_file
                self._schema = self._file.schema

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._schema.names)

    @property
    def metadata(self) -> bytes | None:
        """The metadata that `write_vectors` was given, if it wrote this file."""
        return (self._schema.metadata or {}).get(_METADATA_KEY)

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Each row as a dictionary.

        A string that is not valid UTF-8 is given as bytes, and what Python has no value for, a date
        in the year 20000 for example, as Unreadable.
        """
        for batch in self._batches(columns):
            try:
                rows = batch.to_pylist()
            except Exception:  # pyarrow's, or those of the types that it converts to
                yield from (
                    {name: _value(batch[name][i]) for name in columns}
                    for i in range(batch.num_rows)
                )
            else:
                yield from rows

    def vectors(self) -> Iterator[tuple[list[Any], NDArray[Any]]]:
        """Ids and vectors, (rows, width), of a file that `write_vectors` wrote."""
        for batch in self._batches(["id", "vector"]):
            with self._damaged():
                values = batch["vector"]
                flat = values.flatten().to_numpy(zero_copy_only=False)
                found = batch["id"].to_pylist(), flat.reshape(len(values), -1)
            yield found

    def _batches(self, columns: Sequence[str]) -> Iterator[Any]:
        batches = self._all_batches(columns)
        while True:
            with self._damaged():
                batch = next(batches, None)
                if batch is None:
                    return
                if self._kind == "arrow":  # Parquet's readers build their own offsets
                    _check_offsets(batch)
            yield batch

    def _all_batches(self, columns: Sequence[str]) -> Iterator[Any]:
        if self._kind == "parquet":
            yield from self._file.iter_batches(_BATCH_ROWS, columns=list(columns))
        elif self._streams:
            for batch in self._file:
                yield batch.select(columns)
        else:
            for i in range(self._file.num_record_batches):
                yield self._file.get_batch(i).select(columns)

    @contextmanager
    def _damaged(self) -> Iterator[None]:
        """Turn what pyarrow raises into CorpusError: of a damaged file that may be anything."""
        try:
            yield
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise CorpusError(f"not a whole {self._kind} file ({reason})", self._name) from error


def _check_offsets(batch: Any) -> None:
    """Raise where values lie outside of their buffers: reading them would end the process.

    Strings are checked as bytes: one that is not valid UTF-8 is a bad row, and not a damaged file.
    """
    arrow = _pyarrow()
    as_bytes = {arrow.string(): arrow.binary(), arrow.large_string(): arrow.large_binary()}
    for column in batch.columns:
        column.validate()
        kind = as_bytes.get(column.type)
        (column if kind is None else column.view(kind)).validate(full=True)


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except Exception as error:
        if isinstance(error, UnicodeDecodeError) and hasattr(scalar, "as_buffer"):
            return scalar.as_buffer().to_pybytes()
        return Unreadable(str(error).partition("\n")[0] or type(error).__name__)


@dataclass(frozen=True)
class VectorTable:
    """The schema of a file of vectors: `id`, `vector` (fixed-size list), and kept columns.

    Attributes:
        dtype: of the stored values.
        width: stored values of a row.
        integer_ids: whether `id` is int64, and not string.
        columns: name and type of each kept column.
        metadata: goes into the schema.
    """

    dtype: np.dtype[Any]
    width: int
    integer_ids: bool
    columns: Mapping[str, ColumnType]
    metadata: bytes

    def schema(self) -> Any:
        """The schema, for pyarrow."""
        arrow = _pyarrow()
        id_type = arrow.int64() if self.integer_ids else arrow.string()
        fields = [
            arrow.field("id", id_type, nullable=False),
            arrow.field("vector", _vector_type(self.dtype, self.width), nullable=False),
            *(arrow.field(name, self._type(kind)) for name, kind in self.columns.items()),
        ]
        return arrow.schema(fields, metadata={_METADATA_KEY: self.metadata})

    def _type(self, kind: ColumnType) -> Any:
        arrow = _pyarrow()
        types = {"bool": arrow.bool_(), "int64": arrow.int64(), "double": arrow.float64()}
        return types.get(kind, arrow.string())


def write_vectors(
    stream: BinaryIO,
    kind: str,
    table: VectorTable,
    batches: Iterable[tuple[list[Any], NDArray[Any], dict[str, list[Any]]]],
) -> None:
    """Write a Parquet or Arrow file of vectors into an open file.

    Each of ``batches``, ids, vectors (rows, width) and kept columns, is a row group or record
    batch.

    Raises:
        OptionError: pyarrow is not installed.
    """
    arrow, schema = _pyarrow(), table.schema()
    if kind == "parquet":
        writer = _pyarrow("pyarrow.parquet").ParquetWriter(
            stream, schema, compression="none", use_dictionary=False, write_page_checksum=True
        )
    else:
        writer = _pyarrow("pyarrow.ipc").new_file(stream, schema)
    with writer:
        for ids, vectors, kept in batches:
            arrays = [
                arrow.array(ids, schema.field("id").type),
                vector_column(vectors),
                *(arrow.array(kept[name], schema.field(name).type) for name in table.columns),
            ]
            writer.write_batch(arrow.record_batch(arrays, schema=schema))


def vector_column(vectors: NDArray[Any]) -> Any:
    """Vectors, (rows, width), as an Arrow array of fixed-size lists."""
    flat = _pyarrow().array(np.ascontiguousarray(vectors).reshape(-1))
    kind = _vector_type(vectors.dtype, vectors.shape[1])
    return _pyarrow().FixedSizeListArray.from_arrays(flat, type=kind)


def _vector_type(dtype: np.dtype[Any], width: int) -> Any:
    arrow = _pyarrow()
    return arrow.list_(arrow.field("item", arrow.from_numpy_dtype(dtype), nullable=False), width)


def require() -> None:
    """Raise OptionError, with what to install, where pyarrow is missing."""
    _pyarrow()
