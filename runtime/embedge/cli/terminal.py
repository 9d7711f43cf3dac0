"""What a terminal can show: bold text, unless the environment or the console says otherwise."""

import os
import sys
from typing import TextIO

_VIRTUAL_TERMINAL = 4  # ENABLE_VIRTUAL_TERMINAL_PROCESSING of the Windows console


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
