"""What a finished job leaves: the vectors in one of four forms, and the facts that go with them.

    VECTORS.npy       (texts, width) of the dtype's layout, for numpy.load(..., mmap_mode="r")
    VECTORS.jsonl     {"id": ..., "vector": [...]} a line
    VECTORS.parquet   columns id (int64 or string) and vector (fixed-size list); .arrow likewise

The facts, a JSON object, are beside .npy and .jsonl as VECTORS.npy.json, and inside .parquet and
.arrow as the schema's metadata `embedge`. Beside .npy, VECTORS.npy.ids has the id of each row, a
JSON value a line, unless the ids are the rows' numbers from 0. VECTORS.npy.skipped has the rows
that were skipped, if any were: {"number", "file", "line", "reason", "row"} a line.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedge.corpus import arrow
from embedge.corpus.layout import LAYOUTS
from embedge.corpus.rows import Id
from embedge.corpus.work import HEADER_BYTES, Work, sync_folder, write_durably
from embedge.errors import OptionError

_BATCH_ROWS = 16384
_INT64 = range(-(2**63), 2**63)

Facts = Mapping[str, Any]


def check_output(path: Path) -> None:
    """Raise OptionError where a job could not write ``path`` in the end."""
    reason = ""
    if path.is_dir():
        reason = "it is a folder; give the path of a file"
    elif path.suffix not in _FORMS:
        reason = f"its name should end in {', '.join(_FORMS)}"
    elif not path.parent.is_dir():
        reason = f"there is no folder {path.parent}; make it first"
    if reason:
        raise OptionError(f"--output {path} cannot be written: {reason}")
    if path.suffix in _ARROW:
        arrow.require()


def sidecar(output: Path, kind: str) -> Path:
    """Path of a file beside the output: "json" (the facts), "ids" or "skipped"."""
    return output.with_name(f"{output.name}.{kind}")


def make(work: Work, facts: Facts, output: Path) -> Path:
    """Make the output in ``work``'s folder, durably, from its vectors.npy and ids; its path there.

    Can be repeated after a kill at any point.
    """
    path = _finished(work, output)
    _FORMS[output.suffix](path, work.file("vectors.npy"), work.file("ids"), facts)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return path


def publish(work: Work, facts: Facts, output: Path) -> None:
    """Move all to its place; can be repeated after a kill at any point.

    The facts of an older output go first and the new ones come last: vectors never lie beside the
    facts of others.
    """
    sidecar(output, "json").unlink(missing_ok=True)
    keep_ids = output.suffix == ".npy" and not facts["ids_are_rows"]
    for kind, keep in (("ids", keep_ids), ("skipped", work.state.skipped > 0)):
        if not keep:
            sidecar(output, kind).unlink(missing_ok=True)
        elif work.file(kind).exists():
            work.file(kind).replace(sidecar(output, kind))
    if _finished(work, output).exists():
        _finished(work, output).replace(output)
    if output.suffix not in _ARROW:
        write_durably(sidecar(output, "json"), json.dumps(facts, indent=1).encode() + b"\n")
    sync_folder(output.parent)


def _finished(work: Work, output: Path) -> Path:
    return work.file("vectors.npy" if output.suffix == ".npy" else "finished")


def read_ids(path: Path) -> Iterator[Id]:
    """The ids of a file of them."""
    with path.open("rb") as stream:
        for line in stream:
            yield json.loads(line)


def ids_are_rows(path: Path) -> bool:
    """Whether the ids of a file of them are 0, 1, 2, ..."""
    return all(key == row and type(key) is int for row, key in enumerate(read_ids(path)))


def _batches(
    vectors: Path, ids: Iterable[Id], facts: Facts
) -> Iterator[tuple[list[Id], NDArray[Any]]]:
    """Ids and stored vectors, (rows, width). Read rather than mapped, so that memory is flat."""
    layout = LAYOUTS[facts["dtype"]]
    width = layout.width(facts["dim"])
    keys = iter(ids)
    with vectors.open("rb") as stream:
        stream.seek(HEADER_BYTES)
        while data := stream.read(_BATCH_ROWS * width * layout.dtype.itemsize):
            block = np.frombuffer(data, layout.dtype).reshape(-1, width)
            yield list(islice(keys, len(block))), block


def _write_jsonl(path: Path, vectors: Path, ids: Path, facts: Facts) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for keys, block in _batches(vectors, read_ids(ids), facts):
            for key, vector in zip(keys, block.tolist(), strict=True):
                line = json.dumps({"id": key, "vector": vector}, ensure_ascii=False)
                stream.write(line + "\n")


def _write_arrow(path: Path, vectors: Path, ids: Path, facts: Facts, *, kind: str) -> None:
    layout = LAYOUTS[facts["dtype"]]
    integers = all(isinstance(key, int) and key in _INT64 for key in read_ids(ids))
    keys = read_ids(ids) if integers else map(str, read_ids(ids))
    arrow.write_vectors(
        path,
        kind,
        _batches(vectors, keys, facts),
        layout.width(facts["dim"]),
        layout.dtype,
        integer_ids=integers,
        metadata=json.dumps(facts).encode(),
    )


def _write_parquet(path: Path, vectors: Path, ids: Path, facts: Facts) -> None:
    _write_arrow(path, vectors, ids, facts, kind="parquet")


def _write_ipc(path: Path, vectors: Path, ids: Path, facts: Facts) -> None:
    _write_arrow(path, vectors, ids, facts, kind="arrow")


_ARROW = (".parquet", ".arrow")
_FORMS: dict[str, Callable[[Path, Path, Path, Facts], None]] = {
    ".npy": lambda path, vectors, ids, facts: None,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
    ".arrow": _write_ipc,
}
