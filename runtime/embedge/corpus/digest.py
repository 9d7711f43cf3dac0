"""The rows of a corpus, hashed as they are read, so that a job resumes only with the same rows."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from embedge.corpus.journal import Journal
from embedge.corpus.rows import BadRow, Row
from embedge.errors import CorpusError

_PIECE = 2**20  # characters of a text that are hashed at a time


class RowDigest:
    """SHA-256 of rows: of their ids, texts and kept columns, whatever files they came from."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def hexdigest(self) -> str:
        """Of the rows counted so far."""
        return self._digest.hexdigest()

    def count(self, rows: Iterable[Row | BadRow]) -> int:
        """Add rows; returns how many there were."""
        number = 0
        for row in rows:
            number += 1
            if isinstance(row, BadRow):
                self._digest.update(json_line([row.reason, row.raw]))
                continue
            self._digest.update(json_line([row.id, len(row.text)]))
            for start in range(0, len(row.text), _PIECE):
                self._digest.update(row.text[start : start + _PIECE].encode())
            if row.columns:
                self._digest.update(json_line(dict(row.columns)))
        return number


class RowReader:
    """The rows that are left of a corpus, after checking that those done are the same."""

    def __init__(self, rows: Iterator[Row | BadRow], journal: Journal, output: Path) -> None:
        self._rows = rows
        self._digest = RowDigest()
        done = journal.state.read
        read = self.count(islice(self._rows, done))
        if read != done or (done and self.digest != journal.state.digest):
            raise CorpusError(
                f"an unfinished run for it has read {done} rows, but the input's first rows are "
                f"not those any more. Give it the same input again to resume, or delete "
                f"{journal.path} to start over",
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
        return self._digest.count(rows)


def json_line(value: Any) -> bytes:
    """A value as a line of JSON; what JSON has no type for, as a string."""
    return json.dumps(value, default=str).encode() + b"\n"
