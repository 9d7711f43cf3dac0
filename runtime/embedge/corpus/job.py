"""A corpus to a file of vectors, resumable at any point and byte for byte the same."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from embedge.corpus.bar import CorpusBar
from embedge.corpus.encoding import CHUNK_TEXTS, Chunk, OnError, advance, encode_rows
from embedge.corpus.inputs import Corpus
from embedge.corpus.layout import LAYOUTS, Layout
from embedge.corpus.output import check_output, ids_are_rows, make, publish
from embedge.corpus.rows import BadRow, Row
from embedge.corpus.work import SIZE_OF, Work, open_work
from embedge.encoder import Encoder
from embedge.errors import CorpusError, OptionError
from embedge.text.overflow import Overflow

FORMAT = 1  # of the facts


@dataclass(frozen=True)
class Summary:
    """What a job did.

    Attributes:
        output: path of the vectors.
        texts: how many vectors there are.
        tokens: of all texts, before truncation, special tokens and prompt included.
        truncated: how many texts were cut.
        skipped: how many rows were skipped.
        seconds: spent, over all runs of the job.
        fingerprint: of the model.
        sha256: of the output file.
    """

    output: str
    texts: int
    tokens: int
    truncated: int
    skipped: int
    seconds: float
    fingerprint: str
    sha256: str


def embed_corpus(
    encoder: Encoder,
    corpus: Corpus,
    output: Path,
    *,
    dtype: str = "float32",
    prompt: str | None = None,
    overflow: Overflow = "truncate",
    on_error: OnError = "stop",
    progress: bool = False,
    chunk: int = CHUNK_TEXTS,
) -> Summary:
    """Encode a corpus into a file, which appears whole or not at all.

    Killed at any moment, the same call goes on where it was, and the file is the same to the last
    byte as without the kill. ``on_error`` and ``chunk`` may be changed between.

    Args:
        encoder: its fingerprint, dim and providers are part of the job.
        corpus: the rows; iterated over once.
        output: path ending in .npy, .jsonl, .parquet or .arrow; see `embedge.corpus.output`.
        dtype: "float32", "float16", "int8" or "binary"; see `embedge.corpus.layout`.
        prompt: name of one of the model's prompts.
        overflow: what happens to texts longer than the model takes; "error" makes them bad rows.
        on_error: "stop" at the first bad row, or "skip" bad rows into OUTPUT.skipped.
        progress: draw a bar on standard error, where that is a terminal.
        chunk: texts between two points that a killed run goes on from.

    Raises:
        CorpusError: a bad row, an input that cannot be read, a full disk, or an unfinished job of
            the same output that differs from this one.
        OptionError: an argument does not fit.
    """
    check_output(output)
    paths = [source.path for source in corpus.sources if source.path is not None]
    if output.exists() and any(output.samefile(path) for path in paths):
        raise OptionError(f"--output {output} cannot be written: it is one of the inputs")
    layout = check_dtype(dtype, encoder)
    described = describe(encoder, dtype, prompt, overflow)
    identity = {
        **described,
        "form": output.suffix,
        "providers": encoder.info["providers"],
        "field": corpus.fields.text,
        "id": corpus.fields.id,
        "inputs": list(corpus.sizes),
        **{SIZE_OF + name: size for name, size in corpus.sizes.items()},
    }
    options: dict[str, Any] = {"prompt": prompt, "overflow": overflow, "on_error": on_error}
    try:
        with open_work(output, identity) as work, closing(iter(corpus)) as rows:
            if work.state.facts is None:
                reader = _Reader(rows, work, output)
                chunks = encode_rows(encoder, reader, work.state.read, chunk=chunk, **options)
                with CorpusBar(progress, corpus.fraction, work.state) as bar:
                    _run(chunks, work, layout, reader, bar)
                _finish(work, described, layout, output)
            state = work.state
            assert state.facts is not None
            publish(work, state.facts, output)
            work.remove()
    except OSError as error:
        raise CorpusError(
            f"cannot be written ({error.strerror or error}); see to it and run the same command "
            "again: it goes on where it was",
            str(output),
        ) from error
    return Summary(
        output=str(output),
        texts=state.texts,
        tokens=state.tokens,
        truncated=state.truncated,
        skipped=state.skipped,
        seconds=round(state.seconds, 3),
        fingerprint=encoder.fingerprint,
        sha256=state.sha256,
    )


def check_dtype(dtype: str, encoder: Encoder) -> Layout:
    """The layout of a dtype; raises OptionError where the model's vectors do not fit it."""
    if dtype not in LAYOUTS:
        raise OptionError(f"dtype should be one of {', '.join(LAYOUTS)}, but is {dtype!r}")
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
    """The facts that are known before the job begins."""
    info = encoder.info
    return {
        "format": FORMAT,
        "model": info["name"],
        "fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        "dtype": dtype,
        "similarity": info["similarity"],
        "prompt": info["default_prompt"] if prompt is None else prompt,
        "overflow": overflow,
    }


class _Reader:
    """The rows that are left of a corpus, after checking that those done are the same."""

    def __init__(self, rows: Iterator[Row | BadRow], work: Work, output: Path) -> None:
        self._rows = rows
        self._digest = hashlib.sha256()
        done = work.state.read
        read = self.count(islice(self._rows, done))
        if read != done or (done and self.digest != work.state.digest):
            raise CorpusError(
                f"an unfinished run for it has read {done} rows, but the input's first rows are "
                f"not those any more. Give it the same input again to go on, or delete "
                f"{work.folder} to start anew",
                str(output),
            )

    def __iter__(self) -> Iterator[Row | BadRow]:
        return self._rows

    @property
    def digest(self) -> str:
        """SHA-256 of the rows counted so far."""
        return self._digest.hexdigest()

    def count(self, rows: Iterable[Row | BadRow]) -> int:
        """Add rows to the digest; returns how many there were."""
        number = 0
        for row in rows:
            content = (row.id, row.text) if isinstance(row, Row) else (row.reason, row.raw)
            self._digest.update(json.dumps(content, default=repr).encode() + b"\n")
            number += 1
        return number


def _run(
    chunks: Iterable[Chunk], work: Work, layout: Layout, reader: _Reader, bar: CorpusBar
) -> None:
    """Encode and commit, chunk by chunk."""
    start = time.monotonic()
    for chunk in chunks:
        now, state = time.monotonic(), work.state
        reader.count(chunk.read)
        work.append(
            layout.store(chunk.vectors).tobytes(),
            b"".join(_line(key) for key in chunk.ids),
            b"".join(_line(_skipped(number, row)) for number, row in chunk.bad),
            replace(
                advance(state, chunk), seconds=state.seconds + now - start, digest=reader.digest
            ),
        )
        start = now
        bar.show(work.state)
        if chunk.stopped:
            work.forget_sizes()
            raise CorpusError(
                f"{chunk.stopped.reason}. Mend the row, or add --on-error skip, and run the "
                f"command again: it goes on after the {work.state.texts} texts that are done",
                chunk.stopped.file,
                chunk.stopped.line,
            )


def _line(value: Any) -> bytes:
    return json.dumps(value, default=repr).encode() + b"\n"


def _skipped(number: int, row: BadRow) -> dict[str, Any]:
    place = {"number": number, "file": row.file, "line": row.line}
    return {**place, "reason": row.reason, "row": row.raw}


def _finish(work: Work, described: Mapping[str, Any], layout: Layout, output: Path) -> None:
    """Make the output and note in the journal that it is there."""
    work.set_header(layout.dtype, layout.width(described["dim"]))
    facts = {
        **described,
        "rows": work.state.texts,
        "ids_are_rows": ids_are_rows(work.file("ids")),
    }
    with make(work, facts, output).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    work.save(replace(work.state, facts=facts, sha256=digest))
