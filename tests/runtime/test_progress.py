import io
import sys
from pathlib import Path

import pytest

from embedge import Encoder
from embedge.progress import ProgressBar


def test_a_bar_on_a_terminal(clock: list[float], terminal: io.StringIO) -> None:
    with ProgressBar(30, True, terminal) as bar:
        bar.advance(5)
        assert terminal.getvalue() == ""
        clock[0] = 2.0
        bar.advance(5)
        line = "█" * 10 + "░" * 20 + " 10/30 texts, 5/s, 4 s left"
        assert terminal.getvalue() == f"\r{line}"
        clock[0] = 3.0
        bar.advance(20)
    last = "█" * 30 + " 30/30 texts, 10/s, 0 s left"
    assert terminal.getvalue().endswith(f"\r{last}\n")


def test_without_a_total_it_counts(clock: list[float], terminal: io.StringIO) -> None:
    with ProgressBar(None, True, terminal) as bar:
        clock[0] = 4.0
        bar.advance(8)
    assert terminal.getvalue() == "\r8 texts, 2/s" * 2 + "\n"


def test_no_texts_make_no_division_by_zero(clock: list[float], terminal: io.StringIO) -> None:
    with ProgressBar(0, True, terminal):
        pass
    assert terminal.getvalue().endswith("0/0 texts, 0/s, 0 s left\n")


def test_nothing_is_drawn_where_it_is_not_wanted(terminal: io.StringIO) -> None:
    for stream, enabled in ((io.StringIO(), True), (terminal, False)):
        with ProgressBar(3, enabled, stream) as bar:
            bar.advance(3)
        assert stream.getvalue() == ""


@pytest.mark.parametrize("overflow", ["truncate", "mean"])
@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_an_encoder_counts_texts_and_not_windows(
    overflow: str, tiny_file: Path, terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    texts = ["a", "b " * 40, "c " * 9]
    Encoder(tiny_file, threads=1).encode(texts, overflow=overflow, progress=True)  # type: ignore[call-overload]
    assert " 3/3 texts, " in terminal.getvalue().splitlines()[-1]


def test_the_default_stream_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(1, True) as bar:
        bar.advance(1)
    assert capsys.readouterr() == ("", "")


def test_an_object_that_takes_messages_only_is_no_terminal(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As apps put in place of standard error, to have messages in a window or a log."""

    class Log:
        def write(self, text: str) -> int:
            raise AssertionError(text)

    monkeypatch.setattr(sys, "stderr", Log())
    assert encoder.encode(["a", "b"], progress=True).shape == (2, 2)
