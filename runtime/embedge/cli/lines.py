"""Lines of a stream as they come: a slow writer is answered line by line, a fast one in batches."""

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from embedge.corpus.readers import is_utf16
from embedge.errors import OptionError

_READ_BYTES = 2**18  # some thousand sentences: enough to sort by length, little to hold
_BOM = b"\xef\xbb\xbf"


class Lines(NamedTuple):
    """Consecutive lines without their ends; ``first`` is the number of the first, from 1."""

    first: int
    texts: list[str]


def read_lines(stream: BinaryIO) -> Iterator[Lines]:
    """Yield the whole lines that have arrived, without waiting for further ones.

    Raises:
        OptionError: a line is not UTF-8; those before it are yielded first.
    """
    number = 1
    for data in _whole_lines(stream):
        if number == 1:
            _refuse_utf16(data)
            data = data.removeprefix(_BOM)
        texts: list[str] = []
        for line in data.removesuffix(b"\n").split(b"\n"):
            try:
                texts.append(line.removesuffix(b"\r").decode("utf-8"))
            except UnicodeDecodeError as error:
                yield Lines(number, texts)
                raise OptionError(
                    f"standard input, line {number + len(texts)}: not valid UTF-8 ({error})"
                ) from None
        yield Lines(number, texts)
        number += len(texts)


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Bytes that end with a line, but for the last ones of the stream."""
    parts: list[bytes] = []  # of a line that has not ended
    reader = cast(io.BufferedReader, stream)
    while data := reader.read1(_READ_BYTES):
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            yield b"".join([*parts, whole, newline])
            parts = []
        if rest:
            parts.append(rest)
    if parts:
        yield b"".join(parts)


def _refuse_utf16(data: bytes) -> None:
    if is_utf16(data):
        raise OptionError(
            "standard input is UTF-16, expected UTF-8; save or convert it as UTF-8 (Windows "
            "PowerShell's '>' writes UTF-16: use 'Out-File -Encoding utf8')"
        )
