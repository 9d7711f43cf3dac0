"""Move the files of a finished job into place: atomic, durable, never over files of others."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from embedge.corpus import arrow
from embedge.corpus.files import is_fixed, remove, replace, sync_folder, write_synced
from embedge.corpus.metadata import Metadata, parse_metadata
from embedge.corpus.output import (
    Content,
    is_arrow,
    sidecar,
    write_ids,
    write_output,
    write_skipped,
)
from embedge.errors import CorpusError

_SIDECARS = ("ids", "skipped", "json")

Write = Callable[[BinaryIO], object]


def existing(output: Path) -> list[Path]:
    """The files, and links to nothing, that a job with this output would overwrite or delete."""
    paths = [output, *(sidecar(output, kind) for kind in _SIDECARS)]
    return [path for path in paths if os.path.lexists(path)]


def check_replaceable(output: Path) -> None:
    """Raise CorpusError where a file that is in the way could not be replaced in the end."""
    for path in existing(output):
        if is_fixed(path):
            raise CorpusError(
                "the file is read-only; make it writable, or give another --output", str(path)
            )


def metadata_of(path: Path) -> Metadata | None:
    """The metadata of a file of vectors; None where it is not one.

    Raises:
        CorpusError: the metadata is damaged, or the file itself.
    """
    if not path.is_file():
        return None
    if is_arrow(path):
        with path.open("rb") as stream:
            data = arrow.Table(stream, path.suffix[1:].lower(), str(path)).metadata
    else:
        metadata = sidecar(path, "json")
        data = metadata.read_bytes() if metadata.is_file() else None
    return None if data is None else parse_metadata(data, path)


def publish(content: Content, output: Path, before_first: Callable[[], None]) -> None:
    """Write all files of an output, and move them to their places.

    All are written and on the disk before the first is moved. The metadata of an older output goes
    first and the new comes last: vectors never have the metadata of others. Can be repeated
    after a kill at any point.

    Args:
        content: what is written.
        output: where; the path of no symbolic link.
        before_first: is called before the first file is moved.
    """
    new = {
        path: path.with_name(f".{path.name}.new")
        for path in (output, *(sidecar(output, kind) for kind in _SIDECARS))
    }
    try:
        wanted = _wanted(content, output)
        for path, write in wanted.items():
            write_synced(new[path], write, like=path if path.exists() else output)
        before_first()
        remove(sidecar(output, "json"))
        for path in (*(sidecar(output, kind) for kind in ("ids", "skipped")), output):
            if path in wanted:
                replace(new[path], path)
            else:
                remove(path)
        if sidecar(output, "json") in wanted:
            sync_folder(output.parent)
            replace(new[sidecar(output, "json")], sidecar(output, "json"))
        sync_folder(output.parent)
    finally:
        for path in new.values():
            remove(path)


def _wanted(content: Content, output: Path) -> dict[Path, Write]:
    """The files of an output and what writes them."""
    metadata = content.metadata
    wanted: dict[Path, Write] = {output: partial(write_output, content=content, output=output)}
    if output.suffix.lower() == ".npy" and not metadata.ids_are_rows:
        wanted[sidecar(output, "ids")] = partial(write_ids, content=content)
    if metadata.skipped:
        wanted[sidecar(output, "skipped")] = partial(write_skipped, content=content)
    if not is_arrow(output):
        wanted[sidecar(output, "json")] = lambda stream: stream.write(metadata.dump())
    return wanted
