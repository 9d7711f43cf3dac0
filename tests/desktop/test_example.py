"""The desktop example, in a window that nobody sees.

The Encoder is a stand-in that goes on and on until its progress function raises, where a test needs
the window to be in the middle of its work.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip(
    "PySide6.QtWidgets", reason="needs Qt: python -m pip install PySide6-Essentials"
)
if sys.version_info < (3, 12) and version("PySide6_Essentials") == "6.12.0":
    pytest.skip(
        "PySide6 6.12.0 drops a reference to True at each signal, which kills Python 3.11: "
        "python -m pip install 'PySide6-Essentials!=6.12.0'",
        allow_module_level=True,
    )
EXAMPLE = Path(__file__).parents[2] / "examples/desktop"
sys.path.insert(0, str(EXAMPLE))

import window as example  # noqa: E402
from notes import Note, NotesIndex, read_notes  # noqa: E402
from PySide6.QtCore import QEventLoop, QTimer  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

from embedge import Encoder  # noqa: E402

NOTES = {
    "dinner.md": "Someone is having a meal.\n\nThe oven has to be cleaned.\n",
    "sub/trip.txt": "The train to Vienna leaves\nat nine.\n",
    "picture.png": "no note",
}
DEADLOCK_MS = 60_000


@pytest.fixture(scope="session")
def application() -> QApplication:
    return QApplication.instance() or QApplication([])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in NOTES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def show(application: QApplication) -> Iterator[Callable[..., example.Window]]:
    windows = []

    def make(*arguments: Any) -> example.Window:
        windows.append(example.Window(*arguments))
        windows[-1].show()
        return windows[-1]

    yield make
    for window in windows:
        window.close()


def wait_for(signal: Any) -> tuple[Any, ...]:
    """Run the event loop until a signal comes; what it brought."""
    loop, got = QEventLoop(), []
    signal.connect(lambda *values: (got.append(values), loop.quit()))
    QTimer.singleShot(DEADLOCK_MS, loop.quit)
    loop.exec()
    assert got, "the signal never came"
    return got[0]


class Endless:
    """An Encoder whose work has no end; notes the threads that it ran in."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def encode_document(self, texts: list[str], *, overflow: str, progress: Any) -> None:
        self.threads.add(threading.get_ident())
        for _ in range(1_000_000):
            progress(0, len(texts))
        raise AssertionError("it was never stopped")


def test_paragraphs_of_notes_with_their_lines(folder: Path) -> None:
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    notes, unreadable = read_notes(folder, lambda: None)
    assert notes == [
        Note(folder / "dinner.md", 1, "Someone is having a meal."),
        Note(folder / "dinner.md", 3, "The oven has to be cleaned."),
        Note(folder / "sub/trip.txt", 1, "The train to Vienna leaves at nine."),
    ]
    assert unreadable == [folder / "latin.txt"]


def test_the_index_gives_the_best_first_and_grows(default_encoder: Encoder) -> None:
    index = NotesIndex(default_encoder)
    texts = ["a river", "a man eats", "the price of gold"]
    notes = [Note(Path("a.txt"), row, text) for row, text in enumerate(texts)]
    index.add(notes[:2], lambda done, total: None)
    assert [note.text for _, note in index.search("someone eats", 1)] == ["a man eats"]
    index.add(notes[2:], lambda done, total: None)
    hits = index.search("what does gold cost?")
    assert hits[0][1].line == 2
    expected = default_encoder.encode("what does gold cost?") @ default_encoder.encode(texts).T
    np.testing.assert_allclose([score for score, _ in hits], sorted(expected)[::-1], atol=1e-6)


@pytest.fixture
def default_encoder() -> Encoder:
    return Encoder(threads=1)


def test_a_query_finds_its_note(folder: Path, show: Any, default_encoder: Encoder) -> None:
    window = show(folder, lambda: default_encoder)
    assert wait_for(window.indexer.ended) == ("3 paragraphs",)
    assert window.bar.value() == window.bar.maximum() == 3
    window.query.setText("when do we travel?")
    query, _ = wait_for(window.searcher.found)
    assert query == "when do we travel?"
    assert window.results.item(0).text().endswith("trip.txt:1  The train to Vienna leaves at nine.")
    assert window.results.count() == 3


def test_cancelling_ends_the_work_and_says_what_can_be_searched(folder: Path, show: Any) -> None:
    encoder = Endless()
    window = show(folder, lambda: encoder)
    wait_for(window.indexer.progress)
    window.cancel.click()
    assert wait_for(window.indexer.ended) == ("Cancelled: 0 of 3 paragraphs can be searched",)
    assert window.status.text().startswith("Cancelled")
    assert threading.get_ident() not in encoder.threads


def test_closing_in_the_middle_ends_both_threads(folder: Path, show: Any) -> None:
    encoder = Endless()
    window = show(folder, lambda: encoder)
    wait_for(window.indexer.progress)
    assert window.close()
    assert encoder.closed
    assert window.indexer.isFinished()
    assert window.searcher.isFinished()


def test_closing_while_the_model_loads_starts_nothing_more(
    application: QApplication, folder: Path, show: Any
) -> None:
    entered, released = threading.Event(), threading.Event()

    def load() -> Endless:
        entered.set()
        assert released.wait(DEADLOCK_MS / 1000)
        return Endless()

    window = show(folder, load)
    assert entered.wait(DEADLOCK_MS / 1000)
    window.indexer.requestInterruption()
    released.set()
    assert window.close()
    application.processEvents()  # what the thread had told before it ended
    assert window.indexer.isFinished()
    assert window.searcher is None


def test_what_goes_wrong_is_shown(folder: Path, show: Any) -> None:
    window = show(folder, lambda: Encoder(folder / "none.onnx"))
    (message,) = wait_for(window.indexer.ended)
    assert message.startswith(f"Failed: {folder / 'none.onnx'}")
    assert window.status.text() == message
