"""SIGTERM ends a command as Ctrl-C does: what is open is closed, what is temporary deleted."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by its supervisor or a shutdown."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise Terminated at SIGTERM, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
