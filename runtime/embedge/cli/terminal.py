"""What a terminal can show: bold text, where it may be, and nothing that would control it."""

import os
import re
import sys
from typing import TextIO

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LEFT_BY_JSON = re.compile(r"[\x7f-\x9f\u2028\u2029]")  # the others are escaped there already
_VIRTUAL_TERMINAL = 4  # ENABLE_VIRTUAL_TERMINAL_PROCESSING of the Windows console


def visible(text: str) -> str:
    """The text on one line, its control characters escaped: it cannot control a terminal."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def visible_json(line: str) -> str:
    """JSON that means the same, in which every control character is escaped."""
    return _LEFT_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def can_style(stream: TextIO) -> bool:
    """Whether escape sequences may be written: to a terminal, without NO_COLOR or TERM=dumb."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return _understands_escapes()


def bold(text: str) -> str:
    """The text between the escape sequences for bold."""
    return f"\x1b[1m{text}\x1b[22m"


def _understands_escapes() -> bool:
    """Whether the console does; on Windows it is asked to."""
    if sys.platform != "win32":
        return True
    import ctypes

    kernel = ctypes.windll.kernel32
    handle = kernel.GetStdHandle(-11)  # standard output
    mode = ctypes.c_uint32()
    if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):
        return False
    return bool(kernel.SetConsoleMode(handle, mode.value | _VIRTUAL_TERMINAL))
