"""A progress bar on standard error, so that the runtime needs no fourth dependency."""

import sys
import time
from typing import Self, TextIO

_WIDTH = 30
_SECONDS_BETWEEN_DRAWS = 0.1


class ProgressBar:
    """Counts what is finished; draws only where the stream is a terminal.

    Use as a context manager, and `advance` from one thread.
    """

    def __init__(
        self,
        total: int | None,
        enabled: bool,
        stream: TextIO | None = None,
        *,
        unit: str = "texts",
    ) -> None:
        self._unit = unit
        self._stream = stream or sys.stderr
        self._enabled = enabled and self._stream.isatty()
        self._total, self._done = total, 0
        self._start = self._drawn = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def advance(self, count: int) -> None:
        """Add what is finished, and redraw at most ten times a second."""
        self._done += count
        if self._enabled and time.monotonic() - self._drawn >= _SECONDS_BETWEEN_DRAWS:
            self._draw()

    def __exit__(self, *exception: object) -> None:
        if self._enabled:
            self._draw()
            self._stream.write("\n")

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._stream.write(f"\r\x1b[K{self._line()}")
        self._stream.flush()

    def _line(self) -> str:
        rate = self._done / max(self._drawn - self._start, 1e-9)
        speed = f"{rate:.0f}/s" if rate >= 1 else f"{rate:.2g}/s"
        if self._total is None:
            return f"{self._done} {self._unit}, {speed}"
        filled = _WIDTH * self._done // max(self._total, 1)
        left = (self._total - self._done) / max(rate, 1e-9)
        bar = "█" * filled + "░" * (_WIDTH - filled)
        return f"{bar} {self._done}/{self._total} {self._unit}, {speed}, {left:.0f} s left"
