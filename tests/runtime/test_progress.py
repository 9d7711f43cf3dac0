import io
import sys
import time
from pathlib import Path

import pytest

from embedge import Encoder
from embedge.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves only when its one number is changed."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_bar_on_a_terminal(clock: list[float]) -> None:
    stream = Terminal()
    with ProgressBar(30, True, stream) as bar:
        bar.advance(5)
        assert stream.getvalue() == ""
        clock[0] = 2.0
        bar.advance(5)
        line = "█" * 10 + "░" * 20 + " 10/30 texts, 5/s, 4 s left"
        assert stream.getvalue() == f"\r\x1b[K{line}"
        clock[0] = 3.0
        bar.advance(20)
    last = "█" * 30 + " 30/30 texts, 10/s, 0 s left"
    assert stream.getvalue().endswith(f"\r\x1b[K{last}\n")


def test_without_a_total_it_counts(clock: list[float]) -> None:
    stream = Terminal()
    with ProgressBar(None, True, stream) as bar:
        clock[0] = 4.0
        bar.advance(8)
    assert stream.getvalue() == "\r\x1b[K8 texts, 2/s" * 2 + "\n"


def test_no_texts_make_no_division_by_zero(clock: list[float]) -> None:
    stream = Terminal()
    with ProgressBar(0, True, stream):
        pass
    assert stream.getvalue().endswith("0/0 texts, 0/s, 0 s left\n")


@pytest.mark.parametrize(("stream", "enabled"), [(io.StringIO(), True), (Terminal(), False)])
def test_nothing_is_drawn_where_it_is_not_wanted(stream: io.StringIO, enabled: bool) -> None:
    with ProgressBar(3, enabled, stream) as bar:
        bar.advance(3)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("overflow", ["truncate", "mean"])
@pytest.mark.filterwarnings("ignore::embedge.TruncationWarning")
def test_an_encoder_counts_texts_and_not_windows(
    overflow: str, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    texts = ["a", "b " * 40, "c " * 9]
    Encoder(tiny_file, threads=1).encode(texts, overflow=overflow, progress=True)  # type: ignore[call-overload]
    assert " 3/3 texts, " in stream.getvalue().splitlines()[-1]


def test_the_default_stream_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(1, True) as bar:
        bar.advance(1)
    assert capsys.readouterr() == ("", "")
