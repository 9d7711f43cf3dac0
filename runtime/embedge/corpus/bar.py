"""The progress of a job: texts, speed, tokens, truncated and skipped rows, time left."""

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from embedge.corpus.journal import State
from embedge.progress import StatusLine, bar, is_terminal

_WIDTH = 20
_SECONDS_BETWEEN_LINES = 60.0


class CorpusBar:
    """Shows the progress of a job, by the share of the input's bytes that has been read.

    On a terminal it is one line, redrawn in place; elsewhere a line a minute. Use as a context
    manager, and `show` and `encoded` from one thread.

    Args:
        enabled: show anything.
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
        self._stream = stream or sys.stderr
        self._status = StatusLine(enabled, self._stream)
        self._prints = enabled and self._stream is not None and not is_terminal(self._stream)
        self._fraction = fraction
        self._first = self._state = state
        self._ahead = 0  # texts encoded since that state
        self._began = fraction() or 0.0
        self._start = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._status.__exit__(*exception)

    def show(self, state: State) -> None:
        """Show a state of the job."""
        self._state, self._ahead = state, 0
        self._update()

    def encoded(self, texts: int, of: int | None = None) -> None:
        """Show how many texts beyond the state are encoded."""
        self._ahead = texts
        self._update()

    def _update(self) -> None:
        self._status.show(self._line)
        now = time.monotonic()
        if self._prints and now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            self._stream.write(f"embedge: {self._line()}\n")
            self._stream.flush()

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        state, texts = self._state, self._state.texts + self._ahead
        parts = [
            f"{texts:,} texts",
            f"{(texts - self._first.texts) / seconds:.0f}/s",
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
        return f"{bar(done, _WIDTH)} {done:4.0%} {', '.join(parts)}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
