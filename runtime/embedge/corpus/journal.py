"""The unfinished state of a job: a hidden SQLite database next to its output.

SQLite brings what a job needs on every system: commits that are whole and on the disk or did not
happen, and a lock that dies with its process.

    job       one row: what the job is, and how far it is, as JSON
    chunks    what was made of consecutive rows of the corpus: vectors, ids, skipped rows, columns

SQLite does not notice a flipped bit in what it stores, so each row has a checksum.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from embedge.corpus.files import remove
from embedge.errors import CorpusError

FORMAT = 2
SIZE_OF = "bytes of "  # begins the keys of the inputs' sizes in an identity

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS job (format INTEGER, identity BLOB, state BLOB, crc32 INTEGER);
    CREATE TABLE IF NOT EXISTS chunks
        (number INTEGER PRIMARY KEY, vectors BLOB, ids BLOB, skipped BLOB, columns BLOB,
         crc32 INTEGER);
"""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA)
_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@dataclass(frozen=True)
class State:
    """How far a job is.

    Attributes:
        read: rows of the corpus, those that were skipped included.
        texts: rows that have a vector.
        skipped: rows that have none.
        tokens: of the texts, before truncation, special tokens and prompt included.
        truncated: texts that were truncated.
        seconds: spent on all this, over all runs.
        digest: SHA-256 of the rows read.
        publishing: whether the output's files are being moved to their places.
    """

    read: int = 0
    texts: int = 0
    skipped: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0
    digest: str = ""
    publishing: bool = False


@dataclass(frozen=True)
class StoredChunk:
    """What a commit adds: stored vectors, and three times JSON lines (kept columns may be none)."""

    vectors: bytes
    ids: bytes
    skipped: bytes
    columns: bytes


def journal_path(output: Path) -> Path:
    """Where the unfinished state of a job with this output is."""
    return output.with_name(f".{output.name}.embedge")


class Journal:
    """The open state of one job; made by `open_journal`."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, identity: Mapping[str, Any], state: State
    ) -> None:
        self.path, self.state = path, state
        self._connection = connection
        self._identity = dict(identity)
        self._finished = False

    def append(self, chunk: StoredChunk, state: State) -> None:
        """Commit: ``state`` counts ``chunk`` as well, and both are durable when this returns."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO chunks (vectors, ids, skipped, columns, crc32) VALUES (?, ?, ?, ?, ?)",
                (*astuple(chunk), _checksum(astuple(chunk))),
            )
            self._store(state)
        self.state = state

    def save(self, state: State) -> None:
        """Commit a state without a chunk."""
        with self._transaction():
            self._store(state)
        self.state = state

    def chunks(self) -> Iterator[StoredChunk]:
        """All that was appended, one chunk at a time."""
        query = "SELECT crc32, vectors, ids, skipped, columns FROM chunks ORDER BY number"
        for checksum, *values in self._connection.execute(query):
            _check(checksum, values)
            yield StoredChunk(*values)

    def forget_sizes(self) -> None:
        """Accept other sizes of the inputs in the next run: a bad row will be fixed."""
        for key in self._identity:
            if key.startswith(SIZE_OF):
                self._identity[key] = None
        self.save(self.state)

    def finish(self) -> None:
        """Let the database be deleted when it is closed: the job is done."""
        self._finished = True

    @property
    def disposable(self) -> bool:
        """Whether the job is done, or has not read a row yet, so that nothing is lost with it."""
        return self._finished or not self.state.read

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _store(self, state: State) -> None:
        self._connection.execute("DELETE FROM job")
        values = [json.dumps(value).encode() for value in (self._identity, asdict(state))]
        self._connection.execute(
            "INSERT INTO job VALUES (?, ?, ?, ?)", (FORMAT, *values, _checksum(values))
        )


@contextmanager
def open_journal(output: Path, identity: Mapping[str, Any]) -> Iterator[Journal]:
    """Open the state of a job, new or where a run before has left it.

    A run that ends before it has read a row leaves nothing.

    Raises:
        CorpusError: the state is of a job with another ``identity`` (says what differs), is in use
            by another process, is damaged, or cannot be written.
    """
    path = journal_path(output)
    disposable = False
    try:
        with _sqlite_errors(path, output), closing(_connect(path)) as connection:
            known = _load(connection, path)
            journal = Journal(connection, path, identity, known[1] if known else State())
            if known and known[1].read:
                _compare(known[0], identity, path, output)
            else:
                journal.save(State())
            try:
                yield journal
            finally:
                disposable = journal.disposable
    finally:
        if disposable:  # after it was closed: Windows deletes no open file
            remove(path)
            remove(path.with_name(f"{path.name}-journal"))  # where the disk was full


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database with its lock taken, durable commits, and the tables of a new one."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # held until it is closed
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: the drive's own cache as well
        connection.execute("BEGIN EXCLUSIVE")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and _code(error) not in _IN_USE:
            with suppress(FileNotFoundError):
                if not path.stat().st_size:  # a full disk, or a name too long for SQLite's own file
                    remove(path)
        raise
    return connection


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where the error is the module's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _load(connection: sqlite3.Connection, path: Path) -> tuple[dict[str, Any], State] | None:
    found = connection.execute("SELECT format FROM job").fetchone()
    if found is None:
        return None
    if found[0] != FORMAT:
        raise CorpusError(
            "written by another version of embedge; delete it to start over", str(path)
        )
    checksum, *values = connection.execute("SELECT crc32, identity, state FROM job").fetchone()
    _check(checksum, values)
    return dict(json.loads(values[0])), State(**json.loads(values[1]))


def _checksum(values: Sequence[bytes]) -> int:
    checksum = 0
    for value in values:
        checksum = zlib.crc32(value, zlib.crc32(len(value).to_bytes(8, "big"), checksum))
    return checksum


def _check(checksum: object, values: Sequence[object]) -> None:
    """Raise DatabaseError where the values of a row are not those that were stored."""
    stored = [value for value in values if isinstance(value, bytes)]
    if len(stored) != len(values) or _checksum(stored) != checksum:
        raise sqlite3.DatabaseError("a checksum differs")


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], path: Path, output: Path) -> None:
    """Raise CorpusError where two identities differ; a size that was forgotten is equal to all."""
    differences = []
    for key in {**before, **now}:
        was, is_ = before.get(key, "absent"), now.get(key, "absent")
        if was != is_ and not (was is None and key.startswith(SIZE_OF)):
            differences.append(f"{key} is {is_!r}, but was {was!r}")
    if differences:
        raise CorpusError(
            f"an unfinished run for it differs from this one: {'; '.join(differences)}. Rerun "
            f"that command to resume it, or delete {path} to start over",
            str(output),
        )


@contextmanager
def _sqlite_errors(path: Path, output: Path) -> Iterator[None]:
    """Turn what SQLite raises into CorpusError."""
    try:
        yield
    except sqlite3.Error as error:
        code = _code(error)
        if code in _IN_USE:
            raise CorpusError(
                "another process is writing it; wait for that, or stop it", str(output)
            ) from None
        if code in _DAMAGED or not isinstance(error, sqlite3.OperationalError):
            raise CorpusError(
                f"the journal is damaged ({error}); delete it to start over", str(path)
            ) from error
        raise CorpusError(
            f"cannot be written ({error}); fix the cause and rerun the same command to resume",
            str(output),
        ) from error
