"""Where a corpus comes from: files, folders, standard input, arguments; compressed or not."""

import gzip
import io
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from embedge.corpus import arrow
from embedge.corpus.files import is_link
from embedge.corpus.publish import metadata_of
from embedge.corpus.readers import READERS, check_encoding
from embedge.corpus.rows import BadRow, Fields, Row
from embedge.errors import CorpusError, EmbedgeError, OptionError, warn

_FORMATS = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_SEEKING = ("parquet", "arrow")  # read from their ends
STDIN_FORMATS = tuple(name for name in READERS if name not in _SEEKING)
STDIN = "standard input"


@dataclass(frozen=True)
class Source:
    """One file, or an open stream: its name for people, its format and compression."""

    name: str
    format: str
    compression: str = ""
    path: Path | None = None
    stream: BinaryIO | None = None

    @property
    def size(self) -> int | None:
        """Bytes of the file; None of a stream."""
        return None if self.path is None else self.path.stat().st_size


def find_sources(paths: Sequence[Path], ignore: Path | None = None) -> list[Source]:
    """The files that are meant: a folder stands for those in it, by their suffixes, sorted.

    Args:
        paths: files and folders. Hidden files, files of other kinds and, with a warning, files of
            vectors that a job has written are left out of folders.
        ignore: a file to leave out of folders: the output.

    Raises:
        CorpusError: a path does not exist, is of no known kind, or is a folder without inputs.
    """
    sources = []
    for path in paths:
        if path.is_dir():
            found = [source for file in _files(path, ignore) if (source := _source(file))]
            if broken := [source.name for source in found if not Path(source.name).is_file()]:
                raise CorpusError("a broken link, a pipe or a device; take it away", broken[0])
            found = _without_vectors(path, found)
            if not found:
                raise CorpusError(f"the folder holds no {_known()} files", str(path))
            sources += found
        elif not path.exists():
            raise CorpusError("there is no such file or folder", str(path))
        elif path.is_char_device():  # on Windows aux.txt is one, and would be waited for
            raise CorpusError("a device; give the path of a file", str(path))
        elif source := _source(path):
            sources.append(source)
        else:
            raise CorpusError(
                f"expected a name that ends in {_known()}, or these and .gz or .zst",
                str(path),
            )
    return sources


def _files(folder: Path, ignore: Path | None) -> list[Path]:
    there = ignore if ignore and ignore.exists() else None
    found, links = list[Path](), list[str]()
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked = [name for name in folders if is_link(Path(parent, name))]
        folders[:] = [name for name in folders if name not in linked]
        links += linked
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if not (there and _same(path, there))]
    if links:
        warn(
            f"links to folders are not followed, {folder} has {_some(links)}: to read them, give "
            "them by their names",
            UserWarning,
        )
    # By the parts of the path, and not by the path: Windows compares those without case.
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _without_vectors(folder: Path, sources: list[Source]) -> list[Source]:
    """The sources but those that a job has written, which hold texts a second time."""
    kept, written = list[Source](), list[str]()
    for source in sources:
        if _is_output(source):
            written.append(source.name)
        else:
            kept.append(source)
    if written:
        warn(
            f"vectors that embedge has written are not read, {folder} has {_some(written)}: to "
            "read the texts in them, give them by their names",
            UserWarning,
        )
    return kept


def _is_output(source: Source) -> bool:
    try:
        return source.path is not None and metadata_of(source.path) is not None
    except (EmbedgeError, OSError):
        return False  # what is wrong with it is said where it is read


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")


def _unreadable(error: OSError) -> None:
    raise CorpusError(f"the folder cannot be read ({error.strerror or error})", error.filename)


def _same(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)


def _source(path: Path) -> Source | None:
    compression = _COMPRESSIONS.get(path.suffix.lower(), "")
    suffix = path.with_suffix("").suffix if compression else path.suffix
    kind = _FORMATS.get(suffix.lower())
    return Source(str(path), kind, compression, path) if kind else None


def _known() -> str:
    return ", ".join(_FORMATS)


def stream_source(stream: BinaryIO, kind: str = "txt") -> Source:
    """Standard input, in one of STDIN_FORMATS."""
    return Source(STDIN, kind, stream=stream)


def text_source(texts: Sequence[str]) -> Source:
    """Texts given as arguments."""
    lines = "\n".join(json.dumps({"text": text}) for text in texts)
    return Source("arguments", "jsonl", stream=io.BytesIO(lines.encode()))


class Corpus:
    """The rows of some sources, in order; iterate over it once.

    Attributes:
        sources: in order.
        fields: what is read of a row.
        sizes: bytes of each source by its name; None of a stream.
        absent: fields to keep that no row has so far.

    Raises:
        OptionError: fields are named, but a source has none.
        CorpusError: (when iterated over) a file cannot be read, or lacks a column.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        field: str | None = None,
        id: str | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        text = "text" if field is None else field
        plain = [source.name for source in sources if source.format == "txt"]
        asked = {"--keep": next((name for name in keep if name != text), None), "--id": id}
        if len(plain) == len(sources):
            asked["--field"] = field
        option = next((f"{key} {name}" for key, name in asked.items() if name is not None), None)
        if plain and option:
            raise OptionError(
                f"{option}: {plain[0]} is read as a text per line, which has no fields; "
                "give a .jsonl, .csv, .tsv or .parquet file, or leave the option out"
            )
        self.sources = list(sources)
        self.fields = Fields(text, id, tuple(dict.fromkeys(keep)))
        self.sizes = {source.name: source.size for source in sources}
        self.absent = set(self.fields.keep)
        self._finished = 0  # bytes of the sources read to their end
        self._raw: BinaryIO | None = None  # the file being read, before decompression

    def fraction(self) -> float | None:
        """How much of the bytes has been read, 0 to 1; None where the total is not known."""
        total = 0
        for source in self.sources:
            if (size := self.sizes[source.name]) is None:
                return None
            total += size
        here = 0 if self._raw is None or self._raw.closed else self._raw.tell()
        return min(1.0, (self._finished + here) / total) if total else 1.0

    def __iter__(self) -> Generator[Row | BadRow]:
        for source in self.sources:
            with ExitStack() as stack:
                try:
                    stream = self._open(source, stack)
                    if source.format not in _SEEKING:
                        check_encoding(stream, source.name)
                    for row in READERS[source.format](stream, source.name, self.fields):
                        if self.absent and isinstance(row, Row):
                            self.absent.difference_update(row.columns)
                        yield row
                except (OSError, EOFError, zlib.error) as error:
                    reason = getattr(error, "strerror", None) or error
                    raise CorpusError(f"cannot be read to its end ({reason})", source.name) from (
                        error
                    )
            self._raw = None
            self._finished += self.sizes[source.name] or 0

    def _open(self, source: Source, stack: ExitStack) -> BinaryIO:
        if source.path is None:
            assert source.stream is not None
            return source.stream
        if source.compression and source.path.is_file() and not source.size:
            raise EOFError(f"an empty file, expected {source.compression}")
        raw = stack.enter_context(source.path.open("rb", buffering=0))
        self._raw = stream = cast(BinaryIO, raw)
        if source.compression == "gzip":
            stream = cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=raw)))
        elif source.compression == "zstd":
            stream = arrow.open_zstd(stream)
        elif source.format not in _SEEKING:
            stream = io.BufferedReader(raw)
        if source.compression and source.format in _SEEKING:
            whole = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
            shutil.copyfileobj(stream, whole)
            whole.seek(0)
            stream = cast(BinaryIO, whole)
        return stream
