"""Standard input, output and error: UTF-8 whatever the console's encoding."""

import io
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from embedge.text.overflow import TruncationWarning


def use_utf8() -> None:
    """Texts are read as UTF-8, and written so, whatever the console's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def say(message: str) -> None:
    """Tell the person at the keyboard; standard output is for results only."""
    print(f"embedge: {message}", file=sys.stderr)


def print_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON: on one line, or indented."""
    print(json.dumps(value, indent=indent, ensure_ascii=False))


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings are shown as messages of the command, without a line of source."""
    with warnings.catch_warnings():  # which gives showwarning back as well
        warnings.showwarning = _show_warning
        yield


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if not issubclass(category, TruncationWarning):  # counted, and said at the end
        say(str(message))
