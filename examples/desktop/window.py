"""Search a folder of notes by meaning: python examples/desktop/window.py FOLDER.

Needs `pip install embedge PySide6-Essentials` (with Python 3.11 not 6.12.0 of it, which aborts the
program after some hundred signals). Two threads do all that takes time, so the window
never waits: one encodes the notes, one answers queries, already while notes are being encoded.
Both use one Encoder. Cancelling and quitting take effect within one micro-batch, because the
Encoder calls `progress` after each, and an exception raised there ends the call.
"""

import multiprocessing

multiprocessing.freeze_support()  # first of all, or a bundled program starts itself for ever

import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from queue import SimpleQueue  # noqa: E402

from notes import Note, NotesIndex, read_notes  # noqa: E402
from PySide6.QtCore import QThread, Signal  # noqa: E402
from PySide6.QtGui import QCloseEvent  # noqa: E402
from PySide6.QtWidgets import (  # noqa: E402
    QApplication,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from embedge import EmbedgeError, Encoder  # noqa: E402

NOTES_AT_A_TIME = 256  # can be searched when they are done


class Cancelled(Exception):  # noqa: N818  (no error)
    """Raised out of an encode call by its progress function."""


class Indexer(QThread):
    """Loads the model, then encodes the notes of a folder."""

    loaded = Signal(object)  # a NotesIndex, empty so far
    progress = Signal(int, int)
    grown = Signal()
    ended = Signal(str)

    def __init__(self, folder: Path, load: Callable[[], Encoder]) -> None:
        super().__init__()
        self._folder, self._load = folder, load

    def run(self) -> None:
        """Run in the thread; every way of ending is told by ``ended``."""
        self._done = self._total = 0
        try:
            self.ended.emit(self._index())
        except Cancelled:
            self.ended.emit(f"Cancelled: {self._done} of {self._total} paragraphs can be searched")
        except (EmbedgeError, OSError) as error:
            self.ended.emit(f"Failed: {error}")

    def _index(self) -> str:
        index = NotesIndex(self._load())
        self.loaded.emit(index)
        notes, unreadable = read_notes(self._folder, self._check)
        self._total = len(notes)
        for start in range(0, len(notes), NOTES_AT_A_TIME):
            block = notes[start : start + NOTES_AT_A_TIME]
            index.add(block, self._report)
            self._done += len(block)
            self.grown.emit()
        self.progress.emit(self._done, self._total)
        skipped = f"; {len(unreadable)} files are not UTF-8 and were skipped" if unreadable else ""
        return f"{len(notes)} paragraphs{skipped}"

    def _check(self) -> None:
        if self.isInterruptionRequested():
            raise Cancelled

    def _report(self, done: int, total: int | None) -> None:
        self._check()
        self.progress.emit(self._done + done, self._total)


class Searcher(QThread):
    """Answers queries; of those that have come meanwhile, only the newest."""

    found = Signal(str, object)

    def __init__(self, index: NotesIndex) -> None:
        super().__init__()
        self.index = index
        self._queries: SimpleQueue[str | None] = SimpleQueue()

    def ask(self, query: str | None) -> None:
        """Search for this next; None ends the thread."""
        self._queries.put(query)

    def run(self) -> None:
        """Run in the thread."""
        while True:
            query = self._queries.get()
            while not self._queries.empty():
                query = self._queries.get()
            if query is None:
                return
            self.found.emit(query, self.index.search(query) if query.strip() else [])


class Window(QWidget):
    """A search box, its results, and the progress of the index."""

    def __init__(self, folder: Path, load: Callable[[], Encoder] = Encoder) -> None:
        super().__init__()
        self.setWindowTitle(f"Notes in {folder}")
        self.resize(720, 420)
        self.query = QLineEdit(placeholderText="Search by meaning", enabled=False)
        self.results = QListWidget()
        self.bar = QProgressBar()
        self.cancel = QPushButton("Cancel")
        self.status = QLabel("Loading the model")
        below = QHBoxLayout()
        below.addWidget(self.bar, 1)
        below.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        for widget in (self.query, self.results):
            layout.addWidget(widget)
        layout.addLayout(below)
        layout.addWidget(self.status)

        self.closed = False
        self.searcher: Searcher | None = None
        self.indexer = Indexer(folder, load)
        self.indexer.loaded.connect(self._on_loaded)
        self.indexer.progress.connect(self._on_progress)
        self.indexer.grown.connect(self._on_grown)
        self.indexer.ended.connect(self._on_ended)
        self.cancel.clicked.connect(self.indexer.requestInterruption)
        self.indexer.start()

    def _on_loaded(self, index: NotesIndex) -> None:
        if self.closed:
            return
        self.status.setText("Encoding; what is done can be searched")
        self.searcher = Searcher(index)
        self.searcher.found.connect(self._on_found)
        self.searcher.start()
        self.query.textChanged.connect(self.searcher.ask)
        self.query.setEnabled(True)
        self.query.setFocus()

    def _on_progress(self, done: int, total: int) -> None:
        self.bar.setMaximum(total)
        self.bar.setValue(done)

    def _on_grown(self) -> None:
        if self.searcher is not None:  # there may be better notes by now
            self.searcher.ask(self.query.text())

    def _on_ended(self, message: str) -> None:
        self.status.setText(message)
        self.cancel.setEnabled(False)

    def _on_found(self, query: str, hits: list[tuple[float, Note]]) -> None:
        if query == self.query.text():
            self.results.clear()
            for score, note in hits:
                self.results.addItem(f"{score:.2f}  {note.path.name}:{note.line}  {note.text}")

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802  (Qt's name)
        """Quit at any moment: both threads end within one micro-batch."""
        self.closed = True
        self.hide()
        self.indexer.requestInterruption()
        if self.searcher is not None:
            self.searcher.ask(None)
            self.searcher.wait()
        self.indexer.wait()
        if self.searcher is not None:
            self.searcher.index.close()
        event.accept()


def main() -> int:
    """Show the window until it is closed."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: window.py FOLDER", file=sys.stderr)
        return 2
    application = QApplication(sys.argv)
    window = Window(Path(sys.argv[1]))
    window.show()
    return application.exec()


if __name__ == "__main__":
    sys.exit(main())
