"""What all tests share."""

import io
import os
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def eval_data() -> Path:
    """The folder of evaluation data; tests that use it are skipped where there is none."""
    folder = os.environ.get("EMBEDGE_EVAL_DATA")
    if not folder:
        pytest.skip("set EMBEDGE_EVAL_DATA to the folder of evaluation data to run this test")
    return Path(folder)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal() -> io.StringIO:
    """A terminal that keeps what is drawn."""
    return Terminal()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves only when its one number is changed."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now
