"""A corpus to a file of vectors, resumable at any point, with the same bytes each time."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedge.corpus.bar import CorpusBar
from embedge.corpus.digest import RowDigest, RowReader, json_line
from embedge.corpus.encoding import (
    Chunk,
    RowOptions,
    advance,
    document_prompt,
    encode_rows,
    read_rows,
)
from embedge.corpus.files import real_path
from embedge.corpus.inputs import Corpus
from embedge.corpus.journal import SIZE_OF, Journal, StoredChunk, open_journal
from embedge.corpus.layout import LAYOUTS, Layout
from embedge.corpus.metadata import FORMAT, Metadata, id_line
from embedge.corpus.output import check_output, make_content
from embedge.corpus.publish import check_replaceable, existing, metadata_of, publish
from embedge.corpus.rows import BadRow, Row
from embedge.corpus.saved import open_vectors
from embedge.encoder import Encoder
from embedge.errors import CorpusError, OptionError
from embedge.text.overflow import Overflow


@dataclass(frozen=True)
class JobOptions(RowOptions):
    """How a corpus becomes a file of vectors.

    Attributes:
        dtype: "float32", "float16", "int8" or "binary"; see `embedge.corpus.layout`.
        force: overwrite files that this job has not written.
    """

    dtype: str = "float32"
    force: bool = False


@dataclass(frozen=True)
class Summary:
    """What a job did.

    Attributes:
        output: path of the vectors.
        texts: how many vectors there are.
        tokens: of all texts, before truncation, special tokens and prompt included.
        truncated: how many texts were truncated.
        skipped: how many rows were skipped.
        seconds: spent, over all runs of the job.
        fingerprint: of the model.
        sha256: of the output file.
        unchanged: whether it was all done before, so that nothing was written.
    """

    output: str
    texts: int
    tokens: int
    truncated: int
    skipped: int
    seconds: float
    fingerprint: str
    sha256: str
    unchanged: bool = False


def embed_corpus(
    encoder: Encoder,
    corpus: Corpus,
    output: Path,
    options: JobOptions | None = None,
    *,
    progress: bool = False,
) -> Summary:
    """Encode a corpus into a file, which appears atomically.

    Killed at any moment, the same call resumes, and the file is the same to the last byte as
    without the kill. ``on_error``, ``chunk`` and ``force`` may be changed between. A job that is
    done already, with the same rows and options, is skipped.

    Args:
        encoder: its fingerprint, dim and providers are part of the job.
        corpus: the rows; iterated over once.
        output: path ending in .npy, .jsonl, .parquet or .arrow; see `embedge.corpus.output`.
            Symbolic links are followed, and an existing file's permissions kept.
        options: how; the defaults of JobOptions.
        progress: draw a bar on standard error, or print a line a minute where that is no terminal.

    Raises:
        CorpusError: a bad row, an input that cannot be read, a full disk, a file that is there
            already, or an unfinished job of the same output that differs from this one.
        OptionError: an argument does not fit.
    """
    options = options or JobOptions()
    target = _target(output, corpus, options)
    job = _Job(encoder, corpus, target, options)
    reading = closing(read_rows(encoder, corpus, options))
    with _writing(output), open_journal(target, job.identity) as journal, reading as rows:
        if (done := job.done_before(journal, rows)) is not None:
            return _summary(output, done, 0.0, unchanged=True)
        reader = RowReader(rows, journal, output)
        with CorpusBar(progress, corpus.fraction, journal.state) as bar:
            job.run(journal, reader, bar)
        metadata = job.publish(journal, reader.digest)
        journal.finish()
        return _summary(output, metadata, journal.state.seconds)


def _target(output: Path, corpus: Corpus, options: JobOptions) -> Path:
    """The file behind ``output``; raises OptionError where it cannot be the job's."""
    check_output(output, options.columns(corpus.fields.keep), corpus.fields.keep)
    target = real_path(output)
    paths = [source.path for source in corpus.sources if source.path is not None]
    if target.exists() and any(target.samefile(path) for path in paths):
        raise OptionError(f"--output {output} cannot be written: it is one of the inputs")
    return target


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turn the OSError of a full disk into CorpusError."""
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"cannot be written ({error.strerror or error}); fix the cause and rerun the same "
            "command to resume",
            str(output),
        ) from error


class _Job:
    """The identity of one job, and its steps."""

    def __init__(self, encoder: Encoder, corpus: Corpus, target: Path, options: JobOptions) -> None:
        self._encoder, self._target, self._options = encoder, target, options
        keep = corpus.fields.keep
        self._columns = options.columns(keep)
        self._layout = check_dtype(options.dtype, encoder)
        self._described = {
            **describe(encoder, options.dtype, options.prompt, options.overflow),
            "columns": self._columns,
            "text_column": corpus.fields.text if corpus.fields.text in keep else None,
            "passages": options.passages and options.passages.describe(encoder),
        }
        self.identity = {
            **self._described,
            "form": target.suffix.lower(),
            "providers": encoder.info["providers"],
            "field": corpus.fields.text,
            "id": corpus.fields.id,
            "inputs": list(corpus.sizes),
            **{SIZE_OF + name: size for name, size in corpus.sizes.items()},
        }

    def done_before(self, journal: Journal, rows: Iterator[Row | BadRow]) -> Metadata | None:
        """The metadata of the output if it is there already, made of the same by the same.

        Raises:
            CorpusError: something else is there, or what is there cannot be replaced.
        """
        found = self._in_the_way(journal)
        if not found:
            check_replaceable(self._target)
            return None
        if not journal.state.read:
            metadata = self._intact()
            if metadata and all(
                getattr(metadata, key) == value for key, value in self._described.items()
            ):
                digest = RowDigest()
                digest.count(rows)
                if digest.hexdigest() == metadata.input_sha256:
                    return metadata
        raise _exists(found[0])

    def run(self, journal: Journal, reader: RowReader, bar: CorpusBar) -> None:
        """Encode and commit, chunk by chunk."""
        start = time.monotonic()
        first = journal.state.read
        for chunk in encode_rows(self._encoder, reader, first, self._options, bar.encoded):
            now, state = time.monotonic(), journal.state
            reader.count(chunk.read)
            journal.append(
                _stored(chunk, self._layout, bool(self._columns)),
                replace(
                    advance(state, chunk),
                    seconds=state.seconds + now - start,
                    digest=reader.digest,
                ),
            )
            start = now
            bar.show(journal.state)
            if chunk.stopped:
                journal.forget_sizes()
                raise CorpusError(
                    f"{chunk.stopped.reason}. Fix the row, or add --on-error skip, and rerun the "
                    f"command: it resumes after the {journal.state.texts} texts that are done",
                    chunk.stopped.file,
                    chunk.stopped.line,
                )

    def publish(self, journal: Journal, digest: str) -> Metadata:
        """Write the output of all that was encoded; ``digest`` is that of all rows."""
        content = make_content(journal, {**self._described, "input_sha256": digest}, self._target)

        def begin() -> None:
            found = self._in_the_way(journal)
            if found:
                raise _exists(found[0])
            journal.save(replace(journal.state, publishing=True))

        publish(content, self._target, begin)
        return content.metadata

    def _in_the_way(self, journal: Journal) -> list[Path]:
        """Files that are not this job's and that it may not overwrite."""
        if self._options.force or journal.state.publishing:
            return []
        return existing(self._target)

    def _intact(self) -> Metadata | None:
        try:
            metadata = metadata_of(self._target)
            if metadata:
                with open_vectors(self._target, metadata):
                    return metadata
        except CorpusError:
            pass
        return None


def _exists(path: Path) -> CorpusError:
    return CorpusError(
        "the file exists and is not this job's; give another --output, or --force to overwrite it",
        str(path),
    )


def _summary(
    output: Path, metadata: Metadata, seconds: float, *, unchanged: bool = False
) -> Summary:
    with output.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Summary(
        output=str(output),
        texts=metadata.rows,
        tokens=metadata.tokens,
        truncated=metadata.truncated,
        skipped=metadata.skipped,
        seconds=round(seconds, 3),
        fingerprint=metadata.fingerprint,
        sha256=digest,
        unchanged=unchanged,
    )


def check_dtype(dtype: str, encoder: Encoder) -> Layout:
    """The layout of a dtype; raises OptionError where the model's vectors do not fit it."""
    if dtype not in LAYOUTS:
        raise OptionError(f"expected dtype to be one of {', '.join(LAYOUTS)}, got {dtype!r}")
    layout = LAYOUTS[dtype]
    if layout.needs_unit and not encoder.info["normalized"]:
        raise OptionError(
            f"dtype {dtype} keeps a vector's direction and not its length, but this model's "
            "vectors are not of unit length; use float32 or float16"
        )
    return layout


def describe(
    encoder: Encoder, dtype: str, prompt: str | None, overflow: Overflow
) -> dict[str, Any]:
    """The metadata that is known before the job begins."""
    info = encoder.info
    return {
        "format": FORMAT,
        "model": info["name"],
        "fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        "dtype": dtype,
        "similarity": info["similarity"],
        "prompt": document_prompt(encoder, prompt),
        "overflow": overflow,
    }


def _stored(chunk: Chunk, layout: Layout, columns: bool) -> StoredChunk:
    return StoredChunk(
        layout.store(chunk.vectors).tobytes(),
        b"".join(map(id_line, chunk.ids)),
        b"".join(json_line(_skipped(number, row)) for number, row in chunk.bad),
        b"".join(json_line(dict(row.columns)) for _, row in chunk.good) if columns else b"",
    )


def _skipped(number: int, row: BadRow) -> dict[str, Any]:
    place = {"number": number, "file": row.file.replace(os.sep, "/"), "line": row.line}
    return {**place, "reason": row.reason, "row": row.raw}
