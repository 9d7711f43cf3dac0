"""The progress bar of a job: texts, speed, tokens, truncated and skipped rows, time left."""

import time
from collections.abc import Callable
from typing import TextIO

from embedge.corpus.journal import State
from embedge.progress import ProgressBar

_WIDTH = 20


class CorpusBar(ProgressBar):
    """A bar whose end is told by the share of the input's bytes that has been read.

    Args:
        enabled: draw, where the stream is a terminal.
        fraction: gives that share, 0 to 1, or None where it is not known.
        state: where the job starts.
        stream: standard error by default.
    """

    def __init__(
        self,
        enabled: bool,
        fraction: Callable[[], float | None],
        state: State,
        stream: TextIO | None = None,
    ) -> None:
        super().__init__(None, enabled, stream)
        self._fraction = fraction
        self._first = self._state = state
        self._began = fraction() or 0.0

    def show(self, state: State) -> None:
        """Redraw, at most ten times a second."""
        texts = state.texts - self._state.texts
        self._state = state
        self.advance(texts)

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        state = self._state
        parts = [
            f"{state.texts:,} texts",
            f"{(state.texts - self._first.texts) / seconds:.0f}/s",
            f"{state.tokens:,} tokens",
        ]
        for count, what in ((state.truncated, "truncated"), (state.skipped, "skipped")):
            if count:
                parts.append(f"{count:,} {what}")
        done = self._fraction()
        if done is None:
            return ", ".join(parts)
        if done > self._began:
            left = seconds * (1 - done) / (done - self._began)
            parts.append(f"{_duration(left)} left")
        filled = int(_WIDTH * done)
        return f"{'█' * filled}{'░' * (_WIDTH - filled)} {done:4.0%} {', '.join(parts)}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
