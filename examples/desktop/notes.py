"""Notes in a folder, and an index that is searched while it still grows. Knows nothing of Qt."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedge import Encoder

SUFFIXES = (".md", ".txt")


@dataclass(frozen=True)
class Note:
    """One paragraph of a file."""

    path: Path
    line: int
    text: str


def read_notes(folder: Path, check: Callable[[], object]) -> tuple[list[Note], list[Path]]:
    """The paragraphs of all notes below a folder, and the files that are not UTF-8 text.

    ``check`` is called before each file is read, and may raise.
    """
    notes, unreadable = [], []
    for path in sorted(folder.rglob("*")):
        check()
        if path.suffix.lower() in SUFFIXES and path.is_file():
            try:
                notes += paragraphs(path, path.read_text(encoding="utf-8-sig"))
            except (OSError, UnicodeDecodeError):
                unreadable.append(path)
    return notes, unreadable


def paragraphs(path: Path, text: str) -> Iterator[Note]:
    """What is between blank lines."""
    lines: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip():
            lines.append(line.strip())
        elif lines:
            yield Note(path, number - len(lines), " ".join(lines))
            lines = []


class NotesIndex:
    """Vectors of notes. One thread adds to it while others search."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._blocks: list[tuple[list[Note], np.ndarray]] = []  # only ever appended to

    def add(self, notes: list[Note], progress: Callable[[int, int | None], object]) -> None:
        """Encode notes and add them. When ``progress`` raises, nothing is added."""
        texts = [note.text for note in notes]
        # "mean" reads long paragraphs to their end instead of cutting them.
        vectors = self._encoder.encode_document(texts, overflow="mean", progress=progress)
        self._blocks.append((notes, vectors))

    def search(self, query: str, count: int = 20) -> list[tuple[float, Note]]:
        """The notes added so far that are most like a query, best first, with their scores."""
        vector = self._encoder.encode_query([query])  # (1, dim)
        hits = []
        for notes, vectors in list(self._blocks):
            scores = self._encoder.similarity(vector, vectors)[0]  # (notes,)
            hits += [(float(scores[row]), notes[row]) for row in np.argsort(-scores)[:count]]
        return sorted(hits, key=lambda hit: -hit[0])[:count]

    def close(self) -> None:
        """Give back the model's memory."""
        self._encoder.close()
