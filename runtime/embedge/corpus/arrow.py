"""The only importer of pyarrow, which the extra `embedge[corpus]` brings: Parquet, Arrow, zstd."""

import importlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from embedge.errors import CorpusError, OptionError

_BATCH_ROWS = 1024
_READ_BUFFER = 2**20
_METADATA_KEY = b"embedge"


def _pyarrow(module: str = "pyarrow") -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise OptionError(
            "Parquet, Arrow and zstd files need an extra: python -m pip install 'embedge[corpus]'"
        ) from None


def open_zstd(raw: BinaryIO) -> BinaryIO:
    """The decompressed bytes of a zstd stream; a truncated one raises OSError when read."""
    stream = _pyarrow().CompressedInputStream(raw, "zstd")
    return cast(BinaryIO, io.BufferedReader(stream))


class Table:
    """A Parquet file or an Arrow IPC file, read in batches.

    Args:
        stream: an open file that can seek.
        kind: "parquet" or "arrow".
        name: the file's name, for errors.

    Raises:
        CorpusError: the file is damaged, or none of that kind.
        OptionError: pyarrow is not installed.
    """

    def __init__(self, stream: BinaryIO, kind: str, name: str) -> None:
        arrow = _pyarrow()
        try:
            if kind == "parquet":
                # Read in pages: a row group may be as large as its writer pleased.
                self._file = _pyarrow("pyarrow.parquet").ParquetFile(
                    stream, buffer_size=_READ_BUFFER, pre_buffer=False
                )
                self._schema = self._file.schema_arrow
            else:
                self._file = _pyarrow("pyarrow.ipc").open_file(stream)
                self._schema = self._file.schema
        except (arrow.ArrowException, OSError) as error:
            raise CorpusError(f"not a whole {kind} file ({error})", name) from None
        self._kind, self._name, self._errors = kind, name, (arrow.ArrowException, OSError)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._schema.names)

    @property
    def metadata(self) -> bytes | None:
        """What `write_vectors` was given as ``metadata``, if it wrote this file."""
        return (self._schema.metadata or {}).get(_METADATA_KEY)

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """Each row as a dictionary; a string that is not valid UTF-8 is given as bytes."""
        for batch in self._batches(columns):
            try:
                yield from batch.to_pylist()
            except UnicodeDecodeError:
                yield from (
                    {name: _value(batch[name][i]) for name in columns}
                    for i in range(batch.num_rows)
                )

    def vectors(self) -> Iterator[tuple[list[Any], NDArray[Any]]]:
        """Ids and vectors, (rows, width), of a file that `write_vectors` wrote."""
        for batch in self._batches(["id", "vector"]):
            values = batch["vector"]
            flat = values.flatten().to_numpy(zero_copy_only=False)
            yield batch["id"].to_pylist(), flat.reshape(len(values), -1)

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        try:
            if self._kind == "parquet":
                yield from self._file.iter_batches(_BATCH_ROWS, columns=columns)
            else:
                for i in range(self._file.num_record_batches):
                    yield self._file.get_batch(i).select(columns)
        except self._errors as error:
            raise CorpusError(f"not a whole {self._kind} file ({error})", self._name) from None


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes()


def write_vectors(
    path: Path,
    kind: str,
    batches: Iterable[tuple[list[Any], NDArray[Any]]],
    width: int,
    dtype: np.dtype[Any],
    *,
    integer_ids: bool,
    metadata: bytes,
) -> None:
    """Write columns `id` (int64 or string) and `vector` (fixed-size list of ``width`` values).

    Each of ``batches``, ids and vectors (rows, width), is a row group or record batch.

    Raises:
        OptionError: pyarrow is not installed.
    """
    arrow = _pyarrow()
    id_type = arrow.int64() if integer_ids else arrow.string()
    schema = arrow.schema(
        [
            arrow.field("id", id_type, nullable=False),
            arrow.field("vector", _vector_type(dtype, width), nullable=False),
        ],
        metadata={_METADATA_KEY: metadata},
    )
    with path.open("wb") as stream:
        if kind == "parquet":
            writer = _pyarrow("pyarrow.parquet").ParquetWriter(
                stream, schema, compression="none", use_dictionary=False
            )
        else:
            writer = _pyarrow("pyarrow.ipc").new_file(stream, schema)
        with writer:
            for ids, vectors in batches:
                columns = [arrow.array(ids, id_type), vector_column(vectors)]
                writer.write_batch(arrow.record_batch(columns, schema=schema))


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
