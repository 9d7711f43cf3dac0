"""Progress of a long call: passed to the caller's function, or drawn on standard error.

It is drawn here so that the runtime needs no fourth dependency.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TextIO

from embedge.errors import OptionError

# True draws a bar; a function is called with how many are finished, and of how many: None where
# that is not known.
Progress = bool | Callable[[int, int | None], object]

_WIDTH = 30
_SECONDS_BETWEEN_DRAWS = 0.1


class StatusLine:
    """One line on a terminal, redrawn in place; nothing where there is no terminal.

    Use as a context manager, and `show` from one thread. Writes no escape sequences, which older
    Windows consoles do not interpret.
    """

    def __init__(self, enabled: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr  # None in a program without a console
        self._enabled = enabled and is_terminal(self._stream)
        self._line: Callable[[], str] | None = None
        self._length = 0
        self._drawn = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def show(self, line: Callable[[], str]) -> None:
        """Draw what ``line`` gives, at most ten times a second, and at the end."""
        self._line = line
        if self._enabled and time.monotonic() - self._drawn >= _SECONDS_BETWEEN_DRAWS:
            self._draw(line())

    def __exit__(self, *exception: object) -> None:
        if self._enabled and self._line is not None:
            self._draw(self._line(), "\n")

    def _draw(self, line: str, end: str = "") -> None:
        self._drawn = time.monotonic()
        shown = _encodable(line, self._stream)
        try:
            self._stream.write(f"\r{shown}{' ' * (self._length - len(shown))}{end}")
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone; the call continues
            self._enabled = False
        self._length = len(shown)


class ProgressBar:
    """Counts what is finished, and shows it with its speed and the time left.

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
        self._total, self._done = total, 0
        self._start = time.monotonic()
        self._status = StatusLine(enabled, stream)

    def __enter__(self) -> Self:
        self._status.show(self._line)
        return self

    def advance(self, count: int) -> None:
        """Add what is finished."""
        self.move_to(self._done + count)

    def move_to(self, done: int, total: int | None = None) -> None:
        """Set what is finished in all; ``total`` is ignored."""
        self._done = done
        self._status.show(self._line)

    def __exit__(self, *exception: object) -> None:
        self._status.__exit__(*exception)

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self._done / seconds
        speed = f"{rate:.0f}/s" if rate >= 1 else f"{rate:.2g}/s"
        if self._total is None:
            return f"{self._done} {self._unit}, {speed}"
        left = (self._total - self._done) / max(rate, 1e-9)
        drawn = bar(self._done / max(self._total, 1))
        return f"{drawn} {self._done}/{self._total} {self._unit}, {speed}, {left:.0f} s left"


def bar(fraction: float, width: int = _WIDTH) -> str:
    """A bar of ``width`` characters, of which ``fraction`` (0 to 1) is filled."""
    filled = int(width * min(max(fraction, 0.0), 1.0))
    return "█" * filled + "░" * (width - filled)


@contextmanager
def reporting(progress: Progress, total: int | None) -> Iterator[Callable[[int], None]]:
    """Give a function that takes how many more are finished, and reports it as asked for."""
    if isinstance(progress, bool):
        with ProgressBar(total, progress) as shown:
            yield shown.advance
        return
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    yield report


def check_progress(progress: Any) -> Progress:
    """Return ``progress``, or raise OptionError where it is neither a bool nor callable."""
    if isinstance(progress, bool) or callable(progress):
        return progress  # type: ignore[no-any-return]
    raise OptionError(
        f"expected progress to be True, False or a function of (done, total), got {progress!r}"
    )


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is an open terminal."""
    try:
        return stream is not None and stream.isatty()
    except (ValueError, AttributeError):  # it is closed, or an app's own object for messages
        return False


def _encodable(line: str, stream: TextIO) -> str:
    """The line; in ASCII on a console whose encoding has no block characters."""
    try:
        line.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return line.replace("█", "#").replace("░", ".").encode("ascii", "replace").decode()
    return line
