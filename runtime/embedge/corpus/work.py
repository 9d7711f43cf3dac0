"""The unfinished state of a job, in a hidden folder beside its output, safe against any kill.

    vectors.npy    stored vectors behind a .npy header, which is written when all are there
    ids            a JSON value a line
    skipped        a JSON object a line, the rows that were skipped
    journal.json   what the job is, and how much of the other files counts

A commit appends to the files, makes them durable (fsync), and only then replaces the journal.
What a killed run appended after its last commit is cut off when the next one opens the folder.
"""

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from embedge.errors import CorpusError

FORMAT = 1
HEADER_BYTES = 128
SIZE_OF = "bytes of "  # begins the keys of the inputs' sizes in an identity
_FILES = ("vectors.npy", "ids", "skipped")


@dataclass(frozen=True)
class State:
    """How far a job is.

    Attributes:
        read: rows of the corpus, those that were skipped included.
        texts: rows that have a vector.
        skipped: rows that have none.
        tokens: of the texts, before truncation, special tokens and prompt included.
        truncated: texts that were cut.
        seconds: spent on all this, over all runs.
        digest: SHA-256 of the rows read.
        sizes: bytes of each of the files of the folder that count.
        facts: of the finished output; then all that is left is to move it to its place.
        sha256: of the finished output.
    """

    read: int = 0
    texts: int = 0
    skipped: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0
    digest: str = ""
    sizes: tuple[int, ...] = (HEADER_BYTES, 0, 0)
    facts: Mapping[str, Any] | None = None
    sha256: str = ""


def work_folder(output: Path) -> Path:
    """Where the unfinished state of a job with this output is."""
    return output.with_name(f".{output.name}.embedge")


class Work:
    """The open folder of one job; made by `open_work`."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], state: State) -> None:
        self.folder, self.state = folder, state
        self._identity = dict(identity)
        self._files: list[BinaryIO] = []

    def file(self, name: str) -> Path:
        """Path of a file of the folder: vectors.npy, ids, skipped, or finished."""
        return self.folder / name

    def append(self, vectors: bytes, ids: bytes, skipped: bytes, state: State) -> None:
        """Commit: ``state`` counts what is appended here, and is durable when this returns."""
        sizes = []
        parts = (vectors, ids, skipped)
        for file, part, size in zip(self._files, parts, self.state.sizes, strict=True):
            if part:
                _write(file, part)
                os.fsync(file.fileno())
            sizes.append(size + len(part))
        self.save(replace(state, sizes=tuple(sizes)))

    def save(self, state: State) -> None:
        """Replace the journal."""
        journal = {"format": FORMAT, "identity": self._identity, "state": asdict(state)}
        write_durably(self.folder / "journal.json", json.dumps(journal, indent=1).encode())
        sync_folder(self.folder)
        self.state = state

    def forget_sizes(self) -> None:
        """Let the inputs' sizes change before the next run: a bad row is to be mended."""
        for key in self._identity:
            if key.startswith(SIZE_OF):
                self._identity[key] = None
        self.save(self.state)

    def set_header(self, dtype: np.dtype[Any], width: int) -> None:
        """Make vectors.npy a whole .npy file of (texts, width)."""
        file = self._files[0]
        file.seek(0)
        _write(file, npy_header(dtype, self.state.texts, width))
        os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete the folder, the journal last."""
        self._close()
        for name in (*_FILES, "finished", "journal.json.new", "lock", "journal.json"):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _open(self) -> None:
        for name, size in zip(_FILES, self.state.sizes, strict=True):
            path = self.folder / name
            path.touch()
            file = cast(BinaryIO, path.open("r+b", buffering=0))
            self._files.append(file)
            if name == "vectors.npy" and not self.state.texts:
                file.truncate(HEADER_BYTES)
            if file.seek(0, os.SEEK_END) < size:
                raise CorpusError(f"the file is damaged; delete {self.folder} to start again", name)
            file.truncate(size)
            file.seek(size)

    def _close(self) -> None:
        for file in self._files:
            file.close()
        self._files.clear()


@contextmanager
def open_work(output: Path, identity: Mapping[str, Any]) -> Iterator[Work]:
    """Open the folder of a job, new or where a run before has left it.

    A run that ends with an error before it has read a row leaves no folder.

    Raises:
        CorpusError: the folder is of a job with another ``identity`` (says what differs), is in
            use by another process, or is damaged.
    """
    folder = work_folder(output)
    folder.mkdir(exist_ok=True)
    with _lock(folder, output):
        known = _load(folder)
        if known and not known[1].read:
            known = None  # nothing to go on from
        work = Work(folder, identity, known[1] if known else State())
        if known:
            _compare(known[0], identity, folder, output)
        try:
            if work.state.facts is None:
                work._open()
            if not known:
                work.save(State())
                sync_folder(folder.parent)
            yield work
        except BaseException:
            if not work.state.read:
                work.remove()
            raise
        finally:
            work._close()


def _load(folder: Path) -> tuple[dict[str, Any], State] | None:
    path = folder / "journal.json"
    try:
        journal = json.loads(path.read_bytes())
        if journal["format"] != FORMAT:
            raise CorpusError(
                f"written by another version of embedge; delete {folder} to start again", str(path)
            )
        sizes = tuple(journal["state"].pop("sizes"))
        return dict(journal["identity"]), State(**journal["state"], sizes=sizes)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise CorpusError(
            f"the journal is damaged ({error}); delete {folder} to start again", str(path)
        ) from None


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path, output: Path) -> None:
    """Raise CorpusError where two identities differ; a size that was forgotten is equal to all."""
    differences = []
    for key in {**before, **now}:
        was, is_ = before.get(key, "absent"), now.get(key, "absent")
        if was != is_ and not (was is None and key.startswith(SIZE_OF)):
            differences.append(f"{key} is {is_!r}, but was {was!r}")
    if differences:
        raise CorpusError(
            f"an unfinished run for it differs from this one: {'; '.join(differences)}. Run that "
            f"command again to go on with it, or delete {folder} to start anew",
            str(output),
        )


@contextmanager
def _lock(folder: Path, output: Path) -> Iterator[None]:
    """Keep other processes out, where the system can; the lock dies with this process."""
    with (folder / "lock").open("wb") as file:
        with suppress(ImportError):
            fcntl = importlib.import_module("fcntl")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CorpusError(
                    "another process is writing it; wait for that, or stop it", str(output)
                ) from None
        yield


def npy_header(dtype: np.dtype[Any], rows: int, width: int) -> bytes:
    """The header, version 1.0, of a .npy file, padded to HEADER_BYTES for any number of rows."""
    facts = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    size = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + f"{facts:<{size - 1}}\n".encode()


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, and is on the disk when this returns."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
