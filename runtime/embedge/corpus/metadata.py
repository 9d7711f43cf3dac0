"""The metadata of a file of vectors: what made them, and checksums of all of it."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from embedge.corpus.layout import LAYOUTS, Layout, Stored
from embedge.corpus.rows import Id
from embedge.errors import CorpusError
from embedge.similarity import SIMILARITIES

FORMAT = 1
_OWN = "metadata_sha256"


@dataclass(frozen=True)
class Metadata:
    """The metadata of stored vectors.

    Attributes:
        format: of this metadata.
        model: name of the model.
        fingerprint: of everything that decides a vector of the model.
        dim: components of a vector.
        dtype: a key of LAYOUTS.
        similarity: the model's measure.
        prompt: name of the prompt that was put in front of each text, or None.
        overflow: what happened to texts longer than the model takes.
        columns: of the input, kept with the vectors.
        text_column: which of them holds the texts, or None.
        rows: how many vectors there are.
        ids_are_rows: whether the ids are the rows' numbers from 0.
        skipped: rows of the input without a vector.
        tokens: of the texts, before truncation, special tokens and prompt included.
        truncated: texts that were truncated.
        input_sha256: of the rows of the input, whatever files they came from.
        vectors_sha256: of the stored vectors, row by row.
        ids_sha256: of the ids, each as a line of JSON.
        passages: how texts were split, as `PassageOptions.describe` says, or None; the columns
            passage, start and end then say which part of its document a row is.
    """

    format: int
    model: str
    fingerprint: str
    dim: int
    dtype: str
    similarity: str
    prompt: str | None
    overflow: str
    columns: list[str]
    text_column: str | None
    rows: int
    ids_are_rows: bool
    skipped: int
    tokens: int
    truncated: int
    input_sha256: str
    vectors_sha256: str
    ids_sha256: str
    passages: dict[str, Any] | None = None

    @property
    def layout(self) -> Layout:
        """How the vectors are stored."""
        return LAYOUTS[self.dtype]

    @property
    def width(self) -> int:
        """Stored values of a row."""
        return self.layout.width(self.dim)

    def dump(self) -> bytes:
        """As a JSON object, which ends with a checksum of itself."""
        values = {k: v for k, v in asdict(self).items() if (k, v) != ("passages", None)}
        return json.dumps({**values, _OWN: _sha256(values)}, indent=1).encode() + b"\n"


def parse_metadata(data: bytes, path: Path) -> Metadata:
    """Read what `Metadata.dump` gave.

    Raises:
        CorpusError: it is damaged, or of a newer version.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    own = values.pop(_OWN, None) if isinstance(values, dict) else None
    problem = _problem(values)
    if not problem and own != _sha256(values):
        problem = "its own checksum differs"
    if problem:
        raise CorpusError(
            f"the metadata of this file is damaged or from another version of embedge: {problem}; "
            "make the vectors again",
            str(path),
        )
    return Metadata(**values)


def _sha256(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


_TYPES: dict[str, tuple[type, ...]] = {
    "format": (int,), "model": (str,), "fingerprint": (str,), "dim": (int,), "dtype": (str,),
    "similarity": (str,), "prompt": (str, NoneType), "overflow": (str,), "columns": (list,),
    "text_column": (str, NoneType),
    "rows": (int,),
    "ids_are_rows": (bool,), "skipped": (int,), "tokens": (int,), "truncated": (int,),
    "input_sha256": (str,), "vectors_sha256": (str,), "ids_sha256": (str,),
}  # fmt: skip
_OPTIONAL: dict[str, tuple[type, ...]] = {"passages": (dict,)}
_MOST_DIM = 2**20


def _problem(values: Any) -> str:
    if not isinstance(values, dict):
        return "expected a JSON object"
    if values.get("format") != FORMAT:
        return f"expected format {FORMAT}, got {values.get('format')!r}"
    for key, types in _TYPES.items():
        if type(values.get(key, values)) not in types:
            return f"expected {key} as {types[0].__name__}, got {values.get(key, 'nothing')!r}"
    for key in values:
        if key not in _TYPES and type(values[key]) not in _OPTIONAL.get(key, ()):
            return f"unknown key or value: {key!r}"
    checks = {
        "dim": 1 <= values["dim"] <= _MOST_DIM,
        "rows": 0 <= values["rows"] < 2**48,
        "dtype": values["dtype"] in LAYOUTS,
        "similarity": values["similarity"] in SIMILARITIES,
    }
    return next((f"{key} is {values[key]!r}" for key, good in checks.items() if not good), "")


class Checksums:
    """SHA-256 of vectors and of ids, added batch by batch."""

    def __init__(self) -> None:
        self._vectors, self._ids = hashlib.sha256(), hashlib.sha256()
        self.rows = 0

    def add(self, ids: Iterable[Id] | bytes, vectors: Stored | bytes) -> None:
        """Add ids (or their JSON lines) and stored vectors (or their bytes)."""
        lines = ids if isinstance(ids, bytes) else b"".join(map(id_line, ids))
        self._ids.update(lines)
        self._vectors.update(vectors if isinstance(vectors, bytes) else vectors.tobytes())
        self.rows += lines.count(b"\n")

    @property
    def vectors(self) -> str:
        """Of the vectors, in hexadecimal digits."""
        return self._vectors.hexdigest()

    @property
    def ids(self) -> str:
        """Of the ids, in hexadecimal digits."""
        return self._ids.hexdigest()


def id_line(key: Id) -> bytes:
    """An id as a line of JSON; a newline within it is escaped there."""
    return json.dumps(key).encode() + b"\n"
