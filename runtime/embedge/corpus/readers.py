"""Formats of a corpus: bytes of a file to rows, one at a time.

A reader does not stop at a bad row: it yields a BadRow and continues. It raises CorpusError where
the file as a whole cannot be read.
"""

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

from embedge.corpus import arrow
from embedge.corpus.rows import BadRow, Fields, Row, make_row
from embedge.errors import CorpusError

Rows = Iterator[Row | BadRow]
Reader = Callable[[BinaryIO, str, Fields], Rows]

_START = 64  # bytes that show the encoding
_LARGEST_CSV_FIELD = 2**31 - 1


def check_encoding(stream: BinaryIO, file: str) -> None:
    """Raise CorpusError for UTF-16 and UTF-32; what is read is UTF-8. Nothing is consumed."""
    peek = getattr(stream, "peek", None)
    if peek is not None:
        start = bytes(peek(_START)[:_START])
    else:
        start = stream.read(_START)
        stream.seek(-len(start), io.SEEK_CUR)
    if is_utf16(start):
        raise CorpusError("expected UTF-8, got UTF-16 or UTF-32; save it as UTF-8", file)


def is_utf16(data: bytes) -> bool:
    """Whether data begins as UTF-16 or UTF-32, with a mark of its byte order or without."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    pairs = data[: min(len(data), _START) // 2 * 2]
    # Without a mark of its byte order, Latin text in UTF-16 has a zero in every second byte.
    halves = (pairs[::2], pairs[1::2])
    return len(pairs) >= 4 and any(not any(half) for half in halves) and any(pairs)


def _read_txt(stream: BinaryIO, file: str, fields: Fields) -> Rows:
    """A text a line; an empty line is an empty text."""
    for number, data in _lines(stream):
        line = _decode(data, file, number)
        del data  # a line may be as large as the file
        if isinstance(line, BadRow):
            yield line
        else:
            yield Row(None, line, file, number, dict.fromkeys(fields.keep, line))


def _read_jsonl(stream: BinaryIO, file: str, fields: Fields) -> Rows:
    """A JSON object a line; blank lines are skipped."""
    for number, data in _lines(stream):
        line = _decode(data, file, number)
        if isinstance(line, BadRow):
            yield line
            continue
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield BadRow(f"not valid JSON ({error})", line, file, number)
            continue
        if isinstance(values, dict):
            yield make_row(values, line, fields, file, number)
        else:
            yield BadRow("not a JSON object", line, file, number)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(stream, 1):
        held = [line.removeprefix(codecs.BOM_UTF8) if number == 1 else line]
        del line  # so that only the consumer holds it
        yield number, held.pop()


def _decode(data: bytes, file: str, line: int) -> str | BadRow:
    """The text of a line, without its end."""
    end = len(data)
    while end and data[end - 1] in b"\r\n":
        end -= 1
    try:
        return str(memoryview(data)[:end], "utf-8")  # without a copy of the bytes
    except UnicodeDecodeError as error:
        reason = f"not valid UTF-8 (byte 0x{data[error.start]:02x} at {error.start})"
        return BadRow(reason, data[:end].decode("utf-8", "backslashreplace"), file, line)


def _read_table(
    stream: BinaryIO, file: str, fields: Fields, *, delimiter: str, quoting: int
) -> Rows:
    """A header line with the columns' names, then the rows; blank lines are skipped.

    The line of a row is that on which it begins: a quoted value may span several.
    """
    csv.field_size_limit(_LARGEST_CSV_FIELD)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                yield BadRow(f"not valid CSV ({error})", None, file, line)
                continue
            if not values:
                continue
            if header is None:
                header = values
                _check_columns(header, fields, file)
            elif len(values) > len(header):
                reason = f"expected {len(header)} values as in the header, got {len(values)}"
                yield BadRow(reason, values, file, line)
            else:
                yield make_row(dict(zip(header, values, strict=False)), values, fields, file, line)
    finally:
        text.detach()


def _check_columns(columns: list[str], fields: Fields, file: str) -> None:
    options = {fields.text: "--column", fields.id: "--id"}
    for name in fields.names:
        option = options.get(name, "--keep")
        count = columns.count(name)
        if count == 0:
            there = ", ".join(map(repr, columns)) or "none"
            raise CorpusError(
                f"there is no column {name!r}; name one with {option}: {there[:300]}", file
            )
        if count > 1:
            raise CorpusError(
                f"{count} columns are named {name!r}; rename one, or name another with {option}",
                file,
            )


def _read_arrow(stream: BinaryIO, file: str, fields: Fields, *, kind: str) -> Rows:
    """The rows of a Parquet file or an Arrow IPC file."""
    table = arrow.Table(stream, kind, file)
    _check_columns(table.columns, fields, file)
    for number, values in enumerate(table.rows(fields.names), 1):
        yield make_row(values, values, fields, file, number)


READERS: dict[str, Reader] = {
    "txt": _read_txt,
    "jsonl": _read_jsonl,
    "csv": partial(_read_table, delimiter=",", quoting=csv.QUOTE_MINIMAL),
    # As the registered text/tab-separated-values: a quotation mark is a character like any other.
    "tsv": partial(_read_table, delimiter="\t", quoting=csv.QUOTE_NONE),
    "parquet": partial(_read_arrow, kind="parquet"),
    "arrow": partial(_read_arrow, kind="arrow"),
}
