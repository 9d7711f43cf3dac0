"""Standard input, output and error: UTF-8 on any console, and safe to use where they are missing.

Each may be None: in a windowed program, or where whoever started the command closed it.
"""

import errno
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NoReturn, TextIO, cast

from embedge.cli.terminal import visible, visible_json
from embedge.errors import OptionError

_WINDOWS = os.name == "nt"


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make standard output and error safe to print to; gives back what was there before."""
    before = sys.stdout, sys.stderr
    if None in (sys.stdin, *before):
        _occupy_descriptors()
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            lines = None if stream.isatty() else "\n"  # files are the same on every system
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline=lines)
    sys.stdout = cast(TextIO, before[0] or _ClosedOutput())
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  # a device
        sys.stderr = cast(TextIO, _Messages(before[1] or nowhere))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def say(message: str) -> None:
    """Print a message on standard error, as one line; standard output is for results only."""
    print(f"embedge: {visible(message)}", file=sys.stderr)


def print_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON: on one line, or indented."""
    print(visible_json(json.dumps(value, indent=indent, ensure_ascii=False)))


def standard_input() -> BinaryIO:
    """Standard input's bytes; where it is a terminal, say how to end it.

    Raises:
        OptionError: it is closed.
    """
    if sys.stdin is None:
        raise OptionError("standard input is closed; give texts, or the names of files")
    if sys.stdin.buffer.isatty():
        end = "Ctrl-Z and Enter" if _WINDOWS else "Ctrl-D"
        say(f"reading texts from the terminal, one a line; end with {end}")
    return sys.stdin.buffer


def abandon(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, so that closing it does not fail again."""
    with suppress(OSError, ValueError, AttributeError):
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def reader_left(error: OSError) -> bool:
    """Whether a write failed because the reader of a pipe has exited, as `head` does."""
    if isinstance(error, BrokenPipeError):
        return True
    return _WINDOWS and error.errno == errno.EINVAL and error.filename is None


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings as messages of the command, without a line of source."""
    with warnings.catch_warnings():  # which gives showwarning back as well
        warnings.showwarning = _show_warning
        yield


class _Messages:
    """Standard error, to which writing never fails: a lost message must not stop the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            abandon(self._stream)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            abandon(self._stream)


class _ClosedOutput:
    """Stands for a standard output that is closed, where print() would lose results silently."""

    encoding = "utf-8"

    def write(self, text: str) -> NoReturn:
        raise OSError(errno.EBADF, "it is closed")

    @property
    def buffer(self) -> NoReturn:
        raise OSError(errno.EBADF, "it is closed")

    def fileno(self) -> NoReturn:
        raise OSError(errno.EBADF, "it is closed")

    def flush(self) -> None:
        """Nothing is ever held."""

    def isatty(self) -> bool:
        return False


def _occupy_descriptors() -> None:
    """Keep 0, 1 and 2 from being given to the next files opened, into which libraries would log."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    from embedge.text.overflow import TruncationWarning  # with it NumPy, which not all need

    if not issubclass(category, TruncationWarning):  # counted, and reported at the end
        say(str(message))
